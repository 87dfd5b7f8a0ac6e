//! What a capture of a server must and must not do.

use super::fill;
use crate::cli::Machine;
use crate::services::redis as servers;

/// The facts of the newest snapshot's only RDB.
fn dump(machine: &Machine) -> Vec<u8> {
    let said = machine.command(&["dump", "latest:/dump.rdb"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    said.stdout
}

/// What Redis' own tool says of an RDB.
fn judged(machine: &Machine, rdb: &[u8]) -> String {
    let path = machine.file("judged.rdb", rdb);
    let said = std::process::Command::new("redis-check-rdb").arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{text}");
    text
}

#[test]
fn both_framings_give_an_rdb_that_redis_itself_accepts() {
    let redis = servers::start(&[]);
    fill(&redis);
    let machine = Machine::with_repository();
    for diskless in ["yes", "no"] {
        redis.ask(&["CONFIG", "SET", "repl-diskless-sync", diskless]);
        let said = machine.run(&["backup", &redis.address()]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let text = judged(&machine, &dump(&machine));
        assert!(text.contains("RDB looks OK"), "{text}");
    }
}
