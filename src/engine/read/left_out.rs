//! What a backup never looked at: its excludes, as the snapshot's facts record them, and all outside its paths.
//!
//! The backup writes them down ([`LeftOut`]), a restore with `--delete` obeys them ([`Untouched`]): what was never
//! considered is not missing from the snapshot, and nothing of it may be removed.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::EngineError;
use crate::format::manifest::{FACTS_LIMIT, Summary};
use crate::repo::tree::{is_within, key_of_path};
use crate::source::files::exclude::{ExcludeOptions, Excludes};
use crate::source::files::stat::Stat;
use crate::source::files::walk::WalkOptions;

use super::filter::slashed;

/// The facts' member.
const MEMBER: &str = "left_out";

/// What a backup of files was told to leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeftOut {
    #[serde(flatten)]
    pub exclude: ExcludeOptions,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub one_file_system: bool,
}

impl LeftOut {
    fn of(walk: &WalkOptions) -> Self {
        Self { exclude: walk.exclude.clone(), one_file_system: walk.one_file_system }
    }

    /// The facts of a backup that walked so.
    ///
    /// # Errors
    /// More patterns than a manifest holds.
    pub fn facts(walk: &WalkOptions) -> Result<Map<String, Value>, EngineError> {
        let left_out = Self::of(walk);
        if left_out == Self::default() {
            return Ok(Map::new());
        }
        let value = serde_json::to_value(left_out).map_err(|error| EngineError::Source(error.to_string()))?;
        // Half of the room: other facts stand beside them.
        if value.to_string().len() > FACTS_LIMIT / 2 {
            return Err(EngineError::Refused(
                "these are more exclude patterns than a snapshot can record".into(),
            ));
        }
        Ok(Map::from_iter([(MEMBER.to_owned(), value)]))
    }

    /// What a snapshot's backup left out.
    ///
    /// # Errors
    /// The facts say it in a way that this version does not know.
    pub fn recorded(summary: &Summary) -> Result<Self, EngineError> {
        let unknown = |_| {
            EngineError::Refused(
                "what the backup of this snapshot left out is recorded in a way that this version does not know"
                    .into(),
            )
        };
        let mut facts: serde_json::Value = serde_json::from_str(&summary.facts).map_err(unknown)?;
        match facts.get_mut(MEMBER) {
            None => Ok(Self::default()),
            Some(member) => serde_json::from_value(member.take()).map_err(unknown),
        }
    }
}

/// [`LeftOut`] and the paths of a backup, compiled: which paths are none of the snapshot's business.
#[derive(Debug)]
pub struct Untouched {
    roots: Vec<Vec<u8>>,
    excludes: Option<Excludes>,
    one_file_system: bool,
}

impl Untouched {
    /// `paths`: what the backup was of, from the snapshot's contents. Without `excludes` only what lies outside them
    /// counts.
    ///
    /// # Errors
    /// What was recorded cannot be understood.
    pub fn new(summary: &Summary, paths: &[Vec<u8>], excludes: bool) -> Result<Self, EngineError> {
        let roots = paths.iter().map(|path| key_of_path(path)).collect();
        let mut untouched = Self { roots, excludes: None, one_file_system: false };
        if excludes {
            let LeftOut { exclude, one_file_system } = LeftOut::recorded(summary)?;
            let is_set = exclude != ExcludeOptions::default();
            let compile = || Excludes::new(&exclude);
            untouched.excludes = is_set.then(compile).transpose().map_err(|error| {
                EngineError::Refused(format!("the snapshot's record of excludes: {error}"))
            })?;
            untouched.one_file_system = one_file_system;
        }
        Ok(untouched)
    }

    /// Whether everything at and below the paths counts.
    pub fn is_open(&self) -> bool {
        self.excludes.is_none() && !self.one_file_system
    }

    /// Whether `folder` only leads to the paths: what else is in it was never looked at.
    pub fn is_passage(&self, folder: &[u8]) -> bool {
        !self.roots.iter().any(|root| is_within(folder, root))
    }

    /// Whether a path would have been left out by itself.
    pub fn leaves_out(&self, original: &[u8], stat: &Stat) -> bool {
        self.excludes.as_ref().is_some_and(|excludes| {
            let too_large = stat.is_file() && excludes.too_large(stat.size_bytes);
            too_large || excludes.matches(&slashed(original), stat.is_directory())
        })
    }

    /// Whether a name in a folder may have emptied it. Its content is not looked at: rather too much is kept.
    pub fn is_marker(&self, name: &[u8]) -> bool {
        self.excludes.as_ref().is_some_and(|excludes| excludes.is_marker(name))
    }

    /// Whether other file systems were not entered.
    pub fn one_file_system(&self) -> bool {
        self.one_file_system
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_back() {
        let exclude = ExcludeOptions {
            patterns: vec!["*.log".into()],
            caches: true,
            larger_than_bytes: Some(7),
            ..ExcludeOptions::default()
        };
        let walk = WalkOptions { exclude: exclude.clone(), one_file_system: true, threads: 3 };
        let facts = LeftOut::facts(&walk).unwrap();
        let value = Value::Object(facts);
        assert_eq!(
            value,
            serde_json::json!({ "left_out": {
                "patterns": ["*.log"], "caches": true, "larger_than_bytes": 7, "one_file_system": true,
            }})
        );
        let read: LeftOut = serde_json::from_value(value["left_out"].clone()).unwrap();
        assert_eq!(read, LeftOut { exclude, one_file_system: true });
        assert!(LeftOut::facts(&WalkOptions::default()).unwrap().is_empty());
    }
}
