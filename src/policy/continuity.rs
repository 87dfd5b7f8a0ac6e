//! Nothing disappears silently: what a run of a job gave, against what the runs before gave.
//!
//! A disk that is not mounted, a database somebody dropped, a dump that was cut short: each looks like a backup
//! that went well and was quick. So what was there last time and is not there now is a failure until somebody
//! says that it is meant.

use std::collections::BTreeMap;

/// What one part or root gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Amount {
    /// Files, folders and the like; 1 for a stream.
    pub entries: u64,
    pub bytes: u64,
}

impl Amount {
    /// A folder is an entry itself.
    fn is_empty(self) -> bool {
        self.entries <= 1 && self.bytes == 0
    }
}

/// What a run gave, by the path of each part or root.
pub type Yield = BTreeMap<String, Amount>;

/// Why a run may not be what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A part of the run before is not there.
    Missing { path: String },
    /// A part that held something is empty.
    Emptied { path: String, before: Amount },
    /// Far less than usual, in all.
    Shrunk { bytes: u64, median_bytes: u64 },
}

impl Doubt {
    /// Whether the run fails unless it was accepted. A smaller one only holds retention back.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Shrunk { .. })
    }
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let human = crate::base::byte_size::human;
        match self {
            Self::Missing { path } => write!(f, "{path} was there last time and is gone"),
            Self::Emptied { path, before } => write!(
                f,
                "{path} is empty; last time it held {} entries, {}",
                before.entries,
                human(before.bytes)
            ),
            Self::Shrunk { bytes, median_bytes } => write!(
                f,
                "{} in all is under half of what this job usually gives ({})",
                human(*bytes),
                human(*median_bytes)
            ),
        }
    }
}

/// Runs whose median a new one is compared with.
pub const MEDIAN_OF: usize = 7;
/// Fewer runs make no median.
const MEDIAN_FROM: usize = 3;
/// Below this a job may shrink as it likes.
const SMALL_BYTES: u64 = 1 << 20;

/// Compares. `before`: newest first, at least [`MEDIAN_OF`] where there are as many; the newest is what parts are
/// looked for in.
pub fn doubts(before: &[Yield], now: &Yield) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    for (path, amount) in before.first().into_iter().flatten() {
        match now.get(path) {
            None => doubts.push(Doubt::Missing { path: path.clone() }),
            Some(present) if present.is_empty() && !amount.is_empty() => {
                doubts.push(Doubt::Emptied { path: path.clone(), before: *amount });
            }
            Some(_) => {}
        }
    }
    let total = |given: &Yield| given.values().map(|amount| amount.bytes).sum::<u64>();
    let mut sizes: Vec<u64> = before.iter().take(MEDIAN_OF).map(total).collect();
    sizes.sort_unstable();
    if let Some(&median_bytes) = sizes.get(sizes.len() / 2).filter(|_| sizes.len() >= MEDIAN_FROM) {
        let bytes = total(now);
        if median_bytes >= SMALL_BYTES && bytes < median_bytes / 2 {
            doubts.push(Doubt::Shrunk { bytes, median_bytes });
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(parts: &[(&str, u64, u64)]) -> Yield {
        let amount =
            |&(path, entries, bytes): &(&str, u64, u64)| (path.to_owned(), Amount { entries, bytes });
        parts.iter().map(amount).collect()
    }

    #[test]
    fn a_first_run_and_one_like_it_raise_no_doubt() {
        let now = given(&[("/a", 10, 100), ("/empty", 1, 0)]);
        assert_eq!(doubts(&[], &now), []);
        assert_eq!(doubts(std::slice::from_ref(&now), &now), []);
        assert_eq!(
            doubts(std::slice::from_ref(&now), &given(&[("/a", 9, 1), ("/empty", 1, 0), ("/b", 1, 1)])),
            []
        );
    }

    #[test]
    fn what_is_gone_or_empty_is_a_failure() {
        let before = given(&[("/a", 10, 100), ("/b", 1, 7), ("/links", 5, 0)]);
        let found = doubts(&[before], &given(&[("/a", 1, 0), ("/links", 1, 0)]));
        let path = |path: &str| path.to_owned();
        let amount = |entries, bytes| Amount { entries, bytes };
        assert_eq!(
            found,
            [
                Doubt::Emptied { path: path("/a"), before: amount(10, 100) },
                Doubt::Missing { path: path("/b") },
                Doubt::Emptied { path: path("/links"), before: amount(5, 0) },
            ]
        );
        assert!(found.iter().all(Doubt::is_failure));
    }

    #[test]
    fn far_less_than_the_median_is_doubted_from_the_third_run_on() {
        let of = |megabytes: u64| given(&[("/dump", 1, megabytes << 20)]);
        assert_eq!(doubts(&[of(100), of(100)], &of(10)), []);
        let before = [of(1), of(100), of(110), of(90)];
        let shrunk = Doubt::Shrunk { bytes: 10 << 20, median_bytes: 100 << 20 };
        assert_eq!(doubts(&before, &of(10)), std::slice::from_ref(&shrunk));
        assert!(!shrunk.is_failure());
        assert_eq!(doubts(&before, &of(50)), []);
        // Tiny jobs vary as they like.
        let tiny = |bytes| given(&[("/dump", 1, bytes)]);
        assert_eq!(doubts(&[tiny(1000), tiny(1000), tiny(1000)], &tiny(10)), []);
    }
}
