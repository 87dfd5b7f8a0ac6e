//! A database being captured: counted, then backed up by the server's program into a spool folder, then read as one
//! tar stream: the files' names change with every backup, and which shards there are with every week.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use serde_json::{Map, json};

use super::server::{Counts, Server};
use super::{Address, InfluxError, KEY, World};
use crate::base::url::encode;
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, Captured, PART_MODE, Part, SourceError};

/// See the module.
pub struct InfluxCapture {
    address: Address,
    now: Timestamp,
    version: String,
    counts: Counts,
    tar: Box<dyn Read + Send>,
    is_begun: bool,
    at_end: bool,
    files: u64,
    size_bytes: u64,
    failed: Option<String>,
    _spool: tempfile::TempDir,
}

/// Nanoseconds since 1970.
pub fn nanoseconds(at: Timestamp) -> i128 {
    i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanoseconds)
}

impl InfluxCapture {
    /// Counts, and makes the whole backup.
    ///
    /// # Errors
    /// The server cannot be reached, has no such database, or its program fails.
    pub fn start(address: Address, world: &World) -> Result<Self, SourceError> {
        let server = Server::connect(&address, world)?;
        let name = address.database.clone();
        if !server.databases()?.contains(&name) {
            let text = format!(
                "there is no database {name:?} at {}\nhint: SHOW DATABASES lists what there is",
                address.url()
            );
            return Err(InfluxError::Said(text).into());
        }
        let counts = server.count(&name, nanoseconds(world.now))?;
        let local = |operation| move |cause| InfluxError::Local { operation, cause };
        let spool = tempfile::Builder::new().prefix("lifeboat-influx-").tempdir_in(&world.spool);
        let spool = spool.map_err(local("make a folder for the backup"))?;
        server.run(&format!("back up database {name:?}"), &["backup", "-database", &name], spool.path())?;
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(spool.path()).map_err(local("read the backup"))? {
            files.push(entry.map_err(local("read the backup"))?.path());
        }
        files.sort();
        if !files.iter().any(|path| path.to_string_lossy().ends_with(".manifest")) {
            return Err(
                InfluxError::Said(format!("back up database {name:?}: influxd wrote no manifest")).into()
            );
        }
        let tar = tar_of(&files).map_err(local("read the backup"))?;
        Ok(Self {
            address,
            now: world.now,
            version: server.version,
            counts,
            files: files.len() as u64,
            tar,
            is_begun: false,
            at_end: false,
            size_bytes: 0,
            failed: None,
            _spool: spool,
        })
    }
}

/// Files as a tar stream, the same bytes whenever the files are the same.
fn tar_of(files: &[PathBuf]) -> io::Result<Box<dyn Read + Send>> {
    const BLOCK_BYTES: u64 = 512;
    let mut all: Box<dyn Read + Send> = Box::new(io::empty());
    for path in files {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        let mut header = tar::Header::new_ustar();
        header.set_path(path.file_name().unwrap_or_default())?;
        header.set_size(size_bytes);
        header.set_mode(PART_MODE);
        header.set_mtime(0);
        header.set_cksum();
        let padding = io::repeat(0).take(size_bytes.next_multiple_of(BLOCK_BYTES) - size_bytes);
        let header = io::Cursor::new(header.as_bytes().to_vec());
        all = Box::new(all.chain(header).chain(file.take(size_bytes)).chain(padding));
    }
    Ok(Box::new(all.chain(io::repeat(0).take(2 * BLOCK_BYTES))))
}

impl Capture for InfluxCapture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        let first = !std::mem::replace(&mut self.is_begun, true);
        let path = format!("influxdb/{}.tar", encode(&self.address.database, " "));
        Ok(first.then_some(Part { path, mode: PART_MODE, mtime: self.now }))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.tar.read(buffer);
        match &read {
            Ok(length) => {
                self.size_bytes += *length as u64;
                self.at_end |= *length == 0 && !buffer.is_empty();
            }
            Err(error) => self.failed = Some(error.to_string()),
        }
        read
    }

    fn finish(self: Box<Self>) -> Result<Captured, SourceError> {
        if let Some(error) = self.failed {
            return Err(InfluxError::Said(format!("cannot read the backup: {error}")).into());
        }
        if !self.at_end {
            return Err(InfluxError::Said("the capture was not read to its end".into()).into());
        }
        let fact = json!({
            "database": self.address.database, "tool": format!("influxd {}", self.version), "files": self.files,
            "size_bytes": self.size_bytes, "counted_until_ns": nanoseconds(self.now).to_string(), "points": self.counts,
        });
        let facts = Map::from_iter([(KEY.to_owned(), fact)]);
        Ok(Captured { consistent: self.now, facts, ..Captured::default() })
    }
}
