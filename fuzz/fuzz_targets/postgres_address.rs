//! An address that is accepted is shown as an address that reads as the same.
#![no_main]

use lifeboat::source::postgres::Address;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(address) = Address::parse(text) {
        let shown = address.shown();
        assert_eq!(Address::parse(&shown).expect("what is shown is an address").shown(), shown);
    }
});
