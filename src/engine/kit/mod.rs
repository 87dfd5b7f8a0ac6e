//! `kit`: the recovery kit as a file, a page to print, and the proof that it works.

mod page;
mod prove;

use std::io::Read;
use std::path::Path;

pub use page::{codes, page};
pub use prove::{Keys, Proof, prove};

use super::EngineError;
use crate::base::whole_file;
use crate::repo::Repository;
use crate::repo::kit::{Extras, Kit, KitError, LIMIT_BYTES};

fn local(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = path.display().to_string();
    move |cause| EngineError::Local { operation, path, cause }
}

/// Writes a new file that only its owner may read; one that exists is left alone and is an error.
///
/// # Errors
/// It exists or cannot be written, and then there is no file.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    whole_file::make_new(path, whole_file::PRIVATE, bytes).map_err(local("write", path))
}

/// Whether a file of this name gets the page to print.
pub fn is_page(path: &Path) -> bool {
    path.extension()
        .is_some_and(|suffix| suffix.eq_ignore_ascii_case("html") || suffix.eq_ignore_ascii_case("htm"))
}

/// What makes a kit old, in words: `after every …`.
pub const OUTDATED_BY: &str = "key add, key remove, key passwd, key rotate and key revoke, and when the configuration file \
                               changes";

/// Collects the kit and writes it to a new file: the page to print if it is named so, else the text. Either is a kit.
///
/// # Errors
/// The repository cannot be read, or the file exists or cannot be written.
pub async fn export(repo: &Repository, path: &Path, extras: Extras) -> Result<Kit, EngineError> {
    let kit = Kit::collect(repo, extras).await?;
    let text = if is_page(path) { page(&kit)? } else { kit.encode() };
    // Before it is relied on.
    if Kit::decode(&text).map_err(|error| EngineError::Source(error.to_string()))? != kit {
        return Err(EngineError::Source("the recovery kit does not read back as it was made".into()));
    }
    write_private(path, text.as_bytes())?;
    Ok(kit)
}

/// Reads a kit: its text, its page, or the lines that scanned codes gave.
///
/// # Errors
/// It cannot be read, or is no kit.
pub fn load(path: &Path) -> Result<Kit, EngineError> {
    let file = std::fs::File::open(path).map_err(local("open", path))?;
    let mut bytes = Vec::new();
    file.take(LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(local("read", path))?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(EngineError::Refused(format!("{} is longer than any recovery kit", path.display())));
    }
    // What is not text is no kit's: its lines decide.
    let text = String::from_utf8_lossy(&bytes);
    Kit::decode(&text).map_err(|error| {
        let is_page = text.trim_start().get(..9).is_some_and(|head| head.eq_ignore_ascii_case("<!doctype"));
        let why = match error {
            KitError::NotAKit if is_page => {
                "it is a page without a kit in it: cut off, or another page".to_owned()
            }
            error => error.to_string(),
        };
        EngineError::Refused(format!("{}: {why}", path.display()))
    })
}
