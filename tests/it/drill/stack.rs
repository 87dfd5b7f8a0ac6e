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
