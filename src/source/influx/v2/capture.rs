//! Buckets being captured: counted, then one shard after the other, each a part of its own.
//!
//! The list of shards is read again once all is counted: one that came between holds points that were counted.
//!
//! Shards go while they are captured: those whose retention is over. One that the server does not have any more counts
//! as gone only when the server's own list agrees, read once more at the end: a 404 may come from anybody on the way.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Cursor, Read};

use serde_json::{Map, Value, json};

use super::archive::Archive;
use super::bucket::{Bucket, DESCRIPTION, TOP, shard_part, shards_folder};
use super::counts::{self, Counts};
use super::server::Server;
use super::{Address, KEY, LABEL, http_error, refused, said};
use crate::base::http::Download;
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, Captured, PART_MODE, Part, SourceError, in_key_order};
use crate::source::influx::World;

/// Names listed when there are several.
const NAMED: usize = 10;

/// What a part is read from.
enum Content {
    Document(Vec<u8>),
    Store(File),
    Shard { bucket: usize, id: u64 },
}

/// The part under way.
enum Current {
    /// None, or one that was read to its end.
    Done,
    Document(Cursor<Vec<u8>>),
    Store(File),
    Shard {
        bucket: usize,
        id: u64,
        download: Box<Download>,
        archive: Box<Archive>,
    },
}

struct Counted {
    bucket: Bucket,
    points: Option<Counts>,
    size_bytes: u64,
    shards: u64,
}

/// See the module.
pub struct Influx2Capture {
    server: Server,
    now: Timestamp,
    until: String,
    buckets: Vec<Counted>,
    has_stores: bool,
    waiting: VecDeque<(String, Content)>,
    current: Current,
    /// Shards the server did not have.
    gone: BTreeSet<u64>,
    warnings: Vec<String>,
    failed: Option<SourceError>,
}

/// An instant as RFC 3339 has it, to the nanosecond.
fn written(at: Timestamp) -> Result<String, SourceError> {
    let at = jiff::Timestamp::new(at.seconds, i32::try_from(at.nanoseconds).unwrap_or(0));
    at.map(|at| format!("{at:.9}")).map_err(|_| said("the clock shows a time that no server knows"))
}

impl Influx2Capture {
    /// Asks for the buckets, counts their points, and is ready to read the first shard.
    ///
    /// # Errors
    /// The server cannot be reached or refuses, or has no such bucket.
    pub fn start(address: Address, world: &World) -> Result<Self, SourceError> {
        let server = Server::connect(&address, world)?;
        let until = written(world.now)?;
        let wants_stores = address.bucket.is_none() && address.org.is_none();
        let stores = wants_stores.then_some(world.spool.as_path());
        let found = server.metadata(stores.filter(|_| !address.counts))?;
        let mut warnings = vec![LABEL.to_owned()];
        warnings.extend(server.warnings.iter().cloned());
        if !found.unknown.is_empty() {
            warnings.push(format!(
                "the server's metadata has parts that are not captured: {}",
                found.unknown.join(", ")
            ));
        }
        let buckets = chosen(&address, found.buckets)?;
        let mut capture = Self {
            server,
            now: world.now,
            until,
            buckets: Vec::new(),
            has_stores: wants_stores,
            waiting: VecDeque::new(),
            current: Current::Done,
            gone: BTreeSet::new(),
            warnings,
            failed: None,
        };
        for bucket in buckets {
            let points = capture.count(&address, &bucket)?;
            capture.buckets.push(Counted { bucket, points, size_bytes: 0, shards: 0 });
        }
        let mut stored = found.stores;
        if address.counts {
            // A shard that came between holds points that were counted: those are captured that there are now.
            let now = capture.server.metadata(stores)?;
            capture.settle(now.buckets)?;
            stored = now.stores;
        }
        let mut waiting = Vec::new();
        let store = |(name, file)| (format!("{TOP}/metadata/{name}"), Content::Store(file));
        waiting.extend(stored.into_iter().map(store));
        for (place, counted) in capture.buckets.iter().enumerate() {
            let folder = counted.bucket.folder();
            let description = counted.bucket.described(counted.points.as_ref()).to_string();
            waiting.push((format!("{folder}/{DESCRIPTION}"), Content::Document(description.into_bytes())));
            let shard = |id: &u64| (shard_part(&folder, *id), Content::Shard { bucket: place, id: *id });
            waiting.extend(counted.bucket.shards.keys().map(shard));
        }
        waiting.sort_by(|(a, _), (b, _)| in_key_order(a, b));
        capture.waiting = waiting.into();
        Ok(capture)
    }

