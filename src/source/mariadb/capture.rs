//! Databases being captured: one dump each, in a transaction of its own, followed as it streams; then the users.
//!
//! Nothing of ours is kept on the server: the dump tool's session is the only one, and ends with it.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::time::Instant;

use super::address::{Address, Databases};
use super::dump::Dump;
use super::error::{self, MariaError};
use super::facts::{DatabaseFacts, Facts, UserFacts};
use super::session::{Reach, literal};
use super::{World, users};
use crate::base::process::{Process, ProcessOptions};
use crate::base::url::encode;
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, Captured, PART_MODE, Part, SourceError};

/// Name of the part with users and roles. After `databases/` in the order of paths.
const USERS: &str = "users.sql";
/// Databases that are the server's own.
const SERVERS_OWN: [&str; 5] = ["information_schema", "mysql", "performance_schema", "sys", "ndbinfo"];
/// Where `SHOW SLAVE STATUS` says how far behind it is.
const LAG_COLUMN: usize = 32;

/// See the module.
pub struct MariaCapture {
    address: Address,
    world: World,
    reach: Reach,
    waiting: VecDeque<String>,
    current: Option<Stream>,
    users: Users,
    facts: Facts,
    consistent: Timestamp,
    warnings: Vec<String>,
    failed: Option<SourceError>,
}

/// A database under way.
struct Stream {
    name: String,
    process: Process,
    dump: Dump,
    facts: DatabaseFacts,
    begun: Instant,
    /// What the follower gives that nobody wants here.
    out: Vec<u8>,
}

enum Users {
    Ahead,
    Under(io::Cursor<Vec<u8>>),
    Done,
}

/// Where a database's dump stands in a snapshot.
fn part_of(database: &str) -> String {
    // A name made of dots would be a folder's.
    let name = match database.strip_prefix('.') {
        Some(rest) => format!("%2E{}", encode(rest, " ")),
        None => encode(database, " "),
    };
    format!("databases/{name}.sql")
}

impl MariaCapture {
    /// Connects, looks what there is, chooses tools and starts the first dump.
    ///
    /// # Errors
    /// The server cannot be reached, a database is missing, there are no tools.
    pub fn start(address: Address, world: World) -> Result<Self, SourceError> {
        let mut reach = Reach::connect(&address.server, address.tools.as_deref(), &world)?;
        let mut warnings = std::mem::take(&mut reach.warnings);
        let rows = reach.query(
            "list the databases",
            None,
            "SELECT 'd', SCHEMA_NAME FROM information_schema.SCHEMATA",
        )?;
        let there: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().nth(1)).collect();
        let mut names = match &address.databases {
            Databases::All => {
                let own = |name: &&String| SERVERS_OWN.contains(&name.as_str());
                there.iter().filter(|name| !own(name)).cloned().collect()
            }
            Databases::Named(names) => names.clone(),
        };
        if let Some(missing) = names.iter().find(|name| !there.contains(name)) {
            let text = format!(
                "there is no database {missing:?} at {}\nhint: SHOW DATABASES there lists what this user may see",
                reach.server.shown()
            );
            return Err(MariaError::Other(text).into());
        }
        names.sort_by_key(|name| part_of(name).into_bytes());
        let mut facts = Facts {
            flavour: reach.flavour.name().into(),
            server_version: reach.version.clone(),
            tool: reach.tools.shown(),
            tool_flavour: reach.tools.flavour.name().into(),
            clock_skew_seconds: reach.skew_seconds,
            ..Facts::default()
        };
        let consistent = as_of(&reach, &world, &mut facts, &mut warnings)?;
        let mut capture = Self {
            address,
            world,
            reach,
            waiting: names.into(),
            current: None,
            users: Users::Ahead,
            facts,
            consistent,
            warnings,
            failed: None,
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
        let sql = format!(
            "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA
             WHERE SCHEMA_NAME = {0};
             SELECT 'history', TABLE_NAME FROM information_schema.TABLES
             WHERE TABLE_SCHEMA = {0} AND TABLE_TYPE = 'SYSTEM VERSIONED'",
            literal(&name)
        );
        let mut rows = self.reach.query("look at the database", None, &sql)?.into_iter();
        let mut kind = rows.next().unwrap_or_default().into_iter();
        let facts = DatabaseFacts {
            part: format!("/{}", part_of(&name)),
            charset: kind.next().unwrap_or_default(),
            collation: kind.next().unwrap_or_default(),
            ..DatabaseFacts::default()
        };
        for table in rows.filter_map(|row| row.into_iter().nth(1)) {
            self.warnings.push(format!(
                "database {name:?}: of system-versioned table {table} only what is now was captured, not its history"
            ));
        }
        let mut with: Vec<String> = ["--routines", "--events", "--triggers"].map(String::from).into();
        for table in &self.address.exclude_tables {
            let of_other = table.split_once('.').is_some_and(|(database, _)| database != name);
            let full = if table.contains('.') { table.clone() } else { format!("{name}.{table}") };
            if !of_other {
                with.push(format!("--ignore-table={full}"));
            }
        }
        let options =
            ProcessOptions { no_progress: Some(self.address.no_progress), ..ProcessOptions::default() };
        let process = Process::start(self.reach.dump(&name, &with), options, &self.world.cancel);
        let process = process.map_err(|error| error::tool(format!("dump database {name:?}"), error))?;
        let (dump, begun) = (Dump::new(false), Instant::now());
        self.current = Some(Stream { name, process, dump, facts, begun, out: Vec::new() });
        Ok(())
    }

