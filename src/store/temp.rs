//! Level 2: temporary objects on services where a write is not atomic (SFTP, WebDAV): written under
//! [`FOLDER`], which no object name can reach, and renamed when whole.

use std::time::{SystemTime, UNIX_EPOCH};

/// Beside the repository's own folders; starts with a dot, as no object's name does.
pub(super) const FOLDER: &str = ".tmp";

/// After this long no write is still under way. Were a clock wrong, the live write would fail at its rename
/// and be repeated: a nuisance, not a loss.
const STALE_SECONDS: u64 = 7 * 24 * 3600;

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A new leaf below [`FOLDER`] that no other writer chooses.
pub(super) fn leaf() -> Result<String, getrandom::Error> {
    let random = getrandom::u64()?;
    Ok(format!("{}-{random:016x}", now_seconds()))
}

/// Whether this leaf was left by a run that died long ago.
pub(super) fn is_stale(leaf: &str) -> bool {
    let born = leaf.split_once('-').and_then(|(seconds, _)| seconds.parse::<u64>().ok());
    born.is_some_and(|born| born.saturating_add(STALE_SECONDS) < now_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_leaves_of_ours_are_stale() {
        assert!(!is_stale(&leaf().unwrap()));
        assert!(is_stale("1000000000-00ff"));
        for other in ["", "x", "1000000000", "-1-2", "99999999999-1"] {
            assert!(!is_stale(other), "{other}");
        }
    }
}
