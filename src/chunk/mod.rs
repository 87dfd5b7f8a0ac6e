//! Level 2: cut a stream at its content, so that equal stretches make equal chunks wherever they stand.
//!
//! FastCDC (Xia et al., ATC 2016 and TPDS 2020) with normalisation level 1, over a gear table that is derived
//! from the domain's cut key: without the key the cut points of known content cannot be predicted. The table and
//! the masks are part of the format; golden vectors in the tests pin them.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};
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
    gear_shifted: Zeroizing<Vec<u64>>,
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
        let gear_shifted = Zeroizing::new(gear.iter().map(|value| value << 1).collect());
        let masks = select_masks(profile.nominal_bytes as usize, Normalization::Level1);
        Self { profile, masks, gear, gear_shifted }
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Length of the first chunk of `bytes`. When `bytes` is not the end of the stream it must hold at least
    /// [`Profile::max_bytes`], or the cut would depend on how the stream was read.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let (strict, relaxed) = self.masks;
        cut_gear(
            bytes,
            self.profile.min_bytes(),
            self.profile.nominal_bytes as usize,
            self.profile.max_bytes(),
            strict,
            relaxed,
            strict << 1,
            relaxed << 1,
            &self.gear,
            &self.gear_shifted,
        )
        .1
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
