//! A database that came back wrong, in one way at a time: the drill says so and names what is wrong.

use super::{ends, replay};
use crate::cli::Machine;
use crate::services::postgres::Postgres;

/// What is done to a restored database, each to another part of it, and what the drill must say of that.
const SABOTAGE: [(&str, &[&str]); 6] = [
    (
        "psql -qc 'delete from orders where id = 250'",
        &["✗ rows           public.orders: 499 rows, expected 500 rows"],
    ),
    (
        "psql -qc \"update sizes set rate = 0.2 where rate = 0.1\"",
        &["✗ rows           public.sizes: 2 rows, but other values (their hash differs)"],
    ),
    (
        "psql -qc 'drop owned by reader; drop role reader'",
        &[
            "✗ roles          role reader: no such role",
            "role reader, right to select: on 0 objects, expected on 2 objects",
        ],
    ),
    (
        "psql -qtAc \"select setval('orders_id_seq', 3)\"",
        &["✗ sequences      sequence public.orders_id_seq: at 3, expected at 500 or further"],
    ),
    ("psql -qc 'drop extension citext'", &["✗ extensions     extension citext: not there, expected version"]),
    (
        "psql -qc 'drop index by_customer; alter table orders drop constraint positive;
         alter table orders add constraint positive check (cents > 0) not valid'",
        &[
            "✗ constraints    indexes: 3, expected 4",
            "constraint positive of public.orders: not valid, expected valid",
        ],
    ),
];

/// The same rows in a database that sorts them otherwise.
const OTHER_COLLATION: &str = "psql -qd postgres -c \"create database other template template0 lc_collate 'C' \
    lc_ctype 'C'\" && pg_dump shop | psql -qX other >/dev/null && dropdb shop && \
    psql -qd postgres -c 'alter database other rename to shop'";

const CHECKS: [&str; 12] = [
    "--check",
    "rows",
    "--check",
    "roles",
    "--check",
    "sequences",
    "--check",
    "extensions",
    "--check",
    "constraints",
    "--check",
    "locale",
];

fn shop() -> (Machine, Postgres) {
    let machine = Machine::with_repository();
    let source = Postgres::start(15, "");
    source.sql("postgres", "CREATE ROLE reader LOGIN; CREATE DATABASE shop");
    source.sql(
        "shop",
        "CREATE EXTENSION citext;
         CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, cents int,
             twice int GENERATED ALWAYS AS (cents * 2) STORED, CONSTRAINT positive CHECK (cents > 0));
         CREATE INDEX by_customer ON orders (customer);
         CREATE TABLE \"Größen\" (\"ä\" text, at timestamptz UNIQUE);
         CREATE TABLE sizes (id int PRIMARY KEY, rate float8);
         GRANT SELECT ON orders, \"Größen\" TO reader;
         INSERT INTO orders (customer, cents) SELECT 'c' || n, n * 7 FROM generate_series(1, 500) n;
         INSERT INTO \"Größen\" VALUES (E'tab\\tand\\nline', now()), (NULL, '2020-01-01');
         INSERT INTO sizes VALUES (1, 0.1), (2, 'NaN')",
    );
    let said = machine.run(&["backup", "--job", "shop", &source.address("shop")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    (machine, source)
}

#[test]
fn what_is_wrong_with_a_database_is_caught_and_named() {
    let (machine, _source) = shop();
    // Nothing was done to it: nothing is said.
    let healthy = [
        "✓ rows           3 tables, 504 rows equal; hashes equal",
        "✓ roles          2 roles",
        "✓ sequences      1 sequence ≥ max(id)",
        "✓ locale         encoding and collation as captured",
    ];
    ends(&machine, &CHECKS, 0, &healthy);
    // One after the other in one sandbox: each is told, none hides another.
    let steps: Vec<&str> = SABOTAGE.iter().flat_map(|(step, _)| ["--step", *step]).collect();
    let told: Vec<&str> = SABOTAGE.iter().flat_map(|(_, told)| *told).copied().collect();
    let said = ends(&machine, &[&steps[..], &CHECKS[..]].concat(), 20, &told);
    assert!(said.stdout.contains("✓ locale"), "{}", said.stdout);

    let told = [
        "✗ locale         collation (LC_COLLATE): C, expected C.UTF-8 (text sorts, compares and is unique by it)",
        "✓ rows           3 tables, 504 rows equal; hashes equal",
    ];
    ends(&machine, &[&["--step", OTHER_COLLATION], &CHECKS[..]].concat(), 20, &told);
}

#[test]
fn a_truncated_dump_is_data_that_is_wrong_and_an_empty_database_too() {
    let (machine, source) = shop();
    replay::damaged(&machine, "postgres", "cut", |path, mut bytes| {
        if path.contains("shop") {
            bytes.truncate(bytes.len() * 6 / 10);
        }
        bytes
    });
    ends(&machine, &["--snapshot", "cut@latest"], 20, &["DATA WRONG", "shop"]);

    // Another bit in it, where no structure is hurt.
    replay::damaged(&machine, "postgres", "bit", |_, mut bytes| {
        if let Some(at) = bytes.windows(5).position(|window| window == b"c250\t") {
            bytes[at + 1] = b'3';
        }
        bytes
    });
    ends(&machine, &["--snapshot", "bit@latest"], 20, &["DATA WRONG", "public.orders"]);

    source.sql("shop", "TRUNCATE orders, \"Größen\", sizes");
    let said = machine.run(&["backup", "--job", "shop", &source.address("shop")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let told = ["not empty", "shop: none, expected at least one of its rows", "DATA WRONG"];
    ends(&machine, &["--snapshot", "shop@latest"], 20, &told);
}
