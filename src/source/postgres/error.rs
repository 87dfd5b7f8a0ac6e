//! What goes wrong with PostgreSQL, said with its subject and, where there is one, the way out.

use std::error::Error;

use super::archive::ArchiveError;
use crate::base::causes::causes;
use crate::base::process::ProcessError;
use crate::source::capture::SourceError;

/// A database that cannot be captured or given back. Texts may end in a line `hint: …`.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("cannot connect to {place}: {said}")]
    Connect { place: String, said: String },
    #[error("cannot {operation}: {said}")]
    Query { operation: String, said: String, code: Option<String> },
    #[error("{subject}: {said}{}", hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Tool { subject: String, said: String, hint: Option<&'static str> },
    #[error("{subject}: {cause}")]
    Archive { subject: String, cause: ArchiveError },
    #[error("cannot {operation}: {cause}")]
    Local { operation: &'static str, cause: std::io::Error },
    #[error("what came back is not what was captured: {0}")]
    Differs(String),
    #[error("{0}")]
    Other(String),
}

impl From<PostgresError> for SourceError {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Differs(why) => Self::Differs(why),
            error => Self::Service(Box::new(error)),
        }
    }
}

/// What the server or the network said, with the server's own hint.
pub fn said(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        let mut text = error.message().to_owned();
        for more in [error.detail(), error.where_()].into_iter().flatten() {
            text = format!("{text} ({more})");
        }
        return text;
    }
    causes(error)
}

const LOCKED: &str = "somebody holds a lock that keeps readers out, a migration perhaps; lock-timeout=10m in the address \
                      waits longer";

/// What people can do about the usual complaints of the server, by a piece of their text.
const EXPLAINED: [(&str, &str); 10] = [
    (
        "conflict with recovery",
        "the standby had to remove what the dump still read: set hot_standby_feedback = on there, or raise \
         max_standby_streaming_delay, or capture from the primary",
    ),
    // pg_dump bounds its wait for locks by a timeout of its statement.
    ("LOCK TABLE", LOCKED),
    ("due to lock timeout", LOCKED),
    (
        "affected by row-level security",
        "row security would hide rows from this user: use a superuser, or ALTER ROLE … BYPASSRLS",
    ),
    (
        "permission denied",
        "GRANT pg_read_all_data TO the user (version 14 on), or use the owner of the tables",
    ),
    (
        "server version mismatch",
        "install the client tools of the server's version, or name them: tools=FOLDER",
    ),
    (
        "password authentication failed",
        "give the password in PGPASSWORD, a PGPASSFILE, or password-file=FILE in the address",
    ),
    ("no pg_hba.conf entry", "the server's pg_hba.conf does not let this user in from here"),
    ("not permitted to log in", "ALTER ROLE … LOGIN on the server, or use another user"),
    ("server closed the connection", "the server ended or was restarted: its log says why"),
];

/// The way out, if the text is a known complaint.
pub fn explain(text: &str) -> Option<&'static str> {
    EXPLAINED.iter().find(|(part, _)| text.contains(part)).map(|(_, hint)| *hint)
}

/// The text with its way out.
pub fn with_hint(text: String) -> String {
    match explain(&text) {
        Some(hint) => format!("{text}\nhint: {hint}"),
        None => text,
    }
}

/// A child that failed at `subject`.
pub fn tool(subject: impl Into<String>, error: ProcessError) -> SourceError {
    if let ProcessError::Cancelled(cancelled) = error {
        return cancelled.into();
    }
    let mut said = error.to_string();
    if let Some(cause) = error.source() {
        said = format!("{said}: {cause}");
    }
    let hint = explain(&said);
    PostgresError::Tool { subject: subject.into(), said, hint }.into()
}
