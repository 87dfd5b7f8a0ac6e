//! What goes wrong with MariaDB, said with its subject and, where there is one, the way out.

use std::error::Error;

use super::dump::DumpError;
use crate::base::process::ProcessError;
use crate::source::capture::SourceError;

/// A database that cannot be captured or given back. Texts may end in a line `hint: …`.
#[derive(Debug, thiserror::Error)]
pub enum MariaError {
    #[error("{subject}: {said}{}", hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Tool { subject: String, said: String, hint: Option<&'static str> },
    #[error("{subject}: {cause}")]
    Dump { subject: String, cause: DumpError },
    #[error("cannot {operation}: {cause}")]
    Local { operation: &'static str, cause: std::io::Error },
    #[error("{0}")]
    Other(String),
}

impl From<MariaError> for SourceError {
    fn from(error: MariaError) -> Self {
        Self::Service(Box::new(error))
    }
}

/// What people can do about the usual complaints of the server, by a piece of their text.
const EXPLAINED: [(&str, &str); 16] = [
    (
        "Access denied for user",
        "give the password in MYSQL_PWD, ~/.my.cnf, or password-file=FILE in the address; a user's rights depend on \
         the host it comes from",
    ),
    ("Unknown database", "SHOW DATABASES on the server lists what this user may see"),
    ("Can't connect to", "is the server up, and are host, port or socket= right?"),
    ("Lost connection", "the server ended or was restarted: its log says why"),
    (
        "server has gone away",
        "the server ended or was restarted, or max_allowed_packet is too small: its log says why",
    ),
    (
        "references invalid table",
        "a view there names what does not exist any more: drop or repair it, or exclude-table=VIEW in the address",
    ),
    (
        "Table definition has changed",
        "somebody changed the table while it was read, a migration perhaps: run the backup again",
    ),
    ("Lock wait timeout", "somebody holds a lock on the table, a migration perhaps: run it again later"),
    (
        "SUPER",
        "views, routines and triggers belong to users; only one with SUPER or SET USER may restore them as theirs",
    ),
    (
        "SET USER",
        "views, routines and triggers belong to users; only one with SUPER or SET USER may restore them as theirs",
    ),
    ("PROCESS privilege", "GRANT PROCESS ON *.* TO the user"),
    (
        "command denied",
        "the user lacks a right: SELECT, SHOW VIEW, TRIGGER and EVENT are needed to read, all to restore",
    ),
    (
        "max_allowed_packet",
        "raise max_allowed_packet on that server: it takes no row as large as one of these",
    ),
    (
        "event scheduler is disabled",
        "event_scheduler=DISABLED hides events: put OFF into the server's configuration, which runs none either",
    ),
    ("Unknown collation", "that server is older, or another product, and has no such collation"),
    ("Unknown storage engine", "install and load the engine on that server first"),
];

/// The way out, if the text is a known complaint.
fn explain(text: &str) -> Option<&'static str> {
    EXPLAINED.iter().find(|(part, _)| text.contains(part)).map(|(_, hint)| *hint)
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
    MariaError::Tool { subject: subject.into(), said, hint }.into()
}
