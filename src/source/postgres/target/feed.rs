//! The tables and rows of an archive into the database beside, through `pg_restore`: as they come, or from a spool
//! file with several sessions. What follows the rows is [`super::build`]'s.
//!
//! The archive is followed on its way, so that a part that broke off is known for it, whatever `pg_restore` makes
//! of it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use super::super::archive::{Archive, Entry};
use super::super::error::{self, PostgresError};
use super::super::globals::connection_string;
use super::super::reach::Tool;
use super::PostgresTarget;
use crate::base::process::{Process, ProcessOptions};
use crate::source::capture::SourceError;

const BUFFER_BYTES: usize = 256 << 10;
/// The mark of an entry whose data has a known place.
const AT_KNOWN_PLACE: u8 = 2;
/// What only a superuser may make.
const GUARDED: [&[u8]; 8] = [
    b"ACCESS METHOD",
    b"EVENT TRIGGER",
    b"FOREIGN DATA WRAPPER",
    b"OPERATOR CLASS",
    b"OPERATOR FAMILY",
    b"SUBSCRIPTION",
    b"TEXT SEARCH PARSER",
    b"TEXT SEARCH TEMPLATE",
];

fn local(operation: &'static str) -> impl Fn(io::Error) -> PostgresError {
    move |cause| PostgresError::Local { operation, cause }
}

impl PostgresTarget {
    /// Restores one archive into the database beside.
    pub(super) fn feed(&mut self, place: usize, content: &mut dyn Read) -> Result<(), SourceError> {
        let subject = format!("restore database {:?}", self.plans[place].name);
        let broken = |cause| PostgresError::Archive { subject: subject.clone(), cause };
        // What came is proven by what the server gives back; here only the end matters.
        let mut archive = Archive::skimming();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut head = Vec::new();
        while !archive.has_table() {
            let length = content.read(&mut buffer).map_err(local("read the archive"))?;
            if length == 0 {
                archive.finish().map_err(broken)?;
                break;
            }
            head.extend_from_slice(&buffer[..length]);
            archive.push(&buffer[..length]).map_err(broken)?;
        }
        let left_out = self.leave_out(place, &archive);
        self.look_at_owners(place, &archive)?;
        let mut command = self.command(place)?;
        command.args(["--section=pre-data", "--section=data"]);
        let list = match left_out.is_empty() {
            true => None,
            false => Some(list_file(&archive, &|entry| !left_out.contains(&entry.id))?),
        };
        if let Some(list) = &list {
            command.arg("--use-list").arg(list.path());
        }
        // Building an index says nothing for hours.
        let options = ProcessOptions { no_progress: None, ..ProcessOptions::default() };
        let failed = |error| error::tool(subject.clone(), error);
        let toc;
        if self.flags.jobs > 1 {
            let spool = self.spool(&mut archive, &head, content, &mut buffer)?;
            archive.finish().map_err(broken)?;
            toc = spool;
            let spool = &toc;
            command.arg(format!("--jobs={}", self.flags.jobs)).arg(spool.path());
            let mut process = Process::start(command, options, &self.world.cancel).map_err(failed)?;
            drain(&mut process, &mut buffer).map_err(failed)?;
            process.finish().map_err(failed)?;
        } else {
            let started = Process::start_fed(command, options, &self.world.cancel);
            let (mut process, mut feed) = started.map_err(failed)?;
            let mut write = |bytes: &[u8]| match feed.write_all(bytes) {
                // Then the tool is gone, and says why below.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
                written => written.map(|()| true),
            };
            let mut is_there = write(&head).map_err(|error| self.write_error(error))?;
            toc = self.head_file(&head)?;
            drop(std::mem::take(&mut head));
            while is_there {
                let length = content.read(&mut buffer).map_err(local("read the archive"))?;
                if length == 0 {
                    break;
                }
                archive.push(&buffer[..length]).map_err(broken)?;
                is_there = write(&buffer[..length]).map_err(|error| self.write_error(error))?;
            }
            if is_there {
                archive.finish().map_err(broken)?;
            }
            drop(feed);
            drain(&mut process, &mut buffer).map_err(failed)?;
            process.finish().map_err(failed)?;
            archive.finish().map_err(broken)?;
        }
        self.plans[place].left_out = left_out;
        let read_back = self.build(place, &archive, toc.path())?;
        self.plans[place].read_back = Some(read_back);
        Ok(())
    }

    /// The beginning of the archive, for what needs its table of contents only.
    fn head_file(&self, head: &[u8]) -> Result<tempfile::NamedTempFile, SourceError> {
        let file = tempfile::Builder::new().prefix("lifeboat-postgres-").tempfile_in(&self.world.spool);
        let mut file = file.map_err(local("make a spool file"))?;
        file.write_all(head).map_err(local("write the spool file"))?;
        Ok(file)
    }

