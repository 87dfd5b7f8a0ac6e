//! The simulated storage of the model: what the protocol's assumptions allow, and nothing kinder.
//!
//! - Every operation takes a random virtual time before and after it takes effect; sometimes days.
//! - A put or delete is seen by each client and each kind of read at a random moment up to Δ after it was
//!   acknowledged; one that was never acknowledged, up to days later. Nobody is promised to see his own writes sooner.
//! - A listing is not one instant: each half of the names is looked at on its own.
//! - A client dies at a chosen operation, which then may or may not have happened.
//!
//! It watches the invariants at every step: see [`super::watch`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat::format::header::{Header, ObjectKind};
use lifeboat::format::id::ObjectHash;
use lifeboat::format::signed::{Signed, Tombstone};
use lifeboat::seal::access::Access;
use lifeboat::seal::object::open_directory;
use lifeboat::store::memory::MemoryStore;
use lifeboat::store::{Listed, Store, StoreError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::watch::Watch;

/// Δ of the model.
pub const SETTLE: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);

/// A small generator (SplitMix64): the model needs many cheap numbers that depend on the seed alone.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
    pub fn up_to(&mut self, limit: Duration) -> Duration {
        Duration::from_millis(self.below(limit.as_millis() as u64 + 1))
    }
}

/// One put of an object, with when each reader begins and ceases to see it.
#[derive(Clone, Debug)]
struct Life {
    bytes: Bytes,
    put: Seen,
    deleted: Option<Seen>,
}

/// When something is seen: by (client, kind of read).
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    /// Nobody misses it from here on.
    by: Instant,
    salt: u64,
}

impl Seen {
    fn by(&self, now: Instant, client: usize, listing: bool) -> bool {
        let span = (self.by - self.at).as_millis() as u64;
        let mut dice = Dice(self.salt ^ (client as u64 * 2 + u64::from(listing)));
        // A third sees it at once, a third as late as may be.
        let delay = match dice.below(3) {
            0 => 0,
            1 => span,
            _ => dice.below(span + 1),
        };
        now >= self.at + Duration::from_millis(delay)
    }
}

/// How a client misbehaves on purpose: what section 6 of the protocol warns of. One at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A writer that looks at tombstones and packs before it puts its manifest.
    CheckBeforePut,
    /// A writer that lists packs before tombstones.
    PacksBeforeTombstones,
    /// A writer that takes tombstones away to use their packs again.
    ResurrectTombstone,
    /// A pruner that removes everybody's tombstones at its end.
    RemoveOthers,
    /// A writer that does not look for a forgotten mark.
    NoForgottenCheck,
}

/// The storage all clients share.
pub struct Sim {
    objects: Mutex<BTreeMap<String, Life>>,
    pub watch: Mutex<Watch>,
    pub access: Arc<Access>,
    pub operations: Mutex<u64>,
}

impl Sim {
    pub fn new(objects: BTreeMap<String, Bytes>, access: Arc<Access>) -> Arc<Self> {
        let now = Instant::now();
        let sim =
            Self { objects: Mutex::default(), watch: Mutex::default(), access, operations: Mutex::default() };
        for (name, bytes) in objects {
            sim.note_put(&name, &bytes);
            let put = Seen { at: now, by: now, salt: 0 };
            sim.objects.lock().unwrap().insert(name, Life { bytes, put, deleted: None });
        }
        Arc::new(sim)
    }

    fn note_put(&self, name: &str, bytes: &[u8]) {
        let kind = match name.split_once('/') {
            Some(("data", _)) => ObjectKind::Data,
            Some(("meta", _)) => ObjectKind::Meta,
            _ => return,
        };
        let mut watch = self.watch.lock().unwrap();
        if watch.ever_condemned.contains(name) {
            watch.broken.push(format!("I3: condemned {name} was put again"));
        }
        watch.existing.insert(name.to_owned());
        let (header, _) = Header::decode_kind(bytes, kind).unwrap();
        let domain = self.access.domain(header.domain).unwrap();
        let sealed = bytes[header.directory_offset as usize..].to_vec();
        let (directory, _) = open_directory(&self.access.repo, domain, &header, sealed).unwrap();
        let chunks = directory.blocks.iter().flat_map(|block| &block.chunks);
        let chunks = chunks.map(|(id, _)| (kind, id.short())).collect();
        watch.packs.insert(name.to_owned(), chunks);
    }

