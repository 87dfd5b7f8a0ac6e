//! Drills of a sample that nothing is wrong with, over and over: files, SQLite, PostgreSQL and Redis, all written to
//! between the backups. Not one may raise an alarm. Once in the suite; `tests/soak drills` makes it twenty.

use super::{ends, evidence};
use crate::cli::Machine;

const RUNS_VARIABLE: &str = "LIFEBOAT_DRILL_RUNS";

#[test]
fn healthy_drills_raise_no_alarm() {
    let runs: u64 = std::env::var(RUNS_VARIABLE).map_or(1, |runs| runs.parse().unwrap());
    let machine = Machine::with_repository();
    let postgres = crate::services::postgres::Postgres::start(15, "");
    let redis = crate::services::redis::start(&["--appendonly", "yes"]);
    postgres.sql("postgres", "CREATE ROLE reader; CREATE DATABASE shop");
    postgres.sql(
        "shop",
        "CREATE TABLE orders (id serial PRIMARY KEY, cents int CHECK (cents > 0), at timestamptz DEFAULT now());
         CREATE INDEX ON orders (at); GRANT SELECT ON orders TO reader",
    );
    let sqlite = rusqlite::Connection::open(machine.path("app.db")).unwrap();
    sqlite.execute_batch("CREATE TABLE events (id INTEGER PRIMARY KEY, at TEXT)").unwrap();
    let config = format!(
        "[repository.main]\nurl = \"{}\"\n\
         [job.files]\nsource = \"{}\"\n[job.events]\nsource = \"sqlite:{}\"\n\
         [job.db]\nsource = \"{}\"\n[job.cache]\nsource = \"{}\"\n\
         [drill.files]\nrestore = \"files@latest\"\nrto = \"30m\"\nrpo = \"1h\"\nchecks = [\"files\", \"modes\", \
         \"owners\"]\n\
         [drill.events]\nrestore = \"events@latest\"\nrto = \"30m\"\nrpo = \"1h\"\nchecks = [\"rows\", \
         {{ freshness = \"events.at\", within = \"1h\" }}]\n\
         [drill.db]\nrestore = \"db@latest\"\nrto = \"30m\"\nrpo = \"1h\"\nchecks = [\"rows\", \"roles\", \
         \"sequences\", \"constraints\", {{ freshness = \"orders.at\", within = \"1h\" }}, {{ sql = \"select count(*) > 0 \
         from orders\" }}]\n\
         [drill.cache]\nrestore = \"cache@latest\"\nrto = \"30m\"\nrpo = \"1h\"\nchecks = [\"keys\", \"append-only\"]\n",
        machine.path("repository").display(),
        machine.path("files").display(),
        machine.path("app.db").display(),
        postgres.address("shop"),
        redis.address(),
    );
    let config = machine.file("lifeboat.toml", config);
    let config = ["--config", config.to_str().unwrap()];
    let mut slowest = std::collections::BTreeMap::new();
    for run in 1..=runs {
        machine.file(&format!("files/{run}.txt"), format!("run {run} ").repeat(run as usize * 50));
        sqlite.execute("INSERT INTO events (at) VALUES (datetime('now'))", []).unwrap();
        postgres.sql("shop", "INSERT INTO orders (cents) SELECT n FROM generate_series(1, 200) n");
        redis.script(&format!("for i = 1, 50 do redis.call('SET', 'k:{run}:' .. i, i) end"));
        redis.ask(&["SET", &format!("session:{run}"), "short", "PX", "300"]);
        let said = machine.run(&[&config[..], &["run", "--all"]].concat());
        assert_eq!(said.code, 0, "run {run}: {}{}", said.stdout, said.stderr);
        ends(&machine, &[&config[..], &["--all"]].concat(), 0, &["Result: PASSED"]);
        for name in ["files", "events", "db", "cache"] {
            let record = evidence(&machine.run(&[&config[..], &["--json", "drill", "show", name]].concat()));
            assert_eq!((&record["verdict"], &record["number"]), (&"met".into(), &run.into()), "{record}");
            let seconds = record["measured"]["recovery_seconds"].as_f64().unwrap();
            let slowest = slowest.entry(name).or_insert(0.0);
            *slowest = f64::max(*slowest, seconds);
        }
    }
    println!("{runs} rounds of four drills, {} drills, no alarm; slowest recovery {slowest:?} s", runs * 4);
}