    /// Owners must be there before their tables come, or the restore fails at the first of them.
    fn look_at_owners(&self, place: usize, archive: &Archive) -> Result<(), SourceError> {
        if !self.server()?.is_superuser {
            return Ok(());
        }
        let mut session = self.maintenance()?;
        let rows = session.query("list the roles", "SELECT rolname FROM pg_roles")?;
        let there: HashSet<String> = rows.into_iter().filter_map(|row| row.into_iter().next()?).collect();
        let owners = archive.entries().iter().filter_map(|entry| String::from_utf8(entry.owner.clone()).ok());
        let mut missing: Vec<String> =
            owners.filter(|owner| !owner.is_empty() && !there.contains(owner)).collect();
        missing.sort();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        Err(SourceError::Refused(format!(
            "objects of database {:?} belong to roles that {} does not have: {}\nhint: restore the whole snapshot, which \
             brings its roles, or make them first: lifeboat dump SNAP:/globals.sql",
            self.plans[place].from,
            self.reach.shown(),
            missing.join(", ")
        )))
    }

    fn write_error(&self, cause: io::Error) -> SourceError {
        match self.world.cancel.check() {
            Err(cancelled) => cancelled.into(),
            Ok(()) => PostgresError::Local { operation: "write to pg_restore", cause }.into(),
        }
    }

    pub(super) fn command(&self, place: usize) -> Result<std::process::Command, SourceError> {
        let server = self.server()?;
        let plan = &self.plans[place];
        let mut command = self.reach.command(&server.tools, Tool::Restore, &plan.beside);
        command.arg("--exit-on-error").arg(format!("--dbname={}", connection_string(&plan.beside)));
        if !server.is_superuser {
            command.args(["--no-owner", "--no-acl"]);
        }
        if let Some(role) = &self.address.role {
            command.arg(format!("--role={role}"));
        }
        if self.without_tablespaces() {
            command.arg("--no-tablespaces");
        }
        Ok(command)
    }

    /// Entries that this user may not restore; each is named.
    fn leave_out(&mut self, place: usize, archive: &Archive) -> Vec<u64> {
        let Ok(server) = self.server() else { return Vec::new() };
        if server.is_superuser {
            return Vec::new();
        }
        let guarded = |entry: &&Entry| {
            let extension = |tag: &[u8]| server.guarded_extensions.iter().any(|name| name.as_bytes() == tag);
            match entry.kind.as_slice() {
                b"EXTENSION" => extension(&entry.tag),
                // An extension belongs to whoever owns the server, who alone may comment on it.
                b"COMMENT" => entry.tag.starts_with(b"EXTENSION "),
                kind => GUARDED.contains(&kind),
            }
        };
        let entries: Vec<&Entry> = archive.entries().iter().filter(guarded).collect();
        let mut not_done = Vec::new();
        for entry in &entries {
            let (kind, tag) = (String::from_utf8_lossy(&entry.kind), String::from_utf8_lossy(&entry.tag));
            let what = format!("{kind} {tag} was left out: only a superuser may restore it");
            // Nothing works worse without a comment.
            if kind == "COMMENT" { self.warnings.push(what) } else { not_done.push(what) }
        }
        let left_out = entries.iter().map(|entry| entry.id).collect();
        self.not_done.extend(not_done);
        let name = &self.plans[place].name;
        self.warnings.push(format!(
            "{name:?} was restored without its owners and grants: only a superuser may give them"
        ));
        left_out
    }

    /// The archive as a file that knows where each table's data is, as `pg_dump` would have left it in a file.
    fn spool(
        &self,
        archive: &mut Archive,
        head: &[u8],
        content: &mut dyn Read,
        buffer: &mut [u8],
    ) -> Result<tempfile::NamedTempFile, SourceError> {
        let spool = tempfile::Builder::new().prefix("lifeboat-postgres-").tempfile_in(&self.world.spool);
        let mut spool = spool.map_err(local("make a spool file"))?;
        spool.write_all(head).map_err(local("write the spool file"))?;
        loop {
            self.world.cancel.check()?;
            let length = content.read(buffer).map_err(local("read the archive"))?;
            if length == 0 {
                break;
            }
            archive
                .push(&buffer[..length])
                .map_err(|cause| PostgresError::Archive { subject: "spool the archive".into(), cause })?;
            spool.write_all(&buffer[..length]).map_err(local("write the spool file"))?;
        }
        spool.flush().map_err(local("write the spool file"))?;
        let width = archive.head().map_or(8, |head| head.offset_bytes);
        for entry in archive.entries().iter().filter(|entry| entry.has_data) {
            let Some(block) = archive.block(entry.id) else { continue };
            let mut field = vec![AT_KNOWN_PLACE];
            field.extend_from_slice(&block.at.to_le_bytes()[..width]);
            let file: &File = spool.as_file();
            file.write_all_at(&field, entry.offset_at).map_err(local("write the spool file"))?;
        }
        Ok(spool)
    }
}

/// What the tool prints is not wanted, but must not fill the pipe.
pub(super) fn drain(
    process: &mut Process,
    buffer: &mut [u8],
) -> Result<(), crate::base::process::ProcessError> {
    while process.read_some(buffer)? > 0 {}
    Ok(())
}

/// The entries to restore, as a list for the tool.
pub(super) fn list_file(
    archive: &Archive,
    wanted: &dyn Fn(&Entry) -> bool,
) -> Result<tempfile::NamedTempFile, PostgresError> {
    let mut list = String::new();
    for entry in archive.entries().iter().filter(|entry| wanted(entry)) {
        list.push_str(&format!("{};\n", entry.id));
    }
    let write = || -> io::Result<tempfile::NamedTempFile> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(list.as_bytes())?;
        Ok(file)
    };
    write().map_err(local("write the list of entries"))
}