    /// Takes the buckets as they are once all were counted.
    fn settle(&mut self, mut now: Vec<Bucket>) -> Result<(), SourceError> {
        for counted in &mut self.buckets {
            let Some(place) = now.iter().position(|bucket| bucket.id == counted.bucket.id) else {
                return Err(said(format!(
                    "bucket {:?} was removed while it was captured",
                    counted.bucket.name
                )));
            };
            let was = std::mem::replace(&mut counted.bucket, now.swap_remove(place));
            let is_over = |id: &u64| !counted.bucket.shards.contains_key(id);
            if counted.points.is_some() && was.shards.keys().any(is_over) {
                // They were counted, perhaps.
                counted.points = None;
                self.warnings.push(format!(
                    "shards of bucket {:?} were removed by its server while points were counted: its points are not proven by \
                     their number",
                    was.name
                ));
            }
        }
        Ok(())
    }

    /// The points of a bucket; `None` when nobody wants to know, or the server does not tell.
    fn count(&mut self, address: &Address, bucket: &Bucket) -> Result<Option<Counts>, SourceError> {
        if !address.counts {
            return Ok(None);
        }
        match self.server.count(&bucket.id, bucket.org_id(), &self.until) {
            Ok(points) => Ok(Some(points)),
            Err(error @ SourceError::Cancelled(_)) => Err(error),
            Err(error) => {
                let error = error.to_string();
                let first = error.lines().next().unwrap_or_default();
                self.warnings.push(format!(
                    "the points of bucket {:?} were not counted, and a restore is not proven by them: {first}",
                    bucket.name
                ));
                Ok(None)
            }
        }
    }

    fn try_next(&mut self) -> Result<Option<Part>, SourceError> {
        if !matches!(self.current, Current::Done) {
            return Err(said("a part was not read to its end"));
        }
        while let Some((path, content)) = self.waiting.pop_front() {
            self.current = match content {
                Content::Document(bytes) => Current::Document(Cursor::new(bytes)),
                Content::Store(file) => Current::Store(file),
                Content::Shard { bucket, id } => match self.server.shard(id)? {
                    Some(download) => {
                        let download = Box::new(download);
                        Current::Shard { bucket, id, download, archive: Box::default() }
                    }
                    None => {
                        self.gone.insert(id);
                        continue;
                    }
                },
            };
            return Ok(Some(Part { path, mode: PART_MODE, mtime: self.now }));
        }
        Ok(None)
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let local = |error: io::Error| said(format!("cannot read a spool file: {error}"));
        let length = match &mut self.current {
            Current::Done => 0,
            Current::Document(bytes) => bytes.read(buffer).map_err(local)?,
            Current::Store(file) => file.read(buffer).map_err(local)?,
            Current::Shard { bucket, id, download, archive } => {
                let length = download.read_some(buffer).map_err(http_error)?;
                let whole = match length {
                    0 if !buffer.is_empty() => archive.finish(),
                    _ => archive.push(&buffer[..length]),
                };
                whole.map_err(|error| said(format!("cannot read shard {id}: {error}")))?;
                if let Some(counted) = self.buckets.get_mut(*bucket) {
                    counted.size_bytes += length as u64;
                    counted.shards += u64::from(length == 0 && !buffer.is_empty());
                }
                length
            }
        };
        if length == 0 && !buffer.is_empty() {
            self.current = Current::Done;
        }
        Ok(length)
    }

    /// Shards that were not there: does the server's own list agree?
    fn check_gone(&self) -> Result<(), SourceError> {
        if self.gone.is_empty() {
            return Ok(());
        }
        let now = self.server.metadata(None)?;
        let there: BTreeSet<u64> =
            now.buckets.iter().flat_map(|bucket| bucket.shards.keys().copied()).collect();
        let is_listed = |counted: &Counted| now.buckets.iter().any(|bucket| bucket.id == counted.bucket.id);
        if let Some(lost) = self.buckets.iter().find(|counted| !is_listed(counted)) {
            return Err(said(format!("bucket {:?} was removed while it was captured", lost.bucket.name)));
        }
        match self.gone.intersection(&there).next() {
            None => Ok(()),
            Some(id) => Err(said(format!(
                "the server lists shard {id}, and says that there is none when asked for it\nhint: its log says why"
            ))),
        }
    }

