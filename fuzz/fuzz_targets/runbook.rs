//! A runbook is understood or refused; its steps lie in the document, and so does what the check says of it.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("runbook", bytes));
