//! Bytes → `run` → the same bytes, or a refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lifeboat::format::parsers::is_canonical("run", bytes).expect("one value has one encoding");
});
