//! Level 2: cut a stream at its content, so that equal stretches make equal chunks wherever they stand.
//!
//! FastCDC (Xia et al., ATC 2016 and TPDS 2020) with normalisation level 1, over a gear table that is derived
//! from the domain's cut key: without the key the cut points of known content cannot be predicted. The table and
//! the masks are part of the format; golden vectors in the tests pin them.

mod gear;

use fastcdc::v2020::{Normalization, select_masks};
use zeroize::Zeroizing;

/// How finely a stream is cut. Recorded in the snapshot, so that a job's boundaries keep matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Nominal chunk size: a power of two, in bytes. Chunks lie between a quarter and eight times of it.
    pub nominal_bytes: u32,
}

impl Profile {
    /// For folders: whole small files are one chunk anyway.
    pub const FILES: Self = Self { nominal_bytes: 64 << 10 };
    /// For dumps, where updates are scattered over rows much shorter than a chunk.
    pub const DATABASE: Self = Self { nominal_bytes: 8 << 10 };

    /// A profile with this nominal size; `None` unless it is a power of two from 1 KiB to 1 MiB.
    pub fn new(nominal_bytes: u32) -> Option<Self> {
        let valid = nominal_bytes.is_power_of_two() && (1 << 10..=1 << 20).contains(&nominal_bytes);
        valid.then_some(Self { nominal_bytes })
    }
    pub fn min_bytes(self) -> usize {
        self.nominal_bytes as usize / 4
    }
    pub fn max_bytes(self) -> usize {
        self.nominal_bytes as usize * 8
    }
}

/// Finds cut points. Holds no state between calls: the next cut depends only on the bytes from the last one on.
pub struct Cutter {
    profile: Profile,
    masks: (u64, u64),
    gear: Zeroizing<Vec<u64>>,
}

impl Cutter {
    /// A cutter whose table comes from `cut_key`.
    pub fn new(cut_key: &[u8; 32], profile: Profile) -> Self {
        let mut table = Zeroizing::new([0u8; 256 * 8]);
        let mut hasher = blake3::Hasher::new_keyed(cut_key);
        hasher.update(b"lifeboat v1 gear table");
        hasher.finalize_xof().fill(&mut table[..]);
        let gear: Zeroizing<Vec<u64>> =
            Zeroizing::new(table.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect());
        let masks = select_masks(profile.nominal_bytes as usize, Normalization::Level1);
        debug_assert!((masks.0 | masks.1) >> gear::MEMORY_BYTES == 0);
        Self { profile, masks, gear }
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Length of the first chunk of `bytes`. All of `bytes` means that no cut was found in them: unless they are
    /// the end of the stream or hold more than [`Profile::max_bytes`], the chunk may go on behind them.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let table: &gear::Table = self.gear.first_chunk().expect("made with 256 entries");
        let (strict, relaxed) = self.masks;
        let length = bytes.len().min(self.profile.max_bytes());
        let least = self.profile.min_bytes();
        if length <= least {
            return length;
        }
        // Positions are tried in pairs: of an odd length the last byte is none.
        let nominal = length.min(self.profile.nominal_bytes as usize) & !1;
        let mut hash = 0;
        let early = gear::scan(table, &bytes[least..nominal], strict, &mut hash).map(|at| least + at);
        let late =
            || gear::scan(table, &bytes[nominal..length & !1], relaxed, &mut hash).map(|at| nominal + at);
        early.or_else(late).unwrap_or(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"sample").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(cutter: &Cutter, mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !bytes.is_empty() {
            let length = cutter.cut(bytes);
            lengths.push(length);
            bytes = &bytes[length..];
        }
        lengths
    }

    /// Boundaries are format: if this fails, existing repositories would stop deduplicating.
    #[test]
    fn cut_points_are_golden() {
        let cutter = Cutter::new(&[7; 32], Profile::FILES);
        let lengths = cuts(&cutter, &sample(1 << 20));
        let digest = blake3::hash(format!("{lengths:?}").as_bytes());
        assert_eq!((lengths.len(), &digest.to_hex()[..16]), GOLDEN);
    }
    const GOLDEN: (usize, &str) = (13, "c6b6f0d57f737eca");

    /// The reference, byte after byte.
    fn reference(cutter: &Cutter, bytes: &[u8]) -> usize {
        let (profile, (strict, relaxed)) = (cutter.profile, cutter.masks);
        let shifted: Vec<u64> = cutter.gear.iter().map(|value| value << 1).collect();
        let (least, most) = (profile.min_bytes(), profile.max_bytes());
        let nominal = profile.nominal_bytes as usize;
        let (wide, loose) = (strict << 1, relaxed << 1);
        fastcdc::v2020::cut_gear(
            bytes,
            least,
            nominal,
            most,
            strict,
            relaxed,
            wide,
            loose,
            &cutter.gear,
            &shifted,
        )
        .1
    }

    #[test]
    fn lanes_cut_where_the_reference_does() {
        let bytes = sample(3 << 20);
        // Few different bytes make cuts rarer and lanes agree; many make them frequent.
        let coarse: Vec<u8> = bytes.iter().map(|byte| byte & 3).collect();
        for exponent in 10..=20 {
            let cutter = Cutter::new(&[exponent as u8; 32], Profile::new(1 << exponent).unwrap());
            for source in [&bytes, &coarse, &vec![0; 1 << 20]] {
                let mut at = 0;
                while at < source.len() {
                    let length = cutter.cut(&source[at..]);
                    assert_eq!(length, reference(&cutter, &source[at..]), "2^{exponent} at {at}");
                    // Ends anywhere: odd, inside a lane, before the nominal size.
                    for end in [at + length / 2, at + length + 1, at + length, at + length * 2 / 3] {
                        let part = &source[at..end.min(source.len())];
                        assert_eq!(cutter.cut(part), reference(&cutter, part), "2^{exponent} {at}..{end}");
                    }
                    at += length;
                }
            }
        }
    }

    #[test]
    fn other_keys_cut_elsewhere_and_edits_stay_local() {
        let bytes = sample(1 << 20);
        let cutter = Cutter::new(&[7; 32], Profile::DATABASE);
        let lengths = cuts(&cutter, &bytes);
        assert_ne!(lengths, cuts(&Cutter::new(&[8; 32], Profile::DATABASE), &bytes));
        assert!(lengths.iter().all(|length| *length <= Profile::DATABASE.max_bytes()));
        let mut edited = bytes.clone();
        edited.insert(500_000, 1);
        let after = cuts(&cutter, &edited);
        assert_eq!(lengths.last(), after.last(), "the cuts meet again after an insertion");
    }

    #[test]
    fn empty_and_tiny_input_is_one_cut() {
        let cutter = Cutter::new(&[7; 32], Profile::FILES);
        assert_eq!(cutter.cut(b"x"), 1);
        assert_eq!(cutter.cut(b""), 0);
    }
}
