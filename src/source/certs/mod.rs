//! Certificates: a folder of files like any other, and what each certificate in it says.
//!
//! The files are captured and put back as files are, owners and modes included. [`read`] knows which keys belong to
//! which certificates; what is wrong with one is said at the capture and again when it comes back.

pub mod read;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::base::replace::{is_empty, parent, replace};
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, Captured, Folder, Part, SourceError, Step};
use crate::source::files::key_of_path;
use crate::source::target::{Place, Placed, Returned, StoredPart, StoredTree, Target};
use read::Certificate;

const DAY_SECONDS: i64 = 24 * 60 * 60;
/// Certificates that end sooner are named.
const SOON_DAYS: i64 = 14;
/// Most certificates that the facts list.
const LISTED: usize = 5000;

/// A folder of certificates that cannot be captured or given back.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("cannot {operation} {}: {cause}", path.display())]
    File { operation: &'static str, path: PathBuf, cause: io::Error },
    #[error("{0}")]
    Failed(String),
}

impl From<CertsError> for SourceError {
    fn from(error: CertsError) -> Self {
        Self::Service(Box::new(error))
    }
}

fn file(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> CertsError {
    move |cause| CertsError::File { operation, path: path.to_owned(), cause }
}

/// What is wrong with certificates, a line each. `now`: seconds since 1970.
pub fn complaints(certificates: &[Certificate], now: i64) -> Vec<String> {
    let mut said = Vec::new();
    for certificate in certificates {
        let Certificate { file, subject, not_before, not_after, key, .. } = certificate;
        let left = not_after - now;
        if now < *not_before {
            said.push(format!("{file} ({subject}) is not valid before {}", day(*not_before)));
        } else if left < 0 {
            said.push(format!("{file} ({subject}) expired on {}", day(*not_after)));
        } else if left < SOON_DAYS * DAY_SECONDS {
            said.push(format!("{file} ({subject}) ends in {} d, on {}", left / DAY_SECONDS, day(*not_after)));
        }
        let Some(key) = key else { continue };
        if key.fits == Some(false) {
            said.push(format!("{} is not the key of {file} ({subject})", key.file));
        }
        if key.mode & 0o007 != 0 {
            said.push(format!("{} can be read by everybody (mode {:04o})", key.file, key.mode));
        }
    }
    // A link and its file say the same.
    said.dedup();
    said
}

fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "an unknown day".into(), |time| time.strftime("%F").to_string())
}

fn look(folder: &Path) -> Result<Vec<Certificate>, CertsError> {
    Ok(read::certificates(&read::find(folder).map_err(CertsError::Failed)?))
}

/// A folder being captured.
pub struct CertsCapture {
    folder: Folder,
    was_given: bool,
    now: Timestamp,
    certificates: Vec<Certificate>,
}

impl CertsCapture {
    /// Reads the certificates in a folder. `now`: the instant before.
    ///
    /// # Errors
    /// There is none, or the folder cannot be read.
    pub fn start(path: &Path, now: Timestamp) -> Result<Self, SourceError> {
        let certificates = look(path)?;
        if certificates.is_empty() {
            let why = format!("{} holds no certificate of a server or client", path.display());
            return Err(CertsError::Failed(why).into());
        }
        let key = key_of_path(path, Path::new("/"));
        Ok(Self { folder: Folder { key, path: path.to_owned() }, was_given: false, now, certificates })
    }
}

impl Capture for CertsCapture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        Err(CertsError::Failed("a folder is captured by steps: this is a bug".into()).into())
    }

    fn next_step(&mut self) -> Result<Option<Step>, SourceError> {
        let first = !std::mem::replace(&mut self.was_given, true);
        Ok(first.then(|| Step::Folder { key: self.folder.key.clone() }))
    }

    fn folders(&self) -> Vec<Folder> {
        vec![self.folder.clone()]
    }

    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn finish(self: Box<Self>) -> Result<Captured, SourceError> {
        let warnings = complaints(&self.certificates, self.now.seconds);
        let listed = &self.certificates[..self.certificates.len().min(LISTED)];
        let fact = json!({ "certificates": listed, "count": self.certificates.len() });
        let facts = Map::from_iter([("certs".to_owned(), fact)]);
        Ok(Captured { consistent: self.now, facts, warnings, problems: Vec::new() })
    }
}

