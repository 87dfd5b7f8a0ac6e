//! Any bytes as a manifest: its keyring part or a refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = lifeboat::seal::object::manifest_keyring(bytes);
});
