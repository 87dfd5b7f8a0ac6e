//! The model test of the protocol: the real code, over a simulated storage, in virtual time.
//!
//! Two writers, two pruners, a forgetter and at times a copier work on one repository at once; each may crash at any operation, see
//! listings late, have requests fail and stop for days. A run depends on its seed alone. The invariants I1 to I5 of
//! `docs/concurrency.md` are watched at every step, and afterwards every committed snapshot must restore byte for
//! byte, and one more prune, alone, must come to its end.
//!
//! `LIFEBOAT_MODEL_RUNS` sets how many interleavings run, `LIFEBOAT_MODEL_SEED` the first seed.

mod exhaustive;
mod sim;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use lifeboat::base::cancel::Cancel;
use lifeboat::base::clock::Clock;
use lifeboat::base::progress::NoProgress;
use lifeboat::base::random::SeededRandom;
use lifeboat::engine::EngineError;
use lifeboat::engine::copy::{CopyOptions, copy};
use lifeboat::engine::forget::{self, ForgetOptions};
use lifeboat::engine::prune::{self, MaxUnused, PruneOptions};
use lifeboat::format::id::SnapshotId;
use lifeboat::policy::retention::{Keep, Rules};
use lifeboat::repo::local::Local;
use lifeboat::repo::snapshots::Filter;
use lifeboat::repo::sync::Thoroughness;
use lifeboat::repo::{RepoError, Repository, World, replica};
use lifeboat::seal::access::Access;
use lifeboat::seal::block::Compression;
use lifeboat::store::Store;
use lifeboat::store::memory::MemoryStore;
use tokio::time::{Instant, sleep};

use crate::small::{self, Files, Reached};
use sim::{Client, Dice, Mutant, Sim};

/// Chunks that everybody's files are made of.
const UNIVERSE: u64 = 10;

/// Virtual time as the code under test sees it.
#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_800_000_000).unwrap()
            + jiff::SignedDuration::try_from(self.elapsed()).unwrap()
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The state every run begins with: a repository with three snapshots that share chunks.
struct Template {
    objects: BTreeMap<String, Bytes>,
    access: Arc<Access>,
    snapshots: Vec<(SnapshotId, Reached, Files)>,
    /// What copies come from, at rest: a replica, and a repository with other keys.
    sources: [MemoryStore; 2],
    /// Of the sources' snapshots.
    contents: HashMap<SnapshotId, Files>,
}

async fn template() -> Template {
    let store = MemoryStore::new();
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    small::new_repository(shared.clone(), &small::world(1)).await;
    let repo = small::open_repository(shared, small::world(2)).await.unwrap();
    let mut snapshots = Vec::new();
    for chunks in [0..6, 2..8, 4..10] {
        let files = small::files(chunks);
        let (id, reached) = small::backup(&repo, "base", &files, &mut || true).await.unwrap();
        snapshots.push((id, reached, files));
    }
    let sources = [MemoryStore::new(), MemoryStore::new()];
    replica::create(&repo, Arc::new(sources[0].clone())).await.unwrap();
    small::new_repository(Arc::new(sources[1].clone()), &small::world(3)).await;
    let mut contents = HashMap::new();
    for (number, source) in sources.iter().enumerate() {
        let world = small::world(4 + number as u64);
        let source = small::open_repository(Arc::new(source.clone()), world).await.unwrap();
        // The first is what everybody has already, the others are partly and wholly new.
        for chunks in [0..6, 5..9, 7..UNIVERSE + 4] {
            let files = small::files(chunks);
            let (id, _) = small::backup(&source, "copied", &files, &mut || true).await.unwrap();
            contents.insert(id, files);
        }
    }
    Template { objects: store.snapshot(), access: repo.access.clone(), snapshots, sources, contents }
}

