//! An address that is accepted is shown as an address that reads as the same.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("mariadb_address", bytes));
