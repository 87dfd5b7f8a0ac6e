//! Injects faults one after the other: each has a view of the storage, a repository opened anew without a cache, a
//! restore and a sandbox of its own. The storage below is read and never written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use zeroize::Zeroizing;

use super::witness::{Seen, Witness};
use super::{Expect, FaultKind, FaultResult, FaultSpec, Outcome, conclude};
use crate::base::causes::causes;
use crate::base::random;
use crate::drill::DrillError;
use crate::drill::check::CheckOutcome;
use crate::drill::evidence::{Evidence, Verdict};
use crate::drill::run::{Stage, run};
use crate::drill::spec::Spec;
use crate::engine::EngineError;
use crate::engine::needs::{NeededPack, needs};
use crate::format::header::ObjectKind;
use crate::format::keyring::Key;
use crate::repo::RepoError;
use crate::repo::kit::Kit;
use crate::repo::open::{OpenOptions, open};
use crate::repo::sync::Thoroughness;
use crate::seal::slot::Unlock;
use crate::store::fault::{FaultPlan, FaultStore};
use crate::store::overlay::{Loss, OverlayStore, Wound};
use crate::store::patient::PatientStore;
use crate::store::{Store, StoreOptions};

/// Folders that lose half of their objects.
const HALVED: [ObjectKind; 4] = [ObjectKind::Data, ObjectKind::Meta, ObjectKind::Index, ObjectKind::Snapshot];
/// Reads and listings in a thousand that fail, or are not answered.
const ERRORS_PERMILLE: u32 = 100;
const SILENT_PERMILLE: u32 = 30;
const SILENCE: Duration = Duration::from_secs(1);
const SLOW_LATENCY: Duration = Duration::from_millis(100);
const SLOW_BYTES_PER_SECOND: u64 = 16 << 20;
/// Between tries; a drill need not wait as long as a service in trouble.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Runs the specification in a process that has nothing of this machine's but the program, and these variables, by
/// which its checks find what stands beside it; with what it saw there.
pub type BareRun<'s> = dyn Fn(Spec, Vec<(String, String)>) -> BoxFuture<'static, Result<(Evidence, Witness), String>>
    + Send
    + Sync
    + 's;

/// Another copy of the repository.
pub struct Copy {
    /// Without secrets.
    pub address: String,
    pub store: Arc<dyn Store>,
    pub unlock: Unlock,
}

/// What there is to recover with.
pub struct Rescue<'s> {
    pub unlock: &'s Unlock,
    pub kit: Option<&'s Kit>,
    pub replicas: Vec<Copy>,
    /// How often a read is tried again.
    pub max_retries: u32,
    pub bare: &'s BareRun<'s>,
}

/// How one restore ended.
enum Ended {
    Proven,
    Closed(String),
    Silent(String),
    NotRun(String),
    Interrupted,
}

/// Injects each fault of the specification, and lets the outcomes decide with what the drill itself found. A drill
/// that did not pass says nothing about faults: then they count as not run.
pub async fn inject(
    spec: &Spec,
    stage: &Stage<'_>,
    reference: &Witness,
    rescue: &Rescue<'_>,
    evidence: &mut Evidence,
) {
    if spec.faults.is_empty() || evidence.verdict == Verdict::Interrupted {
        return;
    }
    let has_replica = !rescue.replicas.is_empty();
    let not_run =
        |fault: &FaultSpec, why: &str| FaultResult::not_run(fault.kind, fault.expected(has_replica), why);
    let healthy = matches!(evidence.verdict, Verdict::Met | Verdict::ObjectiveMissed);
    let (Some(row), Some(reference), true) = (&evidence.snapshot, reference.seen(), healthy) else {
        let why = "the drill itself did not pass";
        evidence.faults = spec.faults.iter().map(|fault| not_run(fault, why)).collect();
        return;
    };
    let pinned = Spec { snapshot: row.id.clone(), faults: Vec::new(), ..spec.clone() };
    let packs = match needed(stage, &row.id).await {
        Ok(packs) => packs,
        Err(error) => {
            let why = format!("what the snapshot needs cannot be told: {error}");
            evidence.faults = spec.faults.iter().map(|fault| not_run(fault, &why)).collect();
            return conclude(evidence);
        }
    };
    let tries = Tries { pinned: &pinned, stage, rescue, reference: &reference, packs: &packs };
    for fault in &spec.faults {
        let begun = Instant::now();
        let Some(mut result) = tries.fault(*fault, fault.expected(has_replica)).await else {
            (evidence.verdict, evidence.reason) =
                (Verdict::Interrupted, Some(format!("interrupted while {} was injected", fault.kind.name())));
            return;
        };
        result.seconds = (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        evidence.faults.push(result);
    }
    conclude(evidence);
}

async fn needed(stage: &Stage<'_>, id: &str) -> Result<Vec<NeededPack>, EngineError> {
    let list = stage.repo.snapshots().await?;
    let found = list.snapshots.iter().find(|snapshot| snapshot.id.hex() == id);
    let found = found.ok_or_else(|| EngineError::Refused("the snapshot is not listed any more".into()))?;
    let all = needs(stage.repo, found, stage.cancel).await?;
    // What files hold, if anything does: pages that are gone hide what becomes of damaged content.
    let data: Vec<NeededPack> = all.iter().filter(|pack| pack.kind == ObjectKind::Data).cloned().collect();
    Ok(if data.is_empty() { all } else { data })
}

struct Tries<'t> {
    pinned: &'t Spec,
    stage: &'t Stage<'t>,
    rescue: &'t Rescue<'t>,
    reference: &'t Seen,
    packs: &'t [NeededPack],
}

