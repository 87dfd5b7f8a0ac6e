//! How long the parts of a stack take to be back, as drills measured it: what objectives are held against.
//!
//! What people are said to take is declared: it is told apart from what was measured, and only the sum is judged.

use super::evidence::{Evidence, StackRow, Verdict};

/// What a drill measured of one component. Times in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    /// From the beginning of the drill until the component was ready; in a drill of its stack, waiting for what it
    /// needs included.
    pub ready_seconds: f64,
    /// Its own part of that.
    pub own_seconds: f64,
    /// Declared, not measured: what people take.
    pub declared_seconds: f64,
    /// `NAME#NUMBER`.
    pub by: String,
    /// Measured with everything it needs, in a drill of the stack.
    pub is_of_stack: bool,
}

/// What a drill measured of a whole stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    pub recovery_seconds: f64,
    pub declared_seconds: f64,
    pub by: String,
    pub critical_path: Vec<String>,
    /// Components that were rehearsed.
    pub components: Vec<String>,
}

/// A recovery that did not come to its end with the right data has no time.
fn proves(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Met | Verdict::ObjectiveMissed)
}

fn label(drill: &Evidence) -> String {
    format!("{}#{}", drill.name, drill.number)
}

fn newest<'d>(drills: impl Iterator<Item = &'d Evidence>) -> Option<&'d Evidence> {
    let started = |drill: &&Evidence| drill.started_at.parse::<jiff::Timestamp>().ok();
    drills.max_by_key(|drill| (started(drill), drill.number))
}

fn of_stack<'d>(drill: &'d Evidence, stack: &str) -> Option<&'d StackRow> {
    drill.stack.as_ref().filter(|row| row.name == stack)
}

fn in_stack(drill: &Evidence, stack: &str, component: &str) -> Option<Recovery> {
    let row = of_stack(drill, stack)?.components.iter().find(|row| row.name == component)?;
    let (began, ready) = row.began_seconds.zip(row.ready_seconds)?;
    proves(row.verdict).then(|| Recovery {
        ready_seconds: ready,
        own_seconds: (ready - began).max(0.0),
        declared_seconds: drill.measured.declared_seconds,
        by: label(drill),
        is_of_stack: true,
    })
}

fn alone(drill: &Evidence, job: &str) -> Option<Recovery> {
    let is_of_job = drill.stack.is_none() && drill.snapshot.as_ref().is_some_and(|row| row.job == job);
    let recovery = drill.measured.recovery_seconds.filter(|_| is_of_job && proves(drill.verdict))?;
    Some(Recovery {
        ready_seconds: recovery,
        own_seconds: recovery,
        declared_seconds: drill.measured.declared_seconds,
        by: label(drill),
        is_of_stack: false,
    })
}

/// The newest measurement of a component: by a drill of its stack, or of its job alone. What waits for others is
/// better told by the stack's, however old: alone it never waited. `job`: `None` where it has no data of its own.
pub fn of_component(
    drills: &[Evidence],
    stack: &str,
    component: &str,
    job: Option<&str>,
    waits: bool,
) -> Option<Recovery> {
    let whole = newest(drills.iter().filter(|drill| in_stack(drill, stack, component).is_some()));
    let own = newest(drills.iter().filter(|drill| job.is_some_and(|job| alone(drill, job).is_some())));
    match (whole, own) {
        (Some(whole), own)
            if waits || own.is_none_or(|own| newest([whole, own].into_iter()) == Some(whole)) =>
        {
            in_stack(whole, stack, component)
        }
        (_, Some(own)) => alone(own, job?),
        (None, None) => None,
        (Some(whole), None) => in_stack(whole, stack, component),
    }
}

