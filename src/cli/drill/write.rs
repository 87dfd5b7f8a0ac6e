//! Evidence and its views, written to the files that somebody named.

use std::path::Path;

use super::super::{CliError, Exit};
use crate::base::whole_file;
use crate::drill::evidence::SignedEvidence;

/// Evidence as a file holds it.
pub fn pretty(signed: &SignedEvidence) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(signed);
    text.map(|text| text + "\n").map_err(|error| CliError::new(Exit::Failed, error.to_string()))
}

/// Writes a report.
pub fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let written = whole_file::write(path, whole_file::ORDINARY, text.as_bytes());
    written.map_err(|error| CliError::new(Exit::Failed, format!("write {}: {error}", path.display())))
}

/// A job's summary is added to by every step.
pub fn append(path: &Path, text: &str) -> Result<(), CliError> {
    use std::io::Write as _;
    let mut file = std::fs::File::options().create(true).append(true).open(path);
    let written = file.as_mut().map_err(|error| std::io::Error::new(error.kind(), error.to_string()));
    written
        .and_then(|file| file.write_all(text.as_bytes()))
        .map_err(|error| CliError::new(Exit::Failed, format!("write {}: {error}", path.display())))
}
