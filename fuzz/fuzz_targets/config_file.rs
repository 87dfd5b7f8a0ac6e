//! A configuration file is understood or refused with a line of it; it is shown without secrets and is understood again.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("config_file", bytes));
