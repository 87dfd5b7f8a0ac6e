//! Databases being captured: one exported snapshot each, `pg_dump` reading in it, the archive followed as it
//! streams.
//!
//! Order for each database: our transaction exports its snapshot and reads the facts of it; `pg_dump` imports it;
//! the first bytes of the archive prove that, for they come after it has read the catalogue in it; then our
//! transaction ends. Nothing of ours stays on the server when a capture is dropped.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use super::archive::Archive;
use super::error::{self, PostgresError};
use super::facts::{DatabaseFacts, Facts, GlobalFacts, Relations};
use super::globals;
use super::inventory::Inventory;
use super::reach::{Reach, Tool, World};
use super::session::{Session, literal};
use super::tools::{self, Toolset};
use super::views::Reading;
use super::{Address, address::Databases, address::Selection};
use crate::base::process::{Process, ProcessOptions};
use crate::base::url::encode;
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, Captured, PART_MODE, Part, SourceError};

/// Name of the part with roles and tablespaces. After `databases/` in the order of paths.
pub const GLOBALS: &str = "globals.sql";
/// Most bytes of it.
const GLOBALS_LIMIT: u64 = 256 << 20;

/// See the module.
pub struct PostgresCapture {
    address: Address,
    world: World,
    reach: Box<dyn Reach>,
    tools: Toolset,
    started: Instant,
    waiting: VecDeque<String>,
    current: Option<Dump>,
    globals: Globals,
    facts: Facts,
    consistent: Option<Timestamp>,
    warnings: Vec<String>,
    failed: Option<SourceError>,
    /// A dump was begun and has not ended well.
    unsettled: Option<String>,
}

/// A database under way.
struct Dump {
    name: String,
    process: Process,
    archive: Archive,
    holder: Option<Box<dyn Session>>,
    views: Option<Reading>,
    relations: Relations,
    facts: DatabaseFacts,
    begun: Instant,
    size_bytes: u64,
}

enum Globals {
    Ahead,
    Under(io::Cursor<Vec<u8>>),
    Done,
}

/// Where a database's archive stands in a snapshot.
fn part_of(database: &str) -> String {
    // A name made of dots would be a folder's.
    let name = match database.strip_prefix('.') {
        Some(rest) => format!("%2E{}", encode(rest, " ")),
        None => encode(database, " "),
    };
    format!("databases/{name}.dump")
}

/// What every session of ours sets, so that text means the same whatever the server's or user's defaults are.
pub fn settings(lock_timeout: Duration, major: u32) -> String {
    let mut sql = format!(
        "SET row_security = off; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET timezone = 'UTC';
         SET extra_float_digits = {}; SET statement_timeout = 0; SET lock_timeout = {};
         SET idle_in_transaction_session_timeout = 0; SET synchronize_seqscans = off; SET search_path = pg_catalog;
         SET standard_conforming_strings = on; SET bytea_output = 'hex'; SET xmloption = 'content'",
        3,
        lock_timeout.as_millis(),
    );
    if major >= 14 {
        sql.push_str("; SET idle_session_timeout = 0");
    }
    if major >= 17 {
        sql.push_str("; SET transaction_timeout = 0");
    }
    sql
}

/// The server's major version.
pub fn major(session: &mut dyn Session) -> Result<(u32, String), SourceError> {
    let number = session.value("ask for the version", "SHOW server_version_num")?.unwrap_or_default();
    let version = session.value("ask for the version", "SHOW server_version")?.unwrap_or_default();
    Ok((number.parse::<u32>().unwrap_or_default() / 10_000, version))
}

