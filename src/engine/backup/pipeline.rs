//! Starts the threads of a backup, wires them up, and gathers what they say. See [`super::pieces`] for the picture.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_channel::{bounded, unbounded};

use super::assemble::{Assembled, Assembler, Lane, Output};
use super::file_cache::{CacheReader, CacheWriter};
use super::given::Given;
use super::packer::Packer;
use super::pieces::{Counts, Pool, Pools, Stop};
use super::plan::{Outlet, Planner};
use super::stream::Shared;
use super::worker::{Tools, Worker};
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::base::random::Random;
use crate::chunk::{Cutter, Profile};
use crate::engine::EngineError;
use crate::format::entry::Timestamp;
use crate::format::header::ObjectKind;
use crate::format::id::RunId;
use crate::format::manifest::Statistics;
use crate::pack::index::IndexMap;
use crate::repo::Repository;
use crate::repo::reach::Reach;
use crate::repo::run::Run;
use crate::repo::sink::{DATA_BLOCK_BYTES, FILES_BLOCK_BYTES, META_BLOCK_BYTES, Publisher};
use crate::seal::access::Access;
use crate::seal::block::{Codecs, Compression};
use crate::source::files::place::Places;
use crate::source::files::read::FileReader;
use crate::source::files::walk::Walk;
use crate::store::Store;

/// Jobs dealt out ahead of the one the assembler is at. Each may hold a batch of about a mebibyte.
const JOBS_AHEAD: usize = 16;
/// Buffers of large files and streams kept for use again.
const SEGMENTS_KEPT: usize = 4;
/// Blocks that wait to be sealed.
const BLOCKS_AHEAD: usize = 4;
/// Buffers of packs that were put, kept for use again.
const PACKS_KEPT: usize = 1;
/// Sealed blocks that wait for the packer.
const SEALED_AHEAD: usize = 8;

/// What a pipeline needs of a repository, owned, so that its threads may outlive a borrow.
#[derive(Clone)]
pub struct Setup {
    pub access: Arc<Access>,
    pub index: Arc<IndexMap>,
    pub store: Arc<dyn Store>,
    pub publisher: Publisher,
    pub random: Arc<dyn Random>,
    pub run: RunId,
    pub packs_made: Arc<AtomicU64>,
    pub pack_bytes: usize,
    pub profile: Profile,
    pub compression: Compression,
    /// Worker threads.
    pub threads: usize,
    pub dry_run: bool,
    pub progress: Arc<dyn Progress>,
    pub cancel: Cancel,
    pub counts: Arc<Counts>,
    pub settled_before: Timestamp,
}

impl Setup {
    /// The repository's part of a setup.
    pub fn new(repo: &Repository, run: &Run<'_>, profile: Profile, compression: Compression) -> Self {
        Self {
            access: repo.access.clone(),
            index: repo.index.clone(),
            store: repo.store.clone(),
            publisher: repo.publisher(),
            random: repo.world.random.clone(),
            run: run.id,
            packs_made: run.packs.clone(),
            pack_bytes: repo.config.pack_bytes as usize,
            profile,
            compression,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            dry_run: false,
            progress: Arc::new(crate::base::progress::NoProgress),
            cancel: Cancel::new(),
            counts: Arc::default(),
            settled_before: Timestamp::default(),
        }
    }
}

/// What a pipeline stores.
pub enum Input {
    Files {
        /// The keys of what was asked for.
        roots: Vec<Vec<u8>>,
        walk: Walk,
        caches: Vec<CacheReader>,
        writer: Option<CacheWriter>,
    },
    /// A capture's steps, one after the other.
    Capture {
        source: Shared,
        /// Where its folders are.
        places: Arc<Places>,
        caches: Vec<CacheReader>,
        writer: Option<CacheWriter>,
        given: Given,
    },
}

