//! Bytes → `parity_table` → the same bytes, or a refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lifeboat::format::parsers::is_canonical("parity_table", bytes).expect("one value has one encoding");
});