/// The newest drill of the whole stack that came to its end.
pub fn of_whole(drills: &[Evidence], stack: &str) -> Option<Whole> {
    let whole = |drill: &&Evidence| {
        proves(drill.verdict) && drill.measured.recovery_seconds.is_some() && of_stack(drill, stack).is_some()
    };
    let drill = newest(drills.iter().filter(whole))?;
    let row = of_stack(drill, stack)?;
    Some(Whole {
        recovery_seconds: drill.measured.recovery_seconds?,
        declared_seconds: drill.measured.declared_seconds,
        by: label(drill),
        critical_path: row.critical_path.clone(),
        components: row.components.iter().map(|row| row.name.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::evidence::tests::sample;
    use super::super::evidence::{ComponentRow, Objectives, SnapshotRow};
    use super::*;

    fn drill(name: &str, day: u32, job: &str, recovery: f64, declared: f64) -> Evidence {
        let mut drill = Evidence { name: name.into(), number: 1, verdict: Verdict::Met, ..sample() };
        drill.started_at = format!("2026-11-{day:02}T00:00:00Z");
        drill.snapshot = Some(SnapshotRow {
            id: String::new(),
            job: job.into(),
            host: String::new(),
            source: "files".into(),
            consistent_at: String::new(),
            finished_at: String::new(),
            problems: 0,
        });
        drill.measured.recovery_seconds = Some(recovery);
        drill.measured.declared_seconds = declared;
        drill.measured.end_to_end_seconds = Some(recovery + declared);
        drill
    }

    fn component(name: &str, began: f64, ready: Option<f64>, verdict: Verdict) -> ComponentRow {
        ComponentRow {
            name: name.into(),
            needs: Vec::new(),
            repository: String::new(),
            snapshot: None,
            sandbox: None,
            began_seconds: Some(began),
            ready_seconds: ready,
            phases: Vec::new(),
            restored_bytes: 0,
            objectives: Objectives::default(),
            exposure_seconds: None,
            worst_exposure_seconds: None,
            verdict,
            reason: None,
        }
    }

    fn stack(day: u32, components: Vec<ComponentRow>, verdict: Verdict) -> Evidence {
        let mut drill = drill("whole", day, "", 9.0, 60.0);
        drill.snapshot = None;
        drill.verdict = verdict;
        drill.stack = Some(StackRow {
            name: "shop".into(),
            at: String::new(),
            skew_seconds: None,
            components,
            critical_path: vec!["db".into(), "app".into()],
        });
        drill
    }

    #[test]
    fn a_drill_of_the_stack_measures_its_components_and_a_newer_one_alone_those_that_wait_for_nothing() {
        let whole = stack(
            1,
            vec![
                component("db", 0.5, Some(4.0), Verdict::Met),
                component("app", 4.0, Some(9.0), Verdict::ObjectiveMissed),
            ],
            Verdict::ObjectiveMissed,
        );
        let later = [whole.clone(), drill("weekly", 8, "db", 3.0, 0.0), drill("files", 9, "app", 2.0, 0.0)];
        let of = |drills: &[Evidence], name: &str, waits| {
            of_component(drills, "shop", name, Some(name), waits).unwrap()
        };
        assert_eq!(
            (of(&later, "db", false).by.as_str(), of(&later, "db", false).ready_seconds),
            ("weekly#1", 3.0)
        );
        let app = of(&later, "app", true);
        assert_eq!(
            (app.by.as_str(), app.ready_seconds, app.own_seconds, app.declared_seconds),
            ("whole#1", 9.0, 5.0, 60.0)
        );
        let earlier = [
            drill("weekly", 1, "db", 3.0, 0.0),
            stack(2, vec![component("db", 0.0, Some(4.0), Verdict::Met)], Verdict::Met),
        ];
        assert!(of(&earlier, "db", false).is_of_stack);
        // A component without data is measured by the stack's drills alone.
        assert_eq!(
            of_component(&later, "shop", "app", None, true).map(|found| found.by),
            Some("whole#1".into())
        );
        assert_eq!(of_component(&later, "other", "app", None, true), None);
    }

    #[test]
    fn what_failed_or_is_of_another_job_measures_nothing() {
        let mut failed = drill("weekly", 3, "db", 1.0, 0.0);
        failed.verdict = Verdict::CheckFailed;
        let broken = stack(4, vec![component("db", 0.0, Some(1.0), Verdict::DataWrong)], Verdict::DataWrong);
        let drills = [failed, drill("cache", 5, "cache", 1.0, 0.0), broken];
        assert_eq!(of_component(&drills, "shop", "db", Some("db"), false), None);
        assert_eq!(of_whole(&drills, "shop"), None);
        // One component that failed says nothing against another's time.
        let rows = vec![
            component("db", 0.0, Some(1.0), Verdict::Met),
            component("app", 0.0, None, Verdict::DataWrong),
        ];
        let drills = [stack(4, rows, Verdict::DataWrong)];
        assert!(of_component(&drills, "shop", "db", Some("db"), false).is_some());
        assert_eq!(of_whole(&drills, "shop"), None);
    }

    #[test]
    fn what_people_take_stays_apart_from_what_was_measured() {
        let drills = [drill("server-deleted", 3, "files", 2.0, 2100.0)];
        let found = of_component(&drills, "shop", "files", Some("files"), false).unwrap();
        assert_eq!((found.ready_seconds, found.declared_seconds), (2.0, 2100.0));
    }
}
