//! Any bytes, in pieces of any size: the same counts or the same refusal as in one piece.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lifeboat::source::redis::rdb::reads_alike(bytes);
});
