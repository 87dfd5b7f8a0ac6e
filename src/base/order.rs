//! Work with prerequisites: each piece begins when all that it needs has ended well, and pieces that do not need each
//! other go side by side, each on a thread of its own.
//!
//! Invariant: a piece whose prerequisite failed is never begun, and every piece is in the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::cancel::Cancel;

/// Names, each with the names it needs. Those that are not keys themselves count as there already.
pub type Needs = BTreeMap<String, BTreeSet<String>>;

/// What became of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// It ran; counted from the beginning of all.
    Ran { value: T, began: Duration, ended: Duration },
    /// It was not begun, because of this one, which failed or was not begun itself; `None`: the run was cancelled.
    Left { because: Option<String> },
}

/// The pieces in an order in which each comes after what it needs, with the length of the longest chain before each.
/// What waits for itself is left out.
pub fn sorted(needs: &Needs) -> Vec<(String, usize)> {
    let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    loop {
        let able: Vec<(&str, usize)> = needs
            .iter()
            .filter(|(name, _)| !depths.contains_key(name.as_str()))
            .filter_map(|(name, needed)| {
                let mut needed = needed.iter().filter(|needed| needs.contains_key(*needed));
                let deepest = needed.try_fold(0, |deepest: usize, needed| {
                    depths.get(needed.as_str()).map(|depth| deepest.max(depth + 1))
                });
                Some((name.as_str(), deepest?))
            })
            .collect();
        if able.is_empty() {
            return found;
        }
        for (name, depth) in able {
            depths.insert(name, depth);
            found.push((name.to_owned(), depth));
        }
    }
}

/// `wanted` and everything that needs it, directly or not.
pub fn dependents(needs: &Needs, wanted: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = wanted.clone();
    loop {
        let more: Vec<&String> = needs
            .iter()
            .filter(|(name, needed)| !found.contains(*name) && !needed.is_disjoint(&found))
            .map(|(name, _)| name)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more.into_iter().cloned());
    }
}

/// Runs everything, at most `width` pieces at once. `is_good`: whether what needs a piece may begin.
pub fn side_by_side<T: Send>(
    needs: &Needs,
    width: usize,
    cancel: &Cancel,
    run: impl Fn(&str) -> T + Sync,
    is_good: impl Fn(&T) -> bool,
) -> BTreeMap<String, Ended<T>> {
    let begin = Instant::now();
    let mut ended: BTreeMap<String, Ended<T>> = BTreeMap::new();
    let mut running = BTreeSet::new();
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        loop {
            for name in needs.keys() {
                if ended.contains_key(name) || running.contains(name) {
                    continue;
                }
                match standing(name, needs, &ended, &is_good) {
                    Standing::Lost(because) => {
                        ended.insert(name.clone(), Ended::Left { because: Some(because) });
                    }
                    Standing::Able if cancel.is_cancelled() => {
                        ended.insert(name.clone(), Ended::Left { because: None });
                    }
                    Standing::Able if running.len() < width.max(1) => {
                        running.insert(name.clone());
                        let (tell, run) = (tell.clone(), &run);
                        scope.spawn(move || {
                            let began = begin.elapsed();
                            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(name)));
                            let (value, panic) = match ran {
                                Ok(value) => (Some(value), None),
                                Err(panic) => (None, Some(panic)),
                            };
                            let result =
                                value.map(|value| Ended::Ran { value, began, ended: begin.elapsed() });
                            // Nobody listens any more only after a panic elsewhere.
                            let _ = tell.send((name.clone(), result));
                            if let Some(panic) = panic {
                                std::panic::resume_unwind(panic);
                            }
                        });
                    }
                    _ => {}
                }
            }
            if running.is_empty() {
                // What was left in this round may leave more in the next; what waits for itself waits for ever.
                let stands = |name: &String| {
                    ended.contains_key(name)
                        || matches!(standing(name, needs, &ended, &is_good), Standing::Waits)
                };
                if needs.keys().all(stands) {
                    break;
                }
                continue;
            }
            // One that panicked takes everything down with it, once the others have ended.
            let Ok((name, Some(result))) = told.recv() else { break };
            running.remove(&name);
            ended.insert(name, result);
        }
    });
    for name in needs.keys() {
        ended.entry(name.clone()).or_insert(Ended::Left { because: None });
    }
    ended
}

enum Standing {
    Able,
    Waits,
    Lost(String),
}

fn standing<T>(
    name: &str,
    needs: &Needs,
    ended: &BTreeMap<String, Ended<T>>,
    is_good: impl Fn(&T) -> bool,
) -> Standing {
    let mut waits = false;
    for needed in needs.get(name).into_iter().flatten().filter(|needed| needs.contains_key(*needed)) {
        match ended.get(needed) {
            None => waits = true,
            Some(Ended::Ran { value, .. }) if is_good(value) => {}
            Some(_) => return Standing::Lost(needed.clone()),
        }
    }
    if waits { Standing::Waits } else { Standing::Able }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn needs(pairs: &[(&str, &[&str])]) -> Needs {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        pairs.iter().map(|(name, needed)| ((*name).to_owned(), set(needed))).collect()
    }

    #[test]
    fn each_comes_after_what_it_needs() {
        let all =
            needs(&[("app", &["db", "z"]), ("db", &["disk"]), ("z", &[]), ("a", &["app"]), ("x", &["x"])]);
        let order: Vec<_> = sorted(&all).into_iter().map(|(name, depth)| format!("{name}{depth}")).collect();
        assert_eq!(order, ["db0", "z0", "app1", "a2"], "disk is there already, x waits for itself");
        let from = dependents(&all, &BTreeSet::from(["db".to_owned()]));
        assert_eq!(from.into_iter().collect::<Vec<_>>(), ["a", "app", "db"]);
    }

    #[test]
    fn what_needs_a_failed_one_is_left_and_the_rest_goes_on() {
        let all = needs(&[("app", &["db"]), ("cache", &[]), ("db", &[]), ("mail", &["app"])]);
        let seen = Mutex::new(Vec::new());
        let run = |name: &str| {
            seen.lock().unwrap().push(name.to_owned());
            name != "db"
        };
        let ended = side_by_side(&all, 1, &Cancel::new(), run, |good| *good);
        assert_eq!(*seen.lock().unwrap(), ["cache", "db"]);
        assert_eq!(ended["app"], Ended::Left { because: Some("db".into()) });
        assert_eq!(ended["mail"], Ended::Left { because: Some("app".into()) });
        assert!(matches!(ended["cache"], Ended::Ran { value: true, .. }));
    }

    #[test]
    fn independent_ones_go_side_by_side_and_nothing_begins_after_a_cancel() {
        let all = needs(&[("a", &[]), ("b", &[]), ("c", &["a", "b"])]);
        let meet = std::sync::Barrier::new(2);
        let cancel = Cancel::new();
        let run = |_: &str| {
            // Neither gets on without the other.
            meet.wait();
            cancel.cancel();
        };
        let ended = side_by_side(&all, 2, &cancel, run, |()| true);
        assert!(matches!(ended["a"], Ended::Ran { .. }) && matches!(ended["b"], Ended::Ran { .. }));
        assert_eq!(ended["c"], Ended::Left { because: None });
        let nobody = side_by_side(&needs(&[("x", &["x"])]), 2, &Cancel::new(), |_| (), |()| true);
        assert_eq!(nobody["x"], Ended::Left { because: None });
    }
}