impl PostgresCapture {
    /// Connects, looks what there is, chooses tools and takes the first database's snapshot.
    ///
    /// # Errors
    /// The server cannot be reached or is too old, a database is missing, no tool suits.
    pub fn start(address: Address, reach: Box<dyn Reach>, world: World) -> Result<Self, SourceError> {
        let started = Instant::now();
        let entrance = match &address.databases {
            Databases::Named(names) => names[0].clone(),
            Databases::All => address.server.maintenance.clone(),
        };
        let mut session = reach.session(&entrance)?;
        let (server_major, server_version) = major(session.as_mut())?;
        if server_major < 10 {
            let why = format!("the server has version {server_version}; 10 is the oldest that is captured");
            return Err(PostgresError::Other(why).into());
        }
        let sets = reach.toolsets();
        let tools = tools::for_dump(&sets, server_major)?.clone();
        let mut warnings = Vec::new();
        if tools.major > server_major {
            warnings.push(format!(
                "pg_dump {} read a server of version {server_major}: its own tools are not here",
                tools.version
            ));
        }
        let mut names = match &address.databases {
            Databases::Named(names) => names.clone(),
            Databases::All => list(session.as_mut(), &mut warnings)?,
        };
        names.sort_by_key(|name| part_of(name).into_bytes());
        // Not everybody may ask, and it proves nothing about the data.
        let sql = "SELECT system_identifier FROM pg_control_system()";
        let system_identifier = session.value("ask who the server is", sql).ok().flatten();
        let facts = Facts {
            system_identifier,
            server_version,
            server_major,
            tool: format!("pg_dump {}", tools.version),
            tool_is_newer: tools.major > server_major,
            ..Facts::default()
        };
        drop(session);
        let mut capture = Self {
            address,
            world,
            reach,
            tools,
            started,
            waiting: names.into(),
            current: None,
            globals: Globals::Ahead,
            facts,
            consistent: None,
            warnings,
            failed: None,
            unsettled: None,
        };
        capture.begin_next()?;
        Ok(capture)
    }

    /// Begins the next database, if there is one and none is under way.
    fn begin_next(&mut self) -> Result<(), SourceError> {
        if self.current.is_some() {
            return Ok(());
        }
        let Some(name) = self.waiting.pop_front() else { return Ok(()) };
        let begun = Instant::now();
        let mut holder = self.reach.session(&name)?;
        holder.query("set up the session", &settings(self.address.lock_timeout, self.facts.server_major))?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        holder.query("begin a transaction", begin)?;
        let snapshot = holder.value("export a snapshot", "SELECT pg_export_snapshot()")?.unwrap_or_default();
        let mut facts = super::facts::read_properties(holder.as_mut())?;
        self.take_time(holder.as_mut(), &mut facts)?;
        facts.part = format!("/{}", part_of(&name));
        if self.address.selection == Selection::default() {
            facts.inventory = Some(Inventory::read(holder.as_mut())?);
        }
        let relations = Relations::read(holder.as_mut())?;
        self.unsettled = Some(name.clone());
        let views = self.read_views(&name, &snapshot, &relations)?;
        let process = self.dump(&name, &snapshot)?;
        self.current = Some(Dump {
            name,
            process,
            archive: Archive::default(),
            holder: Some(holder),
            views,
            relations,
            facts,
            begun,
            size_bytes: 0,
        });
        Ok(())
    }

    /// Begins to read the materialized views beside the dump. None of them is worth a backup: that they are not read
    /// is said.
    fn read_views(
        &mut self,
        name: &str,
        snapshot: &str,
        relations: &Relations,
    ) -> Result<Option<Reading>, SourceError> {
        let views = relations.filled_views();
        if views.is_empty() || self.address.selection != Selection::default() {
            return Ok(None);
        }
        let settings = settings(self.address.lock_timeout, self.facts.server_major);
        let started = self.reach.session(name);
        match started
            .and_then(|session| Reading::start(session, &settings, snapshot, views, &self.world.cancel))
        {
            Ok(reading) => Ok(Some(reading)),
            Err(cancelled @ SourceError::Cancelled(_)) => Err(cancelled),
            Err(error) => {
                self.warnings
                    .push(format!("database {name:?}: its materialized views are not read: {error}"));
                Ok(None)
            }
        }
    }

    /// When and where in its log the server stood at the snapshot.
    fn take_time(&mut self, holder: &mut dyn Session, facts: &mut DatabaseFacts) -> Result<(), SourceError> {
        let elapsed = self.started.elapsed();
        let sql = "SELECT pg_is_in_recovery(), extract(epoch FROM transaction_timestamp())::text,
            CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
            extract(epoch FROM pg_last_xact_replay_timestamp())::text,
            coalesce(pg_last_xact_replay_timestamp(), transaction_timestamp())::text";
        let row = holder.query("read the server's position", sql)?.pop().unwrap_or_default();
        let cell = |column: usize| row.get(column).cloned().flatten();
        let seconds = |column: usize| cell(column).and_then(|text| text.parse::<f64>().ok());
        let server = seconds(1).unwrap_or_default();
        let ours = self.world.now.seconds as f64 + f64::from(self.world.now.nanoseconds) / 1e9;
        self.facts.clock_skew_seconds = ((server - ours - elapsed.as_secs_f64()) * 1e3).round() / 1e3;
        self.facts.standby = cell(0).as_deref() == Some("t");
        facts.lsn = cell(2);
        // Taken before the snapshot by our own clock: never later than what the data is true for.
        let mut at = self.world.now;
        if self.facts.standby {
            // Without a replayed transaction the last checkpoint is the least that is known.
            let replayed = match seconds(3) {
                Some(replayed) => replayed,
                None => last_checkpoint(holder)?,
            };
            let whole = replayed.floor();
            let replayed =
                Timestamp { seconds: whole as i64, nanoseconds: ((replayed - whole) * 1e9) as u32 };
            at = at.min(replayed);
        }
        facts.at = cell(4).unwrap_or_default();
        self.consistent = Some(self.consistent.map_or(at, |earlier| earlier.min(at)));
        Ok(())
    }

