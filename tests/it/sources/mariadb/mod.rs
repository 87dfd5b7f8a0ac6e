//! MariaDB: captured in one moment while others write, given back proven.

mod content;
mod failing;
mod swap;

use super::conformance::{self, Subject};
use crate::cli::Machine;
use crate::services::mariadb::{Maria, shared};

struct Database {
    maria: &'static Maria,
    name: String,
}

impl Database {
    fn new() -> Self {
        let maria = shared();
        Self { maria, name: maria.database() }
    }
}

/// The database an address names.
fn named(address: &str) -> &str {
    address.rsplit('/').next().unwrap().split('?').next().unwrap()
}

impl Subject for Database {
    fn address(&self) -> String {
        self.maria.address(&self.name)
    }
    fn vacant(&mut self) -> String {
        self.maria.address(&self.maria.vacant())
    }
    fn fill(&mut self) {
        self.maria.sql(
            &self.name,
            "CREATE TABLE `odd `` name` (id int PRIMARY KEY AUTO_INCREMENT, body text CHARACTER SET utf8mb4, at timestamp
                 NULL, amount double, raw varbinary(20));
             INSERT INTO `odd `` name` (body, at, amount, raw)
                 SELECT IF(seq % 7 = 0, NULL, CONCAT('tab\\t, newline\\n, (back\\\\slash'');ü', seq)),
                 '2026-01-01 00:00:00' + INTERVAL seq HOUR, seq / 3, UNHEX(MD5(seq)) FROM seq_1_to_20000;
             CREATE TABLE one (text text);
             INSERT INTO one VALUES (''), (NULL), (');'), ('NULL');
             CREATE TABLE empty (a int);",
        );
    }
    fn change(&mut self) {
        self.maria.sql(&self.name, "DELETE FROM `odd `` name` WHERE id % 100 = 0");
    }
    fn content(&self, address: &str) -> String {
        self.maria.text(named(address))
    }
    fn nowhere(&self) -> String {
        self.maria.address("missing")
    }
}

#[test]
fn a_mariadb_database_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Database::new());
}

#[test]
fn a_mariadb_database_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Database::new());
}

#[test]
fn damage_in_the_repository_leaves_a_mariadb_target_as_it_was() {
    conformance::damage_reaches_no_target(&mut Database::new());
}

/// Backs up and returns what was said.
fn back_up(machine: &Machine, address: &str) -> String {
    let said = machine.run(&["backup", address]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    said.stdout + &said.stderr
}

/// Restores and returns what was said.
fn restore(machine: &Machine, arguments: &[&str]) -> String {
    let said = machine.run(&[&["restore"], arguments].concat());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    said.stdout + &said.stderr
}
