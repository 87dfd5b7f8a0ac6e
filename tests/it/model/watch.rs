//! The model's invariants, watched at every step. Knows packs only by their own directories.

use std::collections::{HashMap, HashSet};

use lifeboat::format::header::ObjectKind;
use lifeboat::format::id::{ShortId, SnapshotId};
use tokio::time::Instant;

use crate::small::Reached;

/// What the invariants need to know.
#[derive(Debug, Default)]
pub struct Watch {
    /// Chunks of every pack that was ever put.
    pub packs: HashMap<String, HashSet<(ObjectKind, ShortId)>>,
    /// Packs that exist, whoever sees them.
    pub existing: HashSet<String>,
    /// Committed and not forgotten, with what they reach.
    pub committed: HashMap<SnapshotId, Reached>,
    pub ever_condemned: HashSet<String>,
    /// Standing sweeping tombstones: (client, when acknowledged, packs) by name.
    pub sweeps: HashMap<String, (usize, Option<Instant>, HashSet<String>)>,
    /// When each client last began to list snapshots.
    pub marks: HashMap<usize, Instant>,
    pub broken: Vec<String>,
}

impl Watch {
    fn located(&self, kind: ObjectKind, id: &ShortId) -> bool {
        self.packs.iter().any(|(name, chunks)| self.existing.contains(name) && chunks.contains(&(kind, *id)))
    }

    /// I1.
    pub fn check_chunks(&mut self, when: &str) {
        let mut lost = Vec::new();
        for (snapshot, reached) in &self.committed {
            for (kind, id) in reached.iter().filter(|(kind, id)| !self.located(*kind, id)) {
                lost.push(format!("I1 {when}: {snapshot} lost {kind:?} {id}"));
            }
        }
        self.broken.extend(lost);
    }
}
