//! The capture of volumes: which way each is read, and everything in the order of the snapshot's paths.
//!
//! Invariant: what is known before a byte is read (a missing volume, a database under its server) fails before a
//! byte is read.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::address::{Address, Options, Reading};
use super::archive::{Entries, Piece};
use super::daemon::Daemon;
use super::guard::{Guard, Plan};
use super::helper::{Helper, Workshop};
use super::volume::{self, Database, User};
use super::{DockerError, VOLUMES, project, proof};
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, Captured, Folder, PART_MODE, Part, SourceError, Step};
use crate::source::files::push_component;

/// A volume that is about to be read.
struct Volume {
    name: String,
    key: Vec<u8>,
    /// Where it is, when it is read directly.
    folder: Option<PathBuf>,
    helper: Arc<Helper>,
    /// Running containers that write to it.
    writers: Vec<User>,
    fact: Value,
}

/// Volumes being captured.
pub struct DockerCapture {
    /// First, so that a capture that is dropped sets containers going before it tidies up.
    guard: Option<Guard>,
    daemon: Daemon,
    options: Options,
    now: Timestamp,
    /// What describes a project, by path.
    parts: BTreeMap<String, Vec<u8>>,
    volumes: VecDeque<Volume>,
    current: Option<(Volume, Entries)>,
    /// What was read of the current file and not yet taken.
    rest: Bytes,
    in_file: bool,
    facts: Map<String, Value>,
    warnings: Vec<String>,
    /// Containers that could not be set going again.
    problems: Vec<String>,
    failed: Option<DockerError>,
    /// What to do before the first volume is read.
    plan: Option<(Plan, Arc<Workshop>)>,
    begun: Instant,
    /// The instant the volumes are true for.
    consistent: Timestamp,
}

impl DockerCapture {
    /// Looks a volume over. `now`: the instant before.
    ///
    /// # Errors
    /// The volume is not there, or must not be read while it is in use.
    pub fn volume(
        daemon: Daemon,
        address: &Address,
        now: Timestamp,
        state: Option<&Path>,
    ) -> Result<Self, SourceError> {
        let mut capture = Self::new(daemon, address, now);
        capture.add_volumes(std::slice::from_ref(&address.name), &[], state)?;
        Ok(capture)
    }

    /// Looks a project over, with all its volumes.
    ///
    /// # Errors
    /// There is no such project, or one of its volumes must not be read while it is in use.
    pub fn project(
        daemon: Daemon,
        address: &Address,
        now: Timestamp,
        state: Option<&Path>,
    ) -> Result<Self, SourceError> {
        let mut capture = Self::new(daemon, address, now);
        let mut found = project::collect(&capture.daemon, &address.name)?;
        let excluded = &address.options.exclude_volumes;
        if let Some(name) = excluded.iter().find(|name| !found.volumes.contains(name)) {
            let why = format!(
                "project {} has no volume {name:?}\nhint: there are {}",
                address.name,
                found.volumes.join(", ")
            );
            return Err(DockerError::Refused(why).into());
        }
        found.volumes.retain(|name| !excluded.contains(name));
        if !excluded.is_empty() {
            found.fact["excluded_volumes"] = json!(excluded);
        }
        capture.add_volumes(&found.volumes, &found.members, state)?;
        capture.facts.insert("project".into(), found.fact);
        capture.warnings = found.warnings;
        capture.parts = found.parts;
        Ok(capture)
    }

    fn new(daemon: Daemon, address: &Address, now: Timestamp) -> Self {
        Self {
            daemon,
            options: address.options.clone(),
            now,
            parts: BTreeMap::new(),
            volumes: VecDeque::new(),
            current: None,
            rest: Bytes::new(),
            in_file: false,
            facts: Map::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
            failed: None,
            plan: None,
            guard: None,
            begun: Instant::now(),
            consistent: now,
        }
    }

    /// `members`: containers to treat besides those that use a volume.
    fn add_volumes(
        &mut self,
        names: &[String],
        members: &[User],
        state: Option<&Path>,
    ) -> Result<(), DockerError> {
        let mut found = Vec::new();
        let mut all: Vec<User> = members.to_vec();
        for name in names {
            let volume = volume::inspect(&self.daemon, name)?;
            let users = volume::users(&self.daemon, name)?;
            for user in &users {
                match all.iter_mut().find(|other| other.id == user.id) {
                    Some(other) => other.writes |= user.writes,
                    None => all.push(user.clone()),
                }
            }
            found.push((volume, users));
        }
        let plan = Plan::make(&self.daemon, &all, &self.options)?;
        let workshop = Workshop::open(&self.daemon, state)?;
        let shared = match self.options.reading {
            Reading::Engine => None,
            Reading::Auto | Reading::Folder => proof::prove(&workshop)?,
        };
        for (volume, users) in found {
            let name = volume.name.clone();
            let helper = Arc::new(workshop.helper(&name, false)?);
            let folder = match &shared {
                Some(shared) => shared.folder(&volume, &helper)?,
                None => None,
            };
            if folder.is_none() && self.options.reading == Reading::Folder {
                let why = format!(
                    "volume {name} cannot be read at its mount point: the Docker daemon is not proven to share our \
                     file system\nhint: leave read=folder out, and it is read through the engine"
                );
                return Err(DockerError::Refused(why));
            }
            let writes = |user: &&User| user.running && user.writes && !plan.quiets(user);
            let writers: Vec<User> = users.iter().filter(writes).cloned().collect();
            if let Some(user) = writers.first().filter(|_| !self.options.crash_unsafe) {
                let database = match &folder {
                    Some(folder) => volume::database_in_folder(folder),
                    None => volume::database_through_engine(&helper)?,
                };
                if let Some(database) = database {
                    return Err(volume::refusal(&name, database, user));
                }
            }
            let through = if folder.is_some() { "folder" } else { "engine" };
            let fact = volume::fact(&volume, &users, through);
            let mut key = VOLUMES.as_bytes().to_vec();
            push_component(&mut key, name.as_bytes());
            self.volumes.push_back(Volume { name, key, folder, helper, writers, fact });
        }
        self.plan = Some((plan, workshop));
        Ok(())
    }

