//! A password or key file that is being made: what `init`, `key add` and `key passwd` ask for.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{CliError, Exit, prompt};
use crate::base::{random, whole_file};
use crate::config::{Found, Password, PasswordSource, read_key_file};
use crate::format::id::to_hex;
use crate::format::keyring::Key;
use crate::seal::slot::Unlock;

/// Flags that say where the new secret comes from.
#[derive(Debug, Default, clap::Args)]
pub struct NewSecretArgs {
    /// File whose content is the new password
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Key file instead of a password; made if it does not exist
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_file")]
    new_key_file: Option<PathBuf>,
}

impl NewSecretArgs {
    /// Reads it, makes it, or asks for it twice.
    pub fn read(&self, question: &str) -> Result<Password, CliError> {
        if let Some(path) = &self.new_key_file {
            let key = if path.exists() { read_key_file(path)? } else { make_key_file(path)? };
            return Ok(Unlock::KeyFile(key));
        }
        match &self.new_password_file {
            Some(path) => read_password_file(path, "--new-password-file"),
            None => prompt::new_password(question).map_err(|error| match error.exit {
                Exit::Usage if error.hint.is_some() => {
                    let hint =
                        "give the new password with --new-password-file, or a key file with --new-key-file";
                    CliError { hint: Some(hint.to_owned()), ..error }
                }
                _ => error,
            }),
        }
    }
}

/// The password in a file.
pub fn read_password_file(path: &Path, flag: &'static str) -> Result<Password, CliError> {
    let found = Found::flag(PasswordSource::File(path.to_owned()), flag);
    found.read()?.ok_or_else(|| CliError::usage(format!("{flag} gives no password")))
}

/// Makes a key file: 32 random bytes as hex, for its owner's eyes only. One that exists is never touched.
pub fn make_key_file(path: &Path) -> Result<Key, CliError> {
    let key = Key(random::array(&random::SystemRandom));
    let line = Zeroizing::new(to_hex(&key.0) + "\n");
    // Durable before anything is sealed with it.
    match whole_file::make_new(path, whole_file::PRIVATE, line.as_bytes()) {
        Ok(()) => Ok(key),
        Err(error) => {
            Err(CliError::new(Exit::Failed, format!("make the key file {}: {error}", path.display())))
        }
    }
}
