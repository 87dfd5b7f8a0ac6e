//! Drills by the real binary: what is proven passes, and everything that is wrong is caught and says why.

mod bare;
mod docker;
mod environment;
mod full_disk;
mod interrupts;
mod json_to;
mod machines;
mod remote;
mod replay;
mod sabotage_files;
mod sabotage_objectives;
mod sabotage_postgres;
mod sabotage_redis;
mod secrets;
mod soak;
mod stack;
mod stack_gone;
mod sweeping;
mod under_way;

mod faults;
mod server_gone;

use crate::cli::{Machine, Said};

/// Runs a drill that must end with `code` and say all of `told`.
fn ends(machine: &Machine, arguments: &[&str], code: i32, told: &[&str]) -> Said {
    let said = machine.run(&[&["drill", "run"], arguments].concat());
    assert_eq!(said.code, code, "{arguments:?}: {}{}", said.stdout, said.stderr);
    for text in told {
        let all = format!("{}{}", said.stdout, said.stderr);
        assert!(all.contains(text), "{arguments:?} does not say {text:?}: {all}");
    }
    said
}

fn with_files() -> Machine {
    let machine = Machine::with_repository();
    machine.file("data/a.conf", "listen 80");
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let random: Vec<u8> = (0..300_000).map(|_| random()).collect();
    machine.file("data/deep/b.bin", random);
    let said = machine.run(&["backup", "data"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    machine
}

fn evidence(said: &Said) -> serde_json::Value {
    said.json()["evidence"].clone()
}

/// Flips a bit in every 64 bytes behind the header.
fn flip(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.iter_mut().skip(256).step_by(64).for_each(|byte| *byte ^= 1);
    std::fs::write(path, bytes).unwrap();
}

pub fn packs(machine: &Machine) -> Vec<std::path::PathBuf> {
    fn walk(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&machine.path("repository").join("data"), &mut found);
    found
}

#[test]
fn a_healthy_folder_passes_and_the_evidence_is_kept_signed_and_shown() {
    let machine = with_files();
    let run = ["drill", "run", "weekly", "--rto", "1h", "--rpo", "1h", "--detect", "5m"];
    let command = "grep -q 'listen 80' \"$LIFEBOAT_DRILL_PATH\"/**/a.conf || grep -rq 'listen 80' \"$LIFEBOAT_DRILL_PATH\"";
    let files = ["--json", "e.json", "--junit", "e.xml", "--markdown", "e.md", "--html", "e.html"];
    let said = machine.run(&[&run[..], &["--check-command", command], &files[..]].concat());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    for expected in
        ["Result: PASSED", "2 files read back", "RTO   measured", "of 1h00   MET", "✓ command: grep"]
    {
        assert!(said.stdout.contains(expected), "{expected}: {}", said.stdout);
    }
    let read = |name: &str| std::fs::read_to_string(machine.path(name)).unwrap();
    assert!(read("e.md").starts_with("## ✅ Drill weekly #1: PASSED"));
    assert!(read("e.xml").contains("failures=\"0\"") && read("e.xml").contains("RTO within 1h00"));
    assert!(read("e.html").contains("<svg") && !read("e.html").contains("http"));
    // No trace of the sandbox.
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let mine = |entry: &std::fs::DirEntry| entry.path().join("restored/data").exists();
    assert_eq!(left.flatten().filter(mine).count(), 0);

    // A second run is compared with the first, and names it.
    let said = machine.run(&["--json", "drill", "run", "weekly"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let second = evidence(&said);
    assert_eq!(second["number"], 2);
    assert!(second["previous"].is_string(), "{second}");
    // One run is too few to compare with.
    assert_eq!(
        (&second["measured"]["trend"], &second["measured"]["trend_runs"]),
        (&serde_json::Value::Null, &1.into())
    );

    let said = machine.run(&["drill", "list"]);
    assert!(said.stdout.contains("weekly#1") && said.stdout.contains("weekly#2"), "{}", said.stdout);
    let said = machine.run(&["drill", "show", "weekly#1"]);
    assert!(said.stdout.contains("Result: PASSED"), "{}", said.stdout);
    // The data is what `latest` means, not the evidence.
    let said = machine.run(&["ls", "latest"]);
    assert_eq!(said.code, 0, "{}", said.stderr);

    // Runs of other data are not compared with.
    assert_eq!(machine.run(&["backup", "--job", "other", "data/a.conf"]).code, 0);
    let said = machine.run(&["drill", "run", "weekly", "--snapshot", "other@latest"]);
    assert!(said.stdout.contains("Trend too few runs like it to tell: 0 of 3"), "{}", said.stdout);
    let said = machine.run(&["drill", "report"]);
    assert!(said.stdout.contains("weekly: 3 of 3 runs passed"), "{}", said.stdout);
    assert!(said.stdout.contains("of 1 run like the last"), "{}", said.stdout);
    let said = machine.run(&["drill", "report", "--since", "2020-01-01"]);
    assert!(said.stdout.contains("weekly: 3 of 3 runs"), "{}{}", said.stdout, said.stderr);
    let said = machine.run(&["drill", "report", "--since", "3000-01-01"]);
    assert!(!said.stdout.contains("weekly"), "{}{}", said.stdout, said.stderr);

    // Whoever has the key can tell that nobody touched it.
    let key = serde_json::from_str::<serde_json::Value>(&read("e.json")).unwrap()["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let attest = |file: &str, key: &str| machine.run(&["drill", "attest", file, "--pubkey", key]);
    assert_eq!(attest("e.json", &key).code, 0);
    assert_eq!(attest("e.json", &"0".repeat(64)).code, 20);
    machine.file("changed.json", read("e.json").replace("\"met\"", "\"data_wrong\""));
    assert_eq!(attest("changed.json", &key).code, 20);
}

#[test]
fn an_sqlite_database_is_rehearsed_with_queries() {
    let machine = Machine::with_repository();
    let path = machine.path("app.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1), (2)").unwrap();
    let address = format!("sqlite:{}", path.display());
    assert_eq!(machine.run(&["backup", &address]).code, 0);
    let sql = |query: &str| machine.run(&["drill", "run", "--check-sql", query]);
    let said = sql("select count(*) > 1 from orders");
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("row counts of 1 tables are those of the snapshot"), "{}", said.stdout);
    let said = sql("select count(*) > 2 from orders");
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("answered \"0\""), "{}", said.stdout);
    let said = sql("select count(*) from invoices");
    assert_eq!(said.code, 21);
    assert!(said.stdout.contains("no such table"), "{}", said.stdout);
    // A check that is not a query is refused before anything starts.
    let said = sql("delete from orders");
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("is not a query"), "{}", said.stderr);
}

#[test]
fn what_is_wrong_is_caught_and_says_why() {
    // Too slow, too old.
    let machine = with_files();
    let said = machine.run(&["drill", "run", "--rto", "1ms"]);
    assert_eq!(said.code, 22, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("MISSED"), "{}", said.stdout);
    assert_eq!(machine.run(&["backup", "--time", "2026-01-01T00:00Z", "--job", "old", "data"]).code, 0);
    let said = machine.run(&["drill", "run", "--snapshot", "old@latest", "--rpo", "24h"]);
    assert_eq!(said.code, 22, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("RPO") && said.stdout.contains("MISSED"), "{}", said.stdout);
    let said = machine.run(&["drill", "run", "--rto", "10m", "--detect", "10m"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("cannot be met"), "{}", said.stderr);

    let dump = ["backup", "--stdin-filename", "d.sql", "--command", "--", "echo", "insert"];
    assert_eq!(machine.run(&dump).code, 0);
    let check = [
        "drill",
        "run",
        "--snapshot",
        "d.sql@latest",
        "--check-command",
        "grep -rq insert $LIFEBOAT_DRILL_PATH",
    ];
    assert_eq!(machine.run(&check).code, 0);
    let check =
        ["drill", "run", "--snapshot", "d.sql@latest", "--check-command", "echo no such order >&2; exit 3"];
    let said = machine.run(&check);
    assert_eq!(said.code, 21);
    assert!(said.stdout.contains("no such order"), "{}", said.stdout);

    // The evidence of failures is kept as that of successes, also when a report of it cannot be written.
    let said = machine.run(&["drill", "run", "--snapshot", "old@latest", "--html", "no/such/folder.html"]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("write no/such/folder.html"), "{}", said.stderr);
    let said = machine.run(&["--json", "drill", "list"]);
    assert_eq!(said.json().as_array().map(Vec::len), Some(5), "{}", said.stdout);
}

#[test]
fn what_cannot_be_rehearsed_is_refused_before_anything_starts_and_is_no_run() {
    let machine = with_files();
    let dump = ["backup", "--stdin-filename", "d.sql", "--command", "--", "echo", "insert"];
    assert_eq!(machine.run(&dump).code, 0);
    let of = |snapshot| ["--snapshot", snapshot];
    let list = machine.run(&["--json", "snapshots"]).json();
    let files = list.as_array().unwrap().iter().find(|row| row["source"] == "files").unwrap();
    let files = files["short_id"].as_str().unwrap().to_owned();
    for (arguments, error, hint) in [
        (&of("nosuch@latest")[..], "nosuch@latest", "`lifeboat snapshots` lists what there is"),
        (&of("no such thing"), "no such thing", "`lifeboat snapshots` lists what there is"),
        (&of("latest:etc"), "must be absolute", ""),
        (&[], "several jobs", "write one of these instead: "),
        (&of("d.sql@latest"), "proves no recovery", "add a check that uses it"),
        (
            &["--snapshot", &files, "--check-sql", "select 1"],
            "asks a sandbox of kind postgres or mariadb or sqlite",
            "that can be asked for files, modes, owners, certificates=14d, a command",
        ),
        (
            &["--snapshot", &files, "--sandbox", "postgres"],
            "a snapshot of files is not restored into a sandbox of kind postgres",
            "leave --sandbox out for one that suits it: directory",
        ),
    ] {
        let said = machine.run(&[&["drill", "run", "x", "--json", "e.json"], arguments].concat());
        assert_eq!(said.code, 2, "{arguments:?}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(error), "{error:?}: {}", said.stderr);
        assert!(
            said.stderr.contains(&format!("hint: {hint}")) || hint.is_empty(),
            "{hint:?}: {}",
            said.stderr
        );
        assert!(said.stdout.is_empty() && !machine.path("e.json").exists(), "{}", said.stdout);
    }
    assert_eq!(machine.run(&["--json", "drill", "list"]).json().as_array().map(Vec::len), Some(0));
    // A snapshot that is there and cannot be read was not mistyped.
    let folder = machine.path("repository").join("snapshots");
    for entry in std::fs::read_dir(folder).unwrap() {
        crate::cli::damage(&entry.unwrap().path());
    }
    let said = machine.run(&["--json", "--no-cache", "drill", "run", "x", "--no-keep", "--snapshot", &files]);
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
    assert_eq!(evidence(&said)["verdict"], "data_wrong");
}

#[test]
fn damaged_and_missing_packs_are_data_that_is_wrong() {
    for missing in [false, true] {
        let machine = with_files();
        for pack in packs(&machine) {
            if missing { std::fs::remove_file(&pack).unwrap() } else { flip(&pack) }
        }
        let said = machine.run(&["--json", "drill", "run"]);
        assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
        assert_eq!(evidence(&said)["verdict"], "data_wrong");
    }
    // One pack of several: most came back whole, and what did not is named.
    for missing in [false, true] {
        let machine = with_files();
        let before = packs(&machine);
        let noise = (0..2000u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes());
        machine.file("data/later.bin", noise.collect::<Vec<u8>>());
        assert_eq!(machine.run(&["backup", "data"]).code, 0);
        for pack in packs(&machine).iter().filter(|pack| !before.contains(pack)) {
            if missing { std::fs::remove_file(pack).unwrap() } else { flip(pack) }
        }
        let told = ["✗ files", "1 path did not come back, ", "data/later.bin: ", "DATA WRONG"];
        ends(&machine, &[], 20, &told);
    }
    let machine = with_files();
    let said = machine.run_with(&[("LIFEBOAT_PASSWORD", "wrong")], &["drill", "run"]);
    assert_eq!(said.code, 12, "{}", said.stderr);
}

#[test]
fn an_interrupted_drill_is_a_failed_one_and_leaves_nothing_behind() {
    let machine = with_files();
    let scratch = machine.path("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let arguments = ["drill", "run", "--scratch", "scratch", "--check-command", "touch started; sleep 60"];
    let wait = |child: &mut std::process::Child| {
        let mut tries = 0;
        while !machine.path("started").exists() {
            assert!(child.try_wait().unwrap().is_none() && tries < 600, "it never came to the check");
            std::thread::sleep(std::time::Duration::from_millis(50));
            tries += 1;
        }
        std::fs::remove_file(machine.path("started")).unwrap();
    };
    let signal = |child: &std::process::Child, signal| {
        rustix::process::kill_process(rustix::process::Pid::from_raw(child.id() as i32).unwrap(), signal)
            .unwrap();
    };
    let mut child = machine.raw(&arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait(&mut child);
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
    let said = machine.run(&["--json", "drill", "show", "drill"]);
    assert_eq!(evidence(&said)["verdict"], "interrupted");

    // Killed, it cannot clean up: the next one does.
    let mut child = machine.raw(&arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait(&mut child);
    signal(&child, rustix::process::Signal::KILL);
    child.wait().unwrap();
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 1);
    let said = machine.run(&["drill", "run", "--scratch", "scratch"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("removed what an earlier drill left behind"), "{}", said.stderr);
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}

#[test]
fn a_redis_server_is_rehearsed_in_one_of_its_own() {
    let machine = Machine::with_repository();
    let source = crate::services::redis::start(&[]);
    source.ask(&["SET", "greeting", "hello"]);
    source.ask(&["HSET", "user:1", "name", "Ana"]);
    let said = machine.run(&["backup", &source.address()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let check = "redis-cli -u \"$LIFEBOAT_DRILL_ADDRESS\" --no-auth-warning get greeting | grep -qx hello";
    let said = machine.run(&["drill", "run", "--check-command", check]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("2 keys in 1 database, as many as the RDB holds"), "{}", said.stdout);
    assert!(said.stdout.contains("of its own, on loopback; the source was redis"), "{}", said.stdout);
    // The source's data was only read, and no server is left.
    assert_eq!(source.ask(&["DBSIZE"]), "2");
}

#[test]
fn a_mariadb_database_is_rehearsed_in_a_server_of_its_own() {
    let machine = Machine::with_repository();
    let source = crate::services::mariadb::Maria::start(&[]);
    source.sql(
        "",
        "CREATE DATABASE shop; CREATE USER app@'%' IDENTIFIED BY 'x'; GRANT SELECT ON shop.* TO app@'%'",
    );
    source.sql(
        "shop",
        "CREATE TABLE orders (id int PRIMARY KEY, cents int); CREATE VIEW v AS SELECT * FROM orders",
    );
    source.sql("shop", "INSERT INTO orders SELECT seq, seq * 7 FROM seq_1_to_500");
    let said = machine.run(&["backup", &source.address("shop")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    // A password of the environment is not the sandbox's.
    let run = |query: &str| {
        let arguments = ["drill", "run", "db", "--rto", "10m", "--check-sql", query];
        machine.run_with(&[("MYSQL_PWD", "another")], &arguments)
    };
    let said = run("select count(*) = 500 and sum(cents) = 876750 from v");
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("of its own, no port; the source was 10."), "{}", said.stdout);
    // A check that would change something cannot.
    let said = run("delete from orders");
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    let said = machine.run(&["drill", "run", "db", "--rto", "10m", "--sandbox", "directory"]);
    assert_ne!(said.code, 0, "{}", said.stdout);
    assert!(
        (said.stdout.clone() + &said.stderr).contains("a dump of MariaDB"),
        "{}{}",
        said.stdout,
        said.stderr
    );
}

#[test]
fn a_postgres_database_is_rehearsed_in_a_server_of_its_own() {
    let machine = Machine::with_repository();
    let source = crate::services::postgres::Postgres::start(15, "");
    source.sql("postgres", "CREATE DATABASE shop");
    source.sql("shop", "CREATE TABLE orders (id int PRIMARY KEY, cents int)");
    source.sql("shop", "CREATE SEQUENCE numbers");
    source.sql("shop", "INSERT INTO orders SELECT n, n * 7 FROM generate_series(1, 500) n");
    let said = machine.run(&["backup", &source.address("shop")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let sql = |query: &str| machine.run(&["drill", "run", "db", "--rto", "10m", "--check-sql", query]);
    let said = sql("select count(*) = 500 and sum(cents) = 876750 from orders");
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("PostgreSQL 15 of its own, no port"), "{}", said.stdout);
    let said = sql("select max(id) > 500 from orders");
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    // A check that would change something cannot.
    let said = sql("with gone as (delete from orders returning 1) select count(*) from gone");
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("changes what it should check"), "{}", said.stderr);
    // Nor does what hides in a function.
    let said = sql("select nextval('numbers') > 0");
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("read-only transaction"), "{}", said.stdout);
    // Nothing is left: no process works in a sandbox of this machine's.
    let said = machine.run(&["drill", "list"]);
    assert_eq!(said.stdout.matches("db#").count(), 3, "{}", said.stdout);
}
