//! VictoriaMetrics: all its series as JSON lines over HTTP, or a snapshot of its files through the storage path.
//!
//! ```text
//! victoria://host:8428                   export → lines counted and hashed → part; import → export → compared
//! victoria://host:8428?storage=FOLDER    /snapshot/create → files read → /snapshot/delete; back as files
//! ```
//!
//! Invariant: a snapshot that was created is deleted again, whatever happened short of SIGKILL.

mod address;
mod capture;
mod rounding;
pub mod series;
mod target;

pub use address::Address;
pub use capture::VictoriaCapture;
pub use target::VictoriaTarget;

use std::path::PathBuf;

use crate::base::cancel::Cancel;
use crate::base::http::{Http, HttpError};
use crate::base::secret::Secret;
use crate::format::entry::Timestamp;
use crate::source::capture::SourceError;

/// The key in a manifest's facts.
const KEY: &str = "victoria";
/// Every series there is.
const ALL: &str = "{__name__!=\"\"}";

/// What the engine needs of the world.
#[derive(Clone)]
pub struct World {
    pub cancel: Cancel,
    pub now: Timestamp,
    /// Folder for files that cannot be avoided.
    pub spool: PathBuf,
    pub runtime: tokio::runtime::Handle,
}

/// VictoriaMetrics that cannot be captured or given back. Texts may end in a line `hint: …`.
#[derive(Debug, thiserror::Error)]
pub enum VictoriaError {
    #[error("{0}{hint}", hint = explain(.0))]
    Http(String),
    #[error("cannot {operation}: {cause}")]
    Local { operation: String, cause: std::io::Error },
    #[error("{0}")]
    Other(String),
}

impl From<VictoriaError> for SourceError {
    fn from(error: VictoriaError) -> Self {
        Self::Service(Box::new(error))
    }
}

fn explain(said: &str) -> &'static str {
    const ENDED: &str = "\nhint: the server ended, or something on the way broke off: its log says why";
    const EXPLAINED: [(&str, &str); 6] = [
        ("unexpected EOF", ENDED),
        ("end of file before", ENDED),
        ("Connection reset", ENDED),
        ("status 401", "\nhint: give the user in the address and the password by password-file=FILE"),
        ("Connection refused", "\nhint: is the server up, and is the port right? 8428 is its usual one"),
        (
            "authKey",
            "\nhint: servers started with -snapshotAuthKey or -deleteAuthKey want it: they are not supported yet",
        ),
    ];
    EXPLAINED.iter().find(|(part, _)| said.contains(part)).map_or("", |(_, hint)| hint)
}

fn http_error(error: HttpError) -> SourceError {
    match error {
        HttpError::Cancelled(cancelled) => cancelled.into(),
        error => VictoriaError::Http(error.to_string()).into(),
    }
}

/// The way to a server.
fn connect(address: &Address, world: &World) -> Result<Http, SourceError> {
    let mut password = address.password.clone();
    if let Some(path) = &address.password_file {
        let text = std::fs::read(path).map_err(|cause| VictoriaError::Local {
            operation: format!("read password-file {}", path.display()),
            cause,
        })?;
        password = Some(Secret::from_line(text));
    }
    let none = || Secret::from_text(String::new());
    let login = (!address.user.is_empty()).then(|| (address.user.clone(), password.unwrap_or_else(none)));
    Http::new(&address.url(), login, address.no_progress, &world.runtime, &world.cancel).map_err(http_error)
}

/// What is in memory becomes visible; points that were taken before this are in an export after it.
fn flush(http: &Http) -> Result<(), SourceError> {
    http.ask("flush", reqwest::Method::GET, "/internal/force_flush", &[]).map(drop).map_err(http_error)
}
