//! An archive of pg_dump reads the same in one piece and in small ones, or is refused in both.
#![no_main]

use lifeboat::source::postgres::archive::Archive;

fn read(bytes: &[u8], piece: usize) -> String {
    let mut archive = Archive::default();
    for piece in bytes.chunks(piece) {
        if let Err(error) = archive.push(piece) {
            return error.to_string();
        }
    }
    let blocks: Vec<_> = archive.entries().iter().map(|entry| archive.block(entry.id)).collect();
    format!("{:?} {blocks:?} {:?}", archive.entries(), archive.finish())
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert_eq!(read(bytes, bytes.len().max(1)), read(bytes, 7));
});
