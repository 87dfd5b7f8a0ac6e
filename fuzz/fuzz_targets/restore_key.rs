//! Any bytes as a key of a tree: no accepted key can name anything outside the target.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("restore_key", bytes));
