//! An SQLite database, consistent while others write to it: through SQLite's own online backup into a spool file.
//!
//! Copying the file instead would catch half of a transaction, and miss the journal beside it. Going back, the
//! database takes its name only after SQLite itself found it whole and every table has the rows it had.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value};

use super::capture::{Capture, Captured, PART_MODE, Part, SourceError};
use super::difference::Difference;
use super::target::{Returned, StoredPart, Target};
use crate::base::cancel::Cancel;
use crate::format::entry::Timestamp;

/// Pages copied between two looks at the cancel flag; 4 MiB with pages of the usual size.
const PAGES_A_STEP: i32 = 1024;
/// How long somebody else's lock is waited for, in all.
const BUSY_LIMIT: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A database that cannot be captured or given back.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error("cannot {operation} {}: {cause}", path.display())]
    Database { operation: &'static str, path: PathBuf, cause: rusqlite::Error },
    #[error("cannot {operation} {}: {cause}", path.display())]
    File { operation: &'static str, path: PathBuf, cause: io::Error },
    #[error("{} is locked by somebody else for more than {} s", path.display(), BUSY_LIMIT.as_secs())]
    Busy { path: PathBuf },
    #[error("{} is damaged: {said}", path.display())]
    Damaged { path: PathBuf, said: String },
}

impl From<SqliteError> for SourceError {
    fn from(error: SqliteError) -> Self {
        Self::Service(Box::new(error))
    }
}

fn database(operation: &'static str, path: &Path) -> impl Fn(rusqlite::Error) -> SqliteError {
    move |cause| SqliteError::Database { operation, path: path.to_owned(), cause }
}

fn file(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> SqliteError {
    move |cause| SqliteError::File { operation, path: path.to_owned(), cause }
}

fn open(path: &Path) -> Result<Connection, SqliteError> {
    // Not created when it is missing: an empty database would be backed up as if it were the one meant.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    std::fs::metadata(path).map_err(file("open", path))?;
    let connection = Connection::open_with_flags(path, flags).map_err(database("open", path))?;
    connection.busy_timeout(BUSY_LIMIT).map_err(database("open", path))?;
    Ok(connection)
}

/// What SQLite says of a database, and the rows of each table.
fn facts(path: &Path) -> Result<Map<String, Value>, SqliteError> {
    let connection = open(path)?;
    let read = database("read", path);
    let said: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(&read)?;
    if said != "ok" {
        return Err(SqliteError::Damaged { path: path.to_owned(), said });
    }
    let mut rows = Map::new();
    let mut names = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")
        .map_err(&read)?;
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(&read)?;
    for name in names {
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        let count: i64 = connection.query_row(&sql, [], |row| row.get(0)).map_err(&read)?;
        rows.insert(name, count.into());
    }
    let number = |pragma: &str| -> Result<i64, SqliteError> {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).map_err(&read)
    };
    let mut facts = Map::new();
    facts.insert("rows".into(), rows.into());
    facts.insert("page_bytes".into(), number("page_size")?.into());
    facts.insert("pages".into(), number("page_count")?.into());
    facts.insert("schema_version".into(), number("schema_version")?.into());
    facts.insert("user_version".into(), number("user_version")?.into());
    facts.insert("application_id".into(), number("application_id")?.into());
    Ok(facts)
}

/// What a look at a database found.
#[derive(Clone, Debug, Default)]
pub struct Inspected {
    pub tables: u64,
    pub rows: u64,
    pub differences: Vec<Difference>,
}

/// Holds a database against the facts of a captured one.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn inspect(path: &Path, expected: &Map<String, Value>) -> Result<Inspected, SqliteError> {
    let found = facts(path)?;
    let none = Map::new();
    let rows = |facts: &Map<String, Value>| facts.get("rows").and_then(Value::as_object).cloned();
    let (expected, found) = (rows(expected).unwrap_or_default(), rows(&found).unwrap_or(none));
    let mut inspected = Inspected { tables: found.len() as u64, ..Inspected::default() };
    inspected.rows = found.values().filter_map(Value::as_u64).sum();
    for name in expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name))) {
        let (was, is) = (expected.get(name), found.get(name));
        if was != is {
            let told = |rows: Option<&Value>| match rows {
                Some(rows) => format!("{rows} {}", if rows == 1 { "row" } else { "rows" }),
                None => "no such table".into(),
            };
            inspected.differences.push(Difference::new(name.clone(), told(was), told(is)));
        }
    }
    Ok(inspected)
}

