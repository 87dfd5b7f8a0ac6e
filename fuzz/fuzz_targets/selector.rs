//! Any text as a snapshot selector or a time.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = lifeboat::repo::snapshots::Selector::parse(text);
    let _ = lifeboat::engine::verify::subset::Subset::parse(text);
});
