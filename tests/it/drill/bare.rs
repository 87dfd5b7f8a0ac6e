//! A recovery that began with nothing is compared file by file with the healthy restore, as those through faults are: a
//! process that says that all is well proves nothing by saying so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lifeboat::base::cancel::Cancel;
use lifeboat::base::clock::SystemClock;
use lifeboat::base::progress::NoProgress;
use lifeboat::base::random::SystemRandom;
use lifeboat::drill::evidence::{Evidence, Machine as Description};
use lifeboat::drill::fault::{FaultSpec, Outcome, Rescue, Witness, inject};
use lifeboat::drill::sandbox::{DockerGround, Ground};
use lifeboat::drill::spec::From;
use lifeboat::drill::{Spec, Stage, Verdict};
use lifeboat::repo::World;
use lifeboat::repo::open::{OpenOptions, open};
use lifeboat::repo::sync::Thoroughness;
use lifeboat::runbook::redact::Redactor;
use lifeboat::seal::slot::Unlock;
use lifeboat::source::capture::SourceError;
use lifeboat::store::{Location, StoreOptions};

/// What the process told, and what it saw in its sandbox.
type Told = (Evidence, Vec<u8>);

/// Runs a drill and injects `no-local-state`; `tell` makes of what the healthy restore showed what the bare process tells.
fn judged(tell: impl Fn(Told) -> Told + Send + Sync) -> (Outcome, String) {
    let machine = super::with_files();
    let location: Location = machine.path("repository").to_str().unwrap().parse().unwrap();
    let store = lifeboat::store::open(&location, &StoreOptions::default()).unwrap();
    let world = World { clock: Arc::new(SystemClock::new()), random: Arc::new(SystemRandom) };
    let unlock = Unlock::Passphrase(zeroize::Zeroizing::new(b"right".to_vec()));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let repo = open(store, &unlock, &OpenOptions::default(), world).await.unwrap();
        repo.sync(Thoroughness::Tolerant).await.unwrap();
        let (cancel, witness, redactor) = (Cancel::new(), Witness::default(), Redactor::default());
        let stage = Stage {
            repo: &repo,
            repository: "r".into(),
            open_target: &|_| Err(SourceError::Refused("there is no service".into())),
            ground: Ground {
                scratch: machine.path(""),
                path: Vec::new(),
                withheld: &[],
                cancel: cancel.clone(),
                variables: Vec::new(),
                docker: DockerGround::default(),
                lent: None,
            },
            machine: Description::default(),
            began: Instant::now(),
            progress: Arc::new(NoProgress),
            cancel: &cancel,
            keep: None,
            witness: Some(&witness),
            redactor: &redactor,
        };
        let spec = Spec {
            name: "bare".into(),
            snapshot: "latest".into(),
            sandbox: None,
            machine: None,
            lent: None,
            secrets: Vec::new(),
            rto: None,
            rpo: None,
            detect: Duration::ZERO,
            decide: Duration::ZERO,
            steps: Vec::new(),
            checks: Vec::new(),
            faults: vec!["no-local-state".parse::<FaultSpec>().unwrap()],
            from: From::Here,
        };
        let mut evidence = lifeboat::drill::run(&spec, &stage).await.unwrap();
        assert_eq!(evidence.verdict, Verdict::Met);
        let (healthy, seen) = (evidence.clone(), witness.to_bytes());
        let rescue = Rescue {
            unlock: &unlock,
            kit: None,
            replicas: Vec::new(),
            max_retries: 1,
            bare: &|_, _| {
                let (evidence, seen) = tell((healthy.clone(), seen.clone()));
                Box::pin(async move { Ok((evidence, Witness::from_bytes(&seen))) })
            },
        };
        inject(&spec, &stage, &witness, &rescue, &mut evidence).await;
        let fault = evidence.faults.remove(0);
        (fault.outcome, fault.detail)
    })
}

#[test]
fn a_bare_recovery_that_says_all_is_well_is_held_against_the_healthy_files() {
    assert_eq!(judged(|told| told).0, Outcome::Recovers);
    // A byte of what came back is not the healthy restore's, and every check passed.
    let (outcome, detail) = judged(|(evidence, mut seen)| {
        *seen.last_mut().unwrap() ^= 1;
        (evidence, seen)
    });
    assert_eq!(outcome, Outcome::SilentlyWrong, "{detail}");
    assert!(detail.contains("not those of the healthy restore"), "{detail}");
    // Nothing tells what came back.
    let (outcome, detail) = judged(|(evidence, _)| (evidence, Vec::new()));
    assert_eq!(outcome, Outcome::NotRun, "{detail}");
    // It failed, and what it did bring back is wrong.
    let (outcome, detail) = judged(|(mut evidence, mut seen)| {
        (evidence.verdict, evidence.reason) = (Verdict::DataWrong, Some("a path did not come back".into()));
        *seen.last_mut().unwrap() ^= 1;
        (evidence, seen)
    });
    assert_eq!(outcome, Outcome::SilentlyWrong, "{detail}");
}