/// A database being captured.
pub struct SqliteCapture {
    path: PathBuf,
    cancel: Cancel,
    now: Timestamp,
    spool: Option<Spool>,
    facts: Map<String, Value>,
    at_end: bool,
}

struct Spool {
    file: File,
    /// Deletes the copy.
    _folder: tempfile::TempDir,
}

impl SqliteCapture {
    /// Copies the database into a spool file below `spool` and looks it over. `now`: the instant before.
    ///
    /// # Errors
    /// It is missing, not a database, locked for long or damaged; the spool has no room.
    pub fn start(path: &Path, spool: &Path, now: Timestamp, cancel: &Cancel) -> Result<Self, SourceError> {
        let path = std::path::absolute(path).map_err(file("find", path))?;
        let folder = tempfile::Builder::new()
            .prefix("lifeboat-sqlite-")
            .tempdir_in(spool)
            .map_err(file("make a spool folder in", spool))?;
        let copy = folder.path().join("copy");
        copy_online(&path, &copy, cancel)?;
        let facts = facts(&copy)?;
        let file = File::open(&copy).map_err(file("open", &copy))?;
        let spool = Some(Spool { file, _folder: folder });
        Ok(Self { path, cancel: cancel.clone(), now, spool, facts, at_end: false })
    }
}

fn copy_online(from: &Path, to: &Path, cancel: &Cancel) -> Result<(), SourceError> {
    let source = open(from)?;
    let error = database("back up", from);
    let mut target = Connection::open(to).map_err(database("create", to))?;
    // The copy is read back at once and never outlives this run.
    target.pragma_update(None, "synchronous", "OFF").map_err(database("create", to))?;
    let backup = Backup::new(&source, &mut target).map_err(&error)?;
    let mut waited = Duration::ZERO;
    loop {
        cancel.check()?;
        match backup.step(PAGES_A_STEP).map_err(&error)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if waited >= BUSY_LIMIT => return Err(SqliteError::Busy { path: from.to_owned() }.into()),
            _ => {
                std::thread::sleep(BUSY_PAUSE);
                waited += BUSY_PAUSE;
            }
        }
    }
}

impl Capture for SqliteCapture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        if self.at_end {
            return Ok(None);
        }
        let path = self.path.to_string_lossy().into_owned();
        Ok(Some(Part { path, mode: PART_MODE, mtime: self.now }))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let Some(spool) = &mut self.spool else { return Ok(0) };
        let length = spool.file.read(buffer)?;
        self.at_end |= length == 0 && !buffer.is_empty();
        Ok(length)
    }

    fn finish(self: Box<Self>) -> Result<Captured, SourceError> {
        self.cancel.check()?;
        let mut facts = Map::new();
        facts.insert("sqlite".into(), self.facts.into());
        Ok(Captured { consistent: self.now, facts, ..Captured::default() })
    }
}

