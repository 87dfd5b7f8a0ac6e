//! A whole stack by the real binary: restored in order, rehearsed in sandboxes, and what is in the way said first.

use rusqlite::Connection;

use crate::cli::{Machine, Said};
use crate::services::redis::{self, Redis};

/// A shop: a database, a cache that needs nothing, files that need the database, and an application made by hand.
struct Shop {
    machine: Machine,
    cache: Redis,
}

/// Only the file says where and with what.
const FILE_ONLY: [(&str, &str); 3] =
    [("LIFEBOAT_CONFIG", "lifeboat.toml"), ("LIFEBOAT_REPOSITORY", ""), ("LIFEBOAT_PASSWORD", "")];

impl Shop {
    fn new(top: &str, more: &str) -> Self {
        let machine = Machine::with_repository();
        let cache = redis::start(&[]);
        machine.file("pw", "right\n");
        machine.file("data/a.conf", "listen 80");
        let folder = machine.path("");
        let text = format!(
            "{top}\n[repository.main]\nurl = \"{0}repository\"\npassword = {{ file = \"{0}pw\" }}\n\
             [job.db]\nsource = \"sqlite:{0}app.db\"\n[job.cache]\nsource = \"{1}\"\n[job.files]\nsource = \"{0}data\"\n\
             [stack.shop]\ndb = {{ rto = \"1h\", rpo = \"6h\" }}\ncache = {{ rto = \"30m\" }}\n\
             files = {{ rto = \"1h\", needs = [\"db\"] }}\napp = {{ rto = \"1h\", needs = [\"db\", \"cache\", \"files\"] }}\n\
             {more}",
            folder.display(),
            cache.address()
        );
        machine.file("lifeboat.toml", text);
        let shop = Self { machine, cache };
        shop.sql("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1), (2)");
        shop.cache.ask(&["SET", "greeting", "hello"]);
        let said = shop.run(&["run", "--all"]);
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
        shop
    }

    fn sql(&self, text: &str) {
        Connection::open(self.machine.path("app.db")).unwrap().execute_batch(text).unwrap();
    }

    fn orders(&self, file: &str) -> i64 {
        let database = Connection::open(self.machine.path(file)).unwrap();
        database.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.machine.run_with(&FILE_ONLY, arguments)
    }
}

