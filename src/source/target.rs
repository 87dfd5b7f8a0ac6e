//! Where the parts of a captured service go back to: the other half of [`super::capture`].
//!
//! A target shows the new state only in [`Target::finish`], as far as the service allows that; one that is dropped
//! before leaves what was there, or says in its documentation what it cannot undo.

use std::io::Read;

use super::capture::SourceError;

/// A part as a snapshot holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Absolute path in the snapshot.
    pub path: String,
    pub size_bytes: u64,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Returned {
    /// What was compared with the snapshot's facts, one line each, for people.
    pub proven: Vec<String>,
    /// What is not as it was: roles that exist already, rights that were not granted.
    pub warnings: Vec<String>,
    /// Facts of the restored service, for drills.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// A service that takes a snapshot's parts. Called from one thread at a time, never from the asynchronous
/// runtime's own.
pub trait Target: Send {
    /// Looks before anything is fetched: rights, versions, room, what is there already. Returns which parts it
    /// wants, by their place in `parts`, in the order it wants them.
    ///
    /// # Errors
    /// The restore cannot end well, or would destroy what nobody said may be destroyed.
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Vec<usize>, SourceError>;

    /// Takes one part. A read error of `content` means that the part is not whole and must not be shown.
    ///
    /// # Errors
    /// The service does not take it.
    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError>;

    /// Everything was put: shows and proves it.
    ///
    /// # Errors
    /// What came back is not what was captured.
    fn finish(self: Box<Self>) -> Result<Returned, SourceError>;
}