    fn fact(&self, counted: &Counted) -> Value {
        let bucket = &counted.bucket;
        let gone: Vec<&u64> = bucket.shards.keys().filter(|id| self.gone.contains(id)).collect();
        json!({
            "org": bucket.org, "bucket": bucket.name, "id": bucket.id, "folder": bucket.folder(),
            "shards": counted.shards, "shards_gone": gone, "size_bytes": counted.size_bytes,
            "retention_seconds": bucket.retention_seconds,
            "points": counted.points.as_ref().filter(|_| gone.is_empty()).map(counts::total),
        })
    }
}

/// The buckets an address means.
fn chosen(address: &Address, all: Vec<Bucket>) -> Result<Vec<Bucket>, SourceError> {
    let (place, is_any) = (address.url(), address.bucket.is_none());
    let named = |bucket: &Bucket| address.bucket.as_ref().is_none_or(|name| *name == bucket.name);
    let within = |bucket: &Bucket| address.org.as_ref().is_none_or(|org| *org == bucket.org);
    let quoted = |names: BTreeSet<&str>| {
        let shown: Vec<String> = names.iter().take(NAMED).map(|name| format!("{name:?}")).collect();
        let more = if names.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    };
    let orgs = quoted(all.iter().map(|bucket| bucket.org.as_str()).collect());
    let names =
        quoted(all.iter().filter(|bucket| !bucket.is_system()).map(|bucket| bucket.name.as_str()).collect());
    if let Some(org) = &address.org
        && !all.iter().any(within)
    {
        return refused(format!(
            "there is no organization {org:?} with buckets at {place}\nhint: there are {orgs}"
        ));
    }
    // A server's own buckets are made by itself, and by nobody else.
    let wanted = |bucket: &Bucket| named(bucket) && within(bucket) && !(is_any && bucket.is_system());
    let chosen: Vec<Bucket> = all.into_iter().filter(wanted).collect();
    match (&address.bucket, chosen.as_slice()) {
        (Some(name), []) => Err(said(format!(
            "there is no bucket {name:?} at {place}\nhint: there are {names}; * means all of them"
        ))),
        (None, []) => Err(said(format!("there is no bucket at {place}"))),
        (Some(name), [one]) if one.is_system() => refused(format!(
            "bucket {name:?} is the server's own: nobody can make one, and so nothing could be given back"
        )),
        (Some(name), [one, other, ..]) => refused(format!(
            "several organizations have a bucket {name:?}: {:?}, {:?}\nhint: name one of them: ?org=NAME",
            one.org, other.org
        )),
        _ => Ok(chosen),
    }
}

impl Capture for Influx2Capture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        self.try_next()
    }

    fn roots(&self) -> Vec<String> {
        let stores = self.has_stores.then(|| format!("{TOP}/metadata"));
        // A bucket without any shard is empty, although it has a description.
        let of = |counted: &Counted| {
            let folder = counted.bucket.folder();
            [shards_folder(&folder), folder]
        };
        let mut roots: Vec<String> = stores.into_iter().chain(self.buckets.iter().flat_map(of)).collect();
        roots.sort_by(|a, b| in_key_order(a, b));
        roots
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer).map_err(|error| {
            let text = io::Error::other(error.to_string());
            self.failed = Some(error);
            text
        })
    }

    fn finish(mut self: Box<Self>) -> Result<Captured, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !self.waiting.is_empty() || !matches!(self.current, Current::Done) {
            return Err(said("the capture was not read to its end"));
        }
        self.check_gone()?;
        for counted in &self.buckets {
            let gone = counted.bucket.shards.keys().filter(|id| self.gone.contains(id)).count();
            if gone > 0 {
                // They were counted, and are not here.
                self.warnings.push(format!(
                    "{gone} shards of bucket {:?} were removed by its server while others were captured: its points are not proven \
                     by their number",
                    counted.bucket.name
                ));
            }
        }
        let buckets: Vec<Value> = self.buckets.iter().map(|counted| self.fact(counted)).collect();
        let fact = json!({
            "server_version": self.server.version, "label": LABEL, "counted_until": self.until, "buckets": buckets,
            "metadata": self.has_stores,
        });
        let facts = Map::from_iter([(KEY.to_owned(), fact)]);
        Ok(Captured { consistent: self.now, facts, warnings: self.warnings, ..Captured::default() })
    }
}
