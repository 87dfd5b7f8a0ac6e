//! `kit`: the recovery kit as a file.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::EngineError;
use crate::repo::Repository;
use crate::repo::kit::{Kit, LIMIT_BYTES};

fn local(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = path.display().to_string();
    move |cause| EngineError::Local { operation, path, cause }
}

/// Writes a new file that only its owner may read; one that exists is left alone and is an error.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(path).map_err(local("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(local("write", path))
}

/// Collects the kit and writes it to a new file. `replicas`: further addresses to put into it.
pub async fn export(repo: &Repository, path: &Path, replicas: &[String]) -> Result<Kit, EngineError> {
    let addresses = std::iter::once(repo.store.location()).chain(replicas.iter().cloned()).collect();
    let kit = Kit::collect(repo, addresses).await?;
    write_private(path, kit.encode().as_bytes())?;
    Ok(kit)
}

/// Reads a kit.
pub fn load(path: &Path) -> Result<Kit, EngineError> {
    let file = std::fs::File::open(path).map_err(local("open", path))?;
    let mut text = String::new();
    file.take(LIMIT_BYTES + 1).read_to_string(&mut text).map_err(local("read", path))?;
    if text.len() as u64 > LIMIT_BYTES {
        return Err(EngineError::Refused(format!("{} is longer than any recovery kit", path.display())));
    }
    Kit::decode(&text).map_err(|error| EngineError::Refused(format!("{}: {error}", path.display())))
}