/// What one run counted.
#[derive(Clone, Debug, Default)]
struct Tally {
    committed: u64,
    failed_backups: u64,
    pruned: u64,
    failed_prunes: u64,
    deleted_packs: u64,
    forgotten: u64,
    copied: u64,
    failed_copies: u64,
    crashed: u64,
    operations: u64,
    broken: Vec<String>,
}

struct Scenario<'t> {
    template: &'t Template,
    sim: Arc<Sim>,
    mutant: Option<Mutant>,
    start: Instant,
    expected: Mutex<HashMap<SnapshotId, Files>>,
    /// Confirmed snapshots that somebody decided to forget.
    released: Mutex<BTreeSet<SnapshotId>>,
    tally: Mutex<Tally>,
}

impl Scenario<'_> {
    fn world(&self, dice: &mut Dice) -> World {
        World { clock: Arc::new(VirtualClock(self.start)), random: Arc::new(SeededRandom::new(dice.next())) }
    }

    fn count(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.lock().unwrap());
    }

    async fn open(
        &self,
        client: &Arc<Client>,
        dice: &mut Dice,
        local: &Local,
    ) -> Result<Repository, RepoError> {
        let mut repo = small::open_repository(client.clone(), self.world(dice)).await?;
        repo.local = local.clone();
        Ok(repo)
    }

    /// Exit 0: I4, and from now on I1 for this snapshot.
    fn commit(&self, id: SnapshotId, reached: Reached) {
        self.count(|tally| tally.committed += 1);
        if self.released.lock().unwrap().contains(&id) {
            return;
        }
        let truth = self.sim.truth();
        let manifest = truth.keys().any(|name| name.starts_with(&format!("snapshots/{id}")));
        let mut watch = self.sim.watch.lock().unwrap();
        if !manifest || !truth.contains_key(&format!("confirms/{id}")) {
            watch.broken.push(format!("I4: {id} was reported as committed but is not there"));
        }
        watch.committed.insert(id, reached);
        watch.check_chunks("at the commit");
    }

    async fn writer(&self, client: Arc<Client>, mut dice: Dice, local: Local) -> Result<(), RepoError> {
        sleep(dice.up_to(Duration::from_secs(120))).await;
        let repo = self.open(&client, &mut dice, &local).await?;
        for _ in 0..1 + dice.below(3) {
            let chunks: Vec<u64> = (0..UNIVERSE + 2).filter(|_| dice.percent(50)).collect();
            let files = small::files(chunks);
            let stays = dice.percent(70);
            let job = format!("w{}", client.number);
            match small::backup(&repo, &job, &files, &mut || stays).await {
                Ok((id, reached)) => {
                    self.expected.lock().unwrap().insert(id, files);
                    self.commit(id, reached);
                }
                Err(_) => self.count(|tally| tally.failed_backups += 1),
            }
            sleep(dice.up_to(Duration::from_secs(60))).await;
        }
        Ok(())
    }

    async fn pruner(&self, client: Arc<Client>, mut dice: Dice, local: Local) -> Result<(), RepoError> {
        sleep(dice.up_to(Duration::from_secs(120))).await;
        let repo = self.open(&client, &mut dice, &local).await?;
        let graceful = dice.percent(25);
        let max_unused = match dice.below(3) {
            0 => MaxUnused::Percent(0.0),
            1 => MaxUnused::Percent(20.0),
            _ => MaxUnused::Unlimited,
        };
        let grace = if graceful { Duration::from_secs(600) } else { Duration::ZERO };
        let options = PruneOptions { grace, max_unused, max_repack_bytes: None };
        for _ in 0..if graceful { 3 } else { 1 + dice.below(3) } {
            match self.prune(&repo, &options, &mut dice).await {
                Ok(packs) => self.count(|tally| {
                    tally.pruned += 1;
                    tally.deleted_packs += packs;
                }),
                Err(_) => self.count(|tally| tally.failed_prunes += 1),
            }
            sleep(dice.up_to(grace * 2 + Duration::from_secs(60))).await;
        }
        Ok(())
    }

    async fn prune(
        &self,
        repo: &Repository,
        options: &PruneOptions,
        dice: &mut Dice,
    ) -> Result<u64, EngineError> {
        let plan = prune::plan(repo, options, &NoProgress, &Cancel::new()).await?;
        sleep(dice.up_to(Duration::from_secs(30))).await;
        Ok(prune::apply(repo, &plan, &NoProgress, &Cancel::new()).await?.deleted.packs)
    }

    async fn forgetter(&self, client: Arc<Client>, mut dice: Dice, local: Local) -> Result<(), RepoError> {
        let repo = self.open(&client, &mut dice, &local).await?;
        for _ in 0..2 + dice.below(4) {
            if self.forget(&repo, &mut dice).await.is_err() {
                sleep(Duration::from_secs(5)).await;
            }
            sleep(dice.up_to(Duration::from_secs(90))).await;
        }
        Ok(())
    }

    async fn copier(&self, client: Arc<Client>, mut dice: Dice, local: Local) -> Result<(), RepoError> {
        sleep(dice.up_to(Duration::from_secs(120))).await;
        let target = self.open(&client, &mut dice, &local).await?;
        for _ in 0..1 + dice.below(2) {
            let source = self.template.sources[dice.below(2) as usize].clone();
            let source = small::open_repository(Arc::new(source), self.world(&mut dice)).await?;
            let options = CopyOptions {
                snapshots: vec![],
                filter: Filter::default(),
                compression: Compression::None,
                dry_run: false,
            };
            match copy(&source, &target, &options, &NoProgress, &Cancel::new()).await {
                Ok(outcome) => {
                    for copied in &outcome.copied {
                        let files = self.template.contents[&copied.from].clone();
                        let reached = small::reached(&self.sim.access, &files);
                        let to = copied.to.expect("only a dry run has none");
                        self.expected.lock().unwrap().insert(to, files);
                        self.commit(to, reached);
                    }
                    self.count(|tally| tally.copied += outcome.copied.len() as u64);
                }
                Err(_) => self.count(|tally| tally.failed_copies += 1),
            }
            sleep(dice.up_to(Duration::from_secs(60))).await;
        }
        Ok(())
    }

    async fn forget(&self, repo: &Repository, dice: &mut Dice) -> Result<(), EngineError> {
        let mut options = ForgetOptions { guards: None, ..ForgetOptions::default() };
        if dice.percent(30) {
            options.rules = Rules { last: Keep::Count(1), ..Rules::default() };
        } else {
            let list = repo.snapshots().await?;
            let some = list.snapshots.iter().filter(|s| dice.percent(if s.confirmed { 30 } else { 70 }));
            options.snapshots = some.map(|snapshot| snapshot.id.hex()).collect();
            if options.snapshots.is_empty() {
                return Ok(());
            }
        }
        let plan = forget::plan(repo, &options).await?;
        for target in plan.targets().filter(|target| target.confirmed) {
            let id = SnapshotId::from_hex(&target.id).unwrap();
            self.released.lock().unwrap().insert(id);
            self.sim.watch.lock().unwrap().committed.remove(&id);
        }
        let outcome = forget::apply(repo, &plan, &NoProgress, &Cancel::new()).await?;
        self.count(|tally| tally.forgotten += outcome.forgotten.len() as u64);
        Ok(())
    }

    /// Runs one actor until it ends or its process dies; true: it died.
    async fn live(&self, client: &Arc<Client>, actor: BoxFuture<'_, Result<(), RepoError>>) -> bool {
        tokio::select! {
            biased;
            () = client.crashed.notified() => {
                self.count(|tally| tally.crashed += 1);
                true
            }
            _ = actor => false,
        }
    }

    async fn actor(&self, number: usize, mut dice: Dice) {
        let local = Local::open(None, &self.sim.access.repo.hex());
        for life in 0..3 {
            let mutant = match (self.mutant, number) {
                (Some(Mutant::RemoveOthers), 2 | 3) => self.mutant,
                (Some(Mutant::RemoveOthers), _) => None,
                (mutant, 0 | 1) => mutant,
                _ => None,
            };
            let client = Client::new(&self.sim, number * 10 + life, &mut dice, mutant);
            let own = Dice(dice.next());
            let actor: BoxFuture<'_, _> = match number {
                0 | 1 => Box::pin(self.writer(client.clone(), own, local.clone())),
                2 | 3 => Box::pin(self.pruner(client.clone(), own, local.clone())),
                4 => Box::pin(self.forgetter(client.clone(), own, local.clone())),
                _ => Box::pin(self.copier(client.clone(), own, local.clone())),
            };
            if !self.live(&client, actor).await {
                break;
            }
            // The machine comes up again and remembers what it wrote down.
            sleep(dice.up_to(Duration::from_secs(600))).await;
        }
    }

    /// Everything has come to rest: what is committed restores, and a last prune ends.
    async fn aftermath(&self, dice: &mut Dice) {
        let mut broken = Vec::new();
        let store: Arc<dyn Store> = Arc::new(sim::at_rest(&self.sim));
        let repo = small::open_repository(store, self.world(dice)).await.unwrap();
        for round in ["at rest", "after a last prune"] {
            if let Err(error) = repo.sync(Thoroughness::Strict).await {
                broken.push(format!("{round}: sync: {error}"));
            }
            let committed: Vec<SnapshotId> =
                self.sim.watch.lock().unwrap().committed.keys().copied().collect();
            for id in committed {
                let expected = self.expected.lock().unwrap()[&id].clone();
                match small::restore(&repo, id).await {
                    Ok(files) if files == expected => {}
                    Ok(_) => broken.push(format!("{round}: {id} restores other bytes")),
                    Err(error) => broken.push(format!("{round}: {id} does not restore: {error}")),
                }
            }
            // A mutant counts as caught when something is lost, not when it leaves work behind.
            if round == "at rest"
                && self.mutant.is_none()
                && let Err(error) = last_prune(&repo).await
            {
                broken.push(format!("the last prune: {error}"));
            }
        }
        self.sim.watch.lock().unwrap().broken.extend(broken);
    }
}

