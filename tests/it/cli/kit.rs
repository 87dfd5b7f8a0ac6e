//! The recovery kit as a user meets it: a page whose codes a camera reads, a proof that it works, and what is wrong
//! with one that does not.

use std::path::Path;
use std::process::Command;

use super::Machine;

/// The same repository opened later by nothing but a kit.
const BARE: [(&str, &str); 2] = [("LIFEBOAT_REPOSITORY", ""), ("LIFEBOAT_CACHE_DIR", "")];

fn with_replica() -> Machine {
    let machine = Machine::with_repository();
    machine.file("data/a", "what is backed up");
    let replica = machine.path("replica").display().to_string();
    let repository = machine.path("repository").display().to_string();
    for arguments in [
        &["backup", "data"][..],
        &["-r", &replica, "init", "--replica-of", &repository],
        &["copy", "--to", &replica],
    ] {
        let said = machine.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
    }
    machine
}

/// A configuration file with what a kit must not hold.
fn configure(machine: &Machine) -> String {
    let (repository, replica) = (machine.path("repository"), machine.path("replica"));
    let text = format!(
        "# hunter2\n[repository.main]\nurl = {repository:?}\n\
         [repository.box]\nurl = {replica:?}\nreplica_of = \"main\"\n\
         [job.data]\nsource = {:?}\n[drill.d]\nrestore = \"data@latest\"\nchecks = [{{ command = \"test hunter2\" }}]\n",
        machine.path("data")
    );
    let path = machine.file("lifeboat.toml", text);
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}: ./tests/install installs it"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_codes_on_the_printed_page_are_a_kit_that_opens_the_repository() {
    let mut machine = with_replica();
    let config = configure(&machine);
    machine.set("LIFEBOAT_CONFIG", &config);
    let said = machine.run(&["kit", "export", "kit.html"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("or        $T/replica"), "{}", said.stdout);
    assert!(said.stderr.contains("print kit.html: one sheet of A4 with "), "{}", said.stderr);
    let page = std::fs::read_to_string(machine.path("kit.html")).unwrap();
    for missing in ["<script", "src=", "href=", "url(", "hunter2"] {
        assert!(!page.contains(missing), "{missing}");
    }

    // Drawn and scanned by somebody else's programs: nothing but the pictures is used.
    let folder = machine.path("");
    let mut scanned = String::new();
    let pictures: Vec<&str> =
        page.split("<svg").skip(1).map(|rest| rest.split("</svg>").next().unwrap()).collect();
    assert!(pictures.len() > 1, "{}", pictures.len());
    for picture in pictures {
        machine.file("code.svg", format!("<svg xmlns=\"http://www.w3.org/2000/svg\"{picture}</svg>"));
        run("rsvg-convert", &["--width", "600", "--output", "code.png", "code.svg"], &folder);
        scanned += &run("zbarimg", &["--raw", "--quiet", "code.png"], &folder);
    }
    machine.file("scanned.txt", &scanned);
    std::fs::remove_file(machine.path("kit.html")).unwrap();

    // On a machine that has nothing, and of a repository that has lost its keys.
    for folder in ["config", "keyring", "roster", "slots"] {
        std::fs::remove_dir_all(machine.path("repository").join(folder)).unwrap();
    }
    machine.set("LIFEBOAT_CONFIG", "");
    let said = machine.run_with(&BARE, &["kit", "open", "scanned.txt"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stdout.contains("✓ $T/repository: opened by the kit alone; 1 snapshot, the newest"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("the storage has lost config/0"), "{}", said.stdout);
    assert!(said.stdout.contains("✓ $T/replica: "), "{}", said.stdout);
    let restore = ["--kit", "scanned.txt", "restore", "latest", "--target", "back"];
    let said = machine.run(&restore);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said = machine.run(&["--json", "kit", "show", "scanned.txt"]);
    assert!(
        said.json()["opened_at"].is_string() && said.json()["configuration"] == "held",
        "{}",
        said.stdout
    );
    let said = machine.run(&["kit", "show", "--print-config", "scanned.txt"]);
    assert!(said.stdout.contains("[job.data]") && !said.stdout.contains("hunter2"), "{}", said.stdout);
}

#[test]
fn a_kit_says_what_it_is_and_when_it_is_out_of_date() {
    let mut machine = with_replica();
    let config = configure(&machine);
    machine.set("LIFEBOAT_CONFIG", &config);
    let said = machine.run(&["kit", "export", "kit.txt", "--html", "page.html"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let shown = machine.run(&["kit", "show", "kit.txt"]);
    assert_eq!((shown.code, &shown.stdout), (0, &said.stdout));
    assert!(shown.stdout.contains("as $T/lifeboat.toml is now"), "{}", shown.stdout);
    assert!(shown.stdout.contains("never here"), "{}", shown.stdout);
    assert!(shown.stdout.contains("evidence  no drill's key"), "{}", shown.stdout);
    // Page and terminal name the same reasons to make a new one.
    let reasons =
        "key add, key remove, key passwd, key rotate and key revoke, and when the configuration file changes";
    let page = std::fs::read_to_string(machine.path("page.html")).unwrap();
    assert!(page.contains(reasons) && said.stderr.contains(reasons), "{}", said.stderr);
    // What evidence is checked with, once there is some.
    let said = machine.run(&["drill", "run", "once", "--snapshot", "latest", "--json", "e.json"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(machine.run(&["kit", "export", "drilled.txt", "--html", "drilled.html"]).code, 0);
    let drilled = machine.run(&["kit", "show", "drilled.txt"]).stdout;
    let (_, key) =
        drilled.split_once("lifeboat drill attest FILE --pubkey ").unwrap_or_else(|| panic!("{drilled}"));
    let key = key.lines().next().unwrap();
    assert_eq!(machine.run(&["drill", "attest", "e.json", "--pubkey", key]).code, 0);
    assert!(std::fs::read_to_string(machine.path("drilled.html")).unwrap().contains(key));
    assert_eq!(machine.run(&["kit", "show", "page.html"]).stdout, shown.stdout);
    // A page and a text are never written over.
    assert_eq!(machine.run(&["kit", "export", "new.txt", "--html", "page.html"]).code, 1);
    assert!(!machine.path("new.txt").exists());

    let opened = machine.run(&["kit", "open", "page.html"]);
    assert_eq!(opened.code, 0, "{}", opened.stderr);
    assert!(opened.stdout.contains("its keys are those of the storage"), "{}", opened.stdout);
    let shown = machine.run(&["kit", "show", "kit.txt"]);
    assert!(shown.stdout.contains(" here, by "), "the page and the text are one kit: {}", shown.stdout);

    // The file changes, the keys change.
    let text = std::fs::read_to_string(&config).unwrap();
    machine.file("lifeboat.toml", text + "[job.more]\nsource = \"/etc\"\n");
    let shown = machine.run(&["kit", "show", "kit.txt"]);
    assert!(shown.stdout.contains("not as $T/lifeboat.toml is now"), "{}", shown.stdout);
    assert_eq!(machine.run(&["key", "rotate"]).code, 0);
    let opened = machine.run(&["kit", "open", "kit.txt"]);
    assert_eq!(opened.code, 0, "{}", opened.stderr);
    assert!(
        opened.stdout.contains("older than the storage's (roster 0 of 1, keyring 0 of 1)"),
        "{}",
        opened.stdout
    );
    assert!(opened.stdout.contains("make a new kit"), "{}", opened.stdout);

    // A password that opens nothing, an address where nothing is.
    let wrong = machine.run_with(&[("LIFEBOAT_PASSWORD", "wrong")], &["kit", "open", "kit.txt"]);
    assert_eq!(wrong.code, 12, "{}{}", wrong.stdout, wrong.stderr);
    std::fs::rename(machine.path("replica"), machine.path("elsewhere")).unwrap();
    let half = machine.run(&["kit", "open", "kit.txt"]);
    assert_eq!(half.code, 10, "{}{}", half.stdout, half.stderr);
    assert!(
        half.stdout.contains("✓ $T/repository") && half.stdout.contains("✗ $T/replica"),
        "{}",
        half.stdout
    );
    let moved = machine.path("elsewhere").display().to_string();
    assert_eq!(machine.run(&["-r", &moved, "kit", "open", "kit.txt"]).code, 0);
}

#[test]
fn a_kit_that_was_cut_or_changed_is_refused_and_says_where() {
    let machine = Machine::with_repository();
    assert_eq!(machine.run(&["kit", "export", "kit.txt"]).code, 0);
    assert_eq!(machine.run(&["kit", "export", "kit.html"]).code, 0);
    let text = std::fs::read_to_string(machine.path("kit.txt")).unwrap();
    let page = std::fs::read_to_string(machine.path("kit.html")).unwrap();
    let (cut, _) = text.split_once("-----END keyring").unwrap();
    let code = page.find("LIFEBOAT-KIT:2:2/").unwrap();
    for (name, bytes, expected) in [
        ("empty", String::new(), "no recovery kit"),
        ("cut", cut.to_owned(), "keyring/0 is incomplete"),
        ("flipped", text.replacen("TElGRUJPQVQB", "TElGRUJPQVQC", 1), "does not match its checksum"),
        ("newer", text.replace("KIT 2", "KIT 7"), "of version 7"),
        ("page", page[..code].to_owned(), "code"),
        ("changed", page.replace("LIFEBOAT-KIT:2:2/", "LIFEBOAT-KIT:2:1/"), "codes"),
        ("lines", "LIFEBOAT RECOVERY KIT 2\n".repeat(9), "no repository id"),
    ] {
        machine.file(name, bytes);
        for arguments in [&["kit", "show", name][..], &["kit", "open", name], &["--kit", name, "snapshots"]] {
            let said = machine.run(arguments);
            assert_eq!(said.code, 2, "{arguments:?}: {}{}", said.stdout, said.stderr);
            assert!(
                said.stderr.contains(expected) && said.stderr.contains(name),
                "{arguments:?}: {}",
                said.stderr
            );
        }
    }
    // A changed address costs the address, not the keys.
    machine.file("moved", text.replace("address: /", "address: /srv/"));
    for verb in ["show", "open"] {
        let said = machine.run(&["kit", verb, "moved"]);
        assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains("give the right address with -r"), "{}", said.stderr);
    }
    let right = machine.path("repository").display().to_string();
    assert_eq!(machine.run(&["-r", &right, "kit", "open", "moved"]).code, 0);
    // Another repository's.
    let other = Machine::with_repository();
    std::fs::copy(machine.path("kit.txt"), other.path("kit.txt")).unwrap();
    let here = other.path("repository").display().to_string();
    let said = other.run(&["-r", &here, "kit", "open", "kit.txt"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("for another repository"), "{}", said.stderr);
    // Noise.
    let mut noise = vec![0u8; 100_000];
    noise.iter_mut().enumerate().for_each(|(at, byte)| *byte = ((at * 7919) >> 3) as u8);
    other.file("noise", noise);
    let said = other.run(&["kit", "show", "noise"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
}

#[test]
fn a_kit_of_the_first_version_still_opens_its_repository() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    assert_eq!(machine.run(&["backup", "data"]).code, 0);
    assert_eq!(machine.run(&["kit", "export", "kit.txt"]).code, 0);
    let text = std::fs::read_to_string(machine.path("kit.txt")).unwrap().replace("KIT 2", "KIT 1");
    let old: Vec<&str> = text.lines().filter(|line| !line.starts_with("sum: ")).collect();
    machine.file("old.txt", old.join("\n"));
    let said = machine.run(&["kit", "open", "old.txt"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    std::fs::remove_dir_all(machine.path("repository/slots")).unwrap();
    assert_eq!(machine.run(&["--kit", "old.txt", "restore", "latest", "--target", "back"]).code, 0);
}
