//! The head of a bundle is found in one piece as in small ones, or is refused in both.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("git_bundle", bytes));
