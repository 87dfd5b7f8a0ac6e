//! Bytes → `tree_page` → the same bytes, or a refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lifeboat::format::parsers::is_canonical("tree_page", bytes).expect("one value has one encoding");
});
