//! `forget`: decides which snapshots go, by rules or by name, and removes their manifests.
//!
//! A snapshot is forgotten once its manifest is gone. The signed mark that is put before announces it to a writer
//! that is just confirming, and explains the gap afterwards. Its chunks stay until a prune.
//!
//! Invariant: a snapshot that was unconfirmed is deleted only if its confirm is absent Δ after the mark was
//! acknowledged. Then its writer, who reads marks Δ after its confirm was acknowledged, sees the mark and fails. The
//! mark of a cancelled forget stays where it is: another forget may rely on it.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::EngineError;
use super::backup::given::DOUBTS;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::header::ObjectKind;
use crate::format::id::SnapshotId;
use crate::format::manifest::parse_object_name;
use crate::policy::retention::{self, Fact, GroupPlan, Guards, Plan, RetentionError, Rules};
use crate::repo::snapshots::{Filter, Snapshot, SnapshotList};
use crate::repo::{RepoError, Repository, from_timestamp};
use crate::store::StoreErrorKind;

/// Storage requests in flight.
const PARALLEL: usize = 8;

/// What to forget.
#[derive(Clone, Debug)]
pub struct ForgetOptions {
    /// Only these snapshots are looked at.
    pub filter: Filter,
    pub rules: Rules,
    /// Days, weeks and months are counted in this zone.
    pub zone: TimeZone,
    /// `None`: the operator overrides them.
    pub guards: Option<Guards>,
    /// Exactly these, by selector, instead of the rules. May name unconfirmed and damaged snapshots.
    pub snapshots: Vec<String>,
    /// With rules: also uploads that were never confirmed and that a later confirmed snapshot replaces.
    pub incomplete: bool,
}

impl Default for ForgetOptions {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            rules: Rules::default(),
            zone: TimeZone::UTC,
            guards: Some(Guards::default()),
            snapshots: Vec::new(),
            incomplete: true,
        }
    }
}

/// A snapshot as a forget plan names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Target {
    /// Hex of the snapshot's id.
    pub id: String,
    /// Of the data; absent where the manifest does not open.
    pub time: Option<String>,
    pub confirmed: bool,
    #[serde(skip)]
    pub object: String,
}

impl Target {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            id: snapshot.id.hex(),
            time: Some(from_timestamp(snapshot.summary.consistent).to_string()),
            confirmed: snapshot.confirmed,
            object: snapshot.object.clone(),
        }
    }

    fn snapshot(&self) -> Result<SnapshotId, EngineError> {
        let id = parse_object_name(&self.object).map(|(id, _)| id);
        id.ok_or_else(|| EngineError::Refused(format!("{} is not a snapshot's name", self.object)))
    }
}

/// What would be done; printing it is the dry run.
#[derive(Clone, Debug, Serialize)]
pub struct ForgetPlan {
    /// Per job and host: what stays and why, and what goes.
    pub groups: Vec<GroupPlan<Target>>,
    /// Uploads never confirmed that go.
    pub incomplete: Vec<Target>,
    /// Manifests that could not be read. They stay unless named.
    pub damaged: Vec<String>,
}

