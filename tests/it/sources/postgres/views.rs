//! Materialized views: no archive carries what they hold, so it is counted at the capture and held against what is
//! computed anew.

use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::postgres::shared;

#[test]
fn what_materialized_views_hold_is_proven_where_it_can_be() {
    for major in [15, 16, 18] {
        let postgres = shared(major);
        let source = postgres.database();
        postgres.sql(
            &source,
            "CREATE TABLE orders AS SELECT i AS id, i % 7 AS shop, i / 3.0::float8 AS cents FROM generate_series(1, 700) i;
             CREATE MATERIALIZED VIEW \"per Schöp\" AS SELECT shop, count(*), sum(cents) AS \"sum\" FROM orders GROUP BY shop;
             CREATE MATERIALIZED VIEW of_view AS SELECT max(count) FROM \"per Schöp\";
             CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA",
        );
        let machine = Machine::with_repository();
        back_up(&machine, &postgres.address(&source));
        let said = restore(&machine, "latest", &postgres.address(&postgres.vacant()));
        assert!(
            said.contains("2 materialized views, computed anew, hold what was captured (8 rows)"),
            "{said}"
        );
        assert!(!said.contains("warning"), "{said}");
        if major != 15 {
            continue;
        }
        // Rows that were in the view alone do not come back, and that is said.
        postgres.sql(&source, "DELETE FROM orders WHERE shop = 3; REFRESH MATERIALIZED VIEW of_view");
        back_up(&machine, &postgres.address(&source));
        let said = restore(&machine, "latest", &postgres.address(&postgres.vacant()));
        assert!(
            said.contains("1 materialized view, computed anew, holds what was captured (1 row)"),
            "{said}"
        );
        let stale = "materialized view public.\"per Schöp\" holds 6 rows, and held 7 when it was captured";
        assert!(said.contains(stale) && said.contains("warning: "), "{said}");
        let said = machine.run(&["drill", "run", "views", "--snapshot", "latest", "--check", "rows"]);
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains(stale), "{}", said.stdout);
    }
}

/// A view that cannot be read is no reason for a backup to fail.
#[test]
fn a_view_that_cannot_be_read_is_told_and_the_rest_is_captured() {
    let postgres = shared(15);
    let source = postgres.database();
    postgres.sql(
        &source,
        "CREATE TABLE t AS SELECT 1 AS one; CREATE MATERIALIZED VIEW a AS SELECT * FROM t;
         CREATE MATERIALIZED VIEW b AS SELECT * FROM t; CREATE SCHEMA s; CREATE MATERIALIZED VIEW s.c AS SELECT 2 AS two",
    );
    let weak = format!("weak_{source}");
    postgres.sql(&source, &format!("CREATE ROLE {weak} LOGIN; GRANT SELECT ON t, b TO {weak}; GRANT USAGE ON SCHEMA s TO {weak}; GRANT SELECT ON s.c TO {weak}"));
    let machine = Machine::with_repository();
    back_up(&machine, &postgres.address(&source).replace("postgres@", &format!("{weak}@")));
    let said = restore(&machine, "latest", &postgres.address(&postgres.vacant()));
    assert!(said.contains("2 materialized views, computed anew"), "{said}");
    assert!(said.contains("not provable: public.a: materialized view that could not be read"), "{said}");
    // Of a part of the database none is read; one that is not in it is not missed.
    let machine = Machine::with_repository();
    back_up(&machine, &format!("{}?schema=s", postgres.address(&source)));
    let said = restore(&machine, "latest", &postgres.address(&postgres.vacant()));
    assert!(said.contains("not provable: s.c: materialized view, whose rows were not read"), "{said}");
    assert!(!said.contains("public.a"), "{said}");
}