/// Forgets what was never confirmed, then prunes.
async fn last_prune(repo: &Repository) -> Result<(), EngineError> {
    let list = repo.snapshots().await?;
    let snapshots = list.snapshots.iter().filter(|s| !s.confirmed).map(|s| s.id.hex()).collect::<Vec<_>>();
    if !snapshots.is_empty() {
        let options = ForgetOptions { guards: None, snapshots, ..ForgetOptions::default() };
        let plan = forget::plan(repo, &options).await?;
        forget::apply(repo, &plan, &NoProgress, &Cancel::new()).await?;
    }
    let options = PruneOptions { grace: Duration::ZERO, ..PruneOptions::default() };
    // What a sweep moves out of condemned packs it moves whole; the next one may rewrite that, and one more merge
    // the small packs that are left.
    for _ in 0..8 {
        let plan = prune::plan(repo, &options, &NoProgress, &Cancel::new()).await?;
        if plan.is_empty() {
            return Ok(());
        }
        prune::apply(repo, &plan, &NoProgress, &Cancel::new()).await?;
    }
    Err(EngineError::Refused("it finds no end".into()))
}

fn run_one(template: &Template, seed: u64, mutant: Option<Mutant>) -> Tally {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut dice = Dice(seed);
        let scenario = Scenario {
            template,
            sim: Sim::new(template.objects.clone(), template.access.clone()),
            mutant,
            start: Instant::now(),
            expected: Mutex::default(),
            released: Mutex::default(),
            tally: Mutex::default(),
        };
        for (id, reached, files) in &template.snapshots {
            scenario.sim.watch.lock().unwrap().committed.insert(*id, reached.clone());
            scenario.expected.lock().unwrap().insert(*id, files.clone());
        }
        // A copy costs as much as everything else together, so it takes part in one run of eight.
        let actors = if dice.below(8) == 0 { 6 } else { 5 };
        join_all((0..actors).map(|number| scenario.actor(number, Dice(dice.next())))).await;
        sleep(Duration::from_secs(30 * 86_400)).await;
        // A mutant that was seen already needs no aftermath.
        if scenario.sim.watch.lock().unwrap().broken.is_empty() {
            scenario.aftermath(&mut dice).await;
        }
        let mut tally = scenario.tally.lock().unwrap().clone();
        tally.broken = std::mem::take(&mut scenario.sim.watch.lock().unwrap().broken);
        tally.operations = *scenario.sim.operations.lock().unwrap();
        tally
    })
}