    /// What really exists, for who looks after everything came to rest.
    pub fn truth(&self) -> BTreeMap<String, Bytes> {
        let objects = self.objects.lock().unwrap();
        let there = objects.iter().filter(|(_, life)| life.deleted.is_none());
        there.map(|(name, life)| (name.clone(), life.bytes.clone())).collect()
    }
}

/// One client's way to the storage.
pub struct Client {
    pub sim: Arc<Sim>,
    pub number: usize,
    dice: Mutex<Dice>,
    /// Dies at this operation.
    crash_at: Option<u64>,
    /// Of 1000 operations, this many fail.
    error_permille: u64,
    /// Of 1000 operations, this many take days.
    pause_permille: u64,
    count: Mutex<u64>,
    pub crashed: Notify,
    mutant: Option<Mutant>,
    /// Listings that a mutant made too early.
    early: Mutex<HashMap<String, Vec<Listed>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "client {}", self.number)
    }
}

enum Fate {
    Done,
    Lost,
    Unacknowledged,
}

impl Client {
    pub fn new(sim: &Arc<Sim>, number: usize, dice: &mut Dice, mutant: Option<Mutant>) -> Arc<Self> {
        Arc::new(Self {
            sim: sim.clone(),
            number,
            crash_at: dice.percent(25).then(|| dice.below(120)),
            error_permille: if dice.percent(20) { 15 } else { 0 },
            pause_permille: if dice.percent(30) { 20 } else { 0 },
            dice: Mutex::new(Dice(dice.next())),
            count: Mutex::new(0),
            crashed: Notify::new(),
            mutant,
            early: Mutex::default(),
        })
    }

