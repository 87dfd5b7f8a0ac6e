//! What the last backup of a job saw of each path: with it an unchanged file is skipped by its stat alone.
//!
//! One file a job, records in key order, read and written front to back beside the walk. It is only a cache: a
//! record that does not check out ends its use. While a backup runs it writes a new file; interrupted, that file
//! is what the next run resumes from.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::base::cache_lost::cache_lost;
use crate::format::codec::{Decoder, Encoder, FormatError};
use crate::format::entry::Timestamp;
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::source::files::stat::Stat;

const MAGIC: &[u8; 8] = b"LBFILES1";
/// Longest record believed: a file of a terabyte in 16 KiB chunks lists a gigabyte of ids, and is then not cached.
const RECORD_LIMIT_BYTES: usize = 64 << 20;
const ID_BYTES: usize = 17;

/// What must match for a file to count as unchanged. The device is left out: it changes with a remount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub inode: u64,
    pub ctime: Timestamp,
    pub mtime: Timestamp,
    pub size_bytes: u64,
    pub raw_mode: u32,
}

impl From<&Stat> for Identity {
    fn from(stat: &Stat) -> Self {
        Self {
            inode: stat.inode,
            ctime: stat.ctime,
            mtime: stat.mtime,
            size_bytes: stat.size_bytes,
            raw_mode: stat.raw_mode,
        }
    }
}

/// One path as the last backup stored it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Vec<u8>,
    pub identity: Identity,
    /// The entry's canonical encoding.
    pub entry: Vec<u8>,
    pub content_bytes: u64,
    /// Every chunk and page its content and attributes reach: kind, then short id, 17 bytes each.
    pub ids: Vec<u8>,
}

impl Record {
    /// Appends an id to a record's list.
    pub fn push_id(ids: &mut Vec<u8>, kind: ObjectKind, id: &ShortId) {
        ids.push(kind as u8);
        ids.extend_from_slice(id.as_bytes());
    }

    /// The ids of the list.
    pub fn ids(&self) -> impl Iterator<Item = (ObjectKind, ShortId)> {
        self.ids.as_chunks::<ID_BYTES>().0.iter().map(|record| {
            let mut id = [0; 16];
            id.copy_from_slice(&record[1..]);
            let data = record[0] == ObjectKind::Data as u8;
            (if data { ObjectKind::Data } else { ObjectKind::Meta }, ShortId(id))
        })
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        let time = |e: &mut Encoder, time: Timestamp| {
            e.signed(time.seconds);
            e.varint(u64::from(time.nanoseconds));
        };
        encoder.bytes(&self.key);
        encoder.varint(self.identity.inode);
        time(encoder, self.identity.ctime);
        time(encoder, self.identity.mtime);
        encoder.varint(self.identity.size_bytes);
        encoder.varint(u64::from(self.identity.raw_mode));
        encoder.bytes(&self.entry);
        encoder.varint(self.content_bytes);
        encoder.bytes(&self.ids);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut d = Decoder::new(bytes, "file cache record");
        let time = |d: &mut Decoder<'_>| -> Result<Timestamp, FormatError> {
            Ok(Timestamp { seconds: d.signed()?, nanoseconds: d.varint_u32()? })
        };
        let record = Self {
            key: d.bytes(RECORD_LIMIT_BYTES)?.to_vec(),
            identity: Identity {
                inode: d.varint()?,
                ctime: time(&mut d)?,
                mtime: time(&mut d)?,
                size_bytes: d.varint()?,
                raw_mode: d.varint_u32()?,
            },
            entry: d.bytes(RECORD_LIMIT_BYTES)?.to_vec(),
            content_bytes: d.varint()?,
            ids: d.bytes(RECORD_LIMIT_BYTES)?.to_vec(),
        };
        d.finish()?;
        Ok(record)
    }
}

/// What a whole cache file is true for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Ids depend on the domain and the cut.
    pub domain: u32,
    pub chunk_bytes: u32,
    /// The local index's generation at which every id was found; another, and each id must be looked up.
    pub generation: i64,
}

fn short_hash(bytes: &[u8]) -> [u8; 4] {
    let mut short = [0; 4];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..4]);
    short
}

/// Reads a cache file front to back.
pub struct CacheReader {
    file: BufReader<File>,
    next: Option<Record>,
    /// Every id was known at the index's present generation: records need no look-up.
    pub trusted: bool,
    /// Of a backup that was committed: what is in it is no news.
    pub complete: bool,
}

impl CacheReader {
    /// Opens a cache made under the same domain and cut; anything else is as if there were none.
    pub fn open(path: &Path, now: Validity, complete: bool) -> Option<Self> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).ok()?);
        let mut head = [0; 24];
        file.read_exact(&mut head).ok()?;
        let mut d = Decoder::new(&head, "file cache");
        let same =
            d.array::<8>().ok()? == *MAGIC && d.u32().ok()? == now.domain && d.u32().ok()? == now.chunk_bytes;
        let generation = d.u64().ok()? as i64;
        let trusted = complete && generation == now.generation;
        let mut reader = Self { file, next: None, trusted, complete };
        same.then(|| {
            reader.next = reader.read();
            reader
        })
    }

    fn read(&mut self) -> Option<Record> {
        let mut head = [0; 8];
        self.file.read_exact(&mut head).ok()?;
        let (length, hash) = head.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > RECORD_LIMIT_BYTES {
            return None;
        }
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes).ok()?;
        if short_hash(&bytes) != hash {
            return None;
        }
        Record::decode(&bytes).ok()
    }

    /// The record of `key`. Keys must be asked for in ascending order.
    pub fn find(&mut self, key: &[u8]) -> Option<Record> {
        while self.next.as_ref()?.key.as_slice() < key {
            self.next = self.read();
        }
        if self.next.as_ref()?.key != key {
            return None;
        }
        let found = self.next.take();
        self.next = self.read();
        found
    }
}

