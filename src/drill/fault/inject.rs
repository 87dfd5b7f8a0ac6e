//! Injects faults one after the other: each has a view of the storage, a repository opened anew without a cache, a
//! restore and a sandbox of its own. The storage below is read and never written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use zeroize::Zeroizing;

use super::loss::{loss_of, needed, seed_of};
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
use crate::engine::needs::NeededPack;
use crate::format::keyring::Key;
use crate::repo::RepoError;
use crate::repo::kit::Kit;
use crate::repo::open::{OpenOptions, open};
use crate::repo::sync::Thoroughness;
use crate::seal::slot::Unlock;
use crate::store::fault::{FaultPlan, FaultStore};
use crate::store::overlay::{Loss, OverlayStore};
use crate::store::patient::PatientStore;
use crate::store::{Store, StoreOptions};

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
    let packs = match needed_by(stage, &row.id).await {
        Ok(packs) => packs,
        Err(_) if stage.cancel.is_cancelled() => {
            evidence.interrupted("");
            return;
        }
        Err(error) => {
            let why = format!("what the snapshot needs cannot be told: {error}");
            evidence.faults = spec.faults.iter().map(|fault| not_run(fault, &why)).collect();
            return conclude(evidence);
        }
    };
    let tries = Tries { pinned: &pinned, stage, rescue, reference: &reference, packs: &packs };
    for fault in &spec.faults {
        let begun = Instant::now();
        let result = tries.fault(*fault, fault.expected(has_replica)).await;
        // What it ended like while it was broken off says nothing of the fault.
        let Some(mut result) = result.filter(|_| !stage.cancel.is_cancelled()) else {
            (evidence.verdict, evidence.reason) =
                (Verdict::Interrupted, Some(format!("interrupted while {} was injected", fault.kind.name())));
            return;
        };
        result.seconds = (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        evidence.faults.push(result);
    }
    conclude(evidence);
}

async fn needed_by(stage: &Stage<'_>, id: &str) -> Result<Vec<NeededPack>, EngineError> {
    let list = stage.repo.snapshots().await?;
    let found = list.snapshots.iter().find(|snapshot| snapshot.id.hex() == id);
    let found = found.ok_or_else(|| EngineError::Refused("the snapshot is not listed any more".into()))?;
    needed(stage.repo, found, stage.cancel).await
}

struct Tries<'t> {
    pinned: &'t Spec,
    stage: &'t Stage<'t>,
    rescue: &'t Rescue<'t>,
    reference: &'t Seen,
    packs: &'t [NeededPack],
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
        let mut plan = FaultPlan { seed, ..FaultPlan::default() };
        let injected = match kind {
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
            kind => {
                let (injected, loss) = loss_of(kind, self.packs, seed)?;
                let injected = match loss.unreachable {
                    true => format!("{} does not answer", self.stage.repository),
                    false => injected,
                };
                return Some((injected, self.overlay(loss)));
            }
        };
        let overlay = self.overlay(Loss::default());
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

/// Without the hint, which is for whoever meets it for real.
fn one_line(text: &str) -> String {
    let text = text.split("hint: ").next().unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
