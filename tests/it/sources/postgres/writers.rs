//! Captures while pgbench writes: what is restored is one moment, and exactly what was counted.

use std::process::Stdio;

use super::{back_up, restore};
use crate::cli::Machine;
use crate::services::postgres::shared;

#[test]
fn a_capture_beside_pgbench_is_of_one_moment() {
    for major in [15, 18] {
        let postgres = shared(major);
        let source = postgres.database();
        let said = postgres.tool("pgbench", &source).args(["-i", "-q", "-s", "2"]).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        // pgbench keeps no relation between its tables and their history but this one.
        let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)
                       AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers)
                       AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)";
        let mut writers = postgres.tool("pgbench", &source);
        let mut writers = writers
            .args(["-n", "-c", "3", "-T", "600"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while postgres.sql(&source, "SELECT count(*) FROM pgbench_history") == "0" {}
        let machine = Machine::with_repository();
        let mut rows = Vec::new();
        for _ in 0..2 {
            back_up(&machine, &postgres.address(&source));
            let target = postgres.vacant();
            let said = restore(&machine, "latest", &postgres.address(&target));
            assert!(said.contains("row hashes of 4 tables"), "{said}");
            assert_eq!(postgres.sql(&target, sums), "t", "{said}");
            rows.push(postgres.sql(&target, "SELECT count(*) FROM pgbench_history"));
        }
        assert_ne!(rows[0], rows[1], "they did write");
        writers.kill().unwrap();
        writers.wait().unwrap();
    }
}
