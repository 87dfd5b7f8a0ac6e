//! A folder, for files.

use std::path::{Path, PathBuf};

use super::{Sandbox, SandboxError, close};

pub struct Directory {
    folder: tempfile::TempDir,
    /// Restored files are below the sandbox's own folder, whose mode and owner stay ours.
    target: PathBuf,
}

impl Directory {
    pub fn new(folder: tempfile::TempDir) -> Result<Self, SandboxError> {
        let target = folder.path().join("restored");
        std::fs::create_dir(&target).map_err(|cause| SandboxError::File {
            operation: "make",
            path: target.clone(),
            cause,
        })?;
        Ok(Self { folder, target })
    }
}

impl Sandbox for Directory {
    fn path(&self) -> Option<&Path> {
        Some(&self.target)
    }
    fn address(&self) -> Option<String> {
        None
    }
    fn describe(&self) -> String {
        "directory, empty, readable only by this user".into()
    }
    fn sql(&mut self, _: &str) -> Result<Option<String>, SandboxError> {
        Err(SandboxError::Query("a folder of files answers no SQL".into()))
    }
    fn not_tested(&self) -> Vec<String> {
        vec!["the applications that use these files".into()]
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        close(self.folder)
    }
}
