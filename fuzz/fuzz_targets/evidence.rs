//! Evidence of a drill is read or refused, and nobody signed what fuzzing made up.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("evidence", bytes));
