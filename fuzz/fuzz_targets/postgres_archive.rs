//! An archive of pg_dump reads the same in one piece and in small ones, or is refused in both.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("postgres_archive", bytes));