fn parameter(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs seeds on all cores until `stop` says so. Returns the tallies' sum and the first broken run's seed.
fn run_many(runs: u64, mutant: Option<Mutant>) -> (Tally, Option<(u64, Vec<String>)>) {
    let template =
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(template());
    let first = parameter("LIFEBOAT_MODEL_SEED", 1);
    let next = AtomicU64::new(first);
    let sum = Mutex::new(Tally::default());
    let broken: Mutex<Option<(u64, Vec<String>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs || broken.lock().unwrap().is_some() {
                        return;
                    }
                    let tally = run_one(&template, seed, mutant);
                    let mut sum = sum.lock().unwrap();
                    sum.committed += tally.committed;
                    sum.failed_backups += tally.failed_backups;
                    sum.pruned += tally.pruned;
                    sum.failed_prunes += tally.failed_prunes;
                    sum.deleted_packs += tally.deleted_packs;
                    sum.forgotten += tally.forgotten;
                    sum.copied += tally.copied;
                    sum.failed_copies += tally.failed_copies;
                    sum.crashed += tally.crashed;
                    sum.operations += tally.operations;
                    if !tally.broken.is_empty() {
                        broken.lock().unwrap().get_or_insert((seed, tally.broken));
                    }
                }
            });
        }
    });
    (sum.into_inner().unwrap(), broken.into_inner().unwrap())
}