/// Runs a pipeline to its end on the calling thread, which must not be one of the runtime's own.
pub fn run(
    setup: Setup,
    input: Input,
    reach: Reach,
    runtime: tokio::runtime::Handle,
) -> Result<Assembled, EngineError> {
    let (jobs, jobs_end) = bounded(JOBS_AHEAD);
    let (order, order_end) = bounded(JOBS_AHEAD);
    let (seals, seals_end) = bounded(BLOCKS_AHEAD);
    let (sealed, sealed_end) = bounded(SEALED_AHEAD);
    let (flushed, flushed_end) = unbounded();
    let domain = setup.access.home();
    let (files, caches, writer, source, given) = match input {
        Input::Files { roots, walk, caches, writer } => {
            (Some(Arc::new(FileReader::new(walk.places()))), caches, writer, Ok(walk), Given::below(roots))
        }
        Input::Capture { source, places, caches, writer, given } => {
            let files = Arc::new(FileReader::new(places.clone()));
            (Some(files), caches, writer, Err((source, places)), given)
        }
    };
    let pools = Pools { batches: Pool::new(JOBS_AHEAD), segments: Pool::new(SEGMENTS_KEPT) };
    let tools = Tools {
        files,
        cutter: Arc::new(Cutter::new(domain.cut_key()?, setup.profile)),
        data_id_key: *domain.data_id_key()?,
        content_key: *domain.content_key()?,
        compression: setup.compression,
        pools: pools.clone(),
        blocks: Pool::new(BLOCKS_AHEAD),
        sealed: Pool::new(SEALED_AHEAD),
        counts: setup.counts.clone(),
        progress: setup.progress.clone(),
        cancel: setup.cancel.clone(),
    };
    let outlet = Outlet { jobs, order, under_way: None };
    let mut planner = Planner::new(caches, &setup.index, setup.access.home, setup.cancel.clone(), outlet);
    // Moved in: its ends of the channels close when it is done.
    let plan = move || match source {
        Ok(walk) => planner.walk(walk),
        Err((source, places)) => source.plan(&mut planner, &places),
    };
    let data_block_bytes = match setup.profile.nominal_bytes >= Profile::FILES.nominal_bytes {
        true => FILES_BLOCK_BYTES,
        false => DATA_BLOCK_BYTES,
    };
    let output = Output {
        access: &setup.access,
        index: &setup.index,
        random: setup.random.as_ref(),
        run: setup.run,
        packs_made: &setup.packs_made,
        pack_bytes: setup.pack_bytes,
        data: Lane::new(ObjectKind::Data, data_block_bytes),
        meta: Lane::new(ObjectKind::Meta, META_BLOCK_BYTES),
        blocks: tools.blocks.clone(),
        block_capacity_bytes: data_block_bytes + setup.profile.max_bytes(),
        seals,
        packer: sealed.clone(),
        flushed: flushed_end,
        fresh: Default::default(),
        reach,
        given,
        dry_run: setup.dry_run,
        statistics: Statistics::default(),
        slots: 0,
    };
    let packer = Packer {
        messages: sealed_end,
        sealed: tools.sealed.clone(),
        packs: Pool::new(PACKS_KEPT),
        flushed,
        store: setup.store.clone(),
        access: setup.access.clone(),
        index: setup.index.clone(),
        publisher: setup.publisher.clone(),
        run: setup.run,
        pack_bytes: setup.pack_bytes,
        runtime,
        counts: setup.counts.clone(),
    };
    let mut workers = Vec::new();
    for _ in 0..setup.threads.max(1) {
        workers.push(Worker {
            tools: tools.clone(),
            jobs: jobs_end.clone(),
            seals: seals_end.clone(),
            packer: sealed.clone(),
            codecs: Codecs::new()?,
        });
    }
    let spare = workers[0].another().map_err(stopped)?;
    let assembler =
        Assembler::new(order_end, output, domain, writer, setup.settled_before, spare).map_err(stopped)?;
    // Only the threads hold the channels' ends from here on, so that one that stops is noticed by the others.
    drop((jobs_end, seals_end, sealed, tools));
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| packer.run());
        let working: Vec<_> = workers.into_iter().map(|worker| scope.spawn(move || worker.run())).collect();
        let planning = scope.spawn(plan);
        let assembled = assembler.run();
        let mut stops = vec![join(planning)];
        stops.extend(working.into_iter().map(join));
        stops.push(join(packing));
        let mut hung = false;
        for stop in stops {
            match stop {
                Ok(()) => {}
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Hung) => hung = true,
            }
        }
        match assembled {
            Ok(assembled) if !hung => Ok(assembled),
            Ok(_) => Err(stopped(Stop::Hung)),
            Err(stop) => Err(stopped(stop)),
        }
    })
}

fn stopped(stop: Stop) -> EngineError {
    match stop {
        Stop::Failed(error) => error,
        Stop::Hung => EngineError::Source("a thread of the backup stopped without saying why".into()),
    }
}

fn join(handle: std::thread::ScopedJoinHandle<'_, Result<(), Stop>>) -> Result<(), Stop> {
    handle.join().unwrap_or_else(|_| {
        Err(Stop::Failed(EngineError::Source("a thread of the backup panicked: this is a bug".into())))
    })
}
