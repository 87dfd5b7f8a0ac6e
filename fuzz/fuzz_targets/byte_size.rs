//! Any text as a size in bytes: read or refused, without overflow.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("byte_size", bytes));
