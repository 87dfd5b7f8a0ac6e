//! What a run gave, by root, and what that says beside the runs before: see [`crate::policy::continuity`].

use serde_json::{Map, Value};

use super::BackupOptions;
use crate::base::causes::causes;
use crate::engine::EngineError;
use crate::policy::continuity::{Amount, Doubt, MEDIAN_OF, Yield, doubts};
use crate::repo::snapshots::{Filter, SnapshotList};
use crate::repo::tree::{is_within, path_of_key};

/// Fact of a snapshot: what it gave.
const GIVEN: &str = "given";
/// Fact of a snapshot that is not what its job usually gives; retention does not count on it.
pub const DOUBTS: &str = "doubts";

/// Counts entries and bytes below each root; without roots each step of a capture is one.
#[derive(Debug, Default)]
pub struct Given {
    /// Sorted.
    roots: Vec<(Vec<u8>, Amount)>,
    are_steps: bool,
}

impl Given {
    /// Of folders and files with these keys.
    pub fn below(mut keys: Vec<Vec<u8>>) -> Self {
        keys.sort();
        keys.dedup();
        Self { roots: keys.into_iter().map(|key| (key, Amount::default())).collect(), are_steps: false }
    }

    /// Of a capture's steps: each stream, and each tree whose top comes first.
    pub fn steps() -> Self {
        Self { roots: Vec::new(), are_steps: true }
    }

    /// An entry was stored.
    pub fn add(&mut self, key: &[u8], bytes: u64) {
        if self.are_steps {
            match self.roots.last_mut().filter(|(root, _)| is_within(key, root)) {
                Some((_, amount)) => {
                    amount.entries += 1;
                    amount.bytes += bytes;
                }
                None => self.roots.push((key.to_vec(), Amount { entries: 1, bytes })),
            }
            return;
        }
        let behind = self.roots.partition_point(|(root, _)| root.as_slice() <= key);
        // Roots may lie inside each other: the innermost counts.
        let found = self.roots[..behind].iter_mut().rev().find(|(root, _)| is_within(key, root));
        if let Some((_, amount)) = found {
            amount.entries += 1;
            amount.bytes += bytes;
        }
    }

    /// By path.
    pub fn finish(self) -> Yield {
        let path = |key: &[u8]| String::from_utf8_lossy(&path_of_key(key)).into_owned();
        self.roots.into_iter().map(|(key, amount)| (path(&key), amount)).collect()
    }
}

/// Compares what was given with the job's runs before. Adds the facts, and returns what somebody should know.
///
/// # Errors
/// Something is gone or empty that was not, and nobody accepted that.
pub fn judge(
    given: &Yield,
    known: &SnapshotList,
    options: &BackupOptions,
    facts: &mut Map<String, Value>,
) -> Result<Vec<String>, EngineError> {
    let filter =
        Filter { jobs: vec![options.job.clone()], hosts: vec![options.host.clone()], ..Filter::default() };
    let before: Vec<Yield> = known.matching(&filter).rev().filter_map(yield_of).take(MEDIAN_OF).collect();
    let found = doubts(&before, given);
    let value = serde_json::to_value(given).map_err(|error| EngineError::Source(causes(&error)))?;
    facts.insert(GIVEN.into(), value);
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let said: Vec<String> = found.iter().map(Doubt::to_string).collect();
    if let Some(reason) = &options.accepted {
        facts.insert("accepted".into(), serde_json::json!({ "reason": reason, "what": said }));
        return Ok(Vec::new());
    }
    if found.iter().any(Doubt::is_failure) {
        let (job, said) = (&options.job, said.join("; "));
        let job = job.replace('\'', "'\\''");
        return Err(EngineError::Source(format!(
            "no snapshot was made: {said}\nhint: if that is meant: lifeboat job accept '{job}' --reason WHY, and \
             back up again"
        )));
    }
    facts.insert(DOUBTS.into(), said.clone().into());
    Ok(said)
}

/// What a snapshot said it gave; `None` if it said nothing, as those that were made otherwise.
fn yield_of(snapshot: &crate::repo::snapshots::Snapshot) -> Option<Yield> {
    let mut facts: Value = serde_json::from_str(&snapshot.summary.facts).ok()?;
    serde_json::from_value(facts.get_mut(GIVEN)?.take()).ok()
}
