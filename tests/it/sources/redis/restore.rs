//! What a restore into a server must and must not do.

use super::fill;
use crate::cli::Machine;
use crate::services::redis as servers;

#[test]
fn a_server_with_an_append_only_file_keeps_every_restored_key_over_a_restart() {
    let source = servers::start(&[]);
    fill(&source);
    let machine = Machine::with_repository();
    let said = machine.run(&["backup", &source.address()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let target = servers::start(&["--appendonly", "yes"]);
    let said = machine.run(&["restore", "latest", "--to", &target.address()]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("append-only file"), "{}", said.stdout);
    assert_eq!(target.content(), source.content());
    assert_eq!(target.info("role"), "master");
    target.ask(&["DEBUG", "LOADAOF"]);
    assert_eq!(target.content(), source.content());
}
