//! Snapshots whose data is not what their facts say: the parts of a healthy one, damaged, stored under its facts.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use lifeboat::base::cancel::Cancel;
use lifeboat::base::clock::SystemClock;
use lifeboat::base::progress::NoProgress;
use lifeboat::base::random::SystemRandom;
use lifeboat::engine::backup::{BackupOptions, CaptureRequest, capture};
use lifeboat::format::entry::Timestamp;
use lifeboat::repo::World;
use lifeboat::repo::open::{OpenOptions, open};
use lifeboat::repo::sync::Thoroughness;
use lifeboat::seal::block::Compression;
use lifeboat::seal::slot::Unlock;
use lifeboat::source::capture::{Capture, Captured, PART_MODE, Part, SourceError};
use lifeboat::store::{Location, StoreOptions};

use crate::cli::Machine;

struct Replay {
    parts: VecDeque<(String, Vec<u8>)>,
    current: io::Cursor<Vec<u8>>,
    at: Timestamp,
    facts: serde_json::Map<String, serde_json::Value>,
}

impl Capture for Replay {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        let Some((path, bytes)) = self.parts.pop_front() else { return Ok(None) };
        self.current = io::Cursor::new(bytes);
        Ok(Some(Part { path, mode: PART_MODE, mtime: self.at }))
    }
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.current.read(buffer)
    }
    fn finish(self: Box<Self>) -> Result<Captured, SourceError> {
        Ok(Captured { consistent: self.at, facts: self.facts, ..Captured::default() })
    }
}

/// Stores the only snapshot of `kind` once more, as the job `job`, each part changed by `damage`.
pub fn damaged(machine: &Machine, kind: &'static str, job: &str, damage: impl Fn(&str, Vec<u8>) -> Vec<u8>) {
    let location: Location = machine.path("repository").to_str().unwrap().parse().unwrap();
    let store = lifeboat::store::open(&location, &StoreOptions::default()).unwrap();
    let world = World { clock: Arc::new(SystemClock::new()), random: Arc::new(SystemRandom) };
    let unlock = Unlock::Passphrase(zeroize::Zeroizing::new(b"right".to_vec()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let repo = open(store, &unlock, &OpenOptions::default(), world).await.unwrap();
        repo.sync(Thoroughness::Tolerant).await.unwrap();
        let list = repo.snapshots().await.unwrap();
        let healthy = list.snapshots.iter().find(|found| found.summary.source == kind).unwrap();
        let listed = machine.run(&["--json", "ls", &healthy.id.hex()]).stdout;
        let listed = listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let parts = listed.filter(|entry| entry["type"] == "stream").map(|entry| {
            let path = entry["path"].as_str().unwrap();
            let said = machine.command(&["dump", &format!("{}:{path}", healthy.id.hex())]).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            (path.to_owned(), damage(path, said.stdout))
        });
        let replay = Replay {
            parts: parts.collect(),
            current: io::Cursor::default(),
            at: healthy.summary.consistent,
            facts: serde_json::from_str(&healthy.summary.facts).unwrap(),
        };
        let options = BackupOptions {
            job: job.into(),
            host: healthy.summary.host.clone(),
            user: String::new(),
            tags: vec![],
            compression: Compression::Zstd(1),
            profile: None,
            time: None,
            dry_run: false,
            force: false,
            threads: 1,
            accepted: None,
        };
        let request = CaptureRequest { source: Box::new(replay), kind };
        let outcome = capture(&repo, request, &options, Arc::new(NoProgress), &Cancel::new()).await.unwrap();
        assert!(outcome.snapshot.is_some());
    });
}
