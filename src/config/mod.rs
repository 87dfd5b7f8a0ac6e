//! Level 8: flags and environment → each module's own options. The only folder that knows variable names.
//!
//! Precedence is flag, then environment, then default; an empty variable counts as unset. Every setting remembers
//! where it came from, so that messages and `doctor` can say so. `RESTIC_*` is never read.

mod environment;
pub mod file;
mod password;
mod services;
mod settings;
mod storage;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use environment::Environment;
pub use password::{Password, PasswordSource, read_key_file};
pub use services::ServiceSettings;
pub use settings::{Found, LogFormat, LogSettings, Origin, Overrides, Settings, location};
pub use storage::duration as parse_duration;

/// Variables that hold a secret themselves: no child process gets them.
pub const SECRET_VARIABLES: &[&str] = &["LIFEBOAT_PASSWORD"];

/// Variables that say how to reach storage: all that a recovery elsewhere is given of them.
pub const STORAGE_VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "B2_APPLICATION_KEY_ID",
    "B2_ACCOUNT_ID",
    "B2_APPLICATION_KEY",
    "B2_ACCOUNT_KEY",
    "LIFEBOAT_WEBDAV_USER",
    "LIFEBOAT_WEBDAV_PASSWORD",
    "LIFEBOAT_WEBDAV_TOKEN",
];

/// Why the settings make no sense. Nothing was tried.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{name} is not valid UTF-8")]
    NotText { name: &'static str },
    #[error("{given} and {other} both say how to open the repository")]
    TwoPasswords { given: Origin, other: Origin },
    #[error("the {what} from {origin} is empty")]
    EmptyPassword { what: &'static str, origin: Origin },
    #[error("cannot read the {what} {path}: {cause}")]
    Unreadable { what: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("{path} is no key file: it holds neither 32 bytes nor 64 hex digits")]
    NotAKeyFile { path: PathBuf },
    /// The command is not shown: it may hold more than a path.
    #[error("the password command from {origin} failed: {cause}")]
    PasswordCommand { origin: Origin, cause: String },
    #[error("storage option {key:?}: {cause}")]
    StorageOption { key: String, cause: String },
    #[error("{name}: {cause}")]
    Value { name: &'static str, cause: String },
    /// The repository's address.
    #[error(transparent)]
    Address(#[from] crate::store::StoreError),
}
