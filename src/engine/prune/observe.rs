//! What this machine has seen of other runs and tombstones, and since when.
//!
//! Two hosts' clocks are never compared: only "this machine first saw it then" counts. Nothing here is needed for
//! safety; it decides how long a prune is polite.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use crate::engine::EngineError;
use crate::format::header::ObjectKind;
use crate::format::id::{ObjectHash, RunId};
use crate::repo::Repository;
use crate::repo::run::parse_object_name;
use crate::repo::sync::Inventory;

/// The shortest time after which a run without a new sign of life is taken for dead and its object cleared away.
pub const STALE: Duration = Duration::from_secs(48 * 3600);

/// See [`observe`].
#[derive(Debug, Default)]
pub struct Observed {
    /// Runs that are listed and not known to be dead.
    pub busy: HashSet<RunId>,
    /// Objects of runs that are dead, or numbers that a later one replaced.
    pub stale_objects: Vec<String>,
    /// Condemned packs whose grace is over.
    pub due: BTreeSet<(ObjectKind, ObjectHash)>,
    /// Tombstones that may be removed once every pack they name was deleted: notices whose grace is over, and
    /// what a dead prune of this machine left.
    pub retire: Vec<RunId>,
}

/// Looks at `runs/` and the tombstones, remembers what is new, and says what is due.
pub async fn observe(
    repo: &Repository,
    inventory: &Inventory,
    grace: Duration,
) -> Result<Observed, EngineError> {
    let now = repo.world.now().seconds;
    let past = |since: i64, span: Duration| now.saturating_sub(since) as i128 >= span.as_secs() as i128;
    let mut seen = repo.local.seen();
    let mut observed = Observed::default();
    let mut numbers: BTreeMap<RunId, u64> = BTreeMap::new();
    let listed = repo.store.list(ObjectKind::Run.folder()).await?;
    for (run, number) in listed.iter().filter_map(|listed| parse_object_name(&listed.name)) {
        let highest = numbers.entry(run).or_default();
        *highest = number.max(*highest);
    }
    let mut runs = BTreeMap::new();
    let mut births = BTreeMap::new();
    for (run, number) in &numbers {
        let known = seen.runs.get(&run.hex()).filter(|(known, _)| known == number);
        let since = known.map_or(now, |(_, since)| *since);
        runs.insert(run.hex(), (*number, since));
        births.insert(run.hex(), *seen.births.get(&run.hex()).unwrap_or(&now));
        if !past(since, grace) {
            observed.busy.insert(*run);
        }
    }
    for listed in &listed {
        let Some((run, number)) = parse_object_name(&listed.name) else { continue };
        let dead = runs.get(&run.hex()).is_some_and(|(_, since)| past(*since, grace.max(STALE)));
        if dead || numbers.get(&run).is_some_and(|highest| number < *highest) {
            observed.stale_objects.push(listed.name.clone());
        }
    }
    (seen.runs, seen.births) = (runs, births);
    seen.tombstones.retain(|pruner, _| {
        RunId::from_hex(pruner).is_some_and(|pruner| inventory.tombstones.contains_key(&pruner))
    });
    for (pruner, tombstone) in &inventory.tombstones {
        let since = *seen.tombstones.entry(pruner.hex()).or_insert(now);
        let own_sweep = tombstone.sweeps && seen.sweeps.contains(&pruner.hex());
        // Runs that may have begun before the tombstone and still live get the time they need to look again.
        let waits = |run: &RunId| seen.births.get(&run.hex()).is_some_and(|birth| *birth < since);
        let over = past(since, grace) && !observed.busy.iter().any(waits);
        if own_sweep || (over && !tombstone.sweeps) {
            observed.retire.push(*pruner);
            observed.due.extend(tombstone.packs.iter().copied());
        } else if over {
            // Another machine's: it may be stopped and go on, so the tombstone stays, but its packs need not.
            let there = tombstone.packs.iter().filter(|(_, hash)| inventory.packs.contains_key(hash));
            observed.due.extend(there.copied());
        }
    }
    repo.local.remember(&seen)?;
    Ok(observed)
}