/// The same for the same snapshot and kind, so that a run can be repeated.
fn seed_of(snapshot: &str, kind: FaultKind) -> u64 {
    let hash = blake3::hash(format!("{snapshot} {}", kind.name()).as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

impl Tries<'_> {
    /// `None`: interrupted.
    async fn fault(&self, fault: FaultSpec, expected: Expect) -> Option<FaultResult> {
        let seed = seed_of(&self.pinned.snapshot, fault.kind);
        let (injected, first) = match fault.kind {
            FaultKind::WrongKey => {
                let wrong = wrong_key(self.rescue.unlock);
                let store = self.overlay(Loss::default());
                ("another key than the repository's".to_owned(), self.attempt(store, &wrong).await)
            }
            FaultKind::NoLocalState => {
                let ended = self.bare().await;
                ("no configuration, cache, state or home folder".to_owned(), ended)
            }
            kind => match self.broken(kind, seed) {
                Some((injected, store)) => (injected, self.attempt(store, self.rescue.unlock).await),
                None => ("nothing".into(), Ended::NotRun("the snapshot needs no pack".into())),
            },
        };
        let (outcome, detail) = match first {
            Ended::Interrupted => return None,
            Ended::Proven => (Outcome::Recovers, "all came back and is right".into()),
            Ended::Silent(why) => (Outcome::SilentlyWrong, why),
            Ended::NotRun(why) => (Outcome::NotRun, why),
            Ended::Closed(why) if expected == Expect::RecoversFromReplica => self.replicas(why).await?,
            Ended::Closed(why) if fault.kind == FaultKind::PrimaryGone && self.rescue.replicas.is_empty() => {
                let missing =
                    "and no replica is named to turn to (replica_of in the configuration file, or --replica)";
                (Outcome::FailsClosed, format!("{why}; {missing}"))
            }
            Ended::Closed(why) => (Outcome::FailsClosed, why),
        };
        let component = None;
        Some(FaultResult { kind: fault.kind, component, injected, expected, outcome, detail, seconds: 0.0 })
    }

    /// Turns to the replicas after the primary failed.
    async fn replicas(&self, why: String) -> Option<(Outcome, String)> {
        let mut reasons = vec![why];
        for copy in &self.rescue.replicas {
            let store = OverlayStore::new(Arc::clone(&copy.store), Loss::default());
            match self.attempt(Arc::new(store), &copy.unlock).await {
                Ended::Interrupted => return None,
                Ended::Proven => {
                    let said =
                        format!("{}; all came back from {} and is right", reasons.join("; "), copy.address);
                    return Some((Outcome::RecoversFromReplica, said));
                }
                Ended::Silent(said) => {
                    return Some((Outcome::SilentlyWrong, format!("{}: {said}", copy.address)));
                }
                Ended::Closed(said) | Ended::NotRun(said) => {
                    reasons.push(format!("{}: {said}", copy.address))
                }
            }
        }
        Some((Outcome::FailsClosed, reasons.join("; ")))
    }

    fn overlay(&self, loss: Loss) -> Arc<dyn Store> {
        Arc::new(OverlayStore::new(Arc::clone(&self.stage.repo.storage), loss))
    }

    /// The storage with one fault, and what it is. `None`: there is nothing to break.
    fn broken(&self, kind: FaultKind, seed: u64) -> Option<(String, Arc<dyn Store>)> {
        let victim = self.packs.get((seed % self.packs.len().max(1) as u64) as usize);
        let one = |wound: Wound| BTreeMap::from_iter(victim.map(|pack| (pack.object.clone(), wound)));
        let mut loss = Loss::default();
        let mut plan = FaultPlan { seed, ..FaultPlan::default() };
        let injected = match kind {
            FaultKind::BitFlips => {
                loss.objects =
                    self.packs.iter().map(|pack| (pack.object.clone(), flip(pack, seed))).collect();
                match self.packs.len() {
                    1 => "one bit in the only pack".to_owned(),
                    packs => format!("one bit in each of {packs} packs"),
                }
            }
            FaultKind::TruncatedPack => {
                let left_bytes = victim?.size_bytes / 2;
                loss.objects = one(Wound::Truncated { left_bytes });
                format!("{} cut to {left_bytes} bytes", short(&victim?.object))
            }
            FaultKind::MissingPack => {
                loss.objects = one(Wound::Missing);
                format!("{} gone", short(&victim?.object))
            }
            FaultKind::MissingIndex => {
                loss.folders = BTreeSet::from([ObjectKind::Index.folder().to_owned()]);
                "every index object gone".into()
            }
            FaultKind::HalfGone => {
                loss.objects = one(Wound::Missing);
                loss.halved = Some((seed, HALVED.map(|kind| kind.folder().to_owned()).into()));
                "half of all packs, index objects and manifests gone".into()
            }
            FaultKind::PrimaryGone => {
                loss.unreachable = true;
                format!("{} does not answer", self.stage.repository)
            }
            FaultKind::StorageErrors => {
                (plan.read_error_permille, plan.list_error_permille) = (ERRORS_PERMILLE, ERRORS_PERMILLE);
                format!("{ERRORS_PERMILLE} of 1000 reads and listings fail")
            }
            FaultKind::StorageTimeouts => {
                (plan.silent_permille, plan.silence) = (SILENT_PERMILLE, SILENCE);
                format!(
                    "{SILENT_PERMILLE} of 1000 reads and listings are not answered for {} s",
                    SILENCE.as_secs()
                )
            }
            FaultKind::SlowStorage => {
                (plan.max_latency, plan.read_bytes_per_second) = (SLOW_LATENCY, Some(SLOW_BYTES_PER_SECOND));
                format!("every read waits up to {} ms, then 16 MiB/s", SLOW_LATENCY.as_millis())
            }
            FaultKind::WrongKey | FaultKind::NoLocalState => return None,
        };
        if loss.objects.is_empty() && matches!(kind, FaultKind::BitFlips | FaultKind::HalfGone) {
            return None;
        }
        let is_transient =
            matches!(kind, FaultKind::StorageErrors | FaultKind::StorageTimeouts | FaultKind::SlowStorage);
        let overlay = self.overlay(loss);
        if !is_transient {
            return Some((injected, overlay));
        }
        let options = StoreOptions {
            retry_delay: RETRY_DELAY,
            max_retries: self.rescue.max_retries,
            ..StoreOptions::default()
        };
        Some((injected, Arc::new(PatientStore::new(Arc::new(FaultStore::new(overlay, plan)), &options))))
    }

    /// Opens what is there without a cache, restores and checks.
    async fn attempt(&self, store: Arc<dyn Store>, unlock: &Unlock) -> Ended {
        let (stage, began) = (self.stage, Instant::now());
        let opening = async {
            let options = OpenOptions { kit: self.rescue.kit, ..OpenOptions::default() };
            let repo = open(store, unlock, &options, stage.repo.world.clone()).await?;
            repo.sync(Thoroughness::Tolerant).await?;
            Ok::<_, RepoError>(repo)
        };
        let repo = tokio::select! {
            opened = opening => match opened {
                Ok(repo) => repo,
                Err(error) => {
                    let why = one_line(&causes(&error));
                    // Storage that fails by itself shows nothing about the fault.
                    let is_shown = error.is_damage()
                        || matches!(error, RepoError::WrongKey { .. })
                        || why.contains("injected:");
                    return if is_shown { Ended::Closed(why) } else { Ended::NotRun(why) };
                }
            },
            () = cancelled(stage.cancel) => return Ended::Interrupted,
        };
        let witness = Witness::default();
        let through = Stage {
            repo: &repo,
            repository: stage.repository.clone(),
            open_target: stage.open_target,
            ground: stage.ground.clone(),
            machine: stage.machine.clone(),
            began,
            progress: Arc::clone(&stage.progress),
            cancel: stage.cancel,
            keep: None,
            witness: Some(&witness),
            redactor: stage.redactor,
        };
        match run(self.pinned, &through).await {
            Ok(evidence) => self.judge(&evidence, witness.seen().as_ref()),
            // The healthy restore found it: that it is not there is the fault's doing.
            Err(DrillError::Engine(EngineError::Repo(error @ RepoError::NoSnapshot(_)))) => {
                Ended::Closed(one_line(&error.to_string()))
            }
            Err(error) => Ended::NotRun(error.to_string()),
        }
    }

    async fn bare(&self) -> Ended {
        let ended = tokio::select! {
            ended = (self.rescue.bare)(self.pinned.clone(), self.stage.ground.variables.clone()) => ended,
            () = cancelled(self.stage.cancel) => return Ended::Interrupted,
        };
        match ended {
            // It restored, and nothing tells what: whatever its checks say, nobody compared it.
            Ok((evidence, witness)) if witness.seen().is_none() && was_restored(&evidence) => {
                Ended::NotRun("what came back was not seen".into())
            }
            Ok((evidence, witness)) => self.judge(&evidence, witness.seen().as_ref()),
            Err(why) => Ended::NotRun(why),
        }
    }

    fn judge(&self, evidence: &Evidence, seen: Option<&Seen>) -> Ended {
        let reason = one_line(evidence.reason.as_deref().unwrap_or("no reason was given"));
        let own = seen.map_or(0, |seen| seen.own_checks);
        match evidence.verdict {
            Verdict::Interrupted => Ended::Interrupted,
            Verdict::Met | Verdict::ObjectiveMissed => match seen {
                Some(seen) if !seen.is_same(self.reference) => Ended::Silent(
                    "every check passed, but the files are not those of the healthy restore".into(),
                ),
                _ => Ended::Proven,
            },
            Verdict::CouldNotRun if is_sandbox(evidence) => Ended::NotRun(reason),
            _ => {
                let Some(seen) = seen else { return Ended::Closed(reason) };
                if !seen.is_part_of(self.reference) {
                    return Ended::Silent(format!(
                        "a file came back that is not the healthy restore's; it said: {reason}"
                    ));
                }
                let failed =
                    |check: &&crate::drill::check::CheckResult| check.outcome == CheckOutcome::Failed;
                match evidence.checks.iter().take(own).find(failed) {
                    Some(_) => Ended::Closed(reason),
                    None if evidence.verdict == Verdict::CouldNotRun => Ended::NotRun(reason),
                    None => Ended::Silent(format!("the restore found nothing wrong, but {reason}")),
                }
            }
        }
    }
}

fn was_restored(evidence: &Evidence) -> bool {
    evidence.phases.iter().any(|phase| phase.name == "restore")
}

/// Located, but nothing was provisioned: this machine's trouble, not the storage's.
fn is_sandbox(evidence: &Evidence) -> bool {
    evidence.phases.last().is_some_and(|phase| phase.name == "locate")
}

async fn cancelled(cancel: &crate::base::cancel::Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn wrong_key(right: &Unlock) -> Unlock {
    let bytes: [u8; 32] = random::array(&random::SystemRandom);
    match right {
        Unlock::Passphrase(_) => Unlock::Passphrase(Zeroizing::new(bytes.to_vec())),
        Unlock::KeyFile(_) => Unlock::KeyFile(Key(bytes)),
    }
}

/// One bit in the middle of a block that is needed.
fn flip(pack: &NeededPack, seed: u64) -> Wound {
    let (offset, length) = pack.blocks[(seed % pack.blocks.len() as u64) as usize];
    Wound::Flipped { offsets: vec![offset + length / 2] }
}

fn short(object: &str) -> String {
    object.chars().take(17).collect()
}

/// Without the hint, which is for whoever meets it for real.
fn one_line(text: &str) -> String {
    let text = text.split("hint: ").next().unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