/// Writes the next cache file. On a disk that takes no more it gives up: the file is removed, so that the one before
/// stays in use, and the backup goes on.
pub struct CacheWriter {
    /// `None` once it gave up.
    file: Option<BufWriter<File>>,
    path: PathBuf,
    scratch: Encoder,
}

impl CacheWriter {
    fn create(path: PathBuf, validity: Validity) -> Option<Self> {
        let file = File::create(&path).map_err(|cause| cache_lost("write", &path, &cause)).ok()?;
        let file = Some(BufWriter::with_capacity(1 << 20, file));
        let mut writer = Self { file, path, scratch: Encoder::new() };
        let mut head = Encoder::new();
        head.raw(MAGIC);
        head.u32(validity.domain);
        head.u32(validity.chunk_bytes);
        head.u64(validity.generation as u64);
        writer.write(|file| file.write_all(head.as_slice()));
        Some(writer)
    }

    fn write(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) {
        if let Some(file) = &mut self.file
            && let Err(cause) = write(file)
        {
            cache_lost("write", &self.path, &cause);
            let _ = std::fs::remove_file(&self.path);
            self.file = None;
        }
    }

    pub fn add(&mut self, record: &Record) {
        let mut encoder = std::mem::take(&mut self.scratch);
        encoder.clear();
        record.encode(&mut encoder);
        let length = encoder.len();
        if length <= RECORD_LIMIT_BYTES {
            let mut head = [0; 8];
            head[..4].copy_from_slice(&(length as u32).to_le_bytes());
            head[4..].copy_from_slice(&short_hash(encoder.as_slice()));
            self.write(|file| file.write_all(&head).and_then(|()| file.write_all(encoder.as_slice())));
        }
        self.scratch = encoder;
    }

    /// Makes what was added so far visible to a resuming run.
    pub fn flush(&mut self) {
        self.write(|file| file.flush());
    }
}

/// The cache files of one job. Held by one run at a time; a second run of the same job goes without.
pub struct JobCache {
    base: PathBuf,
    _lock: Lock,
}

struct Lock {
    _file: File,
}

impl JobCache {
    /// The job's cache in `folder`, unless another run has it.
    pub fn open(folder: &Path, job: &str) -> Option<Self> {
        let name = blake3::derive_key("lifeboat file cache name", job.as_bytes());
        let base = folder.join("files").join(crate::format::id::to_hex(&name[..16]));
        let file = File::create(base.with_extension("lock")).ok()?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()?;
        let cache = Self { base, _lock: Lock { _file: file } };
        // What an interrupted run left: the longer of two has seen more.
        let (writing, partial) = (cache.path("writing"), cache.path("partial"));
        let length = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
        if length(&writing) > length(&partial) {
            let _ = std::fs::rename(&writing, &partial);
        }
        Some(cache)
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.base.with_extension(extension)
    }

    /// Readers to ask in turn: what an interrupted run saw, then the last complete one.
    pub fn readers(&self, now: Validity) -> Vec<CacheReader> {
        let partial = CacheReader::open(&self.path("partial"), now, false);
        let complete = CacheReader::open(&self.path("cache"), now, true);
        partial.into_iter().chain(complete).collect()
    }

    /// `None` where the disk takes no file.
    pub fn writer(&self, validity: Validity) -> Option<CacheWriter> {
        CacheWriter::create(self.path("writing"), validity)
    }

    /// The run was committed: what it wrote is the job's cache from now on.
    pub fn accept(&self) {
        if std::fs::rename(self.path("writing"), self.path("cache")).is_ok() {
            let _ = std::fs::remove_file(self.path("partial"));
        }
    }

    /// Between two passes of one run: what the first wrote serves the second.
    pub fn keep_partial(&self) {
        let _ = std::fs::rename(self.path("writing"), self.path("partial"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8]) -> Record {
        let time = Timestamp { seconds: 5, nanoseconds: 6 };
        let identity = Identity { inode: 1, ctime: time, mtime: time, size_bytes: 7, raw_mode: 0o100_644 };
        let mut ids = Vec::new();
        Record::push_id(&mut ids, ObjectKind::Data, &ShortId([9; 16]));
        Record { key: key.to_vec(), identity, entry: vec![1, 2, 3], content_bytes: 7, ids }
    }

    #[test]
    fn a_torn_cache_serves_what_came_before_the_tear() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("files")).unwrap();
        let now = Validity { domain: 0, chunk_bytes: 65536, generation: 3 };
        let cache = JobCache::open(folder.path(), "job").unwrap();
        assert!(JobCache::open(folder.path(), "job").is_none(), "a second run goes without");
        let mut writer = cache.writer(now).unwrap();
        for key in [b"a", b"c", b"e"] {
            writer.add(&record(key));
        }
        writer.flush();
        let path = cache.path("writing");
        let length = path.metadata().unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
        drop(cache);
        let cache = JobCache::open(folder.path(), "job").unwrap();
        let mut readers = cache.readers(now);
        let reader = &mut readers[0];
        assert!(!reader.trusted, "an interrupted run's chunks may never have been uploaded");
        assert_eq!(reader.find(b"a"), Some(record(b"a")));
        assert_eq!(reader.find(b"b"), None);
        assert_eq!(reader.find(b"c").unwrap().ids().next(), Some((ObjectKind::Data, ShortId([9; 16]))));
        assert_eq!(reader.find(b"e"), None, "torn");
        assert!(cache.readers(Validity { chunk_bytes: 1, ..now }).is_empty());
    }
}
