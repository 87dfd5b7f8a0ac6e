//! Back into the data folder of a server that is stopped.
//!
//! A server with `appendonly yes` reads its append-only files and ignores the RDB: it would start empty beside a
//! perfect `dump.rdb`. So old append-only files move aside, and new ones are written by a server of ours that loads
//! the RDB, which proves the counts at the same time. Nothing in the folder changes before that is done; what was
//! there keeps its bytes under another name.

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::address;
use super::capture::USERS_PART;
use super::ephemeral::{Ephemeral, EphemeralOptions};
use super::info::RunClock;
use super::proof::{self, Window};
use super::spool::{self, Received, file};
use super::{RedisError, facts};
use crate::base::cancel::Cancel;
use crate::format::entry::Timestamp;
use crate::source::capture::SourceError;
use crate::source::target::{Returned, StoredPart, Target};

const RDB: &str = "dump.rdb";
/// Append-only files as Redis 7 and as its elders keep them.
const APPEND_ONLY: [&str; 2] = ["appendonlydir", "appendonly.aof"];

/// Whether append-only files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppendOnly {
    /// If there were some.
    Auto,
    Yes,
    No,
}

/// A stopped server's folder.
pub struct FolderTarget {
    folder: PathBuf,
    append_only: AppendOnly,
    force: bool,
    withheld: &'static [&'static str],
    clock: RunClock,
    cancel: Cancel,
    /// Beside what it will replace, so that taking its place is a rename.
    work: Option<tempfile::TempDir>,
    received: Option<Received>,
    users: Vec<String>,
    has_users: bool,
}

fn refused(why: String) -> SourceError {
    SourceError::Refused(why)
}

