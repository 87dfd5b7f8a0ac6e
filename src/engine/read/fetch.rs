//! Brings blocks and opens them: reads run ahead on the runtime, decryption and decompression on threads of their
//! own, and a handler gets each opened block on the thread that opened it.
//!
//! Neighbouring blocks of one pack come with one ranged read. Memory is bounded: the stored bytes of all blocks
//! under way never exceed the budget, and each thread holds one opened block.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::pack::PackError;
use crate::pack::index::BlockInfo;
use crate::pack::read::{OpenBlock, Reader};
use crate::seal::block::Codecs;

/// Most bytes one ranged read asks for, unless a single block is larger.
const READ_BYTES: u64 = 8 << 20;
/// Bytes between two wanted blocks that are read along rather than asked around.
const GAP_BYTES: u64 = 128 << 10;
/// The budget is counted in units of this many bytes.
const UNIT_BYTES: u64 = 4096;
/// Opened or waiting jobs between the runtime and the threads.
const QUEUE: usize = 256;

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
pub struct FetchOptions {
    /// Threads that open blocks; 0 is one a core.
    pub threads: usize,
    /// Stored bytes under way at once.
    pub in_flight_bytes: u64,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { threads: 0, in_flight_bytes: 40 << 20 }
    }
}

impl FetchOptions {
    /// The number of threads meant.
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from).min(16),
            threads => threads,
        }
    }
}

/// A block to open and what the handler should know about it.
pub struct Wanted<T> {
    pub info: Arc<BlockInfo>,
    pub tag: T,
}

type Handler<T> = dyn Fn(&Arc<BlockInfo>, T, Result<OpenBlock, PackError>) + Send + Sync;
type Task = Box<dyn FnOnce() + Send>;

enum Job<T> {
    Block { wanted: Wanted<T>, stored: Result<Bytes, PackError>, _room: Arc<OwnedSemaphorePermit> },
    Task(Task),
}

/// See the module.
pub struct Fetcher<T: Send + 'static> {
    reader: Arc<Reader>,
    room: Arc<Semaphore>,
    units: u32,
    jobs: mpsc::Sender<Job<T>>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Fetcher<T> {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        reader: Arc<Reader>,
        options: &FetchOptions,
        handler: Arc<Handler<T>>,
    ) -> std::io::Result<Self> {
        let units = (options.in_flight_bytes / UNIT_BYTES).clamp(1, u64::from(u32::MAX >> 4)) as u32;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for _ in 0..options.thread_count() {
            let (reader, queue, handler) = (reader.clone(), queue.clone(), handler.clone());
            let work = move || work(&reader, &queue, handler.as_ref());
            threads.push(std::thread::Builder::new().name("open".into()).spawn(work)?);
        }
        Ok(Self { reader, room: Arc::new(Semaphore::new(units as usize)), units, jobs, threads })
    }

    /// Reads and opens `wanted`, in about this order. Returns when all reads have begun; waits while too much is
    /// under way.
    pub async fn submit(&self, wanted: Vec<Wanted<T>>) {
        let mut run: Vec<Wanted<T>> = Vec::new();
        for block in wanted {
            if !run.is_empty() && !joins(&run, &block.info) {
                self.read(std::mem::take(&mut run)).await;
            }
            run.push(block);
        }
        if !run.is_empty() {
            self.read(run).await;
        }
    }

    /// Runs `task` on one of the threads.
    pub async fn run(&self, task: impl FnOnce() + Send + 'static) {
        // Fails only when every thread is gone, which `finish` reports.
        let _ = self.jobs.send(Job::Task(Box::new(task))).await;
    }

    async fn read(&self, run: Vec<Wanted<T>>) {
        let span = span(&run);
        let units = ((span.1 - span.0).div_ceil(UNIT_BYTES) as u32).clamp(1, self.units);
        let Ok(room) = self.room.clone().acquire_many_owned(units).await else { return };
        let room = Arc::new(room);
        let (reader, jobs) = (self.reader.clone(), self.jobs.clone());
        tokio::spawn(async move {
            let whole = match run.as_slice() {
                [] | [_] => None,
                [first, ..] => {
                    reader.store().get_range(&first.info.object(), span.0, span.1 - span.0).await.ok()
                }
            };
            for wanted in run {
                let info = &wanted.info;
                let stored = match &whole {
                    Some(bytes) => {
                        let start = (info.offset - span.0) as usize;
                        Ok(bytes.slice(start..start + info.stored_length as usize))
                    }
                    // Also after a failed read of several: each block fails, or not, by itself.
                    None => reader.fetch(info).await,
                };
                if jobs.send(Job::Block { wanted, stored, _room: room.clone() }).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Waits until everything submitted was handled and the threads ended. False when one of them panicked.
    pub async fn finish(self) -> bool {
        let Self { jobs, threads, .. } = self;
        // Reads under way hold their own senders: the queue closes behind the last of them.
        drop(jobs);
        let join = move || threads.into_iter().all(|thread| thread.join().is_ok());
        tokio::task::spawn_blocking(join).await.unwrap_or(false)
    }
}

/// First and last byte (exclusive) of ascending blocks of one pack.
fn span<T>(run: &[Wanted<T>]) -> (u64, u64) {
    let end = |info: &BlockInfo| info.offset + u64::from(info.stored_length);
    match run {
        [] => (0, 0),
        [first, ..] => (first.info.offset, run.last().map_or(0, |last| end(&last.info))),
    }
}

fn joins<T>(run: &[Wanted<T>], next: &BlockInfo) -> bool {
    let (start, end) = span(run);
    run.first().is_some_and(|first| first.info.pack.row == next.pack.row)
        && next.offset >= end
        && next.offset - end <= GAP_BYTES
        && next.offset + u64::from(next.stored_length) - start <= READ_BYTES
}

fn work<T: Send>(reader: &Reader, queue: &Mutex<mpsc::Receiver<Job<T>>>, handler: &Handler<T>) {
    let mut codecs = Codecs::new();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match job {
            None => return,
            Some(Job::Task(task)) => task(),
            Some(Job::Block { wanted, stored, _room }) => {
                let Wanted { info, tag } = wanted;
                let opened = match (&mut codecs, stored) {
                    (Ok(codecs), Ok(stored)) => reader.open(&info, &stored, codecs),
                    (_, Err(error)) => Err(error),
                    (Err(_), _) => Err(PackError::Seal(crate::seal::SealError::Compression)),
                };
                handler(&info, tag, opened);
            }
        }
    }
}
