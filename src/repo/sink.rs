//! Stores chunks one after the other on the calling task: for small work and whatever is not the backup pipeline.

use std::collections::HashSet;
use std::sync::Arc;

use super::reach::Reach;
use super::run::Run;
use super::{RepoError, Repository};
use crate::base::random::Random;
use crate::format::header::ObjectKind;
use crate::format::id::{ChunkId, ObjectHash, ShortId};
use crate::format::pack::{Index, IndexPack};
use crate::pack::build::{FinishedPack, SerialPacker};
use crate::pack::gather::{Gatherer, RawBlock};
use crate::pack::index::IndexMap;
use crate::seal::access::{Access, Domain};
use crate::seal::block::Compression;
use crate::seal::object::seal_index;
use crate::store::Store;

/// Plaintext bytes that make a block of data complete.
pub const DATA_BLOCK_BYTES: usize = 1 << 20;
/// The same for folders, whose files have more in common over a longer way.
pub const FILES_BLOCK_BYTES: usize = 2 << 20;
/// Pages are read one at a time by `ls` and `restore` of a part, so their blocks are smaller.
pub const META_BLOCK_BYTES: usize = 256 << 10;

/// Chunks stored by a [`Sink`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub new_chunks: u64,
    pub new_bytes: u64,
    /// Bytes of the packs put.
    pub pack_bytes: u64,
}

struct Lane {
    gatherer: Gatherer,
    packer: SerialPacker,
}

/// See the module.
pub struct Sink<'s, 'r> {
    run: &'s Run<'r>,
    data: Lane,
    meta: Lane,
    fresh: HashSet<ShortId>,
    unpublished: Vec<IndexPack>,
    pub stored: Stored,
}

impl<'s, 'r> Sink<'s, 'r> {
    pub fn new(run: &'s Run<'r>, compression: Compression) -> Result<Self, RepoError> {
        let pack_bytes = run.repo.config.pack_bytes as usize;
        let lane = |kind, block_bytes| -> Result<Lane, RepoError> {
            Ok(Lane {
                gatherer: Gatherer::new(block_bytes),
                packer: SerialPacker::new(kind, compression, pack_bytes)?,
            })
        };
        Ok(Self {
            run,
            data: lane(ObjectKind::Data, DATA_BLOCK_BYTES)?,
            meta: lane(ObjectKind::Meta, META_BLOCK_BYTES)?,
            fresh: HashSet::new(),
            unpublished: Vec::new(),
            stored: Stored::default(),
        })
    }

    fn home(&self) -> &'r Domain {
        self.run.repo.access.home()
    }

    /// Stores a chunk unless the repository has it; notes it in `reach`. Returns whether it was new.
    pub async fn add(
        &mut self,
        kind: ObjectKind,
        id: ChunkId,
        bytes: &[u8],
        reach: Option<&mut Reach>,
    ) -> Result<bool, RepoError> {
        let short = id.short();
        if let Some(reach) = reach {
            reach.add(kind, &short)?;
        }
        let home = self.home().number();
        if self.fresh.contains(&short) || self.run.repo.index.contains(home, kind, &short)? {
            return Ok(false);
        }
        self.fresh.insert(short);
        self.stored.new_chunks += 1;
        self.stored.new_bytes += bytes.len() as u64;
        let lane = if kind == ObjectKind::Data { &mut self.data } else { &mut self.meta };
        if let Some(block) = lane.gatherer.add(id, bytes) {
            self.seal(kind, block).await?;
        }
        Ok(true)
    }

    async fn seal(&mut self, kind: ObjectKind, block: RawBlock) -> Result<(), RepoError> {
        let lane = if kind == ObjectKind::Data { &mut self.data } else { &mut self.meta };
        match lane.packer.add(&self.run.seed(), block)? {
            Some(pack) => self.put(pack).await,
            None => Ok(()),
        }
    }

    async fn put(&mut self, pack: FinishedPack) -> Result<(), RepoError> {
        self.stored.pack_bytes += pack.bytes.len() as u64;
        self.run.repo.store.put(&pack.name(), pack.bytes).await?;
        self.run.repo.index.add_packs(self.home().number(), std::slice::from_ref(&pack.index))?;
        self.unpublished.push(pack.index);
        Ok(())
    }

    /// Puts what is left, then an index object that names only packs whose put was acknowledged.
    pub async fn finish(mut self) -> Result<Stored, RepoError> {
        for kind in [ObjectKind::Data, ObjectKind::Meta] {
            let lane = if kind == ObjectKind::Data { &mut self.data } else { &mut self.meta };
            if let Some(block) = lane.gatherer.finish() {
                self.seal(kind, block).await?;
            }
            let lane = if kind == ObjectKind::Data { &mut self.data } else { &mut self.meta };
            if let Some(pack) = lane.packer.finish(&self.run.seed())? {
                self.put(pack).await?;
            }
        }
        let packs = std::mem::take(&mut self.unpublished);
        self.run.repo.publish(self.home(), packs, Vec::new()).await?;
        Ok(self.stored)
    }
}

/// Puts index objects.
#[derive(Clone)]
pub struct Publisher {
    store: Arc<dyn Store>,
    access: Arc<Access>,
    index: Arc<IndexMap>,
    random: Arc<dyn Random>,
}

impl Publisher {
    /// Puts an index object over packs of one domain. Nothing to say: nothing is put.
    pub async fn publish(
        &self,
        domain: u32,
        packs: Vec<IndexPack>,
        supersedes: Vec<ObjectHash>,
    ) -> Result<Option<ObjectHash>, RepoError> {
        if packs.is_empty() && supersedes.is_empty() {
            return Ok(None);
        }
        let index = Index { author: Some(self.access.identity.key), supersedes, packs };
        let domain = self.access.domain(domain)?;
        let bytes = seal_index(&self.access, domain, &index, self.random.as_ref())?;
        let hash = ObjectHash(*blake3::hash(&bytes).as_bytes());
        self.store.put(&format!("index/{hash}"), bytes.into()).await?;
        let mut absorbed = self.index.absorbed()?;
        absorbed.insert(hash);
        self.index.set_absorbed(&absorbed)?;
        Ok(Some(hash))
    }
}

impl Repository {
    /// What puts index objects, for threads that outlive a borrow.
    pub fn publisher(&self) -> Publisher {
        Publisher {
            store: self.store.clone(),
            access: self.access.clone(),
            index: self.index.clone(),
            random: self.world.random.clone(),
        }
    }

    /// Puts an index object over packs of one domain. Nothing to say: nothing is put.
    pub async fn publish(
        &self,
        domain: &Domain,
        packs: Vec<IndexPack>,
        supersedes: Vec<ObjectHash>,
    ) -> Result<Option<ObjectHash>, RepoError> {
        self.publisher().publish(domain.number(), packs, supersedes).await
    }
}
