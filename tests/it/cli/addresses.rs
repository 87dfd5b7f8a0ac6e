//! Which repository is meant, and with which password: by a recovery kit, by its address, by its name in the file.

use super::Machine;

/// A repository with a snapshot, a replica of it, and a kit that knows both.
fn with_kit() -> Machine {
    let machine = Machine::with_repository();
    machine.file("data/a", "what is backed up");
    let (repository, replica) = (path(&machine, "repository"), path(&machine, "replica"));
    for arguments in [
        &["backup", "data", "--job", "data"][..],
        &["-r", &replica, "init", "--replica-of", &repository],
        &["copy", "--to", &replica],
        &["kit", "export", "kit.txt", "--replica", &replica],
    ] {
        let said = machine.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
    }
    machine
}

fn path(machine: &Machine, name: &str) -> String {
    machine.path(name).display().to_string()
}

/// Nothing says where the repository is.
const NOWHERE: (&str, &str) = ("LIFEBOAT_REPOSITORY", "");

#[test]
fn a_kit_leads_to_its_repository_and_to_the_next_of_its_addresses_when_that_is_gone() {
    let machine = with_kit();
    let restore = ["--kit", "kit.txt", "restore", "data@latest", "--target", "back"];
    let said = machine.run_with(&[NOWHERE], &restore);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("using $T/repository, an address in kit.txt"), "{}", said.stderr);
    // Gone, empty, or somebody else's.
    let lost = machine.path("repository");
    std::fs::rename(&lost, machine.path("elsewhere")).unwrap();
    let other = Machine::with_repository();
    for state in ["gone", "empty", "another"] {
        match state {
            "gone" => {}
            "empty" => std::fs::create_dir(&lost).unwrap(),
            _ => {
                std::fs::remove_dir(&lost).unwrap();
                std::fs::rename(other.path("repository"), &lost).unwrap();
            }
        }
        let said = machine.run_with(&[NOWHERE], &["--kit", "kit.txt", "snapshots"]);
        assert_eq!(said.code, 0, "{state}: {}", said.stderr);
        assert!(said.stdout.contains("data on "), "{state}: {}", said.stdout);
        assert!(
            said.stderr.contains("not at $T/repository: ") && said.stderr.contains("; trying the next"),
            "{state}: {}",
            said.stderr
        );
        assert!(said.stderr.contains("using $T/replica"), "{state}: {}", said.stderr);
    }
    // A named one is not replaced by another.
    let said = machine.run_with(&[NOWHERE], &["-r", "nowhere", "--kit", "kit.txt", "snapshots"]);
    assert_eq!(said.code, 10, "{}", said.stderr);
    std::fs::remove_dir_all(machine.path("replica")).unwrap();
    std::fs::remove_dir_all(&lost).unwrap();
    let said = machine.run_with(&[NOWHERE], &["--kit", "kit.txt", "snapshots"]);
    assert_eq!(said.code, 10, "{}", said.stderr);
    for part in ["not at $T/repository", "not at $T/replica", "at none of its addresses", "with -r"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
}

#[test]
fn a_repository_of_the_file_has_its_password_however_it_is_named() {
    let mut machine = with_kit();
    machine.file("password", "right");
    let root = machine.path("");
    let text = |replica: &str| {
        format!(
            "[repository.main]\nurl = {:?}\npassword = {{ command = \"cat {}\" }}\n\
             [repository.far]\nurl = {:?}\nreplica_of = \"main\"\n",
            root.join("repository"),
            root.join("password").display(),
            root.join(replica)
        )
    };
    let file = machine.file("lifeboat.toml", text("replica"));
    machine.set("LIFEBOAT_CONFIG", file.to_str().unwrap());
    machine.set("LIFEBOAT_PASSWORD", "");
    let (main, replica) = (path(&machine, "repository"), path(&machine, "replica"));
    for address in ["main", "far", &main, &replica, "./replica", "repository"] {
        let said = machine.run_with(&[NOWHERE], &["-r", address, "snapshots"]);
        assert_eq!(said.code, 0, "{address}: {}", said.stderr);
        let said = machine.run_with(&[("LIFEBOAT_REPOSITORY", address)], &["snapshots"]);
        assert_eq!(said.code, 0, "{address}: {}", said.stderr);
    }
    assert_eq!(machine.run(&["copy", "--to", "far"]).code, 0);
    // What says it more loudly still counts, and a broken file costs nothing but what it would have said.
    let said = machine.run_with(&[("LIFEBOAT_PASSWORD", "wrong")], &["-r", "far", "snapshots"]);
    assert_eq!(said.code, 12, "{}", said.stderr);
    machine.file("lifeboat.toml", "[");
    let said = machine.run_with(&[("LIFEBOAT_PASSWORD", "right")], &["-r", &main, "snapshots"]);
    assert_eq!(said.code, 0, "{}", said.stderr);

    // A replica that is not there yet is made as one.
    machine.file("lifeboat.toml", text("new") + "[job.j]\nsource = \"data\"\ncopy_to = [\"far\"]\n");
    let made = "lifeboat -r far init --replica-of main";
    for arguments in [&["-r", "far", "snapshots"][..], &["copy", "--to", "far"], &["run", "j"]] {
        let said = machine.run_with(&[NOWHERE], arguments);
        assert_eq!(said.code, 10, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(made), "{arguments:?}: {}", said.stderr);
    }
    let made: Vec<&str> = made.split(' ').skip(1).collect();
    let said = machine.run_with(&[NOWHERE], &made);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(machine.run_with(&[NOWHERE], &["run", "j"]).code, 0);
    let said = machine.run(&["copy", "--to", "nowhere"]);
    assert!(said.stderr.contains("-r nowhere init --replica-of $T/repository"), "{}", said.stderr);
}

#[test]
fn a_file_out_of_a_kit_is_not_obeyed_before_it_is_filled_in() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    let text = format!(
        "# (left out) in a comment\n[repository.main]\nurl = {:?}\n[repository.main.password]\ncommand = \"(left out)\"\n\
         [job.data]\nsource = {:?}\n[drill.d]\nrestore = \"data@latest\"\nsteps = [\"(left out)\"]\n",
        machine.path("repository"),
        machine.path("data")
    );
    let file = machine.file("lifeboat.toml", &text);
    let with = ["--config", file.to_str().unwrap()];
    for arguments in [&["config", "check"][..], &["run", "--all"], &["plan"], &["drill", "run", "--all"]] {
        let said = machine.run_with(&[NOWHERE, ("LIFEBOAT_PASSWORD", "")], &[&with, arguments].concat());
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.stderr);
        for part in [
            "lifeboat.toml:5: repository.main.password.command is \"(left out)\"",
            "drill.d.steps[0] in line 10",
            "hint: this file comes from a recovery kit",
        ] {
            assert!(said.stderr.contains(part), "{arguments:?}: {part}: {}", said.stderr);
        }
    }
    let filled =
        text.replace("command = \"(left out)\"", "env = \"PW\"").replace("\"(left out)\"", "\"true\"");
    machine.file("lifeboat.toml", filled);
    assert_eq!(machine.run_with(&[("PW", "right")], &[&with[..], &["config", "check"]].concat()).code, 0);
}