    /// The next entry of the volume that is read through the engine; `None` at its end.
    fn next_entry(&mut self) -> Result<Option<Step>, DockerError> {
        // What nobody read of a file.
        while self.in_file {
            self.fill()?;
            self.rest = Bytes::new();
        }
        let Some((volume, entries)) = &mut self.current else { return Ok(None) };
        match entries.next() {
            Piece::Entry { key, entry } => {
                let name = key.rsplit(|byte| *byte == 0).next().unwrap_or_default();
                if let (Some(database), Some(user)) = (Database::of_name(name), volume.writers.first())
                    && !self.options.crash_unsafe
                {
                    return Err(volume::refusal(&volume.name, database, user));
                }
                self.in_file = entry.content().is_some();
                Ok(Some(Step::Entry { key, entry }))
            }
            Piece::Bytes(_) => Err(DockerError::Failed("bytes of no file: this is a bug".into())),
            Piece::End => {
                self.current = None;
                Ok(None)
            }
            Piece::Failed(error) => Err(error),
        }
    }

    fn fill(&mut self) -> Result<(), DockerError> {
        let Some((_, entries)) = &mut self.current else { return Ok(()) };
        match entries.next() {
            Piece::Bytes(bytes) => {
                self.in_file = !bytes.is_empty();
                self.rest = bytes;
                Ok(())
            }
            Piece::Failed(error) => Err(error),
            Piece::Entry { .. } | Piece::End => {
                Err(DockerError::Failed("a file without an end: this is a bug".into()))
            }
        }
    }

    fn step(&mut self) -> Result<Option<Step>, DockerError> {
        if let Some((path, bytes)) = self.parts.pop_first() {
            self.rest = bytes.into();
            return Ok(Some(Step::Stream(Part { path, mode: PART_MODE, mtime: self.now })));
        }
        if let Some(step) = self.next_entry()? {
            return Ok(Some(step));
        }
        if let Some((plan, workshop)) = self.plan.take() {
            self.guard = Guard::engage(plan, &workshop)?;
            self.consistent = later(self.now, self.begun.elapsed());
        }
        let Some(mut volume) = self.volumes.pop_front() else {
            // Everything was read: nobody has to wait for the rest.
            if let Some(guard) = self.guard.take() {
                let released = guard.release()?;
                self.warnings.extend(released.warnings);
                self.problems.extend(released.problems);
            }
            return Ok(None);
        };
        let volumes = self.facts.entry("volumes").or_insert_with(|| json!({}));
        if let Some(volumes) = volumes.as_object_mut() {
            volumes.insert(volume.name.clone(), volume.fact.take());
        }
        if volume.folder.is_some() {
            return Ok(Some(Step::Folder { key: volume.key }));
        }
        let subject = format!("volume {}", volume.name);
        let entries = Entries::start(&volume.helper, subject, volume.key.clone())?;
        self.current = Some((volume, entries));
        self.next_entry()
    }
}

impl Capture for DockerCapture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        let why = "volumes are captured by steps: this is a bug";
        Err(DockerError::Failed(why.into()).into())
    }

    fn next_step(&mut self) -> Result<Option<Step>, SourceError> {
        Ok(self.step()?)
    }

    fn folders(&self) -> Vec<Folder> {
        let folder = |volume: &Volume| Some(Folder { key: volume.key.clone(), path: volume.folder.clone()? });
        self.volumes.iter().filter_map(folder).collect()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && self.in_file {
            self.fill().map_err(|error| {
                let text = error.to_string();
                self.failed = Some(error);
                io::Error::other(text)
            })?;
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }

    fn finish(mut self: Box<Self>) -> Result<Captured, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        self.daemon.cancel.check()?;
        if self.current.is_some() || !self.volumes.is_empty() {
            return Err(DockerError::Failed("not every volume was read: this is a bug".into()).into());
        }
        let mut docker = std::mem::take(&mut self.facts);
        docker.insert("engine".into(), self.daemon.version.clone().into());
        docker.insert("api".into(), self.daemon.api_version.clone().into());
        let mut facts = Map::new();
        facts.insert("docker".into(), docker.into());
        let warnings = std::mem::take(&mut self.warnings);
        let problems = std::mem::take(&mut self.problems);
        Ok(Captured { consistent: self.consistent, facts, warnings, problems })
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let nanoseconds = time.nanoseconds + by.subsec_nanos();
    Timestamp {
        seconds: time.seconds + by.as_secs().cast_signed() + i64::from(nanoseconds / 1_000_000_000),
        nanoseconds: nanoseconds % 1_000_000_000,
    }
}
