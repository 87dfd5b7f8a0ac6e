//! Any bytes as a manifest: its keyring part or a refusal.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("manifest_parts", bytes));
