//! A socket of this machine that leads somewhere else as long as somebody keeps it open.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module. Clones share what keeps it open.
#[derive(Clone)]
pub struct Socket {
    path: PathBuf,
    _keeper: Arc<dyn Any + Send + Sync>,
}

impl Socket {
    /// `keeper`: what closes the way when it is dropped.
    pub fn new(path: PathBuf, keeper: Arc<dyn Any + Send + Sync>) -> Self {
        Self { path, _keeper: keeper }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder it lies in, by which some clients know it.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}
