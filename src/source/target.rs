//! Where the parts of a captured service go back to: the other half of [`super::capture`].
//!
//! A target shows the new state only in [`Target::finish`], as far as the service allows that; one that is dropped
//! before leaves what was there, or says in its documentation what it cannot undo.

use std::io::Read;
use std::path::PathBuf;

use super::capture::SourceError;

/// A part as a snapshot holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Absolute path in the snapshot.
    pub path: String,
    pub size_bytes: u64,
}

/// A folder as a snapshot holds it: a captured volume, or any folder somebody selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTree {
    /// Absolute path in the snapshot; lossy where it is not UTF-8.
    pub path: String,
}

/// Where a target wants a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Nowhere,
    /// Into this folder of this machine, which is there and empty.
    Folder(PathBuf),
    /// As a tar stream for [`Target::put_tree`], whose first member is the folder itself.
    Tar,
}

/// What was put into a [`Place::Folder`]; every byte was read back and compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    pub files: u64,
    /// The folder itself is not counted.
    pub directories: u64,
    /// Links, FIFOs, sockets and devices.
    pub others: u64,
    pub bytes: u64,
}

/// What a target met when it looked, one line each, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// What gives way, and what becomes of it.
    pub replaced: Vec<String>,
    /// What stays beside what comes.
    pub kept: Vec<String>,
    /// What somebody should know before.
    pub warnings: Vec<String>,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Returned {
    /// What was compared with the snapshot's facts, one line each, for people.
    pub proven: Vec<String>,
    /// What somebody should know: roles that exist already, passwords to set anew.
    pub warnings: Vec<String>,
    /// What the snapshot holds and could not be made: the restore is partial.
    pub not_done: Vec<String>,
    /// Facts of the restored service, for drills.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl Returned {
    /// Adds the facts of databases that came back, under their engine's `key`: for each the name it has now, the one it has
    /// in the snapshot, and its rows by table.
    #[must_use]
    pub fn with_databases<'a>(
        mut self,
        key: &str,
        databases: impl Iterator<Item = (&'a str, &'a str, Vec<(&'a str, u64)>)>,
    ) -> Self {
        let facts = |(name, from, rows): (&str, &str, Vec<(&str, u64)>)| {
            let rows = rows.into_iter().map(|(table, rows)| (table.to_owned(), rows.into()));
            let rows = serde_json::Value::Object(rows.collect());
            (name.to_owned(), serde_json::json!({ "from": from, "rows": rows }))
        };
        let databases = serde_json::Value::Object(databases.map(facts).collect());
        self.facts.insert(key.to_owned(), serde_json::json!({ "databases": databases }));
        self
    }
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

    /// What follows is [`Self::prepare`] and nothing after it: a look, that changes nothing. Targets whose `prepare`
    /// leaves no trace once they are dropped leave this alone.
    fn only_looks(&mut self) {}

    /// Parts that belong to any selection of others, by their paths in the snapshot: told before [`Self::prepare`],
    /// they come along although somebody selected a path that leaves them out.
    fn companions(&self, _facts: &serde_json::Map<String, serde_json::Value>) -> Vec<String> {
        Vec::new()
    }

    /// What [`Self::prepare`] met. `None`: this target does not tell.
    fn met(&self) -> Option<Met> {
        None
    }

    /// The folders there are, told before [`Self::prepare`]. Targets that want none leave this and what follows
    /// from it alone.
    fn trees(&mut self, _trees: &[StoredTree]) {}

    /// Where a tree is to go; asked after all parts were put.
    ///
    /// # Errors
    /// The place cannot be made.
    fn place(&mut self, _tree: &StoredTree) -> Result<Place, SourceError> {
        Ok(Place::Nowhere)
    }

    /// Takes one tree as a tar stream. A read error means that it is not whole.
    ///
    /// # Errors
    /// The service does not take it.
    fn put_tree(&mut self, tree: &StoredTree, _tar: &mut dyn Read) -> Result<(), SourceError> {
        Err(SourceError::Refused(format!("{} is a folder, and none was wanted", tree.path)))
    }

    /// A tree is in the folder that was asked for, whole.
    ///
    /// # Errors
    /// It is not what it should be.
    fn placed(&mut self, _tree: &StoredTree, _placed: Placed) -> Result<(), SourceError> {
        Ok(())
    }

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
