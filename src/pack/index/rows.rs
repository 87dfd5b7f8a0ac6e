//! The rows of the local index and what is kept of them in memory.
//!
//! Invariant: memory mirrors the tables (`packs`, `condemned`), or is a subset of them (`blocks`, `hot`), or errs
//! only towards "maybe" (`filter`).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OptionalExtension, params};

use super::{BlockInfo, PackInfo};
use crate::format::codec::{Decoder, Encoder};
use crate::format::header::ObjectKind;
use crate::format::id::{KeyId, ObjectHash, RunId, ShortId};
use crate::format::pack::{Codec, IndexPack, Origin};
use crate::pack::filter::Filter;

/// Block lists kept in memory: about 100 chunks each.
const HOT_BLOCKS: usize = 512;
/// Pages taken into memory at once.
const PAGES_A_STEP: i32 = 4096;

pub(super) struct Inner {
    pub(super) db: Connection,
    /// The file's rows were taken into memory, because the file takes no more.
    pub(super) is_moved: bool,
    pub(super) filter: Filter,
    /// The stamp of the file's rows that the filter covers.
    pub(super) filter_stamp: i64,
    /// SQLite's count of changes by other connections, as last looked at.
    pub(super) data_version: i64,
    pub(super) packs: HashMap<i64, Arc<PackInfo>>,
    pub(super) by_hash: HashMap<ObjectHash, i64>,
    pub(super) condemned: HashSet<i64>,
    pub(super) blocks: HashMap<i64, Arc<BlockInfo>>,
    pub(super) order: VecDeque<i64>,
    pub(super) hot: HashMap<ShortId, i64>,
}

fn page_bytes(db: &Connection) -> rusqlite::Result<u64> {
    let size: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    Ok(size.max(1) as u64)
}

/// From here on a database that would become larger is "full".
pub(super) fn limit(db: &Connection, limit_bytes: u64) -> rusqlite::Result<()> {
    let pages = (limit_bytes / page_bytes(db)?) as i64;
    db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
}

pub(super) fn key(id: &ShortId) -> u64 {
    let (head, _) = id.0.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*head)
}

fn encode_origins(own: &Origin, origins: &[Origin]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.list(std::iter::once(own).chain(origins).collect::<Vec<_>>().into_iter(), |e, o| o.put(e));
    encoder.finish()
}

fn decode_origins(bytes: &[u8]) -> Option<(Origin, Vec<Origin>)> {
    let mut decoder = Decoder::new(bytes, "cached origins");
    let mut origins = decoder.list(40, Origin::take).ok()?;
    if origins.is_empty() {
        return None;
    }
    let own = origins.remove(0);
    Some((own, origins))
}

impl Inner {
    pub(super) fn meta(&self, name: &str) -> rusqlite::Result<i64> {
        self.db.query_row("SELECT value FROM meta WHERE name = ?", [name], |row| row.get(0))
    }

    pub(super) fn stamp(&self) -> rusqlite::Result<i64> {
        self.meta("stamp")
    }

