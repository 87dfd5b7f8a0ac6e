//! Which snapshots a stack is rehearsed with: of each component's job the newest that is true for the time asked for.

use std::collections::BTreeMap;

use super::{StackSpec, StackStage};
use crate::drill::DrillError;
use crate::engine::coherent;
use crate::repo::snapshots::{Filter, SnapshotList};

/// By component its snapshot's id, or why there is none.
pub type Set = BTreeMap<String, Result<String, String>>;

/// Chooses them. Each repository is listed once.
///
/// # Errors
/// Machines share a job's name, and nothing says which is meant. Anything else is that component's failure.
pub async fn choose(spec: &StackSpec, stage: &StackStage<'_>) -> Result<Set, DrillError> {
    let mut lists: Vec<(&str, Result<SnapshotList, String>)> = Vec::new();
    let mut set = Set::new();
    for (name, wanted) in &spec.components {
        let (Some(from), Some(job)) = (stage.from.get(name), &wanted.job) else { continue };
        let known = lists.iter().position(|(address, _)| *address == from.repository);
        let at = match known {
            Some(at) => at,
            None => {
                let list = from.repo.snapshots().await.map_err(|error| error.to_string());
                lists.push((&from.repository, list));
                lists.len() - 1
            }
        };
        let found = match &lists[at].1 {
            Err(error) => Err(error.clone()),
            Ok(list) => {
                let filter = Filter::of_machine(wanted.machine.as_deref(), &stage.machine.host);
                list.of_one_machine(job, Some(job), &filter)
                    .map_err(|error| DrillError::Spec(format!("component {name}: {error}")))?;
                let found = coherent::newest(list, job, stage.at, &filter);
                found.map(|snapshot| snapshot.id.hex()).map_err(|error| error.to_string())
            }
        };
        set.insert(name.clone(), found);
    }
    Ok(set)
}