impl FolderTarget {
    /// `text`: a folder, perhaps with `?appendonly=yes`. `force`: what is in it may move aside.
    ///
    /// # Errors
    /// The text makes no sense.
    pub fn new(
        text: &str,
        force: bool,
        withheld: &'static [&'static str],
        now: Timestamp,
        cancel: &Cancel,
    ) -> Result<Self, SourceError> {
        let (folder, query) = text.split_once('?').unwrap_or((text, ""));
        let mut append_only = AppendOnly::Auto;
        for (key, value) in address::options(query)? {
            append_only = match (key.as_str(), value.as_str()) {
                ("appendonly", "auto") => AppendOnly::Auto,
                ("appendonly", "yes") => AppendOnly::Yes,
                ("appendonly", "no") => AppendOnly::No,
                ("appendonly", _) => {
                    return Err(refused(format!("appendonly={value}: write auto, yes or no")));
                }
                _ => return Err(address::unknown(&key, &["appendonly"])),
            };
        }
        let folder = fs::canonicalize(folder).map_err(file("open", Path::new(folder)))?;
        Ok(Self {
            folder,
            append_only,
            force,
            withheld,
            clock: RunClock::new(now),
            cancel: cancel.clone(),
            work: None,
            received: None,
            users: Vec::new(),
            has_users: false,
        })
    }

    fn present(&self) -> impl Iterator<Item = PathBuf> {
        let paths = [RDB].into_iter().chain(APPEND_ONLY).map(|name| self.folder.join(name));
        paths.filter(|path| path.symlink_metadata().is_ok())
    }

    fn writes_append_only(&self) -> bool {
        let was_there = || APPEND_ONLY.iter().any(|name| self.folder.join(name).exists());
        match self.append_only {
            AppendOnly::Auto => was_there(),
            AppendOnly::Yes => true,
            AppendOnly::No => false,
        }
    }

    fn look(&self) -> Result<(), SourceError> {
        let shown = self.folder.display();
        if let Some(pid) = server_in(&self.folder) {
            let why = format!(
                "a server (process {pid}) runs in {shown}\nhint: stop it first, or restore into it with redis://"
            );
            return Err(refused(why));
        }
        let present: Vec<String> = self.present().map(|path| path.display().to_string()).collect();
        if !present.is_empty() && !self.force {
            let present = present.join(", ");
            return Err(refused(format!("there is {present}\nhint: --force moves it aside")));
        }
        Ok(())
    }

    fn give(&mut self) -> Result<Returned, RedisError> {
        let (Some(work), Some(received)) = (self.work.take(), self.received.take()) else {
            return Err(RedisError::Differs("nothing came".into()));
        };
        let mut returned = Returned::default();
        let tally = &received.tally;
        let mut told = facts::of_part(&format!("/{RDB}"), tally);
        told.insert("folder".into(), self.folder.display().to_string().into());
        returned.facts.insert("redis".into(), told.into());
        let sum = if tally.checksummed { "structure and checksum" } else { "structure" };
        returned.proven.push(format!("{} keys; {sum} are right", tally.keys()));
        let writes = self.writes_append_only();
        let made = self.load(work.path(), received, writes, &mut returned.proven);
        let has_append_only = match made {
            Ok(()) => writes,
            Err(RedisError::Unable(why)) => {
                returned.warnings.push(format!("no server loaded it here: {why}"));
                if writes {
                    returned.warnings.push(
                        "there are no append-only files: start the server with --appendonly no, then CONFIG SET \
                         appendonly yes and wait until INFO says aof_rewrite_in_progress:0, or it starts empty"
                            .into(),
                    );
                }
                false
            }
            Err(error) => return Err(error),
        };
        self.show(work.path(), has_append_only, &mut returned)?;
        Ok(returned)
    }

    /// Lets a server of ours load the RDB, and perhaps write append-only files of it.
    fn load(
        &self,
        work: &Path,
        received: Received,
        writes: bool,
        proven: &mut Vec<String>,
    ) -> Result<(), RedisError> {
        let like = match received.tally.written_by() {
            Some((server, _)) => server,
            None => "redis",
        };
        let options = EphemeralOptions {
            folder: work,
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            like,
            databases: received.tally.databases.keys().max().map_or(0, |last| last + 1),
            append_only: false,
            user: None,
            withheld: self.withheld,
        };
        let begun_ms = self.clock.now_ms();
        let mut server = Ephemeral::start(&options, &self.cancel)?;
        let window = Window { begun_ms, now_ms: self.clock.now_ms() };
        let received = [received];
        proof::keys(&mut server.wire, &received, &window, proven)?;
        proof::functions(&mut server.wire, &received, 0, proven)?;
        if writes {
            server.wire.ask(&["CONFIG", "SET", "appendonly", "yes"])?;
            proof::append_only(&mut server.wire, proven)?;
        }
        server.end();
        Ok(())
    }

    /// Puts everything in its place; what was there moves aside. What can be refused is done before anything moves,
    /// and what moved goes back where a later step fails.
    fn show(&self, work: &Path, has_append_only: bool, returned: &mut Returned) -> Result<(), RedisError> {
        let owner = fs::metadata(&self.folder).map_err(file("look at", &self.folder))?;
        let mut names = vec![RDB];
        if has_append_only {
            names.extend(APPEND_ONLY.into_iter().filter(|name| work.join(name).exists()));
        }
        for name in &names {
            give_to(&work.join(name), owner.uid(), owner.gid())?;
        }
        let users = self.write_users(work, &owner, returned)?;
        let mut moved = Vec::new();
        if let Err(error) = self.swap(work, &names, users, &mut moved) {
            return Err(move_back(&moved, error));
        }
        for (_, to) in moved.iter().filter(|(from, _)| !from.starts_with(work)) {
            returned.warnings.push(format!("what was there is now {}", to.display()));
        }
        Ok(())
    }

    /// Renames, and notes in `moved` from where to where.
    fn swap(
        &self,
        work: &Path,
        names: &[&str],
        users: Option<tempfile::NamedTempFile>,
        moved: &mut Vec<(PathBuf, PathBuf)>,
    ) -> Result<(), RedisError> {
        let stamp = self.clock.now_ms() / 1000;
        // The append-only files first: beside them the RDB counts for nothing.
        let present: Vec<PathBuf> = self.present().collect();
        for path in present.into_iter().rev() {
            let mut aside = path.clone().into_os_string();
            aside.push(format!(".before-{stamp}"));
            fs::rename(&path, &aside).map_err(file("move aside", &path))?;
            moved.push((path, aside.into()));
        }
        for name in names.iter().rev() {
            let (from, to) = (work.join(name), self.folder.join(name));
            fs::rename(&from, &to).map_err(file("put in place", &to))?;
            moved.push((from, to));
        }
        if let Some(users) = users {
            let to = self.folder.join(USERS_PART);
            users.persist_noclobber(&to).map_err(|error| file("write", &to)(error.error))?;
            moved.push((work.join(USERS_PART), to));
        }
        let synced = fs::File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(file("write", &self.folder))
    }

    /// The users as a file that has yet to take its place, if there is one to be made.
    fn write_users(
        &self,
        work: &Path,
        owner: &fs::Metadata,
        returned: &mut Returned,
    ) -> Result<Option<tempfile::NamedTempFile>, RedisError> {
        if !self.has_users {
            return Ok(None);
        }
        let path = self.folder.join(USERS_PART);
        let shown = path.display();
        if path.symlink_metadata().is_ok() {
            returned
                .warnings
                .push(format!("{shown} is there already and stays; the snapshot's is /{USERS_PART}"));
            return Ok(None);
        }
        let text: String = self.users.iter().map(|line| format!("{line}\n")).collect();
        let mut fresh = tempfile::NamedTempFile::new_in(work).map_err(file("write in", work))?;
        io::Write::write_all(&mut fresh, text.as_bytes()).map_err(file("write", fresh.path()))?;
        give_to(fresh.path(), owner.uid(), owner.gid())?;
        returned.warnings.push(format!(
            "the users are in {shown}: the server reads it if its configuration names it as aclfile"
        ));
        Ok(Some(fresh))
    }
}

