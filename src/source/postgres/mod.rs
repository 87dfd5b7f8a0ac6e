//! PostgreSQL: captured through `pg_dump` in one exported snapshot per database, given back through `pg_restore`
//! into a new database that takes its name only once it is proven.
//!
//! ```text
//! address → reach (sessions, tools) → capture: snapshot → pg_dump → archive, rows → facts
//!                                     target:  look → globals → beside → pg_restore → prove → rename
//! ```
//!
//! Invariants: what is counted is what streams by, so facts and data are of one moment; a password is in no
//! argument and no message; a database that exists is never written to, it is renamed away.

mod address;
pub mod archive;
mod capture;
mod error;
mod facts;
pub mod globals;
pub mod inspect;
mod inventory;
pub mod lent;
mod passwords;
mod reach;
mod rows;
mod session;
mod target;
mod tls;
mod tools;
mod vacant;
mod views;

pub use address::{Address, strip_scheme};
pub use capture::PostgresCapture;
pub use error::PostgresError;
pub use facts::{DatabaseFacts, Facts};
pub use reach::{Direct, Reach, Tool, World};
pub use session::{Session, ident, literal};
pub use target::{Made, PostgresTarget, RestoreFlags};
pub use tools::server_tools;
