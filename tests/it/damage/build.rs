//! The repository that the damage tests break, built once by the real verbs, and the ways to look at a broken one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use lifeboat::base::cancel::Cancel;
use lifeboat::base::clock::SystemClock;
use lifeboat::base::progress::NoProgress;
use lifeboat::base::random::SystemRandom;
use lifeboat::engine::EngineError;
use lifeboat::engine::backup::{self, BackupOptions, FilesRequest};
use lifeboat::engine::verify::keyless::verify_keyless;
use lifeboat::engine::verify::outcome::VerifyOutcome;
use lifeboat::engine::verify::subset::Subset;
use lifeboat::engine::verify::{VerifyOptions, verify};
use lifeboat::format::entry::{Content, Kind};
use lifeboat::format::header::ObjectKind;
use lifeboat::format::keyring::Key;
use lifeboat::repo::create::{CreateOptions, create};
use lifeboat::repo::open::{OpenOptions, open};
use lifeboat::repo::recipe::RecipeReader;
use lifeboat::repo::sync::Thoroughness;
use lifeboat::repo::tree::path_of_key;
use lifeboat::repo::tree::read::TreeCursor;
use lifeboat::repo::{RepoError, Repository, World};
use lifeboat::seal::block::Compression;
use lifeboat::seal::slot::Unlock;
use lifeboat::source::files::walk::WalkOptions;
use lifeboat::store::Store;
use lifeboat::store::memory::MemoryStore;

pub type Objects = BTreeMap<String, Bytes>;
/// Path below the source → bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

pub struct Sample {
    pub objects: Objects,
    /// By snapshot id, oldest first.
    pub snapshots: Vec<(String, Files)>,
    /// The same repository before the second backup.
    pub earlier: Objects,
}

pub fn unlock() -> Unlock {
    Unlock::KeyFile(Key([7; 32]))
}

pub fn world() -> World {
    World { clock: Arc::new(SystemClock::new()), random: Arc::new(SystemRandom) }
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub async fn create_in(store: &Arc<dyn Store>) {
    let options = CreateOptions { pack_bytes: 256 << 10, ..CreateOptions::default() };
    create(store.clone(), &unlock(), &options, &world()).await.unwrap();
}

pub async fn open_in(store: &Arc<dyn Store>) -> Result<Repository, RepoError> {
    open(store.clone(), &unlock(), &OpenOptions::default(), world()).await
}

pub async fn back_up(repo: &Repository, folder: &Path, files: &Files) -> String {
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_file() && !files.contains_key(&name) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let options = BackupOptions {
        job: "test".into(),
        host: "host".into(),
        user: String::new(),
        tags: vec![],
        compression: Compression::Zstd(3),
        profile: None,
        time: None,
        dry_run: false,
        force: true,
        threads: 2,
        // Each has a temporary folder of its own.
        accepted: Some("the source is another folder each time".into()),
    };
    let walk = WalkOptions::default();
    let request = FilesRequest { paths: vec![folder.to_path_buf()], cwd: "/".into(), walk };
    let outcome = backup::files(repo, &request, &options, Arc::new(NoProgress), &Cancel::new()).await;
    outcome.unwrap().snapshot.unwrap().hex()
}

pub fn first_files() -> Files {
    let mut files = Files::new();
    for n in 0..40u64 {
        files.insert(format!("dir{}/file{n}", n % 4), noise(n, (n as usize * 131) % 4000));
    }
    // More chunks than an entry lists: its recipe has pages of its own.
    files.insert("big".into(), noise(1000, 4 << 20));
    files.insert("text".into(), b"the same line again and again\n".repeat(3000));
    files
}

pub fn second_files() -> Files {
    let mut files = first_files();
    files.insert("dir1/file5".into(), b"changed".to_vec());
    files.insert("new".into(), noise(2000, 300_000));
    files.remove("text");
    files
}

/// The repository, made when first asked for.
pub fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let build = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(make())
        };
        // A test's own runtime must not be blocked by another.
        std::thread::spawn(build).join().unwrap()
    })
}

async fn make() -> Sample {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    create_in(&store).await;
    let repo = open_in(&store).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let first = back_up(&repo, folder.path(), &first_files()).await;
    let earlier = memory.snapshot();
    let second = back_up(&repo, folder.path(), &second_files()).await;
    let snapshots = vec![(first, first_files()), (second, second_files())];
    Sample { objects: memory.snapshot(), snapshots, earlier }
}

