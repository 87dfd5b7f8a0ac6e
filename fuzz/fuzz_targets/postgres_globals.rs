//! A script of roles, whatever it holds, is taken apart into statements, none of them empty.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("postgres_globals", bytes));
