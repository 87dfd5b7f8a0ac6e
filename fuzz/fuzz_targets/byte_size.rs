//! Any text as a size in bytes: read or refused, without overflow.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = lifeboat::base::byte_size::parse(text);
});
