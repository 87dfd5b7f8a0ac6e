//! Content in order, with the blocks behind it read and opened ahead.
//!
//! Blocks lately used are kept, so a stream that goes back and forth between some of them opens each once. All
//! opened blocks together, waiting or kept, stay below a budget.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};

use super::fetch::{FetchOptions, Fetcher, Wanted};
use super::locate::{Located, Locator};
use crate::engine::EngineError;
use crate::format::entry::{ChunkRef, Content, Refs};
use crate::format::header::ObjectKind;
use crate::pack::PackError;
use crate::pack::index::BlockInfo;
use crate::pack::read::{OpenBlock, Reader, chunk_id};
use crate::repo::RepoError;
use crate::repo::recipe::RecipeReader;
use crate::seal::SealError;
use crate::seal::access::Access;

/// Opened blocks, waiting or kept, in bytes of plaintext. A dump with scattered updates reads in as many blocks at once
/// as backups added to it: room for a month of days, and for what the allocator adds to it.
const OPEN_BYTES: u64 = 64 << 20;
/// References planned ahead of the one that is written.
const AHEAD: usize = 8192;

/// An opened block whose chunks were hashed. `None`: it cannot be used, each chunk must be looked for elsewhere.
type Opened = Result<Option<Arc<SoundBlock>>, PackError>;

#[derive(Debug)]
struct SoundBlock {
    block: OpenBlock,
    /// Offsets of chunks that are not what their id says.
    wrong: Vec<u32>,
}

/// A block that is under way or opened, shared by all that lies in it.
struct Slot {
    row: i64,
    raw_bytes: u64,
    state: Mutex<State>,
}

enum State {
    Waiting(oneshot::Receiver<Opened>),
    Ready(Option<Arc<SoundBlock>>),
}

struct Planned {
    slot: Arc<Slot>,
    offset: u32,
    reference: ChunkRef,
}

/// Where the bytes go.
pub type ByteSink<'s> = dyn FnMut(&[u8]) -> Result<(), EngineError> + Send + 's;

/// See the module. One serves any number of contents, one after the other.
pub struct ContentStream {
    reader: Arc<Reader>,
    domain: u32,
    fetcher: Fetcher<oneshot::Sender<Opened>>,
    locator: Locator,
    /// Slots lately used, by block.
    slots: HashMap<i64, Arc<Slot>>,
    order: VecDeque<Arc<Slot>>,
    open_bytes: u64,
}

impl ContentStream {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(reader: Arc<Reader>, domain: u32, options: &FetchOptions) -> Result<Self, EngineError> {
        let access = reader.access().clone();
        let handler = move |info: &Arc<BlockInfo>, tag: oneshot::Sender<Opened>, opened| {
            // The receiver may be gone: cancelled.
            let _ = tag.send(check_block(&access, info, opened));
        };
        let fetcher = Fetcher::start(reader.clone(), options, Arc::new(handler))
            .map_err(|cause| EngineError::Local { operation: "start", path: "a thread".into(), cause })?;
        let locator = Locator::new(reader.index().clone(), domain);
        let (slots, order) = (HashMap::new(), VecDeque::new());
        Ok(Self { reader, domain, fetcher, locator, slots, order, open_bytes: 0 })
    }

    /// Begins to read what a small content will need, as far as there is room.
    ///
    /// # Errors
    /// The local index cannot be read.
    pub async fn prefetch(&mut self, content: &Content) -> Result<(), EngineError> {
        let Refs::Inline(refs) = &content.refs else { return Ok(()) };
        let mut wanted = Vec::new();
        for reference in refs {
            if let Plan::Full = self.plan(reference, &mut wanted)? {
                break;
            }
        }
        self.fetcher.submit(wanted).await;
        Ok(())
    }