    fn process_options(&self) -> ProcessOptions {
        ProcessOptions { no_progress: Some(self.address.no_progress), ..ProcessOptions::default() }
    }

    fn dump(&self, name: &str, snapshot: &str) -> Result<Process, SourceError> {
        let mut command = self.reach.command(&self.tools, Tool::Dump, name);
        command.args(["--format=custom", "--compress=0"]);
        command.arg(format!("--snapshot={snapshot}"));
        command.arg(format!("--lock-wait-timeout={}", self.address.lock_timeout.as_millis()));
        let what = &self.address.selection;
        for (flag, patterns) in [
            ("schema", &what.schemas),
            ("exclude-schema", &what.exclude_schemas),
            ("table", &what.tables),
            ("exclude-table", &what.exclude_tables),
            ("exclude-table-data", &what.exclude_table_data),
        ] {
            command.args(patterns.iter().map(|pattern| format!("--{flag}={pattern}")));
        }
        let started = Process::start(command, self.process_options(), &self.world.cancel);
        started.map_err(|error| error::tool(format!("dump database {name:?}"), error))
    }

    /// The part being read ended: it must have ended well.
    fn end_current(&mut self) -> Result<(), SourceError> {
        let Some(dump) = self.current.take() else { return Ok(()) };
        let Dump { name, process, archive, views, relations, mut facts, begun, size_bytes, .. } = dump;
        let subject = format!("dump database {name:?}");
        if !process.at_end() {
            return Err(PostgresError::Other(format!("{subject}: it was not read to its end")).into());
        }
        let stderr = process.finish().map_err(|error| error::tool(subject.clone(), error))?;
        archive.finish().map_err(|cause| PostgresError::Archive { subject: subject.clone(), cause })?;
        if let Some(views) = views {
            facts.take_views(views.finish()?);
        }
        facts.take_archive(&archive, &relations)?;
        tracing::info!("{subject}: {size_bytes} bytes in {:?}", begun.elapsed());
        for line in stderr.lines().filter(|line| !line.trim().is_empty()) {
            self.warnings.push(format!("{subject}: {line}"));
        }
        if begun.elapsed() > self.address.max_transaction {
            let minutes = begun.elapsed().as_secs() / 60;
            self.warnings.push(format!(
                "{subject}: its transaction was open for {minutes} minutes; VACUUM and migrations waited behind it"
            ));
        }
        self.facts.databases.insert(name, facts);
        self.unsettled = None;
        Ok(())
    }

    fn read_globals(&mut self) -> Result<Vec<u8>, SourceError> {
        let subject = "dump the roles and tablespaces";
        let database = self.facts.databases.keys().next().cloned();
        let database = database.unwrap_or_else(|| self.address.server.maintenance.clone());
        let mut session = self.reach.session(&database)?;
        let sql = "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')";
        let has_passwords = session.value("look what this user may read", sql)?.as_deref() == Some("t");
        drop(session);
        let mut command = self.reach.command(&self.tools, Tool::DumpAll, &database);
        command.args(["--globals-only", "--database"]).arg(globals::connection_string(&database));
        if !has_passwords {
            command.arg("--no-role-passwords");
            self.warnings.push(
                "roles were captured without their passwords: this user may not read them (only a superuser may)"
                    .into(),
            );
        }
        let process = Process::start(command, self.process_options(), &self.world.cancel);
        let mut process = process.map_err(|error| error::tool(subject, error))?;
        let mut sql = Vec::new();
        let read = (&mut process).take(GLOBALS_LIMIT).read_to_end(&mut sql);
        if read.is_ok() && !process.at_end() {
            return Err(PostgresError::Other(format!("{subject}: there are too many of them")).into());
        }
        process.finish().map_err(|error| error::tool(subject, error))?;
        let found = globals::parse(&sql);
        self.facts.globals = Some(GlobalFacts {
            part: format!("/{GLOBALS}"),
            roles: found.roles(),
            tablespaces: found.tablespaces(),
            has_passwords,
        });
        Ok(sql)
    }

