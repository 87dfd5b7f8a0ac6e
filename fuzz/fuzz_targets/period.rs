//! Any text as a retention period: what is accepted is the same period when it is printed and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(period) = text.parse::<lifeboat::policy::period::Period>() {
        let again = period.to_string().parse::<lifeboat::policy::period::Period>();
        assert_eq!(again.expect("what is printed can be read"), period);
    }
});
