//! Every shipped runbook is followed to its end on real data; what it brought back is proven by its own steps, and
//! what it promises not to touch is looked at here.

use serde_json::Value;

use super::{book, data, drill, shop, transcript};
use crate::cli::{Machine, Said, answer, on_terminal};
use crate::services;

/// Passed, measured, proven by at least one step; returns the evidence.
fn passed(machine: &Machine, name: &str, said: &Said) -> Value {
    let told = || format!("{}\n{}\n{}", said.stdout, said.stderr, transcript(machine, name));
    assert_eq!(said.code, 0, "{}", told());
    let evidence = said.json()["evidence"].clone();
    assert_eq!(evidence["verdict"], "met", "{}", told());
    assert!(evidence["measured"]["recovery_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let proves = |check: &Value| check["proves_data"] == true;
    assert!(evidence["checks"].as_array().unwrap().iter().any(proves), "{}", told());
    evidence
}

/// Rehearses one that needs nothing but these variables.
fn rehearse(machine: &Machine, name: &str, set: &[(&str, &str)]) -> Value {
    passed(machine, name, &drill(machine, &book(name), set))
}

fn kit(machine: &Machine) -> String {
    assert_eq!(machine.run(&["kit", "export", "kit.txt"]).code, 0);
    // As somebody types it who stands beside it.
    "kit.txt".to_owned()
}

/// Runs something that must end well.
fn done(command: &mut std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn server_deleted() {
    let machine = shop();
    let kit = kit(&machine);
    let evidence = rehearse(&machine, "server-deleted", &[("KIT", &kit)]);
    // What people do is declared, and counted towards the time that the objective is about.
    assert_eq!(evidence["measured"]["declared_seconds"], 2100.0);
    assert_eq!(evidence["snapshot"]["job"], "shop");
    // The evidence is kept as a drill's.
    let said = machine.run(&["drill", "list"]);
    assert!(said.stdout.contains("server-deleted#1"), "{}", said.stdout);
    let said = machine.run(&["runbook", "list", book("server-deleted").to_str().unwrap()]);
    assert!(said.stdout.contains("passed"), "{}", said.stdout);
    // Where objectives are held against it, 35 minutes of people's work are not told as measured.
    let text = format!(
        "[repository.main]\nurl = {:?}\n[job.shop]\nsource = \"/x\"\n[stack.s]\nshop = {{ rto = \"30m\" }}\n",
        machine.path("repository")
    );
    let file = machine.file("lifeboat.toml", text);
    let said = machine.run_with(&[("LIFEBOAT_CONFIG", file.to_str().unwrap())], &["--json", "plan"]);
    assert_eq!(said.code, 22, "{}{}", said.stdout, said.stderr);
    let row = said.json()["components"][0].clone();
    assert_eq!((&row["rto"], &row["declared_seconds"]), (&"missed".into(), &2100.0.into()), "{row}");
    assert_eq!(row["recovery_seconds"], evidence["measured"]["recovery_seconds"]);
    // A second job, and one that is no files: all files come back, and the loss is that of the older.
    second_job(&machine);
    let said = drill(&machine, &book("server-deleted"), &[("KIT", &kit)]);
    let restored = transcript(&machine, "server-deleted");
    assert_eq!(said.code, 22, "{}{restored}", said.stdout);
    assert!(
        said.stdout.contains("\"reason\":\"RPO ") && said.stdout.contains("objective_missed"),
        "{}",
        said.stdout
    );
    for file in [
        "restored 1 file (10 B)",
        "restored 3 files (195.3 KiB)",
        "left out: app.db holds no files but sqlite",
    ] {
        assert!(restored.contains(file), "{file}: {restored}");
    }
}

/// Other folders and a database of the machine, backed up as jobs of their own.
fn second_job(machine: &Machine) {
    machine.file("etc/app.conf", "listen 80\n");
    let etc = ["backup", "--job", "etc", "--time", "2026-11-01T00:00Z", "etc"];
    assert_eq!(machine.run(&etc).code, 0);
    let database = rusqlite::Connection::open(machine.path("app.db")).unwrap();
    database.execute_batch("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1)").unwrap();
    let source = format!("sqlite:{}", machine.path("app.db").display());
    assert_eq!(machine.run(&["backup", "--job", "app.db", &source]).code, 0);
}

/// Nothing but the page, the kit, the binary and the storage: a person at a terminal brings the stack back.
#[test]
fn a_new_operator_brings_the_stack_back_with_page_and_kit_alone() {
    let lost = shop();
    second_job(&lost);
    kit(&lost);
    let mut bare = Machine::new();
    bare.set("LIFEBOAT_REPOSITORY", "");
    let file = |machine: &Machine, name: &str| machine.path(name).to_str().unwrap().to_owned();
    std::fs::copy(lost.path("kit.txt"), bare.path("kit.txt")).unwrap();
    std::fs::copy(book("server-deleted"), bare.path("server-deleted.md")).unwrap();
    std::fs::remove_dir_all(lost.path("shop")).unwrap();
    let (kit, target) =
        (format!("KIT={}", file(&bare, "kit.txt")), format!("TARGET={}", file(&bare, "back")));
    let command = bare.raw(&[
        "runbook",
        "run",
        "server-deleted.md",
        "--set",
        &kit,
        "--set",
        &target,
        "--transcript",
        "t.md",
    ]);
    let mut child = on_terminal(&command);
    for step in ["sure", "machine", "kit", "snapshots", "restore", "compare", "service"] {
        let shown = answer(&mut child, ", q stops: ", "");
        assert!(shown.contains(&format!(": {step} ·")), "{step}: {shown}");
    }
    let shown = answer(&mut child, ", q stops: ", "s");
    assert!(shown.contains("lifeboat run --all"), "{shown}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let back = bare.path("back").join(lost.path("shop").strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(back.join("config/app.toml")).unwrap(), "workers = 4\n");
    assert_eq!(std::fs::read(back.join("uploads/latest")).unwrap(), crate::bench::random(5, 200_000));
    let etc = back.with_file_name("etc/app.conf");
    assert_eq!(std::fs::read_to_string(etc).unwrap(), "listen 80\n");
    let transcript = std::fs::read_to_string(bare.path("t.md")).unwrap();
    assert!(transcript.contains("**Completed** after"), "{transcript}");
}

#[test]
fn data_volume_corrupted() {
    let machine = shop();
    rehearse(&machine, "data-volume-corrupted", &[("DATA", &data(&machine))]);
}

#[test]
fn certificates_corrupted() {
    let machine = Machine::with_repository();
    std::fs::create_dir_all(machine.path("certs/live")).unwrap();
    let mut openssl = std::process::Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=shop.example",
    ]);
    openssl.args(["-keyout", "live/key.pem", "-out", "live/cert.pem"]).current_dir(machine.path("certs"));
    done(&mut openssl);
    assert_eq!(machine.run(&["backup", "certs"]).code, 0);
    let certs = machine.path("certs").to_str().unwrap().to_owned();
    let set = [("CERTS", certs.as_str()), ("CERT", "live/cert.pem"), ("KEY", "live/key.pem")];
    rehearse(&machine, "certificates-corrupted", &set);

    // A key that belongs to another certificate is found, whatever the backup says of itself.
    let mut other = std::process::Command::new("openssl");
    other.args(["genpkey", "-algorithm", "RSA", "-out", "live/key.pem"]).current_dir(machine.path("certs"));
    done(&mut other);
    assert_eq!(machine.run(&["backup", "certs"]).code, 0);
    let said = drill(&machine, &book("certificates-corrupted"), &set);
    assert_eq!(said.code, 20, "{}", said.stdout);
}

#[test]
fn git_repository_deleted() {
    let machine = Machine::with_repository();
    let folder = machine.path("shop.git");
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"])
            .args(arguments);
        done(git.current_dir(machine.path("")).env("HOME", machine.path("home")))
    };
    git(&["init", "--quiet", "shop.git"]);
    machine.file("shop.git/readme", "one");
    git(&["-C", "shop.git", "add", "readme"]);
    git(&["-C", "shop.git", "commit", "--quiet", "-m", "first"]);
    git(&["-C", "shop.git", "tag", "-a", "v1", "-m", "first"]);
    git(&["-C", "shop.git", "branch", "topic"]);
    let said = machine.run(&["backup", &format!("git:{}", folder.display())]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    rehearse(&machine, "git-repository-deleted", &[]);
}

#[test]
fn database_dropped() {
    let machine = Machine::with_repository();
    let source = services::postgres::shared(15);
    let name = source.database();
    source.sql(&name, "CREATE TABLE orders (id int PRIMARY KEY, cents int)");
    source.sql(&name, "INSERT INTO orders SELECT n, n * 7 FROM generate_series(1, 500) n");
    let said = machine.run(&["backup", "--tag", "pre-migration", &source.address(&name)]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let right = "select count(*) = 500 and sum(cents) = 876750 from orders";
    let evidence = rehearse(&machine, "database-dropped", &[("CHECK_SQL", right)]);
    assert!(evidence["sandbox"].as_str().unwrap().contains("PostgreSQL 15 of its own"), "{evidence}");
    let said =
        drill(&machine, &book("database-dropped"), &[("CHECK_SQL", "select count(*) > 500 from orders")]);
    assert_eq!(said.code, 20, "{}", said.stdout);
    // The real one was never asked for anything but its backup.
    assert_eq!(source.sql(&name, "SELECT count(*) FROM orders"), "500");
}

#[test]
fn redis_lost() {
    let machine = Machine::with_repository();
    let source = services::redis::start(&[]);
    source.ask(&["SET", "cart:1", "shoes"]);
    source.ask(&["HSET", "user:1", "name", "Ana"]);
    let said = machine.run(&["backup", &source.address()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    rehearse(&machine, "redis-lost", &[("CHECK_KEY", "cart:1")]);
    assert!(
        !transcript(&machine, "redis-lost").contains("redis://default:"),
        "the server's password is shown"
    );
    let said = drill(&machine, &book("redis-lost"), &[("CHECK_KEY", "cart:2")]);
    assert_eq!(said.code, 20, "{}", said.stdout);
    assert_eq!(source.ask(&["DBSIZE"]), "2");
}

#[test]
fn sqlite_lost() {
    let machine = Machine::with_repository();
    let database = rusqlite::Connection::open(machine.path("app.db")).unwrap();
    database.execute_batch("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1), (2)").unwrap();
    let source = format!("sqlite:{}", machine.path("app.db").display());
    assert_eq!(machine.run(&["backup", "--job", "app", &source]).code, 0);
    let set = |sql| [("SNAPSHOT", "app@latest"), ("CHECK_SQL", sql)];
    rehearse(&machine, "sqlite-lost", &set("select count(*) = 2 from orders"));
    let said = drill(&machine, &book("sqlite-lost"), &set("select count(*) = 3 from orders"));
    assert_eq!(said.code, 20, "{}", said.stdout);
}

#[test]
fn ransomware() {
    let machine = shop();
    rehearse(&machine, "ransomware", &[]);
    // Keys were changed in the sandbox's repository, not here.
    let keys = machine.run(&["key", "list"]).stdout;
    assert!(keys.lines().count() == 2 && !keys.contains("stolen"), "{keys}");
}

/// The other region is a second repository on this disk; the first one is really gone.
#[test]
fn storage_region_lost() {
    let machine = shop();
    let (primary, copy) = (machine.path("repository"), machine.path("copy"));
    let (primary, copy) = (primary.to_str().unwrap(), copy.to_str().unwrap());
    assert_eq!(machine.run(&["-r", copy, "init", "--replica-of", primary]).code, 0);
    assert_eq!(machine.run(&["copy", "--to", copy]).code, 0);
    let kit = kit(&machine);
    std::fs::remove_dir_all(primary).unwrap();
    rehearse(&machine, "storage-region-lost", &[("COPY", copy), ("KIT", &kit)]);
}

#[test]
fn passphrase_lost() {
    let machine = shop();
    rehearse(&machine, "passphrase-lost", &[]);
}

#[test]
fn backups_failing() {
    let machine = shop();
    rehearse(&machine, "backups-failing", &[]);
}

#[test]
fn terraform_state_lost() {
    let machine = Machine::with_repository();
    let resources = r#"[{"type":"hcloud_server","name":"web"}]"#;
    let state = |serial, resources| {
        let text = format!(
            r#"{{"version":4,"serial":{serial},"lineage":"3f6c","outputs":{{}},"resources":{resources}}}"#
        );
        let path = machine.file("infra/terraform.tfstate", text);
        let said = machine.run(&["backup", &format!("terraform:{}", path.display())]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    state(7, resources);
    let evidence = rehearse(&machine, "terraform-state-lost", &[]);
    let untested = evidence["not_tested"].to_string();
    assert!(untested.contains("step plan: a stand-in ran"), "{untested}");
    // A state that knows nothing is no recovery.
    state(8, "[]");
    let said = drill(&machine, &book("terraform-state-lost"), &[]);
    assert_eq!(said.code, 20, "{}", said.stdout);
    assert_eq!(
        std::fs::read_dir(machine.path("infra")).unwrap().count(),
        1,
        "something lies beside the real one"
    );
}

/// An older backup stands in for the disk that a provider's snapshot brings back.
#[test]
fn provider_snapshot_restore() {
    let machine = shop();
    machine.file("shop/config/app.toml", "workers = 8\n");
    machine.file("shop/uploads/new.jpg", crate::bench::random(6, 90_000));
    assert_eq!(machine.run(&["backup", "--job", "shop", "shop"]).code, 0);
    let data = data(&machine);
    rehearse(&machine, "provider-snapshot-restore", &[("DATA", data.as_str()), ("OLDER", "shop@latest~1")]);
}