    pub(super) fn load_packs(&mut self) -> rusqlite::Result<()> {
        let mut statement = self
            .db
            .prepare("SELECT id, hash, kind, domain, size, author, run, origins, condemned FROM pack")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let origins: Vec<u8> = row.get(7)?;
            let (own, origins) = decode_origins(&origins).ok_or(rusqlite::Error::InvalidQuery)?;
            let info = PackInfo {
                row: row.get(0)?,
                hash: ObjectHash(row.get(1)?),
                kind: if row.get::<_, i64>(2)? == 1 { ObjectKind::Data } else { ObjectKind::Meta },
                domain: row.get(3)?,
                size_bytes: row.get::<_, i64>(4)? as u64,
                author: KeyId(row.get(5)?),
                run: RunId(row.get(6)?),
                own,
                origins,
            };
            if row.get(8)? {
                self.condemned.insert(info.row);
            }
            self.by_hash.insert(info.hash, info.row);
            self.packs.insert(info.row, Arc::new(info));
        }
        Ok(())
    }

    pub(super) fn rebuild_filter(&mut self) -> rusqlite::Result<()> {
        let stamp = self.stamp()?;
        let count: i64 = self.db.query_row("SELECT count(*) FROM chunk", [], |row| row.get(0))?;
        let mut filter = Filter::with_capacity(count as usize * 3 / 2);
        let mut statement = self.db.prepare("SELECT key FROM chunk")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            filter.insert(row.get::<_, i64>(0)? as u64);
        }
        self.filter = filter;
        self.filter_stamp = stamp;
        Ok(())
    }

    /// Takes in what other processes did to the file since this one looked last.
    pub(super) fn refresh(&mut self) -> rusqlite::Result<()> {
        let version = self.db.pragma_query_value(None, "data_version", |row| row.get(0))?;
        if version == self.data_version {
            return Ok(());
        }
        self.data_version = version;
        self.packs.clear();
        self.by_hash.clear();
        self.condemned.clear();
        self.drop_hot();
        self.load_packs()?;
        if self.stamp()? == self.filter_stamp { Ok(()) } else { self.rebuild_filter() }
    }

    /// Goes on with the file's rows in memory; the file stays as it was. The generation is a new one: from here on
    /// the two part, and nothing that was found complete under one may count for the other.
    ///
    /// `false`: the file is larger than the limit, and nothing is done.
    pub(super) fn move_to_memory(&mut self, limit_bytes: u64) -> rusqlite::Result<bool> {
        let pages: i64 = self.db.pragma_query_value(None, "page_count", |row| row.get(0))?;
        if pages as u64 > limit_bytes / page_bytes(&self.db)? {
            return Ok(false);
        }
        let mut memory = Connection::open_in_memory()?;
        Backup::new(&self.db, &mut memory)?.run_to_completion(PAGES_A_STEP, Duration::ZERO, None)?;
        limit(&memory, limit_bytes)?;
        memory.execute("UPDATE meta SET value = random() WHERE name IN ('generation', 'stamp')", [])?;
        self.db = memory;
        self.is_moved = true;
        self.packs.clear();
        self.by_hash.clear();
        self.condemned.clear();
        self.drop_hot();
        self.data_version = self.db.pragma_query_value(None, "data_version", |row| row.get(0))?;
        self.load_packs()?;
        self.rebuild_filter()?;
        Ok(true)
    }

    pub(super) fn serves(&self, block: &BlockInfo, domain: u32, kind: ObjectKind) -> bool {
        block.pack.domain == domain
            && block.pack.kind == kind
            && self.packs.contains_key(&block.pack.row)
            && !self.condemned.contains(&block.pack.row)
    }

    /// All blocks that hold `id`; their lists are kept at hand.
    pub(super) fn lookup(&mut self, id: &ShortId) -> rusqlite::Result<Vec<Arc<BlockInfo>>> {
        let rows: Vec<i64> = {
            let mut statement = self.db.prepare_cached("SELECT block FROM chunk WHERE key = ?")?;
            statement.query_map([key(id) as i64], |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()?
        };
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let block = match self.blocks.get(&row) {
                Some(block) => Some(block.clone()),
                None => self.read_block(row)?.map(|block| self.keep(block)),
            };
            found.extend(block.filter(|block| block.chunks.iter().any(|(chunk, _)| chunk == id)));
        }
        Ok(found)
    }

    pub(super) fn read_block(&self, row: i64) -> rusqlite::Result<Option<BlockInfo>> {
        let mut statement = self.db.prepare_cached(
            "SELECT pack, offset, stored, raw, codec, origin, ordinal, chunks FROM block WHERE id = ?",
        )?;
        let block = statement
            .query_row([row], |r| {
                let pack: i64 = r.get(0)?;
                let chunks = r.get_ref(7)?.as_blob()?;
                Ok(self.packs.get(&pack).map(|pack| {
                    Ok(BlockInfo {
                        row,
                        pack: pack.clone(),
                        offset: r.get::<_, i64>(1)? as u64,
                        stored_length: r.get(2)?,
                        raw_length: r.get(3)?,
                        codec: if r.get::<_, i64>(4)? == 0 { Codec::Raw } else { Codec::Zstd },
                        origin: r.get(5)?,
                        ordinal: r.get(6)?,
                        chunks: decode_chunks(chunks),
                    })
                }))
            })
            .optional()?
            .flatten();
        block.transpose()
    }

    fn keep(&mut self, block: BlockInfo) -> Arc<BlockInfo> {
        let block = Arc::new(block);
        if self.order.len() >= HOT_BLOCKS
            && let Some(old) = self.order.pop_front()
            && let Some(old) = self.blocks.remove(&old)
        {
            for (id, _) in &old.chunks {
                if self.hot.get(id) == Some(&old.row) {
                    self.hot.remove(id);
                }
            }
        }
        for (id, _) in &block.chunks {
            self.hot.insert(*id, block.row);
        }
        self.order.push_back(block.row);
        self.blocks.insert(block.row, block.clone());
        block
    }

    fn drop_hot(&mut self) {
        self.hot.clear();
        self.blocks.clear();
        self.order.clear();
    }

    pub(super) fn add_packs(&mut self, domain: u32, packs: &[IndexPack]) -> rusqlite::Result<()> {
        let mut rows: Vec<(i64, i64)> = Vec::new();
        let mut added = Vec::new();
        let filter_is_current = self.stamp()? == self.filter_stamp;
        let transaction = self.db.transaction()?;
        for pack in packs {
            let inserted = transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO pack(hash, kind, domain, size, author, run, origins)
                     VALUES(?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    pack.pack.as_bytes(),
                    pack.kind as u8,
                    domain,
                    pack.size_bytes as i64,
                    pack.author.as_bytes(),
                    pack.run.as_bytes(),
                    encode_origins(&pack.own, &pack.origins),
                ])?;
            if inserted == 0 {
                continue;
            }
            let row = transaction.last_insert_rowid();
            let mut offset = pack.first_block_offset();
            for block in &pack.blocks {
                transaction
                    .prepare_cached(
                        "INSERT INTO block(pack, offset, stored, raw, codec, origin, ordinal, chunks)
                         VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
                    )?
                    .execute(params![
                        row,
                        offset as i64,
                        block.stored_length,
                        block.raw_length,
                        block.codec as u8,
                        block.origin,
                        block.ordinal,
                        encode_chunks(&block.chunks),
                    ])?;
                let block_row = transaction.last_insert_rowid();
                rows.extend(block.chunks.iter().map(|(id, _)| (key(id) as i64, block_row)));
                offset += u64::from(block.stored_length);
            }
            added.push(PackInfo {
                row,
                hash: pack.pack,
                kind: pack.kind,
                domain,
                size_bytes: pack.size_bytes,
                author: pack.author,
                run: pack.run,
                own: pack.own.clone(),
                origins: pack.origins.clone(),
            });
        }
        // Sorted, the rows touch each page of the tree once instead of at random.
        rows.sort_unstable();
        {
            let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO chunk VALUES(?, ?)")?;
            for (key, block) in &rows {
                insert.execute([key, block])?;
            }
        }
        if !added.is_empty() {
            transaction.execute("UPDATE meta SET value = random() WHERE name = 'stamp'", [])?;
        }
        transaction.commit()?;
        for info in added {
            self.by_hash.insert(info.hash, info.row);
            self.packs.insert(info.row, Arc::new(info));
        }
        for (key, _) in rows {
            self.filter.insert(key as u64);
        }
        if self.filter.is_full() {
            return self.rebuild_filter();
        }
        // What another process added meanwhile is not in this filter: it must not be kept as the file's.
        if filter_is_current {
            self.filter_stamp = self.stamp()?;
        }
        Ok(())
    }

    pub(super) fn remove_packs(&mut self, packs: &[ObjectHash]) -> rusqlite::Result<()> {
        let rows: Vec<i64> = packs.iter().filter_map(|hash| self.by_hash.get(hash).copied()).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let transaction = self.db.transaction()?;
        for row in &rows {
            let mut statement = transaction.prepare_cached("SELECT id, chunks FROM block WHERE pack = ?")?;
            let mut blocks = statement.query([row])?;
            while let Some(block) = blocks.next()? {
                let id: i64 = block.get(0)?;
                let mut delete =
                    transaction.prepare_cached("DELETE FROM chunk WHERE key = ? AND block = ?")?;
                for (chunk, _) in decode_chunks(block.get_ref(1)?.as_blob()?) {
                    delete.execute([key(&chunk) as i64, id])?;
                }
            }
            transaction.prepare_cached("DELETE FROM block WHERE pack = ?")?.execute([row])?;
            transaction.prepare_cached("DELETE FROM pack WHERE id = ?")?.execute([row])?;
        }
        transaction.execute("UPDATE meta SET value = random() WHERE name = 'generation'", [])?;
        transaction.commit()?;
        for row in rows {
            if let Some(info) = self.packs.remove(&row) {
                self.by_hash.remove(&info.hash);
            }
            self.condemned.remove(&row);
        }
        self.drop_hot();
        Ok(())
    }

    pub(super) fn condemn(&mut self, packs: &HashSet<ObjectHash>) -> rusqlite::Result<()> {
        let rows: HashSet<i64> = packs.iter().filter_map(|hash| self.by_hash.get(hash).copied()).collect();
        if rows == self.condemned {
            return Ok(());
        }
        let grew = !rows.is_subset(&self.condemned);
        let transaction = self.db.transaction()?;
        transaction.execute("UPDATE pack SET condemned = 0 WHERE condemned", [])?;
        for row in &rows {
            transaction.execute("UPDATE pack SET condemned = 1 WHERE id = ?", [row])?;
        }
        if grew {
            transaction.execute("UPDATE meta SET value = random() WHERE name = 'generation'", [])?;
        }
        transaction.commit()?;
        self.condemned = rows;
        Ok(())
    }
}