#[test]
fn no_interleaving_loses_a_committed_snapshot() {
    let runs = parameter("LIFEBOAT_MODEL_RUNS", 1000);
    let begun = std::time::Instant::now();
    let (tally, broken) = run_many(runs, None);
    println!("{runs} interleavings in {:?}: {tally:?}", begun.elapsed());
    if let Some((seed, broken)) = broken {
        panic!("LIFEBOAT_MODEL_SEED={seed} LIFEBOAT_MODEL_RUNS=1: {broken:#?}");
    }
    // A model in which nothing happens proves nothing.
    assert!(tally.committed > runs && tally.deleted_packs > runs && tally.forgotten > runs / 2, "{tally:?}");
    assert!(runs < 50 || tally.copied > runs / 8, "{tally:?}");
}

fn is_caught(mutant: Mutant) {
    let (tally, broken) = run_many(4000, Some(mutant));
    let Some((seed, broken)) = broken else { panic!("{mutant:?} was not caught: {tally:?}") };
    println!("{mutant:?} is caught by seed {seed}: {}", broken[0]);
}

#[test]
fn a_writer_that_checks_before_it_puts_its_manifest_is_caught() {
    is_caught(Mutant::CheckBeforePut);
}

#[test]
fn a_writer_that_lists_packs_before_tombstones_is_caught() {
    is_caught(Mutant::PacksBeforeTombstones);
}

#[test]
fn a_writer_that_takes_a_tombstone_away_is_caught() {
    is_caught(Mutant::ResurrectTombstone);
}

#[test]
fn a_pruner_that_removes_the_tombstones_of_others_is_caught() {
    is_caught(Mutant::RemoveOthers);
}

#[test]
fn a_writer_that_ignores_forgotten_marks_is_caught() {
    is_caught(Mutant::NoForgottenCheck);
}
