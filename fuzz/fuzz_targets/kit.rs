//! A kit is read or refused; one that is read is written as one that reads as the same.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("kit", bytes));
