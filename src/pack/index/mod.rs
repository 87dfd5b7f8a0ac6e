//! The local index: which block holds a chunk. A droppable SQLite file, so that memory does not grow with the
//! repository.
//!
//! One row per chunk (eight bytes of its id → block) and one per block with the list of its chunks. A hit loads
//! the block's whole list, and since chunks recur in the order they were stored, the next lookups are answered
//! from memory. Rows are hints: the caller reconciles them with the listing of packs ([`IndexMap::remove_packs`],
//! [`IndexMap::condemn`]) before relying on any.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use rows::{Inner, key};

/// The part of an id that the index looks chunks up by.
pub fn key_of(id: &ShortId) -> u64 {
    key(id)
}

mod rows;

use super::PackError;
use super::filter::Filter;
use crate::base::cache_lost::cache_lost;
use crate::format::header::ObjectKind;
use crate::format::id::{KeyId, ObjectHash, RunId, ShortId};
use crate::format::pack::{Codec, IndexPack, Origin};

const SCHEMA_VERSION: i64 = 2;
/// What of the index goes on in memory when the disk takes no more.
const MEMORY_BYTES: u64 = 256 << 20;

/// Whether the disk is the reason, rather than what stands in the file.
fn is_of_disk(cause: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure};
    cause.sqlite_error_code().is_some_and(|code| {
        matches!(code, DiskFull | ReadOnly | SystemIoFailure | CannotOpen | PermissionDenied)
    })
}

/// A pack as the index knows it.
#[derive(Debug)]
pub struct PackInfo {
    pub row: i64,
    pub hash: ObjectHash,
    pub kind: ObjectKind,
    pub domain: u32,
    pub size_bytes: u64,
    pub author: KeyId,
    pub run: RunId,
    pub own: Origin,
    pub origins: Vec<Origin>,
}

/// A block: enough to fetch and open it with one ranged read.
#[derive(Clone, Debug)]
pub struct BlockInfo {
    pub row: i64,
    pub pack: Arc<PackInfo>,
    pub offset: u64,
    pub stored_length: u32,
    pub raw_length: u32,
    pub codec: Codec,
    /// 0 for the pack's own key.
    pub origin: u32,
    pub ordinal: u32,
    /// Chunks with their lengths, in the order of the plaintext.
    pub chunks: Vec<(ShortId, u32)>,
}

impl BlockInfo {
    /// What the block was sealed with.
    pub fn origin(&self) -> &Origin {
        match self.origin {
            0 => &self.pack.own,
            n => self.pack.origins.get(n as usize - 1).unwrap_or(&self.pack.own),
        }
    }
    /// Where the pack's first block begins: the length of its header.
    pub fn pack_header_bytes(&self) -> u64 {
        (crate::format::header::FIXED_BYTES + self.pack.own.enc.len()) as u64
    }
    /// The pack's object name.
    pub fn object(&self) -> String {
        super::pack_name(self.pack.kind, &self.pack.hash)
    }
    /// Where in the plaintext the chunk lies: (offset, length).
    pub fn place(&self, id: &ShortId) -> Option<(usize, usize)> {
        let mut offset = 0usize;
        for (chunk, length) in &self.chunks {
            if chunk == id {
                return Some((offset, *length as usize));
            }
            offset += *length as usize;
        }
        None
    }
}

/// See the module. Shared by threads.
pub struct IndexMap {
    path: Option<PathBuf>,
    inner: Mutex<Inner>,
}

