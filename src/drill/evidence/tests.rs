//! Verdicts, and that a record which was touched is found.

use super::*;

pub fn sample() -> Evidence {
    Evidence {
        format: FORMAT.into(),
        name: "db-weekly".into(),
        number: 3,
        previous: None,
        spec_hash: "00".into(),
        started_at: "2026-11-21T14:00:00Z".into(),
        machine: Machine {
            host: "ops1".into(),
            cores: 2,
            system: "linux".into(),
            program: "lifeboat".into(),
        },
        repository: "/srv/lifeboat".into(),
        snapshot: None,
        sandbox: Some("directory".into()),
        phases: vec![
            Phase { name: "locate".into(), seconds: 0.5 },
            Phase { name: "restore".into(), seconds: 3.25 },
        ],
        restored_bytes: 1 << 30,
        checks: vec![CheckResult {
            seconds: 0.25,
            ..CheckResult::new("rows", CheckOutcome::Passed, "3 tables <equal> & \"whole\"")
        }],
        not_tested: vec!["mail".into()],
        objectives: Objectives { rto_seconds: Some(60.0), rpo_seconds: Some(3600.0) },
        measured: Measured {
            recovery_seconds: Some(4.0),
            declared_seconds: 10.0,
            end_to_end_seconds: Some(14.0),
            exposure_seconds: Some(1800.0),
            worst_exposure_seconds: Some(7200.0),
            proven_worst_seconds: None,
            copies: Vec::new(),
            window_days: 30,
            trend: None,
            trend_runs: None,
        },
        stack: None,
        verdict: Verdict::CouldNotRun,
        reason: None,
        start: None,
        faults: Vec::new(),
    }
}

#[test]
fn the_worst_finding_decides() {
    let judged = |change: &dyn Fn(&mut Evidence)| {
        let mut evidence = sample();
        change(&mut evidence);
        evidence.judge();
        evidence.verdict
    };
    assert_eq!(judged(&|_| {}), Verdict::Met);
    assert_eq!(judged(&|e| e.measured.end_to_end_seconds = Some(61.0)), Verdict::ObjectiveMissed);
    assert_eq!(judged(&|e| e.measured.exposure_seconds = Some(3601.0)), Verdict::ObjectiveMissed);
    assert_eq!(judged(&|e| e.measured.exposure_seconds = None), Verdict::ObjectiveMissed);
    assert_eq!(judged(&|e| e.checks[0].outcome = CheckOutcome::Failed), Verdict::DataWrong);
    assert_eq!(judged(&|e| e.checks[0].outcome = CheckOutcome::Skipped), Verdict::CheckFailed);
    assert_eq!(judged(&|e| e.checks.clear()), Verdict::CouldNotRun);
    let expectation = |e: &mut Evidence| {
        let check = CheckResult { is_data: false, outcome: CheckOutcome::Failed, ..e.checks[0].clone() };
        e.checks.push(check);
        e.measured.end_to_end_seconds = Some(61.0);
    };
    assert_eq!(judged(&expectation), Verdict::CheckFailed);
}

#[test]
fn a_retouched_record_is_found() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let signed = sample().sign(&key).unwrap();
    let text = serde_json::to_vec_pretty(&signed).unwrap();
    let read = SignedEvidence::parse(&text).unwrap();
    assert_eq!(read, signed);
    assert!(read.attest(&signed.key).is_ok());
    assert!(read.attest(&to_hex(SigningKey::from_bytes(&[8; 32]).verifying_key().as_bytes())).is_err());
    let mut changed = read.clone();
    changed.evidence.measured.recovery_seconds = Some(3.0);
    assert!(changed.attest(&signed.key).is_err());
    // Nor can anything be added that a reader would take for signed.
    let added = String::from_utf8(text).unwrap().replacen("\"number\"", "\"approved\": true, \"number\"", 1);
    assert!(SignedEvidence::parse(added.as_bytes()).is_err());
}
