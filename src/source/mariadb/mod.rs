//! MariaDB and MySQL: captured through the server's own dump tool in one transaction per database, given back
//! through its client, proven by dumping what came back.
//!
//! ```text
//! address → login (option file) → capture: mariadb-dump → dump followed → facts
//!                                 target:  look → tables beside or in place → prove → views, routines, triggers, events
//! ```
//!
//! Invariants: what is counted is what streams by, so facts and data are of one moment; a password is in no
//! argument and no message; tables that exist are never written to, they are renamed away.

mod address;
mod capture;
pub mod dump;
mod error;
mod facts;
mod login;
mod session;
mod target;
mod tools;
mod users;

use std::path::PathBuf;

pub use address::{Address, Databases, strip_scheme};
pub use capture::MariaCapture;
pub use error::MariaError;
pub use target::{MariaTarget, RestoreFlags};

use crate::base::cancel::Cancel;
use crate::base::secret::Secret;
use crate::format::entry::Timestamp;

/// What the engine needs of the world.
#[derive(Clone)]
pub struct World {
    pub cancel: Cancel,
    /// The instant before.
    pub now: Timestamp,
    /// Folder for files that cannot be avoided.
    pub spool: PathBuf,
    /// Folders programs are looked for in.
    pub path: Vec<PathBuf>,
    /// `MYSQL_PWD`
    pub password: Option<Secret>,
    /// `.my.cnf` of whoever runs this: user and password of its `[client]` are taken, nothing else.
    pub options: Option<PathBuf>,
    /// Who runs this: the user of an address that names none.
    pub user: String,
    /// Variables children do not get.
    pub withheld: &'static [&'static str],
}
