//! Fetches blocks and opens them. Whatever comes out was authenticated, and every chunk is hashed against its id.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::PackError;
use super::index::{BlockInfo, IndexMap};
use crate::base::pool::Pool;
use crate::format::header::ObjectKind;
use crate::format::id::{ChunkId, ShortId};
use crate::format::pack::Origin;
use crate::seal::access::{Access, Domain};
use crate::seal::block::{BlockOpener, Codecs};
use crate::store::Store;

/// Opened blocks' buffers that wait to be used again: as many as a stream holds open at once.
const SPARE_BUFFERS: usize = 40;

/// An opened block. Its buffer goes back to the reader.
#[derive(Debug)]
pub struct OpenBlock {
    pub info: Arc<BlockInfo>,
    pub bytes: Vec<u8>,
    spare: Pool,
}

impl Drop for OpenBlock {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.bytes));
    }
}

impl OpenBlock {
    /// The chunk's plaintext, checked against its id.
    pub fn chunk(&self, domain: &Domain, id: &ShortId) -> Result<&[u8], PackError> {
        let mismatch = || PackError::Mismatch { object: self.info.object(), id: *id };
        let (offset, length) = self.info.place(id).ok_or_else(mismatch)?;
        let bytes = self.bytes.get(offset..offset + length).ok_or_else(mismatch)?;
        if chunk_id(domain, self.info.pack.kind, bytes)?.short() == *id { Ok(bytes) } else { Err(mismatch()) }
    }
}

/// The id of `bytes` as a chunk of `kind`.
pub fn chunk_id(domain: &Domain, kind: ObjectKind, bytes: &[u8]) -> Result<ChunkId, PackError> {
    match kind {
        ObjectKind::Data => domain.data_id(bytes),
        _ => domain.meta_id(bytes),
    }
    .map_err(PackError::Seal)
}

#[derive(Default)]
struct Cache {
    blocks: HashMap<i64, Arc<OpenBlock>>,
    order: VecDeque<i64>,
    size_bytes: usize,
}

/// Keys agreed already: an X25519 agreement costs as much as opening 50 KiB.
type Openers = HashMap<(ObjectKind, u32, Origin), Arc<BlockOpener>>;

/// Reads chunks of one repository.
pub struct Reader {
    store: Arc<dyn Store>,
    access: Arc<Access>,
    index: Arc<IndexMap>,
    openers: Mutex<Openers>,
    cache: Mutex<Cache>,
    cache_bytes: usize,
    spare: Pool,
}

impl Reader {
    /// Keeps up to `cache_bytes` of opened blocks.
    pub fn new(store: Arc<dyn Store>, access: Arc<Access>, index: Arc<IndexMap>, cache_bytes: usize) -> Self {
        let (openers, cache) = (Mutex::default(), Mutex::default());
        let spare = Pool::new(SPARE_BUFFERS);
        Self { store, access, index, openers, cache, cache_bytes, spare }
    }

    fn opener(&self, info: &BlockInfo) -> Result<Arc<BlockOpener>, PackError> {
        let key = (info.pack.kind, info.pack.domain, info.origin().clone());
        let mut openers = self.openers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opener) = openers.get(&key) {
            return Ok(opener.clone());
        }
        let domain = self.access.domain(info.pack.domain).map_err(PackError::Seal)?;
        let opener = BlockOpener::new(self.access.repo, domain, info.pack.kind, info.origin());
        let opener = Arc::new(opener.map_err(|cause| self.broken(info, cause))?);
        if openers.len() >= 4096 {
            openers.clear();
        }
        openers.insert(key, opener.clone());
        Ok(opener)
    }

    fn broken(&self, info: &BlockInfo, cause: crate::seal::SealError) -> PackError {
        match cause {
            crate::seal::SealError::NotPermitted(_) => PackError::Seal(cause),
            cause => PackError::Damaged { object: info.object(), cause },
        }
    }

    /// The block as stored.
    pub async fn fetch(&self, info: &BlockInfo) -> Result<Bytes, PackError> {
        Ok(self.store.get_range(&info.object(), info.offset, u64::from(info.stored_length)).await?)
    }

    /// Authenticates, decrypts and decompresses what [`Self::fetch`] brought. CPU work: call it off the runtime
    /// when there is much of it.
    pub fn open(
        &self,
        info: &Arc<BlockInfo>,
        stored: &[u8],
        codecs: &mut Codecs,
    ) -> Result<OpenBlock, PackError> {
        let opener = self.opener(info)?;
        let room = self.spare.take(0);
        let bytes = opener
            .open(codecs, info.ordinal, info.raw_length, info.codec, stored, room)
            .map_err(|cause| self.broken(info, cause))?;
        Ok(OpenBlock { info: info.clone(), bytes, spare: self.spare.clone() })
    }

    async fn block(&self, info: &Arc<BlockInfo>) -> Result<Arc<OpenBlock>, PackError> {
        if let Some(block) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).blocks.get(&info.row) {
            return Ok(block.clone());
        }
        let stored = self.fetch(info).await?;
        let mut codecs = Codecs::new().map_err(PackError::Seal)?;
        let block = Arc::new(self.open(info, &stored, &mut codecs)?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.size_bytes += block.bytes.len();
        cache.order.push_back(info.row);
        if let Some(double) = cache.blocks.insert(info.row, block.clone()) {
            cache.size_bytes -= double.bytes.len();
        }
        while cache.size_bytes > self.cache_bytes && cache.order.len() > 1 {
            let Some(old) = cache.order.pop_front() else { break };
            if let Some(old) = cache.blocks.remove(&old) {
                cache.size_bytes -= old.bytes.len();
            }
        }
        Ok(block)
    }

    /// One chunk, from whichever of its locations is sound.
    pub async fn chunk(&self, domain: u32, kind: ObjectKind, id: &ShortId) -> Result<Bytes, PackError> {
        let mut first_error = None;
        for info in self.index.locations(domain, kind, id)? {
            let keys = self.access.domain(domain).map_err(PackError::Seal)?;
            let result = self.block(&info).await;
            match result.and_then(|block| block.chunk(keys, id).map(Bytes::copy_from_slice)) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(PackError::Missing(*id)))
    }

    pub fn index(&self) -> &Arc<IndexMap> {
        &self.index
    }
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}
