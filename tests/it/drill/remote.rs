//! Servers lent to drills: taken only when they are named for it, empty, and none of those that are backed up.

use crate::cli::{Machine, Said};
use crate::services::postgres::Postgres;
use crate::services::redis;

fn configured(job: &str, sandbox: &str) -> Machine {
    let machine = Machine::with_repository();
    let text = format!(
        "[repository.main]\nurl = \"{}\"\n[job.db]\nsource = \"{job}\"\n[drill.lent]\nrestore = \"db@latest\"\n\
         sandbox = \"{sandbox}\"\n",
        machine.path("repository").display()
    );
    machine.file("lifeboat.toml", text);
    machine
}

fn run(machine: &Machine, arguments: &[&str]) -> Said {
    machine.run_with(&[("LIFEBOAT_CONFIG", "lifeboat.toml")], arguments)
}

#[test]
fn a_lent_postgres_server_takes_the_drill_and_is_empty_again() {
    let (source, lent) = (Postgres::start(15, ""), Postgres::start(15, ""));
    source.sql("postgres", "CREATE DATABASE shop");
    source.sql("postgres", "CREATE ROLE clerk");
    source.sql(
        "shop",
        "CREATE TABLE orders AS SELECT generate_series(1, 500) AS id; ALTER TABLE orders OWNER TO clerk",
    );
    // The database is not there yet, as after a drill that was killed.
    let (job, place) = (source.address("shop"), lent.address("lifeboat_drill_shop"));
    let machine = configured(&job, &place);
    assert_eq!(run(&machine, &["run", "db"]).code, 0);
    let check = "select count(*) = 500 from orders";
    let drill =
        ["drill", "run", "by-hand", "--snapshot", "db@latest", "--sandbox", &place, "--check-sql", check];
    for arguments in [&["drill", "run", "lent"][..], &drill] {
        let said = run(&machine, arguments);
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains("lent: empty before and after, system identifier"), "{}", said.stdout);
        assert_eq!(
            lent.sql("lifeboat_drill_shop", "SELECT count(*) FROM pg_class WHERE relname = 'orders'"),
            "0"
        );
        assert_eq!(lent.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'clerk'"), "0");
    }
    // What others make on the server meanwhile is theirs.
    let psql = lent.tool("psql", "postgres");
    let words = psql.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    let words: String = words.map(|(name, value)| format!("{name}='{value}' ")).collect();
    let meanwhile = format!("{words}{} -c 'CREATE ROLE colleague'", psql.get_program().display());
    let said = run(&machine, &[&drill[..], &["--check-command", &meanwhile]].concat());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let roles = "SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolname IN ('clerk', 'colleague')";
    assert_eq!(lent.sql("postgres", roles), "colleague");
    // Also after a check that fails; and one that would change something cannot.
    let failing = [&drill[..8], &["delete from orders returning 1"]].concat();
    assert_eq!(run(&machine, &failing).code, 2);
    let failing = [&drill[..8], &["select max(id) > 500 from orders"]].concat();
    let said = run(&machine, &failing);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert_eq!(
        lent.sql("lifeboat_drill_shop", "SELECT count(*) FROM pg_class WHERE relname = 'orders'"),
        "0"
    );

    // What is not empty is somebody's.
    lent.sql("lifeboat_drill_shop", "CREATE TABLE mine (x int)");
    let said = run(&machine, &["drill", "run", "lent"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("is not empty: "), "{}", said.stderr);
    assert_eq!(lent.sql("lifeboat_drill_shop", "SELECT count(*) FROM mine"), "0", "it is still there");
}

#[test]
fn production_is_refused_whatever_it_is_called() {
    let source = Postgres::start(15, "");
    source.sql("postgres", "CREATE DATABASE shop");
    source.sql("shop", "CREATE TABLE orders (id int)");
    source.sql("postgres", "CREATE DATABASE lifeboat_drill_shop");
    source.sql("postgres", "CREATE DATABASE empty");
    let job = source.address("shop");
    for (place, expected) in [
        (job.clone(), "is what is backed up"),
        (source.address("empty"), "is not named for drills"),
        // Named and empty, but on the very server, also by another of its names.
        (source.address("lifeboat_drill_shop"), "is the very server that"),
        (source.address("lifeboat_drill_shop").replace("127.0.0.1", "localhost"), "is the very server that"),
        ("sqlite:/x".to_owned(), "lends nothing to a drill"),
        ("postgrs".to_owned(), "there is no sandbox"),
    ] {
        let machine = configured(&job, &place);
        assert_eq!(run(&machine, &["run", "db"]).code, 0);
        let said = run(&machine, &["drill", "run", "lent"]);
        assert_eq!(said.code, 2, "{place}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(expected), "{place}: {}", said.stderr);
    }
    // With the source out of reach, the snapshot still knows whose it is.
    let place = source.address("lifeboat_drill_shop");
    let machine = configured(&job, &place);
    assert_eq!(run(&machine, &["run", "db"]).code, 0);
    let text = std::fs::read_to_string(machine.path("lifeboat.toml")).unwrap();
    machine.file("lifeboat.toml", text.replace(&job, "postgres://postgres@127.0.0.1:9/shop"));
    let said = run(&machine, &["drill", "run", "lent"]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("the very server that the snapshot was taken from"), "{}", said.stdout);
    assert_eq!(
        source.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'lifeboat_drill%'"),
        "1"
    );
}

/// Another server at the port of one that was lent; ended when dropped.
struct Other<'a>(&'a redis::Redis);

impl Drop for Other<'_> {
    fn drop(&mut self) {
        let _ = self.0.command(&["SHUTDOWN", "NOSAVE"]).output();
    }
}

