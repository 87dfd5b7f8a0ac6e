//! A server being captured: its series as they are exported, or the files of a snapshot it made.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::series::Series;
use super::{ALL, Address, KEY, VictoriaError, World, connect, flush, http_error};
use crate::base::http::{Download, Http};
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, Captured, Folder, PART_MODE, Part, SourceError, Step};

/// The series in a snapshot, and the folder of the files.
pub const SERIES: &str = "victoria/series.jsonl";
const FILES: &str = "victoria";
/// How old points are by when a server shows them that cannot be told to.
const VISIBLE_AFTER_SECONDS: i64 = 30;

/// See the module.
pub struct VictoriaCapture {
    address: Address,
    now: Timestamp,
    way: Way,
    warnings: Vec<String>,
    failed: Option<SourceError>,
}

enum Way {
    Export { download: Download, series: Box<Series>, size_bytes: u64, is_begun: bool, at_end: bool },
    Files { snapshot: Snapshot, folders: Vec<Folder>, waiting: VecDeque<Vec<u8>> },
}

/// A snapshot on the server: deleted when this is.
struct Snapshot {
    http: Http,
    name: String,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let (http, name) = (self.http.farewell(), self.name.clone());
        let delete = move || {
            let asked =
                http.ask("delete the snapshot", Method::GET, "/snapshot/delete", &[("snapshot", &name)]);
            if let Err(error) = asked {
                tracing::warn!("snapshot {name} stays on the server: {error}");
            }
        };
        // Whoever drops it may be on the runtime's own thread, which may not wait for its own work.
        std::thread::scope(|scope| scope.spawn(delete).join().ok());
    }
}

fn local(operation: impl Into<String>) -> impl FnOnce(io::Error) -> VictoriaError {
    let operation = operation.into();
    move |cause| VictoriaError::Local { operation, cause }
}

/// `name` of an answer `{"name": …}`.
fn field(answer: &[u8], name: &str) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    answer.get(name)?.as_str().map(str::to_owned)
}

impl VictoriaCapture {
    /// Connects, and begins the export or creates the snapshot.
    ///
    /// # Errors
    /// The server cannot be reached or refuses; its files are not where the address says.
    pub fn start(address: Address, world: &World) -> Result<Self, SourceError> {
        let http = connect(&address, world)?;
        let (mut now, mut warnings) = (world.now, Vec::new());
        // A server that does not know this one is another product, or a part of a cluster.
        http.ask("look what is there", Method::GET, "/api/v1/series/count", &[]).map_err(http_error)?;
        if let Err(error) = flush(&http) {
            if let SourceError::Cancelled(_) = error {
                return Err(error);
            }
            now.seconds -= VISIBLE_AFTER_SECONDS;
            warnings.push(format!(
                "the server does not show at once what it took ({error}): points of the last {VISIBLE_AFTER_SECONDS} s are \
                 left out"
            ));
        }
        let way = match &address.storage {
            Some(storage) => files(&http, storage)?,
            None => export(&http, now)?,
        };
        Ok(Self { address, now, way, warnings, failed: None })
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let Way::Export { download, series, size_bytes, at_end, .. } = &mut self.way else { return Ok(0) };
        let length = download.read_some(buffer).map_err(http_error)?;
        series.push(&buffer[..length]).map_err(|error| VictoriaError::Other(error.to_string()))?;
        *size_bytes += length as u64;
        *at_end |= length == 0 && !buffer.is_empty();
        Ok(length)
    }
}

fn export(http: &Http, until: Timestamp) -> Result<Way, SourceError> {
    let end = until.seconds.to_string();
    let form = [("match[]", ALL), ("start", "0"), ("end", &end), ("reduce_mem_usage", "1")];
    let download = http.stream("export", Method::POST, "/api/v1/export", &form).map_err(http_error)?;
    Ok(Way::Export { download, series: Box::default(), size_bytes: 0, is_begun: false, at_end: false })
}

