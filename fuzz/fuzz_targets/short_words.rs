//! Addresses of services and the small languages of the command line: accepted or refused.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("short_words", bytes));
