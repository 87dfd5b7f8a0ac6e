//! Any bytes as a key of a tree: no accepted key can name anything outside the target.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if lifeboat::source::files::target::Target::check_key(bytes).is_ok() {
        for component in bytes.split(|byte| *byte == 0).filter(|_| !bytes.is_empty()) {
            assert!(
                !component.is_empty()
                    && component != b"."
                    && component != b".."
                    && !component.contains(&b'/')
            );
        }
    }
});