    /// The part being read ended: it must have ended well.
    fn end_current(&mut self) -> Result<(), SourceError> {
        let Some(stream) = self.current.take() else { return Ok(()) };
        let Stream { name, process, dump, mut facts, begun, .. } = stream;
        let subject = format!("dump database {name:?}");
        if !process.at_end() {
            return Err(MariaError::Other(format!("{subject}: it was not read to its end")).into());
        }
        let stderr = process.finish().map_err(|error| error::tool(subject.clone(), error))?;
        let followed = dump.finish().map_err(|cause| MariaError::Dump { subject: subject.clone(), cause })?;
        tracing::info!("{subject}: {} bytes in {:?}", facts.size_bytes, begun.elapsed());
        for line in stderr.lines().filter(|line| !line.trim().is_empty()) {
            self.warnings.push(format!("{subject}: {line}"));
        }
        (facts.tables, facts.objects) = (followed.tables, followed.objects);
        self.warnings.extend(facts.warning(&name));
        self.facts.databases.insert(name, facts);
        Ok(())
    }

    fn read_users(&mut self) -> Result<Vec<u8>, SourceError> {
        let sections = match users::capture(&self.reach, &mut self.warnings) {
            Ok(sections) => sections,
            Err(cancelled @ SourceError::Cancelled(_)) => return Err(cancelled),
            Err(error) => {
                self.world.cancel.check()?;
                let why = users::server_said(&error);
                self.warnings.push(format!("users and their rights were not captured: {why}"));
                return Ok(users::write(&[]).into_bytes());
            }
        };
        let names = sections.iter().map(|section| section.account.shown()).collect();
        self.facts.users = Some(UserFacts { part: format!("/{USERS}"), names });
        Ok(users::write(&sections).into_bytes())
    }

    fn part(&self, path: String) -> Part {
        Part { path, mode: PART_MODE, mtime: self.consistent }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let Some(stream) = &mut self.current else {
            let Users::Under(sql) = &mut self.users else { return Ok(0) };
            return sql
                .read(buffer)
                .map_err(|cause| MariaError::Local { operation: "read the users", cause }.into());
        };
        let subject = || format!("dump database {:?}", stream.name);
        let length = stream.process.read_some(buffer).map_err(|error| error::tool(subject(), error))?;
        let pushed = stream.dump.push(&buffer[..length], &mut stream.out);
        stream.out.clear();
        pushed.map_err(|cause| MariaError::Dump { subject: subject(), cause })?;
        stream.facts.size_bytes += length as u64;
        Ok(length)
    }
}

/// The instant the data is true for at the earliest: before the first transaction, less a replica's lag.
fn as_of(
    reach: &Reach,
    world: &World,
    facts: &mut Facts,
    warnings: &mut Vec<String>,
) -> Result<Timestamp, SourceError> {
    let status = match reach.query("ask whether it is a replica", None, "SHOW SLAVE STATUS") {
        Ok(rows) => rows,
        Err(cancelled @ SourceError::Cancelled(_)) => return Err(cancelled),
        // Newer servers have another word for it; and not everybody may ask.
        Err(_) => reach.query("ask whether it is a replica", None, "SHOW REPLICA STATUS").unwrap_or_default(),
    };
    let Some(row) = status.first() else { return Ok(world.now) };
    let Some(lag) = row.get(LAG_COLUMN).and_then(|text| text.parse::<u32>().ok()) else {
        let why = "the server is a replica that does not replicate, so how old its data is cannot be known";
        warnings.push(why.into());
        return Ok(world.now);
    };
    facts.replica_lag_seconds = Some(f64::from(lag));
    // It counts whole seconds.
    Ok(Timestamp { seconds: world.now.seconds - i64::from(lag) - 1, ..world.now })
}

impl Capture for MariaCapture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        // The first database was begun at the start, before anybody asked.
        let unread = self
            .current
            .as_ref()
            .is_some_and(|stream| stream.facts.size_bytes == 0 && !stream.process.at_end());
        if !unread {
            self.end_current()?;
            self.begin_next()?;
        }
        if let Some(stream) = &self.current {
            return Ok(Some(self.part(part_of(&stream.name))));
        }
        match self.users {
            Users::Ahead => {
                let sql = self.read_users()?;
                self.users = Users::Under(io::Cursor::new(sql));
                Ok(Some(self.part(USERS.into())))
            }
            _ => {
                self.users = Users::Done;
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
        if !matches!(self.users, Users::Done) {
            return Err(MariaError::Other("the capture was not read to its end".into()).into());
        }
        let Self { facts, warnings, consistent, .. } = *self;
        Ok(Captured { consistent, facts: facts.into_map(), warnings, ..Captured::default() })
    }
}
