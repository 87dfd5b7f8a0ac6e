//! CRC-64 as RDB files and `DUMP` payloads end in (Jones' polynomial, reflected, start and end unchanged).
//!
//! Every byte that streams from a server passes here, so it is worth the processor's carry-less multiplication.

use crc_fast::{CrcAlgorithm, Digest};

/// The checksum of what `crc` is the checksum of, followed by `bytes`; of nothing it is 0.
pub fn update(crc: u64, bytes: &[u8]) -> u64 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64Redis, crc);
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value_comes_out_however_the_bytes_are_dealt() {
        // The value Redis' own source gives for this algorithm.
        assert_eq!(update(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let bytes: Vec<u8> = (0..1000_u32).map(|number| (number * 7 % 251) as u8).collect();
        let whole = update(0, &bytes);
        for cut in [0, 1, 15, 16, 17, 500, 999, 1000] {
            assert_eq!(update(update(0, &bytes[..cut]), &bytes[cut..]), whole);
        }
    }
}
