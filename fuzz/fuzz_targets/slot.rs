//! Any bytes as a slot: decoded or refused, never opened at more cost than the format allows.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = lifeboat::seal::slot::Slot::decode(bytes);
});
