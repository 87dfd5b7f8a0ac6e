//! Which packs a read-data verify reads.

use std::collections::HashMap;

use crate::base::byte_size;
use crate::base::random::{self, Random};
use crate::format::id::ObjectHash;
use crate::repo::sync::ListedPack;

/// Part of all packs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subset {
    All,
    /// A random share, above 0 and at most 100.
    Percent(f64),
    /// The nth of `of` parts that together are everything: the same packs whenever it is asked again.
    Part {
        number: u64,
        of: u64,
    },
    /// Random packs of about this many bytes altogether.
    Bytes(u64),
}

impl Subset {
    /// `5%`, `2/7` or `2GiB`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().ok()?;
            return (percent > 0.0 && percent <= 100.0).then_some(Self::Percent(percent));
        }
        if let Some((number, of)) = text.split_once('/') {
            let (number, of) = (number.parse().ok()?, of.parse().ok()?);
            return (number >= 1 && number <= of).then_some(Self::Part { number, of });
        }
        byte_size::parse(text).ok().filter(|bytes| *bytes > 0).map(Self::Bytes)
    }

    /// The chosen packs, in the order they should be read.
    pub(super) fn choose(
        self,
        packs: &HashMap<ObjectHash, ListedPack>,
        random: &dyn Random,
    ) -> Vec<(ObjectHash, ListedPack)> {
        let mut all: Vec<_> = packs.iter().map(|(hash, pack)| (*hash, *pack)).collect();
        all.sort_by_key(|(hash, _)| *hash);
        let budget = match self {
            Self::All => return all,
            Self::Part { number, of } => {
                all.retain(|(hash, _)| prefix(hash) % of == number - 1);
                return all;
            }
            Self::Percent(percent) => {
                let total: u64 = all.iter().map(|(_, pack)| pack.size_bytes).sum();
                ((total as f64 * percent / 100.0).ceil() as u64).min(total)
            }
            Self::Bytes(bytes) => bytes,
        };
        // Other packs every time, so that a share a day comes past all of them in the end.
        let seed: [u8; 32] = random::array(random);
        all.sort_by_cached_key(|(hash, _)| *blake3::keyed_hash(&seed, hash.as_bytes()).as_bytes());
        let mut sum = 0u64;
        all.into_iter()
            .take_while(|(_, pack)| {
                let more = sum < budget;
                sum += pack.size_bytes;
                more
            })
            .collect()
    }
}

fn prefix(hash: &ObjectHash) -> u64 {
    let (head, _) = hash.0.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;
    use crate::format::header::ObjectKind;

    #[test]
    fn subsets_are_read_from_text() {
        let table = [
            ("5%", Some(Subset::Percent(5.0))),
            ("2.5%", Some(Subset::Percent(2.5))),
            ("3/7", Some(Subset::Part { number: 3, of: 7 })),
            ("2GiB", Some(Subset::Bytes(2 << 30))),
            ("0%", None),
            ("101%", None),
            ("NaN%", None),
            ("0/7", None),
            ("8/7", None),
            ("0", None),
            ("", None),
            ("x/y", None),
        ];
        for (text, expected) in table {
            assert_eq!(Subset::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn parts_together_are_everything_and_shares_are_near_their_size() {
        let listed = ListedPack { kind: ObjectKind::Data, size_bytes: 10 };
        let packs: HashMap<_, _> =
            (0..200u64).map(|n| (ObjectHash(*blake3::hash(&n.to_le_bytes()).as_bytes()), listed)).collect();
        let random = SeededRandom::new(1);
        let mut seen = std::collections::HashSet::new();
        for number in 1..=7 {
            for (hash, _) in (Subset::Part { number, of: 7 }).choose(&packs, &random) {
                assert!(seen.insert(hash));
            }
        }
        assert_eq!(seen.len(), 200);
        assert_eq!(Subset::Percent(10.0).choose(&packs, &random).len(), 20);
        assert_eq!(Subset::Bytes(95).choose(&packs, &random).len(), 10);
        assert_ne!(
            Subset::Percent(10.0).choose(&packs, &random),
            Subset::Percent(10.0).choose(&packs, &random)
        );
        assert_eq!(Subset::All.choose(&packs, &random).len(), 200);
    }
}
