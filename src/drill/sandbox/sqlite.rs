//! An SQLite database in a folder of its own.

use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{Sandbox, SandboxError, close};

pub struct Sqlite {
    folder: tempfile::TempDir,
    database: PathBuf,
}

impl Sqlite {
    pub fn new(folder: tempfile::TempDir) -> Self {
        let database = folder.path().join("restored.db");
        Self { folder, database }
    }
}

impl Sandbox for Sqlite {
    fn path(&self) -> Option<&Path> {
        Some(&self.database)
    }
    fn address(&self) -> Option<String> {
        Some(format!("sqlite:{}", self.database.display()))
    }
    fn describe(&self) -> String {
        format!("SQLite {} in an empty folder", rusqlite::version())
    }
    fn sql(&mut self, query: &str) -> Result<Option<String>, SandboxError> {
        let failed = |error: rusqlite::Error| SandboxError::Query(error.to_string());
        let connection =
            Connection::open_with_flags(&self.database, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        let mut statement = connection.prepare(query).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
        Ok(Some(match row.get_ref(0).map_err(failed)? {
            ValueRef::Null => "null".into(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Blob(_) => "(bytes)".into(),
        }))
    }
    fn execute(&mut self, sql: &str) -> Result<(), SandboxError> {
        let connection = Connection::open_with_flags(&self.database, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let done = connection.and_then(|connection| connection.execute_batch(sql));
        done.map_err(|error| SandboxError::Query(error.to_string()))
    }
    fn not_tested(&self) -> Vec<String> {
        vec!["the application that uses the database".into()]
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        close(self.folder)
    }
}