fn files(http: &Http, storage: &Path) -> Result<Way, SourceError> {
    let answer = http.ask("create a snapshot", Method::GET, "/snapshot/create", &[]).map_err(http_error)?;
    let name = field(&answer, "snapshot").filter(|name| !name.is_empty() && !name.contains('/'));
    let name = name.ok_or_else(|| {
        let said = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
        VictoriaError::Other(format!("the server made no snapshot: {said}"))
    })?;
    let snapshot = Snapshot { http: http.clone(), name };
    let top = storage.join("snapshots").join(&snapshot.name);
    if !top.is_dir() {
        return Err(SourceError::Refused(format!(
            "the server's snapshot is not at {}\nhint: storage= is the folder the server was started with \
             (-storageDataPath), as this machine sees it; without it, series are exported over HTTP",
            top.display()
        )));
    }
    let mut folders = Vec::new();
    collect(&top, FILES.as_bytes().to_vec(), &mut folders)
        .map_err(local(format!("read the snapshot in {}", top.display())))?;
    folders.sort_by(|one, other| one.key.cmp(&other.key));
    let waiting = folders.iter().map(|folder| folder.key.clone()).collect();
    Ok(Way::Files { snapshot, folders, waiting })
}

/// Folders of a snapshot: real ones as they are, and what links lead to in the place of the links.
fn collect(folder: &Path, key: Vec<u8>, found: &mut Vec<Folder>) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path: PathBuf = std::fs::canonicalize(entry.path())?;
        let mut below = key.clone();
        below.push(0);
        below.extend_from_slice(entry.file_name().as_bytes());
        let links_below = || -> io::Result<bool> {
            let mut entries = std::fs::read_dir(&path)?;
            entries.try_fold(false, |any, entry| Ok(any || entry?.file_type()?.is_symlink()))
        };
        match path.is_dir() {
            true if links_below()? => collect(&path, below, found)?,
            true => found.push(Folder { key: below, path }),
            false => {}
        }
    }
    Ok(())
}

impl Capture for VictoriaCapture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        let mtime = self.now;
        let Way::Export { is_begun, .. } = &mut self.way else { return Ok(None) };
        let first = !std::mem::replace(is_begun, true);
        Ok(first.then(|| Part { path: SERIES.into(), mode: PART_MODE, mtime }))
    }

    fn next_step(&mut self) -> Result<Option<Step>, SourceError> {
        if let Way::Files { waiting, .. } = &mut self.way {
            return Ok(waiting.pop_front().map(|key| Step::Folder { key }));
        }
        Ok(self.next_part()?.map(Step::Stream))
    }

    fn folders(&self) -> Vec<Folder> {
        match &self.way {
            Way::Files { folders, .. } => folders.clone(),
            Way::Export { .. } => Vec::new(),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer).map_err(|error| {
            let text = io::Error::other(error.to_string());
            self.failed = Some(error);
            text
        })
    }

    fn finish(mut self: Box<Self>) -> Result<Captured, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let unread = || VictoriaError::Other("the capture was not read to its end".into());
        let fact = match self.way {
            Way::Export { series, size_bytes, at_end, .. } => {
                if !at_end {
                    return Err(unread().into());
                }
                let sum = series.finish().map_err(|error| VictoriaError::Other(error.to_string()))?;
                json!({ "way": "export", "server": self.address.shown(), "size_bytes": size_bytes, "sum": sum })
            }
            Way::Files { snapshot, waiting, .. } => {
                if !waiting.is_empty() {
                    return Err(unread().into());
                }
                let name = snapshot.name.clone();
                json!({ "way": "files", "server": self.address.shown(), "snapshot": name })
            }
        };
        let facts = Map::from_iter([(KEY.to_owned(), fact)]);
        Ok(Captured { consistent: self.now, facts, warnings: self.warnings, ..Captured::default() })
    }
}