#[test]
fn a_stack_comes_back_as_it_was_at_one_time_in_the_order_of_its_needs() {
    let shop = Shop::new("environment = \"production\"", "");
    let then = jiff::Timestamp::now().to_string();
    // Later changes, backed up too: the set of before is what is asked for.
    shop.sql("DELETE FROM orders");
    shop.cache.ask(&["FLUSHALL"]);
    shop.machine.file("data/a.conf", "broken");
    shop.machine.file("data/new", "later");
    assert_eq!(shop.run(&["run", "db", "files"]).code, 0);

    let plan = shop.run(&["restore", "--stack", "shop", "--at", &then, "--plan", "--force"]);
    assert_eq!(plan.code, 0, "{}{}", plan.stdout, plan.stderr);
    for expected in [
        "would restore stack shop as of",
        "at most",
        "apart",
        "data, to be replaced",
        "1 of 1 files, 1 differ",
    ] {
        assert!(plan.stdout.contains(expected), "{expected}: {}", plan.stdout);
    }
    let line =
        |name: &str| plan.stdout.lines().position(|line| line.contains(&format!("  {name}  "))).unwrap();
    assert!(line("db") < line("files"), "{}", plan.stdout);
    assert!(plan.stdout.contains("app: no job: to be made by hand"), "{}", plan.stdout);
    assert_eq!(shop.orders("app.db"), 0, "a plan changes nothing");

    // Production asks for its word, and without --force nothing is replaced.
    let go =
        |more: &[&str]| shop.run(&[&["--json", "restore", "--stack", "shop", "--at", &then], more].concat());
    let said = go(&["--force", "--yes"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("--confirm production"), "{}", said.stderr);
    let said = go(&["--confirm", "production"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("--force"), "{}", said.stderr);
    assert_eq!(shop.orders("app.db"), 0);

    let said = go(&["--force", "--confirm", "production"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(shop.orders("app.db"), 2);
    // Once more: the cache holds the same keys now. What goes on is not what has just failed.
    let plan = shop.run(&["restore", "--stack", "shop", "--at", &then, "--plan", "--force"]);
    assert!(plan.stdout.contains("data, which stays"), "{}", plan.stdout);
    assert!(plan.stdout.contains("! cache: stays: 1 key: what comes is added"), "{}", plan.stdout);
    let again = go(&["--force", "--confirm", "production"]);
    assert_eq!(again.code, 1, "{}{}", again.stdout, again.stderr);
    let next = again.json()["next"].as_str().unwrap().to_owned();
    assert!(next.contains("--from cache ") && next.contains("--force --flush-first"), "{next}");
    let words: Vec<&str> = next.split(' ').skip(1).collect();
    let on = shop.run(&words);
    assert_eq!(on.code, 0, "{next}: {}{}", on.stdout, on.stderr);
    assert_eq!(shop.cache.ask(&["GET", "greeting"]), "hello");
    assert_eq!(std::fs::read(shop.machine.path("data/a.conf")).unwrap(), b"listen 80");
    let components = said.json()["components"].as_array().unwrap().clone();
    let of = |name: &str| components.iter().find(|row| row["component"] == name).unwrap().clone();
    assert!(of("files")["began_seconds"].as_f64() >= of("db")["ended_seconds"].as_f64(), "{components:?}");
    // Before the first backup there is nothing.
    let said = shop.run(&["restore", "--stack", "shop", "--at", "2020-01-01T00:00Z", "--plan"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("its oldest is of"), "{}", said.stderr);
}

#[test]
fn a_stack_goes_elsewhere_and_what_fails_keeps_back_only_what_needs_it() {
    let shop = Shop::new("", "");
    let said = shop.run(&["restore", "--stack", "shop", "--to-dir", "back"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("stack shop is back"), "{}", said.stdout);
    assert_eq!(shop.orders("app.db"), 2);
    for part in ["back/db", "back/cache", "back/files"] {
        assert!(std::fs::read_dir(shop.machine.path(part)).unwrap().next().is_some(), "{part}");
    }
    // A second time it would overwrite, which somebody has to want.
    let said = shop.run(&["restore", "--stack", "shop", "--to-dir", "back"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("over what is there"), "{}", said.stderr);

    // The database cannot be put there; the cache comes back all the same, and the way on is said.
    let maps = ["--map", "db=sqlite:elsewhere.db", "--map", "files=out"];
    let last = shop.run(&["--json", "snapshots", "--job", "db"]).json();
    assert!(last.as_array().is_some());
    let target = redis::start(&[]);
    let cache = format!("cache={}", target.address());
    let damaged = &[&["restore", "--stack", "shop", "--map", &cache], &maps[..]].concat();
    damage_database(&shop);
    let said = shop.run(&[&["--no-cache"], &damaged[..]].concat());
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
    assert_eq!(target.ask(&["GET", "greeting"]), "hello");
    assert!(said.stderr.contains("files: not begun: it needs db"), "{}", said.stderr);
    assert!(said.stderr.contains("not restored: db, files"), "{}", said.stderr);
    assert!(said.stderr.contains(" --from db --map cache="), "{}", said.stderr);
    assert!(!shop.machine.path("elsewhere.db").exists() && !shop.machine.path("out").exists());

    for (arguments, expected) in [
        (&["--map", "dbb=x"][..], "the stack has no component \"dbb\""),
        (&["--from", "dbb"], "the stack has no such component"),
        (&["--map", "db"], "write COMPONENT=DIR"),
        (&["--map", "app=x"], "no component \"app\" with data"),
        (&["--map", "db=redis://u:secret@h"], "holds a password"),
    ] {
        let said = shop.run(&[&["restore", "--stack", "shop"], arguments].concat());
        assert_eq!(said.code, 2, "{arguments:?}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(expected), "{expected}: {}", said.stderr);
    }
    let said = shop.run(&["restore", "--stack", "shpo", "--plan"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("did you mean shop?"), "{}", said.stderr);
}

/// Damages what only the database's snapshot needs: it holds far more than the others.
fn damage_database(shop: &Shop) {
    shop.sql("CREATE TABLE noise (x BLOB); INSERT INTO noise VALUES (randomblob(3000000))");
    let before = super::packs(&shop.machine);
    assert_eq!(shop.run(&["run", "db"]).code, 0);
    for pack in super::packs(&shop.machine).into_iter().filter(|pack| !before.contains(pack)) {
        super::flip(&pack);
    }
}

const DRILL: &str = "[drill.whole]\nstack = \"shop\"\nrto = \"30m\"\nrpo = \"12h\"\ndetect = \"2m\"\n\
    component.db.checks = [{ sql = \"select count(*) = 2 from orders\" }]\n";

#[test]
fn a_stack_is_rehearsed_component_by_component_and_its_recovery_time_is_that_of_the_longest_chain() {
    // The application has no data: it is asked beside what it needs.
    let check = "test -s \\\"$LIFEBOAT_DRILL_PATH_DB\\\" && redis-cli -u \\\"$LIFEBOAT_DRILL_ADDRESS_CACHE\\\" \
                 --no-auth-warning get greeting | grep -qx hello && grep -rq listen \\\"$LIFEBOAT_DRILL_PATH_FILES\\\"";
    let shop = Shop::new("", &format!("{DRILL}component.app.checks = [{{ command = \"{check}\" }}]\n"));
    assert_eq!(shop.run(&["config", "check"]).code, 0);
    let files = ["--json", "e.json", "--junit", "e.xml", "--markdown", "e.md", "--html", "e.html"];
    let said = shop.run(&[&["drill", "run", "whole"], &files[..]].concat());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    for expected in [
        "PHASE",
        "ready at",
        "Critical path: ",
        "→ app",
        "✓ db: sql: select",
        "RTO   measured",
        "Result: PASSED",
    ] {
        assert!(said.stdout.contains(expected), "{expected}: {}", said.stdout);
    }
    let read = |name: &str| std::fs::read_to_string(shop.machine.path(name)).unwrap();
    let record: serde_json::Value = serde_json::from_str(&read("e.json")).unwrap();
    let stack = &record["evidence"]["stack"];
    let of = |name: &str| {
        stack["components"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
    };
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    // What needs something begins when that is ready, and the whole is ready with the last.
    assert!(number(&of("files")["began_seconds"]) >= number(&of("db")["ready_seconds"]), "{stack}");
    assert!(number(&of("app")["began_seconds"]) >= number(&of("files")["ready_seconds"]), "{stack}");
    assert!(number(&of("cache")["began_seconds"]) < number(&of("db")["ready_seconds"]), "{stack}");
    assert_eq!(record["evidence"]["measured"]["recovery_seconds"], of("app")["ready_seconds"]);
    assert_eq!(stack["critical_path"].as_array().unwrap().last().unwrap(), "app");
    assert!(read("e.xml").contains("component cache") && read("e.xml").contains("failures=\"0\""));
    assert!(
        read("e.md").contains("| Critical path |") && read("e.html").contains("Components and their phases")
    );
    let key = record["key"].as_str().unwrap();
    assert_eq!(shop.run(&["drill", "attest", "e.json", "--pubkey", key]).code, 0);
    let said = shop.run(&["drill", "show", "whole#1"]);
    assert!(said.stdout.contains("Critical path: "), "{}{}", said.stdout, said.stderr);
    // Objectives are held against it: the application's too, which has no job and waits for the others.
    let plan = shop.run(&["plan"]);
    assert_eq!(plan.code, 0, "{}{}", plan.stdout, plan.stderr);
    assert!(plan.stdout.contains("app, measured by whole#1"), "{}", plan.stdout);
    assert!(!plan.stdout.contains("never measured"), "{}", plan.stdout);
    let plan = shop.run(&["--json", "plan"]).json();
    let app = plan["components"].as_array().unwrap().iter().find(|row| row["component"] == "app").unwrap();
    assert_eq!(app["recovery_seconds"], of("app")["ready_seconds"], "{plan}");
    assert_eq!(
        (&app["rto"], &app["recovery"], &app["declared_seconds"], &app["measured_by"]),
        (&"met".into(), &"measured".into(), &120.0.into(), &"whole#1".into()),
        "{plan}"
    );
    // The sources were only read.
    assert_eq!((shop.orders("app.db"), shop.cache.ask(&["DBSIZE"]).as_str()), (2, "1"));
}

#[test]
fn what_is_wrong_in_one_component_is_named_and_what_needs_it_is_not_begun() {
    let shop = Shop::new(
        "",
        &format!(
            "{DRILL}[drill.tight]\nstack = \"shop\"\nrto = \"1ms\"\n[drill.old]\nstack = \"shop\"\nat = \"2020-01-01T00:00Z\"\n"
        ),
    );
    // An objective of the whole is missed although each component keeps its own.
    let said = shop.run(&["drill", "run", "tight"]);
    assert_eq!(said.code, 22, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("not tested: app: it has no job and no check"), "{}", said.stdout);
    let said = shop.run(&["drill", "run", "old"]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("its oldest is of"), "{}", said.stdout);
    // A check of one component fails: what needs it is left.
    shop.sql("DELETE FROM orders WHERE rowid = 1");
    assert_eq!(shop.run(&["run", "db"]).code, 0);
    let said = shop.run(&["--json", "drill", "run", "whole"]);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    let evidence = super::evidence(&said);
    let of = |name: &str| {
        let rows = evidence["stack"]["components"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["name"] == name).unwrap()
    };
    assert_eq!(of("db")["verdict"], "check_failed", "{evidence}");
    assert_eq!(of("files")["reason"], "not begun: it needs db", "{evidence}");
    assert_eq!(of("cache")["verdict"], "met", "{evidence}");
    assert!(evidence["reason"].as_str().unwrap().starts_with("db: sql: "), "{evidence}");
    damage_database(&shop);
    let said = shop.run(&["--no-cache", "--json", "drill", "run", "whole"]);
    assert_eq!(said.code, 20, "{}{}", said.stdout, said.stderr);
}

/// A replica of the shop's repository that its file names.
fn with_replica(shop: &Shop) {
    let (repository, replica) = (shop.machine.path("repository"), shop.machine.path("replica"));
    let (repository, replica) = (repository.to_str().unwrap(), replica.to_str().unwrap());
    for arguments in [&["-r", replica, "init", "--replica-of", repository][..], &["copy", "--to", replica]] {
        let said = shop.machine.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
    }
    let text = std::fs::read_to_string(shop.machine.path("lifeboat.toml")).unwrap();
    let password = shop.machine.path("pw");
    let copy = format!(
        "[repository.box]\nurl = {replica:?}\nreplica_of = \"main\"\npassword = {{ file = {password:?} }}\n"
    );
    shop.machine.file("lifeboat.toml", text + &copy);
}

#[test]
fn faults_hit_each_component_of_a_stack_and_what_is_lost_comes_from_the_replica() {
    // Its check finds what stands beside it, in the drill and in every restore through a fault.
    let beside = "component.files.checks = [{ command = \"test -s \\\"$LIFEBOAT_DRILL_PATH_DB\\\"\" }]\n";
    let faults = "faults = [{ kind = \"missing-pack\" }, { kind = \"bit-flips\", expect = \"fails_closed\" }, \
                  { kind = \"primary-gone\" }, { kind = \"missing-index\" }, { kind = \"no-local-state\" }]\n";
    let light = "[drill.light]\nstack = \"shop\"\ncomponent.db.checks = [{ sql = \"select count(*) = 2 from orders\" }]\n";
    let shop = Shop::new("", &format!("{DRILL}{beside}{faults}{light}"));
    with_replica(&shop);
    let files = ["--json", "e.json", "--junit", "e.xml", "--markdown", "e.md", "--html", "e.html"];
    let said = shop.run(&[&["drill", "run", "whole"], &files[..]].concat());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let read = |name: &str| std::fs::read_to_string(shop.machine.path(name)).unwrap();
    let record: serde_json::Value = serde_json::from_str(&read("e.json")).unwrap();
    let found = record["evidence"]["faults"].as_array().unwrap().clone();
    assert_eq!(found.len(), 15, "{found:?}");
    for (kind, outcome) in [
        ("missing-pack", "recovers_from_replica"),
        ("bit-flips", "fails_closed"),
        ("primary-gone", "recovers_from_replica"),
        ("missing-index", "recovers"),
        ("no-local-state", "recovers"),
    ] {
        for component in ["db", "cache", "files"] {
            let is_it = |fault: &&serde_json::Value| fault["kind"] == kind && fault["component"] == component;
            let fault = found.iter().find(is_it).unwrap();
            assert_eq!(fault["outcome"], outcome, "{fault}");
        }
    }
    assert!(
        said.stdout.contains("✓ fault db: missing-pack: recovers_from_replica, as declared"),
        "{}",
        said.stdout
    );
    assert!(
        read("e.md").contains("| cache: primary-gone: ") && read("e.html").contains("files: no-local-state")
    );
    assert!(read("e.xml").contains("fault db: missing-index: recovers"), "{}", read("e.xml"));
    // Another outcome than the declared one fails the drill, and the component is named.
    let said = shop.run(&["drill", "run", "light", "--fault", "half-gone=recovers"]);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("  cache: half-gone: fails_closed, declared recovers"), "{}", said.stdout);
    // A drill that does not pass says nothing about faults.
    shop.sql("DELETE FROM orders WHERE rowid = 1");
    assert_eq!(shop.run(&["run", "db"]).code, 0);
    let said = shop.run(&["--json", "drill", "run", "light", "--fault", "missing-index"]);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    let faults = super::evidence(&said)["faults"].as_array().unwrap().clone();
    assert!(faults.iter().all(|fault| fault["outcome"] == "not_run"), "{faults:?}");
}

#[test]
fn a_component_of_a_stack_may_be_restored_into_a_server_that_is_lent() {
    let lent = redis::start(&[]);
    lent.ask(&["ACL", "SETUSER", "lifeboat_drill_shop", "on", "nopass", "~*", "&*", "+@all"]);
    let place = format!("redis://lifeboat_drill_shop@127.0.0.1:{}", lent.server.port);
    let drill = format!("{DRILL}component.cache.sandbox = \"{place}\"\n");
    let shop = Shop::new("", &drill);
    let said = shop.run(&["drill", "run", "whole"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains(&lent.server.port.to_string()), "{}", said.stdout);
    assert_eq!(lent.ask(&["DBSIZE"]), "0", "it is empty again");
    // One that is no drills' is refused before anything is restored, and so are faults: it takes one restore.
    let text = std::fs::read_to_string(shop.machine.path("lifeboat.toml")).unwrap();
    let said = shop.run(&["drill", "run", "whole", "--fault", "missing-index"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stderr.contains("component cache: a server that is lent takes one restore"),
        "{}",
        said.stderr
    );
    shop.machine.file("lifeboat.toml", text.replace(&place, &shop.cache.address()));
    let said = shop.run(&["drill", "run", "whole"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert_eq!(shop.cache.ask(&["DBSIZE"]), "1");
}

#[test]
fn an_interrupted_drill_of_a_stack_leaves_nothing_behind() {
    let check = "touch started; sleep 60";
    let shop = Shop::new("", &format!("{DRILL}component.app.checks = [{{ command = \"{check}\" }}]\n"));
    let scratch = shop.machine.path("scratch");
    std::fs::create_dir(&scratch).unwrap();
    for (signal, left) in [(rustix::process::Signal::INT, 0), (rustix::process::Signal::KILL, 4)] {
        let mut command = shop.machine.raw(&["drill", "run", "whole", "--scratch", "scratch"]);
        let mut child = command.envs(FILE_ONLY).stdout(std::process::Stdio::null()).spawn().unwrap();
        let mut tries = 0;
        while !shop.machine.path("started").exists() {
            assert!(child.try_wait().unwrap().is_none() && tries < 600, "it never came to the check");
            std::thread::sleep(std::time::Duration::from_millis(50));
            tries += 1;
        }
        std::fs::remove_file(shop.machine.path("started")).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(child.id() as i32).unwrap(), signal)
            .unwrap();
        child.wait().unwrap();
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), left, "{signal:?}");
    }
    let said = shop.run(&["--json", "drill", "show", "whole"]);
    assert_eq!(super::evidence(&said)["verdict"], "interrupted", "{}", said.stdout);
    // The next drill sweeps what the killed one left, its server included.
    let said = shop.run(&["drill", "run", "--snapshot", "files@latest", "--scratch", "scratch"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}
