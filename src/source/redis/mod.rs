//! Redis and Valkey: captured as a replica would be, given back as files or into a live server.
//!
//! The server's own RDB is the backup. It is read at the speed the server sends it, and its structure, its length
//! and its checksum are proven while it streams by; what it holds is counted from its own bytes, so the counts are
//! of exactly the instant it was forked at.

pub mod address;
mod bgsave;
pub mod capture;
mod cluster;
mod crc64;
pub mod ephemeral;
mod facts;
mod flow;
pub mod folder;
mod info;
pub mod lent;
pub mod live;
mod payload;
mod proof;
pub mod rdb;
pub mod reach;
mod replicate;
mod rights;
mod scan;
mod spool;
mod tls;
mod users;
mod wire;

use std::io;

use crate::base::cancel::Cancelled;
use crate::source::capture::SourceError;

/// A server that cannot be captured or given something back.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("cannot reach {server}: {cause}")]
    Reach { server: String, cause: String },
    #[error("lost {server} while it was {doing}: {cause}")]
    Lost { server: String, doing: &'static str, cause: io::Error },
    #[error("{server} said nothing for {seconds} s while it was {doing}")]
    Stalled { server: String, doing: &'static str, seconds: u64 },
    /// The server's own words.
    #[error("{server} refuses {command}: {said}")]
    Said { server: String, command: String, said: String },
    #[error("{server} does not speak Redis' protocol: {what}")]
    Protocol { server: String, what: String },
    #[error("{server}: {cause}")]
    Rdb { server: String, cause: rdb::RdbError },
    #[error("cannot {operation} {path}: {cause}")]
    File { operation: &'static str, path: String, cause: io::Error },
    #[error("{0}")]
    Unable(String),
    /// It would destroy something, or makes no sense.
    #[error("{0}")]
    Refused(String),
    #[error("what came back is not what was captured: {0}")]
    Differs(String),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<RedisError> for SourceError {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            RedisError::Refused(why) => Self::Refused(why),
            RedisError::Differs(why) => Self::Differs(why),
            error => Self::Service(Box::new(error)),
        }
    }
}

impl RedisError {
    /// Whether the server's answer begins with this word: `NOPERM`, `LOADING`.
    fn is_said(&self, word: &str) -> bool {
        matches!(self, Self::Said { said, .. } if said.starts_with(word))
    }
}