impl ForgetPlan {
    /// Everything that goes.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.groups.iter().flat_map(|group| &group.forget).chain(&self.incomplete)
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForgetOutcome {
    /// Ids in hex.
    pub forgotten: Vec<String>,
    /// Were confirmed while they were being forgotten, and stay.
    pub confirmed_meanwhile: Vec<String>,
}

fn group_of(snapshot: &Snapshot) -> String {
    format!("{} on {}", snapshot.summary.job, snapshot.summary.host)
}

/// Whether it gave far less than its job usually does: then what came before is not let go for it.
fn is_doubted(snapshot: &Snapshot) -> bool {
    let facts = &snapshot.summary.facts;
    let facts = serde_json::from_str::<serde_json::Value>(facts);
    facts.is_ok_and(|facts| facts.get(DOUBTS).is_some())
}

fn fact(snapshot: &Snapshot) -> Fact<Target> {
    Fact {
        id: Target::of(snapshot),
        time: from_timestamp(snapshot.summary.consistent),
        tags: snapshot.summary.tags.clone(),
        partial: snapshot.summary.statistics.problems > 0 || is_doubted(snapshot),
        proven: false,
        hold_until: None,
        group: group_of(snapshot),
    }
}

fn refuse(error: RetentionError) -> EngineError {
    match error {
        RetentionError::NoRule => EngineError::Refused(error.to_string()),
        _ => EngineError::Guard(error.to_string()),
    }
}

/// Decides. Errors with [`EngineError::Guard`] when the plan removes more than the guards allow.
pub async fn plan(repo: &Repository, options: &ForgetOptions) -> Result<ForgetPlan, EngineError> {
    if !repo.access.may_remove() {
        return Err(repo.not_permitted("forget snapshots").into());
    }
    let list = repo.snapshots().await?;
    let plan =
        if options.snapshots.is_empty() { by_rules(repo, &list, options) } else { by_name(&list, options) };
    let plan = plan?;
    if let Some(guards) = &options.guards {
        let plan = Plan { groups: plan.groups.clone() };
        plan.check(guards).map_err(refuse)?;
    }
    Ok(plan)
}

fn by_rules(
    repo: &Repository,
    list: &SnapshotList,
    options: &ForgetOptions,
) -> Result<ForgetPlan, EngineError> {
    let facts: Vec<_> = list.matching(&options.filter).map(fact).collect();
    let now = repo.world.clock.now();
    let plan = retention::plan(&facts, &options.rules, &options.zone, now).map_err(refuse)?;
    let mut incomplete = Vec::new();
    if options.incomplete {
        for snapshot in list.snapshots.iter().filter(|s| !s.confirmed && options.filter.matches(&s.summary)) {
            // Politeness: its writer may be about to confirm. A later backup of the job that has come to its end
            // says that it is not.
            let replaced = list.snapshots.iter().any(|other| {
                other.confirmed
                    && group_of(other) == group_of(snapshot)
                    && other.summary.started > snapshot.summary.finished
            });
            if replaced {
                incomplete.push(Target::of(snapshot));
            }
        }
    }
    Ok(ForgetPlan { groups: plan.groups, incomplete, damaged: damaged(list) })
}

fn damaged(list: &SnapshotList) -> Vec<String> {
    list.damaged.iter().map(|(object, _)| object.clone()).collect()
}

fn by_name(list: &SnapshotList, options: &ForgetOptions) -> Result<ForgetPlan, EngineError> {
    let mut chosen: Vec<&Snapshot> = Vec::new();
    let mut broken = Vec::new();
    for text in &options.snapshots {
        match list.select(text, &options.filter) {
            Ok(snapshot) => chosen.push(snapshot),
            Err(error) => {
                let named =
                    |snapshot: &&Snapshot| text.len() >= 8 && snapshot.id.hex().starts_with(text.as_str());
                if let [snapshot] = list.untrusted.iter().filter(named).collect::<Vec<_>>().as_slice() {
                    broken.push(snapshot.object.clone());
                    continue;
                }
                // A manifest that does not open stops every prune, so there must be a way to drop it.
                let prefix = format!("snapshots/{text}");
                let named = |object: &&(String, RepoError)| object.0.starts_with(&prefix);
                match list.damaged.iter().filter(named).collect::<Vec<_>>().as_slice() {
                    [(object, _)] if text.len() >= 8 => broken.push(object.clone()),
                    _ => return Err(error.into()),
                }
            }
        }
    }
    let mut groups: Vec<GroupPlan<Target>> = Vec::new();
    for name in chosen.iter().map(|snapshot| group_of(snapshot)).collect::<std::collections::BTreeSet<_>>() {
        let mut group = GroupPlan { group: name.clone(), keep: Vec::new(), forget: Vec::new() };
        for snapshot in list.snapshots.iter().rev().filter(|s| s.confirmed && group_of(s) == name) {
            if chosen.iter().any(|chosen| chosen.id == snapshot.id) {
                group.forget.push(Target::of(snapshot));
            } else {
                group.keep.push(retention::Kept { id: Target::of(snapshot), reasons: Vec::new() });
            }
        }
        groups.push(group);
    }
    let mut incomplete: Vec<Target> = chosen.iter().filter(|s| !s.confirmed).map(|s| Target::of(s)).collect();
    for object in &broken {
        let id = parse_object_name(object).map(|(id, _)| id.hex()).unwrap_or_default();
        incomplete.push(Target { id, time: None, confirmed: false, object: object.clone() });
    }
    incomplete.sort();
    incomplete.dedup();
    let damaged = damaged(list).into_iter().filter(|object| !broken.contains(object)).collect();
    Ok(ForgetPlan { groups, incomplete, damaged })
}

/// Removes what `plan` says. Interrupted, it may simply be run again.
pub async fn apply(
    repo: &Repository,
    plan: &ForgetPlan,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ForgetOutcome, EngineError> {
    progress.phase("forgetting");
    let targets: Vec<&Target> = plan.targets().collect();
    progress.add_total(0, targets.len() as u64);
    let mut flying = FuturesUnordered::new();
    for target in &targets {
        if flying.len() >= PARALLEL
            && let Some(done) = flying.next().await
        {
            let _: () = done?;
        }
        flying.push(announce(repo, target.snapshot()?));
    }
    while let Some(done) = flying.next().await {
        let _: () = done?;
    }
    drop(flying);
    cancel.check()?;
    let (confirmed, mut rest): (Vec<&Target>, Vec<&Target>) =
        targets.into_iter().partition(|target| target.confirmed);
    let mut outcome = ForgetOutcome::default();
    if !rest.is_empty() {
        // 1. This: mark acknowledged at a; Δ; confirm absent at r ≥ a + Δ, so it was acknowledged after r − Δ ≥ a.
        // 2. The writer: reads marks Δ after that, so after a + Δ: it sees the mark and fails.
        repo.settle().await;
        let now_confirmed = repo.confirmed().await?;
        for target in &rest {
            if now_confirmed.contains(&target.snapshot()?) {
                outcome.confirmed_meanwhile.push(target.id.clone());
            }
        }
        rest.retain(|target| !outcome.confirmed_meanwhile.contains(&target.id));
    }
    let going: Vec<&Target> = confirmed.into_iter().chain(rest).collect();
    cancel.check()?;
    let names = going.iter().map(|target| target.object.clone()).collect();
    super::delete_all(&repo.store, names, progress).await?;
    outcome.forgotten = going.iter().map(|target| target.id.clone()).collect();
    outcome.forgotten.sort();
    Ok(outcome)
}

async fn announce(repo: &Repository, id: SnapshotId) -> Result<(), EngineError> {
    match repo.put_mark(ObjectKind::Forgotten, id).await {
        // Somebody else's mark about the same snapshot says the same.
        Err(RepoError::Store(error)) if error.kind == StoreErrorKind::Conflict => Ok(()),
        result => Ok(result?),
    }
}
