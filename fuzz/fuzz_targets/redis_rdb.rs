//! Any bytes, in pieces of any size: the same counts or the same refusal as in one piece.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check("redis_rdb", bytes));
