//! List: the entries of a snapshot, streamed in the order of their paths.

use super::EngineError;
use super::read::select::Selected;
use super::read::walk::TreeWalk;
use crate::base::cancel::Cancel;
use crate::format::entry::Entry;
use crate::repo::Repository;

/// What a listing could not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub entries: u64,
    /// Pages of the tree that cannot be read: what they held is missing from the listing.
    pub unreadable_pages: u64,
}

/// Takes one entry with its key.
pub type Visit<'v> = dyn FnMut(&[u8], &Entry) -> Result<(), EngineError> + Send + 'v;

/// Calls `visit` with everything below the selected path, or only with what is directly in it. A selected file is
/// visited itself; a selected folder only when `recursive`.
///
/// # Errors
/// Storage that does not answer, the visitor's own.
pub async fn list(
    repo: &Repository,
    selected: &Selected,
    recursive: bool,
    cancel: &Cancel,
    visit: &mut Visit<'_>,
) -> Result<Listing, EngineError> {
    let mut walk = TreeWalk::new(&repo.reader, selected.snapshot.domain, selected.root, &selected.key);
    let mut listing = Listing::default();
    loop {
        cancel.check()?;
        match walk.next().await {
            Ok(None) => return Ok(listing),
            Ok(Some((key, entry))) => {
                if key == selected.key && entry.is_directory() && !recursive {
                    continue;
                }
                if entry.is_directory() && !recursive {
                    walk.skip_below(&key);
                }
                listing.entries += 1;
                visit(&key, &entry)?;
            }
            Err(error) if error.is_damage() => listing.unreadable_pages += 1,
            Err(error) => return Err(error.into()),
        }
    }
}
