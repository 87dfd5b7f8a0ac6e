//! Moves blocks to new packs: unopened where most of a block is needed, else its needed chunks are sealed anew.
//!
//! New packs are put, and then named by an index object, before anything they replace is condemned. Names of new
//! packs are always new: their keys are drawn at random, so a condemned name is never put again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::plan::Move;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::format::id::{ChunkId, ObjectHash};
use crate::format::pack::{Directory, IndexPack};
use crate::pack::build::{FinishedPack, PackSeed, SerialPacker};
use crate::pack::gather::{Gatherer, RawBlock};
use crate::pack::index::{BlockInfo, PackInfo};
use crate::pack::read::{Reader, chunk_id};
use crate::repo::run::Run;
use crate::repo::sink::{DATA_BLOCK_BYTES, META_BLOCK_BYTES};
use crate::repo::sync::ListedPack;
use crate::repo::{RepoError, Repository};
use crate::seal::SealError;
use crate::seal::access::Access;
use crate::seal::block::{Codecs, Compression};

/// Directories kept at hand: they have the full ids, which a moved block's new directory needs.
const DIRECTORIES: usize = 64;
/// New packs after which an index object is put, so that little is unindexed if the run dies.
const PUBLISH_PACKS: usize = 32;

/// Takes blocks, puts packs.
pub(in crate::engine) struct Repacker<'r, 'p> {
    run: &'p mut Run<'r>,
    /// Where blocks are read: here, or at a replica, whose blocks are sealed anew.
    source: Arc<Reader>,
    /// The own access at home in the domain that is being written.
    access: Access,
    kind: ObjectKind,
    gatherer: Gatherer,
    packer: SerialPacker,
    codecs: Codecs,
    directories: Directories,
    unpublished: Vec<IndexPack>,
    pub packs: u64,
    pub bytes: u64,
}

impl<'r, 'p> Repacker<'r, 'p> {
    pub fn new(run: &'p mut Run<'r>) -> Result<Self, EngineError> {
        let source = run.repo.reader.clone();
        Self::reading(run, source)
    }

    /// Takes blocks from elsewhere than the own repository.
    pub fn reading(run: &'p mut Run<'r>, source: Arc<Reader>) -> Result<Self, EngineError> {
        let repo = run.repo;
        let kind = ObjectKind::Data;
        Ok(Self {
            access: (*repo.access).clone(),
            kind,
            gatherer: Gatherer::new(DATA_BLOCK_BYTES),
            packer: packer(repo, kind)?,
            codecs: Codecs::new()?,
            directories: Directories::default(),
            unpublished: Vec::new(),
            packs: 0,
            bytes: 0,
            source,
            run,
        })
    }

