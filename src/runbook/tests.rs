//! What only shows inside: hashes, what is written into a document, records that were cut short.

use std::path::Path;
use std::time::Duration;

use super::audit::{Audit, Event, newest};
use super::record::{Ended, Ending, StepRecord};
use super::{Measured, Runbook, parse};

const TEXT: &str =
    "---\nname: a\ncomponents: x\nrto: 1h\n---\n# A\n\n```sh {step=one phase=verify}\ntrue\n```\n";

fn read(text: &str) -> Runbook {
    parse(Path::new("a.md"), text).unwrap()
}

fn measured(rto: u64, steps: &str) -> Measured {
    Measured {
        line: 0,
        rto: Duration::from_secs(rto),
        date: "2026-11-22".into(),
        machine: "2 cores, \"Linux\"".into(),
        steps: steps.into(),
    }
}

#[test]
fn a_measurement_is_written_once_and_changes_nothing_else() {
    let plain = read(TEXT);
    let hash = &plain.steps_hash()[..super::SHORT];
    let once = super::front::with_measured(TEXT, &measured(5, hash));
    let twice = super::front::with_measured(&once, &measured(125, hash));
    let found = read(&twice);
    assert_eq!(found.front.measured.as_ref().unwrap().rto, Duration::from_secs(125));
    assert!(found.is_as_measured(found.front.measured.as_ref().unwrap()));
    assert_eq!(found.steps_hash(), plain.steps_hash());
    assert_eq!(twice.matches("measured:").count(), 1);
    assert!(TEXT.split("# A").nth(1) == twice.split("# A").nth(1));
    // Prose may change, what decides about a run may not.
    assert_eq!(read(&TEXT.replace("# A", "# B")).steps_hash(), plain.steps_hash());
    for (old, new) in [("true", "false"), ("verify", "restore"), ("verify}", "verify expect=\"x\"}")] {
        assert_ne!(read(&TEXT.replace(old, new)).steps_hash(), plain.steps_hash(), "{new}");
    }
}

fn begin(is_drill: bool) -> Event {
    let text = String::new;
    Event::Begin {
        format: 1,
        at: text(),
        runbook: text(),
        document: text(),
        is_drill,
        host: text(),
        user: text(),
        program: text(),
        variables: Default::default(),
        resumes: None,
    }
}

#[test]
fn a_record_that_was_cut_anywhere_tells_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let runbook = read(TEXT);
    let step = &runbook.steps[0];
    let mut audit = Audit::begin(folder.path(), "1", &begin(false)).unwrap();
    let done = StepRecord { ending: Ending::Done, ..StepRecord::skipped(step, "", String::new()) };
    audit.write(&Event::Start { at: String::new(), step: "one".into(), hash: step.hash() }).unwrap();
    audit.write(&Event::End(done)).unwrap();
    audit.write(&Event::Start { at: String::new(), step: "two".into(), hash: step.hash() }).unwrap();
    audit.write(&Event::Finish { at: String::new(), ended: Ended::Completed }).unwrap();
    // A drill in between is no run to go on with.
    Audit::begin(folder.path(), "2", &begin(true)).unwrap();
    let whole = std::fs::read(audit.path()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for end in 0..=whole.len() {
        std::fs::write(audit.path(), &whole[..end]).unwrap();
        let Some(past) = newest(folder.path()).unwrap() else { continue };
        let open = past.open.as_ref().map(|open| open.step.clone());
        seen.insert((past.has_done("one", &step.hash()), open, past.ended.is_some()));
        assert!(!past.has_done("one", "another text"));
    }
    let expected = [
        (false, None, false),
        (false, Some("one".to_owned()), false),
        (true, None, false),
        (true, Some("two".to_owned()), false),
        (true, Some("two".to_owned()), true),
    ];
    assert_eq!(seen, expected.into_iter().collect());
}