    fn roll<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut self.dice.lock().unwrap())
    }

    async fn delay(&self) {
        let pause = self.pause_permille;
        let time = self.roll(|dice| match dice.below(1000) {
            n if n < pause => DAY + dice.up_to(DAY * 3),
            n if n < 150 => dice.up_to(SETTLE * 3),
            n if n < 600 => dice.up_to(SETTLE / 3),
            _ => Duration::ZERO,
        });
        sleep(time).await;
    }

    /// Waits, and decides what becomes of a write.
    async fn begin(&self) -> Fate {
        self.delay().await;
        *self.sim.operations.lock().unwrap() += 1;
        let count = {
            let mut count = self.count.lock().unwrap();
            *count += 1;
            *count
        };
        if self.crash_at.is_some_and(|at| count > at) {
            if self.roll(|dice| dice.percent(50)) {
                return Fate::Unacknowledged;
            }
            self.die().await;
        }
        let permille = self.error_permille;
        match self.roll(|dice| dice.below(1000)) {
            n if n < permille / 2 => Fate::Lost,
            n if n < permille => Fate::Unacknowledged,
            _ => Fate::Done,
        }
    }

    /// The process ends: whoever runs it drops it.
    async fn die(&self) {
        self.crashed.notify_one();
        std::future::pending::<()>().await;
    }

    async fn finish(&self, fate: &Fate, operation: &'static str, name: &str) -> Result<(), StoreError> {
        self.delay().await;
        match fate {
            Fate::Done => Ok(()),
            _ => {
                let count = *self.count.lock().unwrap();
                if self.crash_at.is_some_and(|at| count > at) {
                    self.die().await;
                }
                Err(failure(operation, name))
            }
        }
    }

    fn seen(&self, acknowledged_after: Option<Duration>) -> Seen {
        let now = Instant::now();
        let (salt, late) = self.roll(|dice| (dice.next(), dice.up_to(DAY)));
        let by = acknowledged_after.map_or(now + late, |after| now + after + SETTLE);
        Seen { at: now, by, salt }
    }

    /// Draws how long until the acknowledgement, so that "Δ after it" is known when the write takes effect.
    fn acknowledgement(&self, fate: &Fate) -> Option<Duration> {
        matches!(fate, Fate::Done).then(|| self.roll(|dice| dice.up_to(SETTLE / 2)))
    }

    fn read(&self, name: &str) -> Result<Bytes, StoreError> {
        let objects = self.sim.objects.lock().unwrap();
        let now = Instant::now();
        let life = objects.get(name).filter(|life| life.seen(now, self.number, false));
        life.map(|life| life.bytes.clone()).ok_or_else(|| not_found(name))
    }

    fn look(&self, folder: &str, half: Option<bool>, found: &mut Vec<Listed>) {
        let now = Instant::now();
        let prefix = format!("{folder}/");
        let objects = self.sim.objects.lock().unwrap();
        for (name, life) in objects.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix))
        {
            let mine = half.is_none_or(|half| name.as_bytes()[prefix.len()] % 2 == u8::from(half));
            if mine && life.seen(now, self.number, true) {
                found.push(Listed { name: name.clone(), size_bytes: life.bytes.len() as u64 });
            }
        }
    }

    async fn list_now(&self, folder: &str) -> Vec<Listed> {
        let mut found = Vec::new();
        if self.roll(|dice| dice.percent(50)) {
            let first = self.roll(|dice| dice.percent(50));
            self.look(folder, Some(first), &mut found);
            self.delay().await;
            self.look(folder, Some(!first), &mut found);
        } else {
            self.look(folder, None, &mut found);
        }
        found.sort();
        found
    }

    async fn look_early(&self, folders: &[&str]) {
        for folder in folders {
            let listed = self.list_now(folder).await;
            self.early.lock().unwrap().insert((*folder).to_owned(), listed);
        }
    }

    /// I2: a delete needs an own standing sweeping tombstone, and a mark begun Δ after it was acknowledged.
    fn check_delete(&self, name: &str) {
        if !name.starts_with("data/") && !name.starts_with("meta/") {
            return;
        }
        let mut watch = self.sim.watch.lock().unwrap();
        let marked = watch.marks.get(&self.number).copied();
        let covered = watch.sweeps.values().any(|(client, acknowledged, packs)| {
            let late_enough = acknowledged.zip(marked).is_some_and(|(at, marked)| marked >= at + SETTLE);
            *client == self.number && late_enough && packs.contains(name)
        });
        if !covered {
            watch.broken.push(format!("I2: client {} deletes {name} without right", self.number));
        }
    }

    fn note_tombstone(&self, name: &str, bytes: &[u8]) {
        if !name.starts_with("tombstones/") {
            return;
        }
        let body = Signed::decode(bytes, ObjectKind::Tombstone).unwrap().body;
        let tombstone = Tombstone::decode(&body).unwrap();
        let object = |(kind, hash): &(ObjectKind, ObjectHash)| format!("{}/{hash}", kind.folder());
        let packs: HashSet<String> = tombstone.packs.iter().map(object).collect();
        let mut watch = self.sim.watch.lock().unwrap();
        watch.ever_condemned.extend(packs.iter().cloned());
        if tombstone.sweeps {
            watch.sweeps.insert(name.to_owned(), (self.number, None, packs));
        }
    }
}

impl Life {
    fn seen(&self, now: Instant, client: usize, listing: bool) -> bool {
        let gone = self.deleted.as_ref().is_some_and(|deleted| deleted.by(now, client, listing));
        !gone && self.put.by(now, client, listing)
    }
}

fn failure(operation: &'static str, name: &str) -> StoreError {
    error(lifeboat::store::StoreErrorKind::Temporary, operation, name)
}

fn not_found(name: &str) -> StoreError {
    error(lifeboat::store::StoreErrorKind::NotFound, "read", name)
}

fn error(kind: lifeboat::store::StoreErrorKind, operation: &'static str, name: &str) -> StoreError {
    let (subject, location) = (name.to_owned(), "sim:".to_owned());
    StoreError { kind, operation, subject, location, cause: "simulated".into() }
}

#[async_trait]
impl Store for Client {
    fn location(&self) -> String {
        "sim:".into()
    }

