//! Any text as a storage address: what is accepted prints as something that is accepted again.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("location", bytes));
