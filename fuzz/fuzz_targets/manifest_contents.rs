//! Bytes → `manifest_contents` → the same bytes, or a refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lifeboat::format::parsers::is_canonical("manifest_contents", bytes).expect("one value has one encoding");
});
