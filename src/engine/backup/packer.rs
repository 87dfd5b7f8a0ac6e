//! The packer: puts sealed blocks together, names the packs, and has them uploaded a few at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::Semaphore;

use super::pieces::{Counts, PackMessage, PackSlot, Pool, Stop};
use crate::format::header::ObjectKind;
use crate::format::id::RunId;
use crate::format::pack::IndexPack;
use crate::pack::PackError;
use crate::pack::build::PackBuilder;
use crate::pack::index::IndexMap;
use crate::repo::sink::Publisher;
use crate::seal::access::Access;
use crate::seal::block::Codecs;
use crate::store::{Store, StoreError};

/// Packs on their way to storage at a time.
const UPLOADS: usize = 2;
/// What a pack may hold above its size: a block, and what its directory takes.
const PACK_EXCESS_BYTES: usize = 2 << 20;
/// First room of a pack of metadata.
const META_PACK_FROM_BYTES: usize = 1 << 20;
/// So many chunks in acknowledged packs make an index object and free their memory: about 5 MB.
const PUBLISH_CHUNKS: usize = 250_000;

struct OpenPack {
    builder: PackBuilder,
    blocks: u32,
    expected: Option<u32>,
}

type Ack = Result<IndexPack, StoreError>;

/// See the module.
pub struct Packer {
    pub messages: Receiver<PackMessage>,
    /// Where the buffers of appended blocks go back to.
    pub sealed: Pool,
    /// The buffers of packs that were put.
    pub packs: Pool,
    pub flushed: Sender<Vec<IndexPack>>,
    pub store: Arc<dyn Store>,
    pub access: Arc<Access>,
    pub index: Arc<IndexMap>,
    pub publisher: Publisher,
    pub run: RunId,
    pub pack_bytes: usize,
    pub runtime: tokio::runtime::Handle,
    pub counts: Arc<Counts>,
}

impl Packer {
    /// Packs until every sender is gone, then waits for the last uploads and publishes the last index object.
    pub fn run(self) -> Result<(), Stop> {
        let mut codecs = Codecs::new().map_err(PackError::Seal)?;
        let mut open: HashMap<u64, OpenPack> = HashMap::new();
        let uploads = Arc::new(Semaphore::new(UPLOADS));
        let (acks, acked) = unbounded::<Ack>();
        let mut unpublished = Vec::new();
        let (mut started, mut ended) = (0u64, 0u64);
        for message in &self.messages {
            let slot = self.take(message, &mut open);
            let complete = open.get(&slot.number).is_some_and(|pack| pack.expected == Some(pack.blocks));
            if !complete {
                continue;
            }
            let Some(pack) = open.remove(&slot.number) else { continue };
            let pack = pack.builder.finish(&slot.sealer, &self.access, self.run, &mut codecs)?;
            started += 1;
            let permit = self.runtime.block_on(uploads.clone().acquire_owned());
            let (store, acks, name) = (self.store.clone(), acks.clone(), pack.name());
            let is_data = slot.kind == ObjectKind::Data;
            let (counts, packs) = (self.counts.clone(), self.packs.clone());
            self.runtime.spawn(async move {
                let size_bytes = pack.bytes.len() as u64;
                let mut bytes = pack.bytes.clone();
                let result = store.put(&name, pack.bytes).await;
                if bytes.is_unique() && is_data {
                    // Emptied first: turning into a vector moves what is left to the front.
                    bytes.clear();
                    packs.give(bytes.into());
                }
                counts.pack_bytes.fetch_add(size_bytes, Ordering::Relaxed);
                drop(permit);
                // The packer may have stopped for another reason.
                let _ = acks.send(result.map(|()| pack.index));
            });
            for ack in acked.try_iter() {
                ended += 1;
                unpublished.push(ack?);
            }
            self.publish(&mut unpublished, PUBLISH_CHUNKS)?;
        }
        drop(acks);
        for ack in acked {
            ended += 1;
            unpublished.push(ack?);
        }
        if started != ended {
            // An upload's task died without a word: its pack may not be there.
            let text = "an upload ended without an answer: nothing was committed";
            return Err(Stop::Failed(crate::engine::EngineError::Source(text.into())));
        }
        if !open.is_empty() {
            // A worker stopped between taking a block and sealing it: its own error is the one to show.
            return Err(Stop::Hung);
        }
        self.publish(&mut unpublished, 1)
    }

    fn take(&self, message: PackMessage, open: &mut HashMap<u64, OpenPack>) -> Arc<PackSlot> {
        let mut pack = |slot: &Arc<PackSlot>, change: &mut dyn FnMut(&mut OpenPack)| {
            change(open.entry(slot.number).or_insert_with(|| {
                // Metadata is mostly little: its packs grow with what comes.
                let buffer = match slot.kind {
                    ObjectKind::Data => self.packs.take(self.pack_bytes + PACK_EXCESS_BYTES),
                    _ => Vec::with_capacity(META_PACK_FROM_BYTES),
                };
                OpenPack { builder: PackBuilder::new_in(&slot.sealer, buffer), blocks: 0, expected: None }
            }));
        };
        match message {
            PackMessage::Sealed { slot, sealed, mut chunks } => {
                pack(&slot, &mut |pack| {
                    pack.builder.append(&sealed, std::mem::take(&mut chunks));
                    pack.blocks += 1;
                });
                self.sealed.give(sealed.bytes);
                slot
            }
            PackMessage::Close { slot, blocks } => {
                pack(&slot, &mut |pack| pack.expected = Some(blocks));
                slot
            }
        }
    }

    /// Once acknowledged packs hold at least `chunks`: index object, local index, and word to the assembler.
    fn publish(&self, packs: &mut Vec<IndexPack>, chunks: usize) -> Result<(), Stop> {
        let count: usize = packs.iter().flat_map(|pack| &pack.blocks).map(|block| block.chunks.len()).sum();
        if count < chunks {
            return Ok(());
        }
        let packs = std::mem::take(packs);
        let home = self.access.home;
        self.runtime.block_on(self.publisher.publish(home, packs.clone(), Vec::new()))?;
        self.index.add_packs(home, &packs)?;
        let _ = self.flushed.send(packs);
        Ok(())
    }
}
