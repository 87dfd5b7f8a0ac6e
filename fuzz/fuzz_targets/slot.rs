//! Any bytes as a slot: decoded or refused, never opened at more cost than the format allows.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("slot", bytes));