    fn part(&self, path: String) -> Part {
        Part { path, mode: PART_MODE, mtime: self.consistent.unwrap_or(self.world.now) }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let Some(dump) = &mut self.current else {
            let Globals::Under(sql) = &mut self.globals else { return Ok(0) };
            return sql.read(buffer).map_err(|cause| {
                PostgresError::Local { operation: "read what pg_dumpall said", cause }.into()
            });
        };
        let subject = || format!("dump database {:?}", dump.name);
        let length = dump.process.read_some(buffer).map_err(|error| error::tool(subject(), error))?;
        if length > 0
            && let Some(mut holder) = dump.holder.take()
        {
            holder.query("end the transaction that held the snapshot", "COMMIT")?;
        }
        let pushed = dump.archive.push(&buffer[..length]);
        pushed.map_err(|cause| PostgresError::Archive { subject: subject(), cause })?;
        dump.size_bytes += length as u64;
        Ok(length)
    }
}

/// Seconds since 1970.
fn last_checkpoint(session: &mut dyn Session) -> Result<f64, SourceError> {
    let sql = "SELECT extract(epoch FROM checkpoint_time)::text FROM pg_control_checkpoint()";
    let text = session.value("read the last checkpoint", sql)?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// All databases that can be captured.
fn list(session: &mut dyn Session, warnings: &mut Vec<String>) -> Result<Vec<String>, SourceError> {
    let sql = "SELECT datname, datallowconn, has_database_privilege(oid, 'CONNECT') FROM pg_database
               WHERE NOT datistemplate ORDER BY datname";
    let mut names = Vec::new();
    for row in session.query("list the databases", sql)? {
        let yes = |column: usize| row.get(column).cloned().flatten().as_deref() == Some("t");
        let name = row.first().cloned().flatten().unwrap_or_default();
        if !yes(1) {
            warnings.push(format!("database {name:?} was left out: it allows no connections"));
        } else {
            // One that this user may not enter is a failure, not a gap.
            names.push(name);
        }
    }
    Ok(names)
}

impl Capture for PostgresCapture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        // The first database was begun at the start, before anybody asked.
        let unread = self.current.as_ref().is_some_and(|dump| dump.size_bytes == 0 && !dump.process.at_end());
        if !unread {
            self.end_current()?;
            self.begin_next()?;
        }
        if let Some(dump) = &self.current {
            return Ok(Some(self.part(part_of(&dump.name))));
        }
        match self.globals {
            Globals::Ahead => {
                let sql = self.read_globals()?;
                self.globals = Globals::Under(io::Cursor::new(sql));
                Ok(Some(self.part(GLOBALS.into())))
            }
            _ => {
                self.globals = Globals::Done;
                Ok(None)
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer).map_err(|error| {
            let text = io::Error::other(error.to_string());
            self.failed = Some(error);
            text
        })
    }

    fn finish(mut self: Box<Self>) -> Result<Captured, SourceError> {
        self.world.cancel.check()?;
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.end_current()?;
        if !matches!(self.globals, Globals::Done) {
            return Err(PostgresError::Other("the capture was not read to its end".into()).into());
        }
        let facts = std::mem::take(&mut self.facts);
        let mut warnings = std::mem::take(&mut self.warnings);
        let facts = facts.into_map(&mut warnings);
        let consistent = self.consistent.unwrap_or(self.world.now);
        Ok(Captured { consistent, facts, warnings, ..Captured::default() })
    }
}

impl Drop for PostgresCapture {
    fn drop(&mut self) {
        // First pg_dump, then what the server may still do for it: a session that waits for a lock does not
        // notice that its client is gone.
        self.current = None;
        let Some(name) = self.unsettled.take() else { return };
        let application = literal(self.reach.application());
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = {application} AND pid <> pg_backend_pid()"
        );
        let end = || {
            if let Ok(mut session) = self.reach.farewell(&name) {
                let _ = session.query("end sessions left behind", &sql);
            }
        };
        // Whoever drops it may be on the runtime's own thread, which may not wait for its own work.
        std::thread::scope(|scope| scope.spawn(end).join().ok());
    }
}
