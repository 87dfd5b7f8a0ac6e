//! What materialized views hold, counted and hashed as tables are, although no archive carries it.
//!
//! A dump has their queries, and a restore computes them anew from tables that are proven. So equal contents prove
//! that they came back, and others are no damage: the view was stale when it was captured, or its query asks for the
//! time or the user. But rows that were nowhere else are gone then, and somebody has to know.

use std::thread::JoinHandle;

use super::facts::{DatabaseFacts, TableFacts};
use super::rows::Rows;
use super::session::{Session, literal};
use crate::base::cancel::Cancel;
use crate::source::capture::SourceError;

/// A view's rows, or why they could not be read.
pub type Read = (String, Result<TableFacts, String>);

/// Views being read in a dump's snapshot, beside the dump. Dropped, it ends with its transaction.
pub struct Reading {
    /// `None` once somebody waited for it.
    thread: Option<JoinHandle<Result<Vec<Read>, SourceError>>>,
    cancel: Cancel,
}

impl Reading {
    /// Joins the exported snapshot and begins. `settings`: what every session of the capture sets; `cancel`: the run's.
    ///
    /// # Errors
    /// The server's.
    pub fn start(
        mut session: Box<dyn Session>,
        settings: &str,
        snapshot: &str,
        names: Vec<String>,
        cancel: &Cancel,
    ) -> Result<Self, SourceError> {
        let cancel = cancel.part();
        session.heed(cancel.clone());
        session.query("set up the session", settings)?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            literal(snapshot)
        );
        session.query("join the snapshot", &begin)?;
        let read = move || {
            let mut found = Vec::with_capacity(names.len());
            for name in names {
                // One that cannot be read keeps none of the others.
                let rows = session
                    .query("set a savepoint", "SAVEPOINT lifeboat")
                    .and_then(|_| rows(session.as_mut(), &name));
                if let Err(cancelled @ SourceError::Cancelled(_)) = rows {
                    return Err(cancelled);
                }
                if rows.is_err() {
                    let _ = session.query("go back", "ROLLBACK TO SAVEPOINT lifeboat");
                }
                let first =
                    |error: SourceError| error.to_string().lines().next().unwrap_or_default().to_owned();
                found.push((name, rows.map_err(first)));
            }
            Ok(found)
        };
        Ok(Self { thread: Some(std::thread::spawn(read)), cancel })
    }

    /// Waits for the last of them.
    ///
    /// # Errors
    /// The run was cancelled.
    pub fn finish(mut self) -> Result<Vec<Read>, SourceError> {
        let panicked = "a thread of the capture panicked: this is a bug";
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(read)) => read,
            Some(Err(_)) => Err(super::PostgresError::Other(panicked.into()).into()),
            None => Ok(Vec::new()),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.cancel.cancel();
        // Nobody asks for what it read.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// All rows of the view, which must be filled.
fn rows(session: &mut dyn Session, name: &str) -> Result<TableFacts, SourceError> {
    let mut rows = Rows::default();
    let sql = format!("COPY (SELECT * FROM {name}) TO STDOUT");
    session.copy_out(&format!("read {name}"), &sql, &mut |bytes| rows.push(bytes))?;
    let sum = rows.finish().ok_or_else(|| {
        super::PostgresError::Other(format!("read {name}: the last row of {name} has no end"))
    })?;
    Ok(TableFacts::new(0, sum))
}

/// Restored views against those that were captured.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    pub equal: u64,
    /// Of the equal ones.
    pub rows: u64,
    /// Those that hold something else, a line each.
    pub others: Vec<String>,
    /// Those that were not read at the capture.
    pub unknown: Vec<String>,
}

/// Reads the views that were filled when they were captured.
///
/// # Errors
/// The server's, or the run was cancelled.
pub fn compare(session: &mut dyn Session, expected: &DatabaseFacts) -> Result<Compared, SourceError> {
    let mut compared = Compared::default();
    let monetary = format!("SET lc_monetary = {}", literal(&expected.properties.monetary));
    // A locale that is not here leaves money as this server writes it; it differs only if there is any.
    let _ = session.query("set the locale of money", &monetary);
    for name in expected.views.iter().filter(|(_, filled)| **filled).map(|(name, _)| name) {
        let Some(was) = expected.view_rows.get(name) else {
            compared.unknown.push(name.clone());
            continue;
        };
        let is = rows(session, name)?;
        if is == *was {
            compared.equal += 1;
            compared.rows += is.rows;
            continue;
        }
        let holds = match is.rows == was.rows {
            true => format!("{} rows as when it was captured, but others", is.rows),
            false => format!("{} rows, and held {} when it was captured", is.rows, was.rows),
        };
        compared.others.push(format!(
            "materialized view {name} holds {holds}: it is computed anew from its tables, which are proven; it was not \
             up to date then, or its query asks for the time or the user"
        ));
    }
    Ok(compared)
}