/// Takes renames back, the last first; names in the error what could not go back.
fn move_back(moved: &[(PathBuf, PathBuf)], error: RedisError) -> RedisError {
    let mut left = Vec::new();
    for (from, to) in moved.iter().rev() {
        if let Err(cause) = fs::rename(to, from) {
            left.push(format!("{} is now {} ({cause})", from.display(), to.display()));
        }
    }
    if left.is_empty() {
        return error;
    }
    RedisError::Unable(format!("{error}; it could not be taken back: {}", left.join(", ")))
}

/// Gives a file, or a folder and what is in it, to the folder's owner.
fn give_to(path: &Path, uid: u32, gid: u32) -> Result<(), RedisError> {
    let given = match chown(path, Some(uid), Some(gid)) {
        // Only root gives away; what is already ours need not be.
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            let ours = path.metadata().is_ok_and(|found| found.uid() == uid);
            if ours { Ok(()) } else { Err(cause) }
        }
        other => other,
    };
    given.map_err(file("give away", path))?;
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(file("read", path))? {
            give_to(&entry.map_err(file("read", path))?.path(), uid, gid)?;
        }
    }
    Ok(())
}

/// A server whose working folder this is: servers change into the folder they keep their data in.
fn server_in(folder: &Path) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        let is_server = name.contains("redis") || name.contains("valkey");
        (is_server && fs::read_link(process.path().join("cwd")).ok()? == folder).then_some(pid)
    })
}

impl Target for FolderTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        if !matches!(facts.get("redis"), Some(Value::Object(_))) {
            return Err(refused("the snapshot is not of a Redis or Valkey server".into()));
        }
        let wanted = spool::wanted(parts)?;
        let sizes = wanted.iter().filter_map(|place| parts.get(*place));
        let rdbs = sizes.clone().filter(|part| !spool::is_users(part)).count();
        if rdbs != 1 {
            let why = format!(
                "the snapshot holds the RDBs of {rdbs} nodes\nhint: choose one: SNAPSHOT:/nodes/ID.rdb"
            );
            return Err(refused(why));
        }
        self.look()?;
        spool::room(&self.folder, sizes.map(|part| part.size_bytes).sum())?;
        let work = tempfile::Builder::new().prefix(".lifeboat-").tempdir_in(&self.folder);
        self.work = Some(work.map_err(file("make a folder in", &self.folder))?);
        Ok(wanted)
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        if spool::is_users(part) {
            self.users = spool::users(content)?;
            // One who changed nothing needs no file.
            self.has_users = self.users.len() > 1;
            return Ok(());
        }
        let Some(work) = &self.work else {
            return Err(RedisError::Differs("a part came before it was asked for".into()).into());
        };
        let to = work.path().join(RDB);
        self.received = Some(spool::receive(content, &to, self.clock.now_ms(), &self.cancel)?);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        self.look()?;
        Ok(self.give()?)
    }
}
