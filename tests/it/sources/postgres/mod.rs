//! PostgreSQL: captured in one moment while others write, given back proven.

mod content;
mod failing;
mod swap;
mod vacant;
mod views;
mod writers;

use super::conformance::{self, Subject};
use crate::cli::Machine;
use crate::services::postgres::{Postgres, shared};

struct Database {
    postgres: &'static Postgres,
    name: String,
}

impl Database {
    fn new(major: u32) -> Self {
        let postgres = shared(major);
        Self { postgres, name: postgres.database() }
    }
}

/// The database an address names.
fn named(address: &str) -> &str {
    address.rsplit('/').next().unwrap().split('?').next().unwrap()
}

impl Subject for Database {
    fn address(&self) -> String {
        self.postgres.address(&self.name)
    }
    fn vacant(&mut self) -> String {
        self.postgres.address(&self.postgres.vacant())
    }
    fn fill(&mut self) {
        self.postgres.sql(
            &self.name,
            "CREATE TABLE \"odd \"\" name\" (id serial PRIMARY KEY, body text, at timestamptz, amount float8);
             INSERT INTO \"odd \"\" name\" (body, at, amount)
                 SELECT CASE WHEN i % 7 = 0 THEN NULL ELSE E'tab\\t, newline\\n, back\\\\slash ' || i END,
                 '2026-01-01'::timestamptz + i * interval '1 hour', i / 3.0 FROM generate_series(1, 20000) i;
             CREATE TABLE empty ();
             INSERT INTO empty DEFAULT VALUES;
             CREATE TABLE one (text text);
             INSERT INTO one VALUES (''), (NULL), ('\\.'), ('.');
             CREATE INDEX ON \"odd \"\" name\" (body);",
        );
    }
    fn change(&mut self) {
        self.postgres.sql(&self.name, "DELETE FROM \"odd \"\" name\" WHERE id % 100 = 0");
    }
    fn content(&self, address: &str) -> String {
        self.postgres.text(named(address))
    }
    fn nowhere(&self) -> String {
        self.postgres.address("missing")
    }
}

#[test]
fn a_postgres_database_is_captured_and_given_back() {
    for major in [15, 16, 18] {
        conformance::captured_and_given_back(&mut Database::new(major));
    }
}

#[test]
fn a_postgres_database_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Database::new(15));
}

#[test]
fn damage_in_the_repository_leaves_a_postgres_target_as_it_was() {
    conformance::damage_reaches_no_target(&mut Database::new(15));
}

/// Backs up and returns what was said.
fn back_up(machine: &Machine, address: &str) -> String {
    let said = machine.run(&["backup", address]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    said.stdout + &said.stderr
}

/// Restores and returns what was said.
fn restore(machine: &Machine, what: &str, address: &str) -> String {
    let said = machine.run(&["restore", what, "--to", address]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    said.stdout + &said.stderr
}
