//! Paths from snapshots, for people and for programs.

use std::ffi::OsString;

use serde::Serialize;

use super::text::shown;
use super::{CliError, Context};
use crate::engine::read::select::{Selected, SnapshotPath};
use crate::format::id::to_hex;
use crate::repo::Repository;
use crate::repo::snapshots::Filter;
use crate::repo::sync::Thoroughness;
use crate::repo::tree::path_of_key;

/// A path in JSON: readable always, and exact: where it is not UTF-8, `path` shows replacement characters and
/// `path_hex` has its bytes.
#[derive(Clone, Debug, Serialize)]
pub struct JsonPath {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
}

impl JsonPath {
    /// Of raw path bytes.
    pub fn new(path: &[u8]) -> Self {
        match std::str::from_utf8(path) {
            Ok(text) => Self { path: text.to_owned(), path_hex: None },
            Err(_) => Self { path: String::from_utf8_lossy(path).into_owned(), path_hex: Some(to_hex(path)) },
        }
    }

    /// Of the absolute path that a key stands for.
    pub fn of_key(key: &[u8]) -> Self {
        Self::new(&path_of_key(key))
    }
}

/// A key as one harmless line.
pub fn shown_key(key: &[u8]) -> String {
    shown(&path_of_key(key))
}

/// Opens the repository for a verb that reads, with an index that is up to date.
pub async fn open_to_read(context: &Context) -> Result<Repository, CliError> {
    let repo = context.open().await?;
    context.until_cancelled(async { Ok(repo.sync(Thoroughness::Tolerant).await?) }).await?;
    Ok(repo)
}

/// Finds what `SNAP[:PATH]` means.
pub async fn select(
    context: &Context,
    repo: &Repository,
    what: &OsString,
    filter: &Filter,
) -> Result<Selected, CliError> {
    let path = SnapshotPath::parse(what)?;
    let filter = Filter { machine: context.settings.hostname.clone(), ..filter.clone() };
    context.until_cancelled(async { Ok(path.select(repo, &filter).await?) }).await
}