fn encode_chunks(chunks: &[(ShortId, u32)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunks.len() * 20);
    for (id, length) in chunks {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
    }
    bytes
}

fn decode_chunks(bytes: &[u8]) -> Vec<(ShortId, u32)> {
    let decode = |row: &[u8; 20]| {
        let (mut id, mut length) = ([0; 16], [0; 4]);
        id.copy_from_slice(&row[..16]);
        length.copy_from_slice(&row[16..]);
        (ShortId(id), u32::from_le_bytes(length))
    };
    bytes.as_chunks::<20>().0.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::super::IndexMap;
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_taken_into_memory_and_no_more_added_there() {
        let folder = tempfile::tempdir().unwrap();
        let map = IndexMap::open(Some(folder.path())).unwrap();
        let objects = |count: u16| -> HashSet<ObjectHash> {
            (0..count).map(|number| ObjectHash(*blake3::hash(&number.to_le_bytes()).as_bytes())).collect()
        };
        map.set_absorbed(&objects(500)).unwrap();
        let mut inner = map.inner.lock().unwrap();
        assert!(!inner.move_to_memory(16 << 10).unwrap() && !inner.is_moved, "the file is larger");
        assert!(inner.move_to_memory(256 << 10).unwrap() && inner.is_moved);
        drop(inner);
        map.set_absorbed(&objects(600)).unwrap();
        let cause = map.set_absorbed(&objects(20_000)).unwrap_err().to_string();
        assert!(cause.contains("full"), "{cause}");
        assert_eq!(map.absorbed().unwrap(), objects(600), "what was there stays");
    }
}