    /// Moves everything, in the order given.
    pub async fn all(
        mut self,
        moves: &[Move],
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<(u64, u64), EngineError> {
        for next in moves {
            cancel.check()?;
            self.one(next).await?;
            progress.add_done(next.needed_bytes, 0);
        }
        self.end().await
    }

    /// Moves one. After an error the next may be tried: nothing of a damaged chunk was taken.
    pub async fn one(&mut self, next: &Move) -> Result<(), EngineError> {
        self.run.beat().await?;
        self.block(next).await
    }

    /// Puts what is left; returns how many packs were put in all, and their bytes.
    pub async fn end(mut self) -> Result<(u64, u64), EngineError> {
        self.finish().await?;
        Ok((self.packs, self.bytes))
    }

    async fn block(&mut self, next: &Move) -> Result<(), EngineError> {
        if (next.domain, next.kind) != (self.access.home, self.kind) {
            self.finish().await?;
            self.access.home = next.domain;
            self.kind = next.kind;
            let target = if next.kind == ObjectKind::Data { DATA_BLOCK_BYTES } else { META_BLOCK_BYTES };
            self.gatherer = Gatherer::new(target);
            self.packer = packer(self.run.repo, next.kind)?;
        }
        let info = &next.block;
        let stored = self.source.fetch(info).await?;
        if !next.reseal {
            return self.move_over(info, &stored).await;
        }
        let opened = self.source.open(info, &stored, &mut self.codecs)?;
        self.seal_anew(next, &opened.bytes).await
    }

    async fn move_over(&mut self, info: &Arc<BlockInfo>, stored: &[u8]) -> Result<(), EngineError> {
        let directory = self.directories.of(self.run.repo, &info.pack).await?;
        let damaged = || RepoError::object(info.object())(SealError::Damaged);
        let mut offset = info.pack_header_bytes();
        let place = directory.blocks.iter().position(|block| {
            let found = offset == info.offset;
            offset += u64::from(block.stored_length);
            found
        });
        let place = place.ok_or_else(damaged)?;
        let block = directory.blocks[place].clone();
        // What damaged storage returned must not get a new name under which it looks sound.
        let same = block.stored_length as usize == stored.len()
            && *blake3::hash(stored).as_bytes() == directory.block_hashes[place];
        if !same {
            return Err(damaged().into());
        }
        let origin = info.origin().clone();
        let seed = seed(self.run, &self.access);
        let full = self.packer.add_moved(&seed, block, &origin, stored)?;
        self.put(full).await
    }

    async fn seal_anew(&mut self, next: &Move, bytes: &[u8]) -> Result<(), EngineError> {
        let info = &next.block;
        let mut offset = 0usize;
        let mut wanted = next.needed.iter().copied().peekable();
        for (position, (short, length)) in info.chunks.iter().enumerate() {
            let length = *length as usize;
            let chunk = bytes.get(offset..offset + length);
            offset += length;
            if wanted.next_if_eq(&(position as u32)).is_none() {
                continue;
            }
            let mismatch = || crate::pack::PackError::Mismatch { object: info.object(), id: *short };
            let chunk = chunk.ok_or_else(mismatch)?;
            let id: ChunkId = chunk_id(self.access.home(), next.kind, chunk)?;
            if id.short() != *short {
                return Err(mismatch().into());
            }
            if let Some(block) = self.gatherer.add(id, chunk) {
                self.seal(block).await?;
            }
        }
        Ok(())
    }

    async fn seal(&mut self, block: RawBlock) -> Result<(), EngineError> {
        let full = self.packer.add(&seed(self.run, &self.access), block)?;
        self.put(full).await
    }

    async fn put(&mut self, pack: Option<FinishedPack>) -> Result<(), EngineError> {
        let Some(pack) = pack else { return Ok(()) };
        let repo = self.run.repo;
        self.packs += 1;
        self.bytes += pack.bytes.len() as u64;
        repo.store.put(&pack.name(), pack.bytes).await?;
        repo.index.add_packs(self.access.home, std::slice::from_ref(&pack.index))?;
        self.unpublished.push(pack.index);
        if self.unpublished.len() >= PUBLISH_PACKS { self.publish().await } else { Ok(()) }
    }

    async fn publish(&mut self) -> Result<(), EngineError> {
        let packs = std::mem::take(&mut self.unpublished);
        self.run.repo.publish(self.access.home(), packs, Vec::new()).await?;
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), EngineError> {
        if let Some(block) = self.gatherer.finish() {
            self.seal(block).await?;
        }
        let last = self.packer.finish(&seed(self.run, &self.access))?;
        self.put(last).await?;
        self.publish().await
    }
}

fn packer(repo: &Repository, kind: ObjectKind) -> Result<SerialPacker, EngineError> {
    let compression = Compression::Zstd(repo.config.compression_level);
    Ok(SerialPacker::new(kind, compression, repo.config.pack_bytes as usize)?)
}

fn seed<'a>(run: &'a Run<'_>, access: &'a Access) -> PackSeed<'a> {
    PackSeed { access, random: run.repo.world.random.as_ref(), run: run.id, counter: &run.packs }
}

/// The last directories read.
#[derive(Default)]
struct Directories {
    known: HashMap<ObjectHash, Arc<Directory>>,
    order: VecDeque<ObjectHash>,
}

impl Directories {
    async fn of(&mut self, repo: &Repository, pack: &PackInfo) -> Result<Arc<Directory>, EngineError> {
        if let Some(directory) = self.known.get(&pack.hash) {
            return Ok(directory.clone());
        }
        let listed = ListedPack { kind: pack.kind, size_bytes: pack.size_bytes };
        let (_, directory) = repo
            .open_pack_directory(&pack.hash, &listed)
            .await?
            .ok_or_else(|| RepoError::from(SealError::UnknownEpoch { domain: pack.domain, epoch: 0 }))?;
        let directory = Arc::new(directory);
        if self.order.len() >= DIRECTORIES
            && let Some(old) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
        self.order.push_back(pack.hash);
        self.known.insert(pack.hash, directory.clone());
        Ok(directory)
    }
}
