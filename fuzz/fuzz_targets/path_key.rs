//! Any path → key → path → the same key.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    use lifeboat::repo::tree::{key_of_path, path_of_key};
    if bytes.contains(&0) {
        return;
    }
    let key = key_of_path(bytes);
    assert_eq!(key_of_path(&path_of_key(&key)), key);
});
