//! A state in a file, as the local backend keeps it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{Place, STATE_LIMIT_BYTES, TerraformError};
use crate::base::replace::{parent, replace};

/// How often a file that is being written is read again.
const TRIES: u32 = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// See the module.
pub struct FilePlace {
    path: PathBuf,
    stamp: String,
}

fn file(operation: &'static str, path: &Path) -> impl Fn(std::io::Error) -> TerraformError {
    move |cause| TerraformError::File { operation, path: path.to_owned(), cause }
}

impl FilePlace {
    /// `stamp` ends the name that a replaced state is kept under.
    pub fn new(path: PathBuf, stamp: String) -> Self {
        Self { path, stamp }
    }

    fn read_once(&self) -> Result<Option<Vec<u8>>, TerraformError> {
        let file_ = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(file("open", &self.path))?,
        };
        let mut bytes = Vec::new();
        file_.take(STATE_LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(file("read", &self.path))?;
        if bytes.len() as u64 > STATE_LIMIT_BYTES {
            return Err(TerraformError::Failed(format!(
                "{} is too large to be a state",
                self.path.display()
            )));
        }
        Ok(Some(bytes))
    }
}

impl Place for FilePlace {
    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&self) -> Result<Option<Vec<u8>>, TerraformError> {
        // Terraform writes its file in place: one that is being written is no state yet.
        let mut bytes = self.read_once()?;
        for _ in 0..TRIES {
            if bytes.as_ref().is_none_or(|bytes| super::State::parse(bytes).is_ok()) || self.lock()?.is_none()
            {
                break;
            }
            std::thread::sleep(PAUSE);
            bytes = self.read_once()?;
        }
        Ok(bytes)
    }

    fn lock(&self) -> Result<Option<String>, TerraformError> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let lock = self.path.with_file_name(format!(".{name}.lock.info"));
        let Ok(bytes) = std::fs::read(&lock) else { return Ok(None) };
        let said: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let word = |key: &str| said[key].as_str().unwrap_or("?").to_owned();
        Ok(Some(format!("{} by {}", word("Operation"), word("Who"))))
    }

    fn write(&self, state: &[u8], old: Option<&[u8]>) -> Result<Option<String>, TerraformError> {
        let folder = parent(&self.path);
        // Only its owner reads it: states hold passwords.
        let mut fresh = tempfile::Builder::new()
            .prefix(".lifeboat-")
            .tempfile_in(folder)
            .map_err(file("make a file in", folder))?;
        let write = fresh.write_all(state).and_then(|()| fresh.as_file().sync_all());
        write.map_err(file("write", fresh.path()))?;
        if old.is_some()
            && let Ok(was) = std::fs::metadata(&self.path)
        {
            let mode = std::fs::Permissions::from_mode(was.mode() & 0o7777);
            fresh.as_file().set_permissions(mode).map_err(file("set the mode of", &self.path))?;
            // Only root gives files away; whoever may not keeps his own.
            let _ = std::os::unix::fs::fchown(fresh.as_file(), Some(was.uid()), Some(was.gid()));
        }
        let fresh = fresh.into_temp_path().keep().map_err(|error| file("write", &self.path)(error.error))?;
        let kept = replace(&fresh, &self.path, &self.stamp).map_err(file("replace", &self.path))?;
        Ok(kept.map(|kept| kept.display().to_string()))
    }
}
