//! Any text as a retention period: what is accepted is the same period when it is printed and read again.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("period", bytes));