/// Puts `fresh` in the place of the database at `path`, with its owner and mode. Its journals belong to the old one
/// alone, the new one would be rolled back into nonsense; and the old one is whole only with them. So all of it moves
/// aside together, and comes back together if the new one cannot take the place.
fn replace(path: &Path, fresh: Fresh, journals: &[PathBuf]) -> Result<(), SourceError> {
    let Fresh { file: fresh, folder: own } = fresh;
    let folder = own.path().parent().unwrap_or(Path::new(".")).to_owned();
    if let Ok(old) = std::fs::metadata(path) {
        use std::os::unix::fs::MetadataExt as _;
        fresh.as_file().set_permissions(old.permissions()).map_err(file("set the mode of", path))?;
        // Only root gives files away; whoever may not keeps his own.
        let owner = std::os::unix::fs::fchown(fresh.as_file(), Some(old.uid()), Some(old.gid()));
        if let Err(error) = owner {
            tracing::warn!(%error, "{} belongs to you now, not to its owner of before", path.display());
        }
    }
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    let put = (|| {
        for (number, old) in [path.to_owned()].iter().chain(journals).enumerate() {
            let to = own.path().join(format!("old-{number}"));
            match std::fs::rename(old, &to) {
                Ok(()) => moved.push((old.clone(), to)),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(file("move aside", old)(cause)),
            }
        }
        fresh.persist(path).map_err(|error| file("replace", path)(error.error))?;
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(file("write", &folder))
    })();
    if let Err(error) = put {
        for (old, to) in moved.iter().rev() {
            if let Err(cause) = std::fs::rename(to, old) {
                let kept = own.keep();
                tracing::error!(%cause, "the old database could not be put back and lies in {}", kept.display());
                return Err(error.into());
            }
        }
        return Err(error.into());
    }
    Ok(())
}

/// Where a database goes back to: a path whose present file is replaced only by a proven one.
pub struct SqliteTarget {
    path: PathBuf,
    force: bool,
    expected: Map<String, Value>,
    fresh: Option<Fresh>,
}

/// A database that came, in a folder of its own beside its place: what SQLite puts next to it goes with the folder.
struct Fresh {
    file: tempfile::NamedTempFile,
    folder: tempfile::TempDir,
}

impl SqliteTarget {
    /// `force`: an existing file may be replaced.
    pub fn new(path: &Path, force: bool) -> Self {
        Self { path: path.to_owned(), force, expected: Map::new(), fresh: None }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

impl Target for SqliteTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let Some(Value::Object(expected)) = facts.get("sqlite") else {
            let why = "the snapshot is not of an SQLite database";
            return Err(SourceError::Refused(why.into()));
        };
        if parts.len() != 1 {
            return Err(SourceError::Refused(format!("{} parts where one was expected", parts.len())));
        }
        if self.path.exists() && !self.force {
            let path = self.path.display();
            let why =
                format!("{path} exists\nhint: --force replaces it, once the restored database is proven");
            return Err(SourceError::Refused(why));
        }
        self.expected = expected.clone();
        Ok(vec![0])
    }

    fn put(&mut self, _: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let own = tempfile::Builder::new()
            .prefix(".lifeboat-")
            .tempdir_in(folder)
            .map_err(file("make a folder in", folder))?;
        let mut fresh =
            tempfile::NamedTempFile::new_in(own.path()).map_err(file("create a file in", own.path()))?;
        io::copy(content, &mut fresh).map_err(file("write", fresh.path()))?;
        fresh.flush().and_then(|()| fresh.as_file().sync_all()).map_err(file("write", fresh.path()))?;
        self.fresh = Some(Fresh { file: fresh, folder: own });
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Returned, SourceError> {
        let (wal, shm, journal) = (self.beside("-wal"), self.beside("-shm"), self.beside("-journal"));
        let Self { path, expected, fresh, .. } = *self;
        let Some(fresh) = fresh else { return Err(SourceError::Differs("nothing came".into())) };
        let found = facts(fresh.file.path())?;
        if found.get("rows") != expected.get("rows") {
            let why = format!("rows are {:?}, were {:?}", found.get("rows"), expected.get("rows"));
            return Err(SourceError::Differs(why));
        }
        replace(&path, fresh, &[wal, shm, journal])?;
        let tables = found.get("rows").and_then(Value::as_object).map_or(0, Map::len);
        let proven = vec![
            "integrity_check says ok".into(),
            format!("row counts of {tables} tables are those of the snapshot"),
        ];
        let mut facts = Map::new();
        facts.insert("sqlite".into(), found.into());
        Ok(Returned { proven, facts, ..Returned::default() })
    }
}
