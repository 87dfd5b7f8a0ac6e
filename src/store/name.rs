//! Level 2: which object names exist at all. The one gate between a caller's string and a path or URL.

use super::{StoreError, StoreErrorKind};

/// The longest whole name, in bytes; every service allows at least 1024 including the prefix.
const MAX_NAME_BYTES: usize = 512;
const MAX_PART_BYTES: usize = 255;

fn valid_part(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= MAX_PART_BYTES
        && !part.starts_with('.')
        && part
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

/// Whether `name` can be an object: see [`super::Store`] for the grammar.
pub(super) fn is_valid(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES && name.split('/').all(valid_part)
}

/// The full name of `leaf` in `folder`, or `None` when such an object cannot be ours: a listing skips
/// temporary files and whatever else people put beside a repository.
pub(super) fn join(folder: &str, leaf: &str) -> Option<String> {
    if !valid_part(leaf) {
        return None;
    }
    Some(if folder.is_empty() { leaf.to_owned() } else { format!("{folder}/{leaf}") })
}

/// Refuses a name outside the grammar.
pub(super) fn check(operation: &'static str, name: &str, location: &str) -> Result<(), StoreError> {
    if is_valid(name) {
        return Ok(());
    }
    let cause = "an object name is parts of a-z 0-9 - _ . joined by '/', none starting with a dot";
    Err(StoreError::new(StoreErrorKind::Config, operation, name, location, cause))
}

/// Refuses a folder outside the grammar; the empty folder is the repository's root.
pub(super) fn check_folder(folder: &str, location: &str) -> Result<(), StoreError> {
    if folder.is_empty() { Ok(()) } else { check("list", folder, location) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_repository_or_hide_are_refused() {
        for good in ["config", "data/00ff", "runs/ab-c_d/0", "a.b/c"] {
            assert!(is_valid(good), "{good}");
        }
        let long = "a".repeat(256);
        let deep = "a/".repeat(300) + "a";
        for bad in [
            "", "/", "/a", "a/", "a//b", "..", "a/../b", ".tmp-1", "a/.x", "A", "a b", "a\0b", "ä", "a\\b",
            "a:b",
        ] {
            assert!(!is_valid(bad), "{bad:?}");
        }
        assert!(!is_valid(&long) && !is_valid(&deep));
    }
}
