//! Any text as a storage address: what is accepted prints as something that is accepted again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(location) = text.parse::<lifeboat::store::Location>() {
        let shown = location.to_string();
        let again = shown.parse::<lifeboat::store::Location>().expect("what is printed can be read");
        assert_eq!(again.to_string(), shown);
    }
});