    fn settle(&self) -> Duration {
        SETTLE
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        if self.mutant == Some(Mutant::CheckBeforePut) && name.starts_with("snapshots/") {
            self.look_early(&["tombstones", "data", "meta", "index"]).await;
        }
        let fate = self.begin().await;
        let acknowledged = self.acknowledgement(&fate);
        if !matches!(fate, Fate::Lost) {
            let mut objects = self.sim.objects.lock().unwrap();
            let there = objects.get(name).is_some_and(|life| life.deleted.is_none());
            if there && objects[name].bytes != bytes {
                return Err(error(lifeboat::store::StoreErrorKind::Conflict, "write", name));
            }
            if !there {
                self.sim.note_put(name, &bytes);
                self.note_tombstone(name, &bytes);
                let put = self.seen(acknowledged);
                objects.insert(name.to_owned(), Life { bytes, put, deleted: None });
            } else if let (Some(life), Some(after)) = (objects.get_mut(name), acknowledged) {
                life.put.by = life.put.by.min(Instant::now() + after + SETTLE);
            }
        }
        sleep(acknowledged.unwrap_or_default()).await;
        if acknowledged.is_some()
            && let Some(sweep) = self.sim.watch.lock().unwrap().sweeps.get_mut(name)
        {
            sweep.1 = Some(Instant::now());
        }
        self.finish(&fate, "write", name).await
    }

    /// No actor repairs anything.
    async fn replace(&self, name: &str, _: Bytes) -> Result<(), StoreError> {
        Err(error(lifeboat::store::StoreErrorKind::Config, "write", name))
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let fate = self.begin().await;
        if self.mutant == Some(Mutant::NoForgottenCheck) && name.starts_with("forgotten/") {
            return Err(not_found(name));
        }
        let result = self.read(name);
        self.finish(&fate, "read", name).await?;
        result
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let whole = self.get(name).await?;
        Ok(whole.slice(offset as usize..(offset + length) as usize))
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        if folder == "snapshots" {
            self.sim.watch.lock().unwrap().marks.insert(self.number, Instant::now());
        }
        let early = self.early.lock().unwrap().remove(folder);
        if self.mutant == Some(Mutant::PacksBeforeTombstones) && folder == "tombstones" {
            self.look_early(&["data", "meta"]).await;
            // An order is wrong whatever the time between; the longer it is the sooner it shows.
            sleep(self.roll(|dice| dice.up_to(SETTLE * 20))).await;
        }
        let fate = self.begin().await;
        let mut found = match early {
            Some(early) => early,
            None => self.list_now(folder).await,
        };
        if self.mutant == Some(Mutant::ResurrectTombstone) && folder == "tombstones" {
            for listed in found.drain(..) {
                self.delete(&listed.name).await?;
            }
        }
        self.finish(&fate, "list", folder).await?;
        Ok(found)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let fate = self.begin().await;
        self.check_delete(name);
        let acknowledged = self.acknowledgement(&fate);
        if !matches!(fate, Fate::Lost) {
            let seen = self.seen(acknowledged);
            let mut objects = self.sim.objects.lock().unwrap();
            let names: Vec<String> = match self.mutant {
                Some(Mutant::RemoveOthers) if name.starts_with("tombstones/") => {
                    objects.keys().filter(|name| name.starts_with("tombstones/")).cloned().collect()
                }
                _ => vec![name.to_owned()],
            };
            for name in names {
                match objects.get_mut(&name).map(|life| &mut life.deleted) {
                    Some(Some(earlier)) => earlier.by = earlier.by.min(seen.by.max(earlier.at)),
                    Some(deleted) => *deleted = Some(seen.clone()),
                    None => {}
                }
                let mut watch = self.sim.watch.lock().unwrap();
                watch.sweeps.remove(&name);
                if watch.existing.remove(&name) {
                    watch.check_chunks(&format!("client {} deletes {name}", self.number));
                }
            }
        }
        sleep(acknowledged.unwrap_or_default()).await;
        self.finish(&fate, "delete", name).await
    }
}

/// The final state as an ordinary store.
pub fn at_rest(sim: &Sim) -> MemoryStore {
    MemoryStore::from_snapshot(sim.truth())
}