/// The sample after `change`.
pub fn changed(change: impl FnOnce(&mut Objects)) -> MemoryStore {
    let mut objects = sample().objects.clone();
    change(&mut objects);
    MemoryStore::from_snapshot(objects)
}

/// Opens and verifies.
pub async fn check(memory: &MemoryStore, read_data: bool) -> Result<VerifyOutcome, EngineError> {
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repo = open_in(&store).await?;
    let read_data = read_data.then_some(Subset::All);
    let options = VerifyOptions { read_data, threads: 2, ..VerifyOptions::default() };
    verify(&repo, &options, Arc::new(NoProgress), &Cancel::new()).await
}

pub async fn check_keyless(memory: &MemoryStore) -> VerifyOutcome {
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let progress = Arc::new(NoProgress);
    verify_keyless(store, None, &SystemRandom, progress, &Cancel::new()).await.unwrap()
}

/// Whether the result says that `object` is damaged.
pub fn names(result: &Result<VerifyOutcome, EngineError>, object: &str) -> bool {
    match result {
        Ok(outcome) => outcome.findings.iter().any(|finding| {
            let about = finding.object.contains(object) || finding.what.contains(object);
            finding.state != lifeboat::engine::verify::outcome::State::Incomplete && about
        }),
        Err(EngineError::Repo(error)) => error.is_damage() && error.to_string().contains(object),
        Err(_) => false,
    }
}

/// A whole file, unless any of it cannot be read.
async fn read_file(repo: &Repository, domain: u32, content: &Content) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut recipe = RecipeReader::new(&repo.reader, domain, content);
    while let Some(refs) = recipe.next(&mut |_| true).await.ok()? {
        for reference in refs {
            bytes.extend_from_slice(&repo.reader.chunk(domain, ObjectKind::Data, &reference.id).await.ok()?);
        }
    }
    Some(bytes)
}

/// Every file that can be read, as (snapshot id, absolute path, bytes).
async fn readable(memory: &MemoryStore) -> Vec<(String, String, Vec<u8>)> {
    let mut found = Vec::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let Ok(repo) = open_in(&store).await else { return found };
    if repo.sync(Thoroughness::Tolerant).await.is_err() {
        return found;
    }
    let Ok(list) = repo.snapshots().await else { return found };
    for snapshot in &list.snapshots {
        let Ok(contents) = repo.contents(snapshot).await else { continue };
        let mut cursor = TreeCursor::new(&repo.reader, snapshot.domain, contents.root, b"");
        loop {
            let (key, entry) = match cursor.next().await {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(_) => continue,
            };
            let Kind::File(content) = &entry.kind else { continue };
            if let Some(bytes) = read_file(&repo, snapshot.domain, content).await {
                found.push((snapshot.id.hex(), String::from_utf8(path_of_key(&key)).unwrap(), bytes));
            }
        }
    }
    found
}

/// Reads everything that can be read of every snapshot; panics on a byte that was never backed up. Returns how
/// many files came back whole.
pub async fn read_back(memory: &MemoryStore) -> usize {
    let found = readable(memory).await;
    for (id, path, bytes) in &found {
        let (_, files) = sample().snapshots.iter().find(|(known, _)| known == id).expect("a known snapshot");
        let (_, before) = files.iter().find(|(name, _)| path.ends_with(&format!("/{name}"))).unwrap();
        assert!(before == bytes, "{path} came back with other bytes");
    }
    found.len()
}

/// The files of every snapshot, oldest first, by the path below the folder that was backed up.
pub async fn read_files(memory: &MemoryStore) -> Vec<Files> {
    let mut snapshots: Vec<(String, Files)> = Vec::new();
    for (id, path, bytes) in readable(memory).await {
        if snapshots.last().is_none_or(|(last, _)| *last != id) {
            snapshots.push((id, Files::new()));
        }
        // /tmp/<name>/…
        let below = path.splitn(4, '/').nth(3).unwrap().to_owned();
        snapshots.last_mut().unwrap().1.insert(below, bytes);
    }
    snapshots.into_iter().map(|(_, files)| files).collect()
}

/// The kind of an object by its name.
pub fn kind_of(name: &str) -> ObjectKind {
    let folder = name.split('/').next().unwrap();
    ObjectKind::ALL.into_iter().find(|kind| kind.folder() == folder).unwrap()
}

pub fn is_pack(name: &str) -> bool {
    matches!(kind_of(name), ObjectKind::Data | ObjectKind::Meta)
}

/// All file contents of both snapshots.
pub fn all_files() -> usize {
    sample().snapshots.iter().map(|(_, files)| files.len()).sum()
}
