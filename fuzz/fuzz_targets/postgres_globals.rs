//! A script of roles, whatever it holds, is taken apart into statements, none of them empty.
#![no_main]

use lifeboat::source::postgres::globals::parse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for statement in parse(bytes).0 {
        assert!(!statement.sql.trim().is_empty());
    }
});