/// A folder on its way back: filled beside its place, its certificates read again, and then put there.
pub struct CertsTarget {
    path: PathBuf,
    force: bool,
    stamp: String,
    now: Timestamp,
    trees: Vec<StoredTree>,
    wanted: Option<StoredTree>,
    expected: Vec<Certificate>,
    fresh: Option<tempfile::TempDir>,
    returned: Returned,
}

impl CertsTarget {
    /// `force`: a folder that is not empty may be replaced; it is kept under a name that ends in `stamp`.
    pub fn new(path: PathBuf, force: bool, stamp: String, now: Timestamp) -> Self {
        Self {
            path,
            force,
            stamp,
            now,
            trees: Vec::new(),
            wanted: None,
            expected: Vec::new(),
            fresh: None,
            returned: Returned::default(),
        }
    }
}

impl Target for CertsTarget {
    fn trees(&mut self, trees: &[StoredTree]) {
        self.trees = trees.to_vec();
    }

    fn prepare(&mut self, _: &[StoredPart], facts: &Map<String, Value>) -> Result<Vec<usize>, SourceError> {
        let refused = |why: String| Err(SourceError::Refused(why));
        let known = facts.get("certs").map(|fact| fact["certificates"].clone());
        let Some(known) = known.and_then(|known| serde_json::from_value(known).ok()) else {
            return refused("the snapshot is not of certificates".into());
        };
        self.expected = known;
        let [tree] = self.trees.as_slice() else {
            return refused("the snapshot holds no folder of certificates at that path".into());
        };
        self.wanted = Some(tree.clone());
        let is_free = is_empty(&self.path).map_err(file("look into", &self.path))?;
        if !is_free && !self.force {
            return refused(format!(
                "{} is not empty\nhint: --force puts the restored folder there, once it is proven, and keeps the old one \
                 beside it",
                self.path.display()
            ));
        }
        Ok(Vec::new())
    }

    fn place(&mut self, tree: &StoredTree) -> Result<Place, SourceError> {
        if self.wanted.as_ref() != Some(tree) {
            return Ok(Place::Nowhere);
        }
        let folder = parent(&self.path);
        std::fs::create_dir_all(folder).map_err(file("make", folder))?;
        let fresh = tempfile::Builder::new().prefix(".lifeboat-").tempdir_in(folder);
        let fresh = fresh.map_err(file("make a folder in", folder))?;
        let place = Place::Folder(fresh.path().to_owned());
        self.fresh = Some(fresh);
        Ok(place)
    }

    fn put(&mut self, _: &StoredPart, _: &mut dyn Read) -> Result<(), SourceError> {
        Ok(())
    }

    fn placed(&mut self, _: &StoredTree, placed: Placed) -> Result<(), SourceError> {
        let Some(fresh) = self.fresh.take() else { return Ok(()) };
        let found = look(fresh.path())?;
        for certificate in &self.expected {
            if !found.contains(certificate) {
                let Certificate { file, subject, .. } = certificate;
                return Err(SourceError::Differs(format!("{file} ({subject}) is another, or its key is")));
            }
        }
        let fitting =
            found.iter().filter(|one| one.key.as_ref().is_some_and(|key| key.fits == Some(true))).count();
        self.returned.warnings = complaints(&found, self.now.seconds);
        // From here on it may be the old one that has this name.
        let fresh = fresh.keep();
        let kept = replace(&fresh, &self.path, &self.stamp).map_err(file("replace", &self.path))?;
        let Placed { files, directories, .. } = placed;
        self.returned
            .proven
            .push(format!("{files} files and {directories} folders, read back as they were captured"));
        let line = format!(
            "{} certificates are those of the snapshot, {fitting} with the key that fits",
            found.len()
        );
        self.returned.proven.push(line);
        if let Some(kept) = kept {
            self.returned.proven.push(format!("what was there is kept as {}", kept.display()));
        }
        self.returned
            .facts
            .insert("certs".into(), json!({ "certificates": found.len(), "fitting_keys": fitting }));
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        if self.returned.proven.is_empty() {
            return Err(CertsError::Failed("no folder came".into()).into());
        }
        Ok(std::mem::take(&mut self.returned))
    }
}