/// A failover or a proxy can put another server behind the address while a drill runs: nothing is removed from that.
#[test]
fn a_server_that_took_the_place_of_a_lent_one_is_left_alone() {
    let (source, lent) = (redis::start(&[]), redis::start(&[]));
    lent.ask(&["ACL", "SETUSER", "lifeboat_drill_shop", "on", "nopass", "~*", "&*", "+@all"]);
    source.ask(&["SET", "greeting", "hello"]);
    let port = lent.server.port;
    let machine = configured(&source.address(), &format!("redis://lifeboat_drill_shop@127.0.0.1:{port}"));
    assert_eq!(run(&machine, &["run", "db"]).code, 0);
    let script = format!(
        "#!/bin/sh\ncli='{cli} -p {port}'\n$cli SHUTDOWN NOSAVE\n{server} --port {port} --bind 127.0.0.1 --save '' --dir {dir} \
         --daemonize yes\nuntil $cli ACL SETUSER lifeboat_drill_shop on nopass '~*' '&*' +@all; do :; done\n\
         $cli ACL SETUSER colleague on nopass\n$cli SET precious 1\n",
        cli = crate::services::program("redis-cli").display(),
        server = crate::services::program("redis-server").display(),
        dir = machine.path("").display()
    );
    let script = machine.file("swap", script);
    let place = format!("redis://lifeboat_drill_shop@127.0.0.1:{port}");
    let command = format!("sh {}", script.display());
    let other = Other(&lent);
    let said = run(
        &machine,
        &[
            "drill",
            "run",
            "by-hand",
            "--snapshot",
            "db@latest",
            "--sandbox",
            &place,
            "--check-command",
            &command,
        ],
    );
    assert_eq!(lent.ask(&["GET", "precious"]), "1", "{}{}", said.stdout, said.stderr);
    assert!(lent.ask(&["ACL", "USERS"]).contains("colleague"));
    assert!(
        (said.stdout.clone() + &said.stderr).contains("is not the one that was lent"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    drop(other);
}

#[test]
fn a_lent_redis_server_is_known_by_its_user_and_its_run_id() {
    let (source, lent) = (redis::start(&[]), redis::start(&[]));
    let user = ["ACL", "SETUSER", "lifeboat_drill_shop", "on", "nopass", "~*", "&*", "+@all"];
    for server in [&source, &lent] {
        server.ask(&user);
    }
    source.ask(&["SET", "greeting", "hello"]);
    source.ask(&["ACL", "SETUSER", "clerk", "on", "nopass"]);
    let as_drill =
        |server: &redis::Redis| format!("redis://lifeboat_drill_shop@127.0.0.1:{}", server.server.port);
    let machine = |place: &str| {
        let machine = configured(&source.address(), place);
        assert_eq!(run(&machine, &["run", "db"]).code, 0);
        machine
    };
    for (place, expected) in [
        (lent.address(), "is not said to be for drills"),
        (as_drill(&source), "is what is backed up"),
        (as_drill(&source).replace("127.0.0.1", "localhost"), "is the very server that"),
    ] {
        let said = run(&machine(&place), &["drill", "run", "lent"]);
        assert_eq!(said.code, 2, "{place}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(expected), "{place}: {}", said.stderr);
    }
    let machine = machine(&as_drill(&lent));
    let said = run(&machine, &["drill", "run", "lent"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("1 key in 1 database"), "{}", said.stdout);
    assert_eq!(lent.ask(&["DBSIZE"]), "0");
    assert!(!lent.ask(&["ACL", "USERS"]).contains("clerk"), "{}", lent.ask(&["ACL", "USERS"]));
    // A replica of what is backed up shares its history.
    lent.ask(&["REPLICAOF", "127.0.0.1", &source.server.port.to_string()]);
    while lent.info("master_link_status") != "up" {}
    let said = run(&machine, &["drill", "run", "lent"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert_eq!(source.ask(&["DBSIZE"]), "1");
}