impl IndexMap {
    /// Opens or makes the index in `folder`; `None` keeps it in memory. A file that SQLite cannot read or that an
    /// other version wrote is dropped and begun anew: everything in it can be had from the repository. Where the disk
    /// takes no file, it is kept in memory, too, up to a limit; what nobody wanted in a file has no limit.
    pub fn open(folder: Option<&Path>) -> Result<Self, PackError> {
        let in_memory = |cause| PackError::Cache { path: "in memory".to_owned(), cause };
        let Some(path) = folder.map(|folder| folder.join("index.sqlite")) else {
            return Self::try_open(None).map_err(in_memory);
        };
        let opened = match Self::try_open(Some(path.clone())) {
            Err(cause) if !is_of_disk(&cause) && path.exists() => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut name = path.clone().into_os_string();
                    name.push(suffix);
                    let _ = std::fs::remove_file(name);
                }
                Self::try_open(Some(path.clone()))
            }
            opened => opened,
        };
        match opened {
            Err(cause) if is_of_disk(&cause) => {
                cache_lost("open", &path, &cause);
                let map = Self::try_open(None).map_err(in_memory)?;
                rows::limit(&map.lock().db, MEMORY_BYTES).map_err(in_memory)?;
                Ok(map)
            }
            opened => opened.map_err(|cause| PackError::Cache { path: path.display().to_string(), cause }),
        }
    }

    fn try_open(path: Option<PathBuf>) -> rusqlite::Result<Self> {
        let db = match &path {
            Some(path) => Connection::open(path),
            None => Connection::open_in_memory(),
        }?;
        db.busy_timeout(std::time::Duration::from_secs(60))?;
        // NORMAL with a write-ahead log: a power cut may lose the last rows but never mixes old and new pages,
        // and a wrong row would be trusted. AUTOINCREMENT: another process may replace rows while this one keeps
        // their numbers in memory, and a number that came to mean another pack would be trusted too.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -24576;
             CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS object(hash BLOB PRIMARY KEY) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS pack(id INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB UNIQUE NOT NULL,
               kind INTEGER NOT NULL, domain INTEGER NOT NULL, size INTEGER NOT NULL, author BLOB NOT NULL,
               run BLOB NOT NULL, origins BLOB NOT NULL, condemned INTEGER NOT NULL DEFAULT 0);
             CREATE TABLE IF NOT EXISTS block(id INTEGER PRIMARY KEY AUTOINCREMENT, pack INTEGER NOT NULL,
               offset INTEGER NOT NULL, stored INTEGER NOT NULL, raw INTEGER NOT NULL, codec INTEGER NOT NULL,
               origin INTEGER NOT NULL, ordinal INTEGER NOT NULL, chunks BLOB NOT NULL);
             CREATE INDEX IF NOT EXISTS block_pack ON block(pack);
             CREATE TABLE IF NOT EXISTS chunk(key INTEGER, block INTEGER, PRIMARY KEY(key, block)) WITHOUT ROWID;
             INSERT OR IGNORE INTO meta VALUES('version', 2), ('generation', abs(random())), ('stamp', random());",
        )?;
        let version: i64 =
            db.query_row("SELECT value FROM meta WHERE name = 'version'", [], |row| row.get(0))?;
        if version != SCHEMA_VERSION {
            return Err(rusqlite::Error::InvalidQuery);
        }
        let inner = Inner {
            db,
            is_moved: false,
            filter: Filter::with_capacity(0),
            filter_stamp: 0,
            data_version: 0,
            packs: HashMap::new(),
            by_hash: HashMap::new(),
            condemned: HashSet::new(),
            blocks: HashMap::new(),
            order: VecDeque::new(),
            hot: HashMap::new(),
        };
        let map = Self { path, inner: Mutex::new(inner) };
        {
            let mut inner = map.lock();
            inner.load_packs()?;
            map.load_filter(&mut inner)?;
        }
        Ok(map)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self, cause: rusqlite::Error) -> PackError {
        let path = self.path.as_ref().map_or("in memory".to_owned(), |path| path.display().to_string());
        PackError::Cache { path, cause }
    }

    /// Changes the rows. When the disk takes no more, what the file holds goes on in memory, and so does the change:
    /// each is one transaction, done or not done. An index too large for that is an error.
    fn change(&self, mut change: impl FnMut(&mut Inner) -> rusqlite::Result<()>) -> Result<(), PackError> {
        let mut inner = self.lock();
        let done = match (change(&mut inner), &self.path) {
            (Err(cause), Some(path)) if is_of_disk(&cause) && !inner.is_moved => {
                match inner.move_to_memory(MEMORY_BYTES) {
                    Ok(true) => {
                        cache_lost("write", path, &cause);
                        change(&mut inner)
                    }
                    Ok(false) => Err(cause),
                    Err(cause) => Err(cause),
                }
            }
            (done, _) => done,
        };
        done.map_err(|cause| self.cache(cause))
    }

    fn filter_path(&self) -> Option<PathBuf> {
        self.path.as_ref().map(|path| path.with_extension("filter"))
    }

    fn load_filter(&self, inner: &mut Inner) -> rusqlite::Result<()> {
        let stamp = inner.stamp()?;
        let saved = self.filter_path().and_then(|path| std::fs::read(path).ok());
        if let Some((head, rest)) = saved.as_deref().and_then(<[u8]>::split_first_chunk::<8>)
            && i64::from_le_bytes(*head) == stamp
            && let Some((checksum, rest)) = rest.split_first_chunk::<32>()
            && blake3::hash(rest).as_bytes() == checksum
            && let Some(filter) = Filter::from_bytes(rest)
        {
            inner.filter = filter;
            inner.filter_stamp = stamp;
            return Ok(());
        }
        inner.rebuild_filter()
    }

    /// Keeps the filter for the next process. Losing it costs only a scan.
    pub fn save_filter(&self) -> Result<(), PackError> {
        let inner = self.lock();
        let Some(path) = self.filter_path() else { return Ok(()) };
        let stamp = inner.stamp().map_err(|cause| self.cache(cause))?;
        if inner.is_moved || stamp != inner.filter_stamp {
            return Ok(());
        }
        let filter = inner.filter.to_bytes();
        let mut bytes = stamp.to_le_bytes().to_vec();
        bytes.extend_from_slice(blake3::hash(&filter).as_bytes());
        bytes.extend_from_slice(&filter);
        let temporary = path.with_extension(format!("filter.{}", std::process::id()));
        let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|cause| {
            let _ = std::fs::remove_file(&temporary);
            PackError::CacheFile { path: path.display().to_string(), cause }
        })
    }

    /// Takes in what other processes on this machine did to the index. Memory mirrors the file only up to the last
    /// call, so whoever is about to rely on the index calls this first.
    pub fn refresh(&self) -> Result<(), PackError> {
        self.lock().refresh().map_err(|cause| self.cache(cause))
    }

    /// Index objects already taken in.
    pub fn absorbed(&self) -> Result<HashSet<ObjectHash>, PackError> {
        let inner = self.lock();
        let read = || {
            let mut statement = inner.db.prepare("SELECT hash FROM object")?;
            statement
                .query_map([], |row| Ok(ObjectHash(row.get(0)?)))?
                .collect::<rusqlite::Result<HashSet<_>>>()
        };
        read().map_err(|cause| self.cache(cause))
    }

    /// Replaces the set of index objects taken in.
    pub fn set_absorbed(&self, objects: &HashSet<ObjectHash>) -> Result<(), PackError> {
        self.change(|inner| {
            let transaction = inner.db.transaction()?;
            transaction.execute("DELETE FROM object", [])?;
            for object in objects {
                transaction.execute("INSERT INTO object VALUES(?)", [object.as_bytes()])?;
            }
            transaction.commit()
        })
    }

    /// Adds packs of one domain; those known already are left alone.
    pub fn add_packs(&self, domain: u32, packs: &[IndexPack]) -> Result<(), PackError> {
        self.change(|inner| inner.add_packs(domain, packs))
    }

    /// Forgets packs that no longer exist, with their blocks and chunks. Raises the generation.
    pub fn remove_packs(&self, packs: &[ObjectHash]) -> Result<(), PackError> {
        self.change(|inner| inner.remove_packs(packs))
    }

    /// Sets which packs stand under a tombstone: they still serve reads but nothing may rely on them. A newly
    /// condemned pack raises the generation.
    pub fn condemn(&self, packs: &HashSet<ObjectHash>) -> Result<(), PackError> {
        self.change(|inner| inner.condemn(packs))
    }

    /// Whether what this run learns stands in the file, where the next one finds it.
    pub fn is_kept(&self) -> bool {
        self.path.is_some() && !self.lock().is_moved
    }

    /// Changes whenever a pack went or was condemned: what was found complete at the same generation still is.
    pub fn generation(&self) -> Result<i64, PackError> {
        self.lock().meta("generation").map_err(|cause| self.cache(cause))
    }

    /// All packs.
    pub fn packs(&self) -> Vec<Arc<PackInfo>> {
        self.lock().packs.values().cloned().collect()
    }

    pub fn pack(&self, hash: &ObjectHash) -> Option<Arc<PackInfo>> {
        let inner = self.lock();
        inner.by_hash.get(hash).and_then(|row| inner.packs.get(row)).cloned()
    }

    pub fn is_condemned(&self, hash: &ObjectHash) -> bool {
        let inner = self.lock();
        inner.by_hash.get(hash).is_some_and(|row| inner.condemned.contains(row))
    }

    /// A block that holds the chunk and may be relied upon.
    pub fn find(
        &self,
        domain: u32,
        kind: ObjectKind,
        id: &ShortId,
    ) -> Result<Option<Arc<BlockInfo>>, PackError> {
        let mut inner = self.lock();
        if let Some(row) = inner.hot.get(id)
            && let Some(block) = inner.blocks.get(row)
            && inner.serves(block, domain, kind)
        {
            return Ok(Some(block.clone()));
        }
        if !inner.filter.may_contain(key(id)) {
            return Ok(None);
        }
        let blocks = inner.lookup(id).map_err(|cause| self.cache(cause))?;
        Ok(blocks.into_iter().find(|block| inner.serves(block, domain, kind)))
    }

    /// Whether [`Self::find`] would find the chunk.
    pub fn contains(&self, domain: u32, kind: ObjectKind, id: &ShortId) -> Result<bool, PackError> {
        Ok(self.find(domain, kind, id)?.is_some())
    }

    /// The leading eight bytes of every chunk id that stands in more than one block. Ids that only share these
    /// bytes are among them.
    pub fn repeated_keys(&self) -> Result<HashSet<u64>, PackError> {
        let inner = self.lock();
        let read = || {
            let mut statement = inner.db.prepare("SELECT key FROM chunk GROUP BY key HAVING count(*) > 1")?;
            statement
                .query_map([], |row| Ok(row.get::<_, i64>(0)? as u64))?
                .collect::<rusqlite::Result<HashSet<_>>>()
        };
        read().map_err(|cause| self.cache(cause))
    }

    /// [`Self::locations`], for whoever asks for every chunk of a repository: what is in one block only, as
    /// `repeated` (from [`Self::repeated_keys`]) says, is answered from the blocks at hand.
    pub fn each_location(
        &self,
        domain: u32,
        kind: ObjectKind,
        id: &ShortId,
        repeated: &HashSet<u64>,
    ) -> Result<Vec<Arc<BlockInfo>>, PackError> {
        if !repeated.contains(&key(id)) {
            let inner = self.lock();
            let block = inner.hot.get(id).and_then(|row| inner.blocks.get(row));
            if let Some(block) = block.filter(|block| block.pack.domain == domain && block.pack.kind == kind)
            {
                return Ok(vec![block.clone()]);
            }
        }
        self.locations(domain, kind, id)
    }

    /// Every block that holds the chunk, condemned packs last: for reading.
    pub fn locations(
        &self,
        domain: u32,
        kind: ObjectKind,
        id: &ShortId,
    ) -> Result<Vec<Arc<BlockInfo>>, PackError> {
        let mut inner = self.lock();
        let mut blocks = inner.lookup(id).map_err(|cause| self.cache(cause))?;
        blocks.retain(|block| block.pack.domain == domain && block.pack.kind == kind);
        blocks.sort_by_key(|block| inner.condemned.contains(&block.pack.row));
        Ok(blocks)
    }

    /// The blocks of one pack, by offset.
    pub fn blocks_of(&self, pack: &PackInfo) -> Result<Vec<Arc<BlockInfo>>, PackError> {
        let inner = self.lock();
        let read = || {
            let mut statement =
                inner.db.prepare_cached("SELECT id FROM block WHERE pack = ? ORDER BY offset")?;
            let rows: Vec<i64> =
                statement.query_map([pack.row], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            rows.into_iter().map(|row| inner.read_block(row)).collect::<rusqlite::Result<Vec<_>>>()
        };
        let blocks = read().map_err(|cause| self.cache(cause))?;
        Ok(blocks.into_iter().flatten().map(Arc::new).collect())
    }

    /// Chunk rows: a chunk stored in two blocks counts twice.
    pub fn chunk_count(&self) -> Result<u64, PackError> {
        let inner = self.lock();
        inner
            .db
            .query_row("SELECT count(*) FROM chunk", [], |row| row.get::<_, i64>(0))
            .map(|count| count as u64)
            .map_err(|cause| self.cache(cause))
    }
}