    /// Gives the content's bytes outside its holes to `sink`, in order; then checks the hash over all of them.
    ///
    /// # Errors
    /// Chunks that are damaged or missing, storage that fails, the sink's own, a hash that is wrong.
    pub async fn copy(&mut self, content: &Content, sink: &mut ByteSink<'_>) -> Result<(), EngineError> {
        let reader = self.reader.clone();
        let mut recipe = RecipeReader::new(&reader, self.domain, content);
        let mut refs: VecDeque<ChunkRef> = VecDeque::new();
        let mut planned: VecDeque<Planned> = VecDeque::new();
        let mut hasher = match content.hash {
            Some(_) => {
                Some(blake3::Hasher::new_keyed(self.reader.access().domain(self.domain)?.content_key()?))
            }
            None => None,
        };
        let (mut streamed, mut ended) = (0, false);
        let (mut filling, mut low) = (false, 0);
        loop {
            let mut wanted = Vec::new();
            // Not one by one: blocks that are asked for together are read together.
            while planned.len() < AHEAD && (filling || planned.len() <= low) {
                filling = true;
                if refs.is_empty() && !ended {
                    match recipe.next(&mut |_| true).await? {
                        Some(page) => refs.extend(page),
                        None => ended = true,
                    }
                }
                let Some(reference) = refs.front().copied() else { break };
                match self.plan(&reference, &mut wanted)? {
                    Plan::At(slot, offset) => planned.push_back(Planned { slot, offset, reference }),
                    Plan::Full => break,
                    Plan::Missing => return Err(PackError::Missing(reference.id).into()),
                }
                refs.pop_front();
            }
            if filling {
                (filling, low) = (false, planned.len() * 3 / 4);
            }
            self.fetcher.submit(wanted).await;
            let Some(first) = planned.pop_front() else { break };
            let mut bytes_done = |bytes: &[u8]| {
                streamed += bytes.len() as u64;
                if let Some(hasher) = &mut hasher {
                    hasher.update(bytes);
                }
                sink(bytes)
            };
            let Some(block) = self.opened(&first).await? else {
                let chunk = self.reader.chunk(self.domain, ObjectKind::Data, &first.reference.id).await?;
                bytes_done(&chunk)?;
                continue;
            };
            // Neighbours go out together.
            let (start, mut end) = (first.offset, first.offset + first.reference.length);
            while let Some(next) = planned.front()
                && Arc::ptr_eq(&next.slot, &first.slot)
                && next.offset == end
                && !block.wrong.contains(&end)
            {
                end += next.reference.length;
                planned.pop_front();
            }
            bytes_done(&block.block.bytes[start as usize..end as usize])?;
        }
        let right = hasher.is_none_or(|hasher| Some(*hasher.finalize().as_bytes()) == content.hash);
        if streamed == content.data_bytes() && right {
            return Ok(());
        }
        Err(RepoError::object("a stream that is not what was stored")(SealError::Damaged).into())
    }

    /// The block a planned reference lies in; `None` when it cannot serve this reference.
    async fn opened(&self, planned: &Planned) -> Result<Option<Arc<SoundBlock>>, EngineError> {
        let mut state = planned.slot.state.lock().await;
        if let State::Waiting(receiver) = &mut *state {
            let opened = match receiver.await {
                Ok(opened) => opened?,
                Err(_) => return Err(EngineError::Source("an opening thread failed unexpectedly".into())),
            };
            *state = State::Ready(opened);
        }
        let State::Ready(Some(block)) = &*state else { return Ok(None) };
        let end = planned.offset as usize + planned.reference.length as usize;
        let sound = end <= block.block.bytes.len() && !block.wrong.contains(&planned.offset);
        Ok(sound.then(|| block.clone()))
    }

    fn plan(
        &mut self,
        reference: &ChunkRef,
        wanted: &mut Vec<Wanted<oneshot::Sender<Opened>>>,
    ) -> Result<Plan, EngineError> {
        let Some(Located { info, offset, .. }) = self.locator.locate(reference)? else {
            return Ok(Plan::Missing);
        };
        if let Some(slot) = self.slots.get(&info.row).cloned() {
            // What was used last goes last.
            if self.order.back().is_none_or(|last| last.row != slot.row)
                && let Some(at) = self.order.iter().position(|other| other.row == slot.row)
                && let Some(used) = self.order.remove(at)
            {
                self.order.push_back(used);
            }
            return Ok(Plan::At(slot, offset));
        }
        let raw_bytes = u64::from(info.raw_length);
        while self.open_bytes > 0 && self.open_bytes + raw_bytes > OPEN_BYTES {
            // Two hold a slot that nobody waits for: the map and the order.
            let Some(idle) = self.order.iter().position(|slot| Arc::strong_count(slot) == 2) else {
                return Ok(Plan::Full);
            };
            if let Some(slot) = self.order.remove(idle) {
                self.slots.remove(&slot.row);
                self.open_bytes -= slot.raw_bytes;
            }
        }
        let (sender, receiver) = oneshot::channel();
        let slot = Arc::new(Slot { row: info.row, raw_bytes, state: Mutex::new(State::Waiting(receiver)) });
        self.slots.insert(info.row, slot.clone());
        self.order.push_back(slot.clone());
        self.open_bytes += raw_bytes;
        wanted.push(Wanted { info, tag: sender });
        Ok(Plan::At(slot, offset))
    }

    /// Ends the threads.
    pub async fn finish(self) {
        let Self { fetcher, slots, order, .. } = self;
        drop((slots, order));
        fetcher.finish().await;
    }
}

enum Plan {
    At(Arc<Slot>, u32),
    /// Too much is open: what was planned must be consumed first.
    Full,
    Missing,
}

/// Hashes every chunk of an opened block. Damage makes `None`; anything else stays an error.
fn check_block(access: &Access, info: &BlockInfo, opened: Result<OpenBlock, PackError>) -> Opened {
    let block = match opened {
        Ok(block) => block,
        Err(error) if error.is_damage() => return Ok(None),
        Err(error) => return Err(error),
    };
    let domain = access.domain(info.pack.domain).map_err(PackError::Seal)?;
    let (mut wrong, mut offset) = (Vec::new(), 0u32);
    for (id, length) in &info.chunks {
        let end = offset.saturating_add(*length);
        let sound = match block.bytes.get(offset as usize..end as usize) {
            Some(bytes) => chunk_id(domain, info.pack.kind, bytes)?.short() == *id,
            None => false,
        };
        if !sound {
            wrong.push(offset);
        }
        offset = end;
    }
    Ok(Some(Arc::new(SoundBlock { block, wrong })))
}
