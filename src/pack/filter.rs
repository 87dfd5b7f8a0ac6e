//! A blocked Bloom filter over the chunks of the local index: most chunks of a first backup are new, and asking
//! SQLite for each would cost more than hashing it (Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient
//! Bloom Filters", 2007).
//!
//! "No" is certain for what this process has seen; a false "no" for what another process added meanwhile only
//! stores a chunk twice.

/// Bits set per key, all within one 512-bit line.
const PROBES: u32 = 6;
const BITS_PER_KEY: usize = 12;

pub struct Filter {
    lines: Vec<[u64; 8]>,
    count: usize,
}

impl Filter {
    /// A filter good for about `capacity` keys at 12 bits each: 1–2 % false "maybe".
    pub fn with_capacity(capacity: usize) -> Self {
        let lines = (capacity.max(1 << 16) * BITS_PER_KEY).div_ceil(512);
        Self { lines: vec![[0; 8]; lines], count: 0 }
    }

    /// Whether more keys than it was made for are in it.
    pub fn is_full(&self) -> bool {
        self.count * BITS_PER_KEY > self.lines.len() * 512
    }

    fn line(&self, key: u64) -> usize {
        ((u128::from(key) * self.lines.len() as u128) >> 64) as usize
    }

    /// Keys are prefixes of keyed hashes: uniform already. The line takes the high bits, the probes a remix.
    fn probes(key: u64) -> impl Iterator<Item = (usize, u64)> {
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ key;
        (0..PROBES).map(move |n| {
            let bit = (mixed >> (n * 9)) & 511;
            ((bit >> 6) as usize, 1u64 << (bit & 63))
        })
    }

    pub fn insert(&mut self, key: u64) {
        let line = self.line(key);
        for (word, bit) in Self::probes(key) {
            self.lines[line][word] |= bit;
        }
        self.count += 1;
    }

    /// False: certainly not inserted.
    pub fn may_contain(&self, key: u64) -> bool {
        let line = &self.lines[self.line(key)];
        Self::probes(key).all(|(word, bit)| line[word] & bit != 0)
    }

    /// For the file beside the index.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.count as u64).to_le_bytes().to_vec();
        bytes.extend(self.lines.iter().flatten().flat_map(|word| word.to_le_bytes()));
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk::<8>()?;
        if rest.is_empty() || rest.len() % 64 != 0 {
            return None;
        }
        let words = rest.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let words: Vec<u64> = words.collect();
        Some(Self { lines: words.as_chunks::<8>().0.to_vec(), count: u64::from_le_bytes(*count) as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> u64 {
        u64::from_le_bytes(blake3::hash(&n.to_le_bytes()).as_bytes()[..8].try_into().unwrap())
    }

    #[test]
    fn never_denies_what_was_inserted_and_rarely_affirms_what_was_not() {
        let mut filter = Filter::with_capacity(100_000);
        (0..100_000).for_each(|n| filter.insert(key(n)));
        let filter = Filter::from_bytes(&filter.to_bytes()).unwrap();
        assert!((0..100_000).all(|n| filter.may_contain(key(n))));
        let wrong = (100_000..200_000).filter(|n| filter.may_contain(key(*n))).count();
        assert!(wrong < 3_000, "{wrong} of 100,000");
    }
}
