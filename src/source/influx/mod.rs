//! InfluxDB: [`v2`] for 2.x; here 1.x: one database through the server's own `influxd backup -portable`, spooled here, given back through
//! `influxd restore -portable`.
//!
//! ```text
//! address → count points → influxd backup → files → parts
//! parts → files → influxd restore → count points again
//! ```
//!
//! Invariant: what is counted is bounded by the instant before the backup, so that points that arrive meanwhile make a
//! restore larger, never smaller.

mod address;
mod capture;
mod server;
mod target;
pub mod v2;
mod version;

pub use address::Address;
pub use capture::InfluxCapture;
pub use target::InfluxTarget;

use std::path::PathBuf;

use crate::base::cancel::Cancel;
use crate::base::http::HttpError;
use crate::base::process::ProcessError;
use crate::base::secret::Secret;
use crate::format::entry::Timestamp;
use crate::source::capture::SourceError;

/// The key in a manifest's facts.
const KEY: &str = "influx";

/// What the engine needs of the world.
#[derive(Clone)]
pub struct World {
    pub cancel: Cancel,
    /// The instant before.
    pub now: Timestamp,
    /// Folder the whole backup is spooled in.
    pub spool: PathBuf,
    pub runtime: tokio::runtime::Handle,
    /// Folders programs are looked for in.
    pub path: Vec<PathBuf>,
    /// `INFLUX_PASSWORD`
    pub password: Option<Secret>,
    /// `INFLUX_TOKEN`
    pub token: Option<Secret>,
    /// Variables children do not get.
    pub withheld: &'static [&'static str],
}

/// A database that cannot be captured or given back. Texts may end in a line `hint: …`.
#[derive(Debug, thiserror::Error)]
pub enum InfluxError {
    #[error("{0}{hint}", hint = explain(.0))]
    Said(String),
    #[error("cannot {operation}: {cause}")]
    Local { operation: &'static str, cause: std::io::Error },
}

impl From<InfluxError> for SourceError {
    fn from(error: InfluxError) -> Self {
        Self::Service(Box::new(error))
    }
}

fn explain(said: &str) -> &'static str {
    const EXPLAINED: [(&str, &str); 4] = [
        (
            "status 401",
            "\nhint: give the user in the address, and the password in INFLUX_PASSWORD or by password-file=FILE",
        ),
        (
            "authorization failed",
            "\nhint: the user may not do that: it needs ALL on the database, or to be an administrator",
        ),
        ("Connection refused", "\nhint: is the server up, and is the port right? 8086 is its usual one"),
        (
            "nobody takes backups",
            "\nhint: the server's own port for backups is 8088 on 127.0.0.1 by default (bind-address in its configuration); \
             name another: ?backup=HOST:PORT",
        ),
    ];
    EXPLAINED.iter().find(|(part, _)| said.contains(part)).map_or("", |(_, hint)| hint)
}

fn http_error(error: HttpError) -> SourceError {
    match error {
        HttpError::Cancelled(cancelled) => cancelled.into(),
        error => InfluxError::Said(error.to_string()).into(),
    }
}

fn tool_error(subject: &str, error: ProcessError) -> SourceError {
    match error {
        ProcessError::Cancelled(cancelled) => cancelled.into(),
        error => InfluxError::Said(format!("{subject}: {error}")).into(),
    }
}
