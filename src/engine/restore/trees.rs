//! Folders of a snapshot on their way back into a service: captured volumes, or one folder that somebody selected.
//!
//! A target that shares our file system names a folder, which is restored and read back as any other; one that does
//! not gets a tar stream. Either way it learns that the tree is there only when all of it is.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Sender, bounded};

use super::service::{GivenBack, PIECE_BYTES, PIECES_AHEAD, Piece, PieceReader, blocking, waiting};
use super::{Outcome, RestoreOptions, restore};
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::engine::backup::stream::failed;
use crate::engine::dump::{DumpOptions, dump};
use crate::engine::read::select::{Selected, look_up};
use crate::format::entry::{Entry, XattrValue};
use crate::format::header::ObjectKind;
use crate::repo::tree::{is_within, key_of_path, path_of_key};
use crate::repo::{RepoError, Repository};
use crate::seal::SealError;
use crate::source::files::target::TargetOptions;
use crate::source::target::{Place, Placed, StoredTree, Target};

/// Paths named when several are wrong.
const NAMED: usize = 3;

/// A folder, and where it is in the snapshot.
pub(super) struct Tree {
    pub stored: StoredTree,
    pub selected: Selected,
}

/// The folders that the snapshot says it holds, at and below the selected path; else the selected folder itself.
pub(super) async fn find(repo: &Repository, selected: &Selected) -> Result<Vec<Tree>, EngineError> {
    let mut found = Vec::new();
    for path in repo.contents(&selected.snapshot).await?.paths {
        let key = key_of_path(&path);
        if !is_within(&key, &selected.key) {
            continue;
        }
        let entry = look_up(&repo.reader, selected.snapshot.domain, selected.root, &key).await?.flatten();
        if entry.as_ref().is_some_and(|entry| entry.is_directory()) {
            found.push(tree(Selected { key, entry, ..selected.clone() }));
        }
    }
    let is_folder = selected.entry.as_ref().is_some_and(|entry| entry.is_directory());
    if found.is_empty() && is_folder && !selected.key.is_empty() {
        found.push(tree(selected.clone()));
    }
    Ok(found)
}

fn tree(selected: Selected) -> Tree {
    let path = path_of_key(&selected.key);
    Tree { stored: StoredTree { path: String::from_utf8_lossy(&path).into_owned() }, selected }
}

/// Gives one tree to the target, wherever it wants it.
pub(super) async fn give(
    repo: &Repository,
    tree: &Tree,
    mut target: Box<dyn Target>,
    given: &mut GivenBack,
    progress: &Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<Box<dyn Target>, EngineError> {
    let stored = tree.stored.clone();
    let (mut target, place) = blocking(move || target.place(&stored).map(|place| (target, place))).await?;
    let stored = tree.stored.clone();
    match place {
        Place::Nowhere => Ok(target),
        Place::Folder(folder) => {
            let placed = into_folder(repo, tree, folder, progress, cancel).await?;
            given.parts += 1;
            given.bytes += placed.bytes;
            blocking(move || target.placed(&stored, placed).map(|()| target)).await
        }
        Place::Tar => {
            let (target, bytes) = as_tar(repo, tree, target, progress, cancel).await?;
            given.parts += 1;
            given.bytes += bytes;
            Ok(target)
        }
    }
}

async fn into_folder(
    repo: &Repository,
    tree: &Tree,
    folder: PathBuf,
    progress: &Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<Placed, EngineError> {
    let mut files = TargetOptions::default();
    // Numbers mean the same in every container, names do not.
    files.owners.numeric = true;
    let options = RestoreOptions { target: folder, verify: true, files, ..RestoreOptions::default() };
    let outcome = restore(repo, &tree.selected, &options, None, progress.clone(), cancel).await?;
    whole(&outcome, &tree.stored.path)?;
    if let Some(entry) = &tree.selected.entry {
        let subject = options.target.display().to_string();
        let local =
            |cause| EngineError::Local { operation: "set the owner and mode of", path: subject, cause };
        let attributes = attributes(repo, tree, entry).await?;
        dress(&options.target, entry, &attributes).map_err(local)?;
    }
    let Outcome { files, directories, others, bytes, .. } = outcome;
    Ok(Placed { files, directories, others, bytes })
}

type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

async fn attributes(repo: &Repository, tree: &Tree, entry: &Entry) -> Result<Attributes, EngineError> {
    let mut found = Vec::new();
    for (name, value) in &entry.xattrs {
        let value = match value {
            XattrValue::Inline(bytes) => bytes.clone(),
            XattrValue::Chunk(reference) => {
                let domain = tree.selected.snapshot.domain;
                repo.reader.chunk(domain, ObjectKind::Data, &reference.id).await?.to_vec()
            }
        };
        found.push((name.clone(), value));
    }
    Ok(found)
}

/// Gives the folder itself what it had: a restore leaves its target's own attributes alone, and servers refuse to
/// start in a folder of another owner or mode.
fn dress(folder: &Path, entry: &Entry, attributes: &Attributes) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, setxattr, utimensat};
    std::os::unix::fs::chown(folder, Some(entry.uid), Some(entry.gid))?;
    for (name, value) in attributes {
        setxattr(folder, name.as_slice(), value, XattrFlags::empty())?;
    }
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(entry.mode);
    std::fs::set_permissions(folder, permissions)?;
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, folder, &times, AtFlags::empty())?)
}

/// A service wants all of it or nothing.
fn whole(outcome: &Outcome, path: &str) -> Result<(), EngineError> {
    let wrong = |problems: &super::outcome::Problems| {
        let named = problems.named.iter().take(NAMED).map(|problem| {
            let key = String::from_utf8_lossy(&path_of_key(&problem.key)).into_owned();
            format!("{path}{}: {}", key.trim_end_matches('/'), problem.message)
        });
        let mut text = named.collect::<Vec<_>>().join("; ");
        if problems.count > NAMED as u64 {
            text = format!("{text}; and {} more", problems.count - NAMED as u64);
        }
        text
    };
    if outcome.damaged.count > 0 {
        let object = wrong(&outcome.damaged);
        return Err(RepoError::Damaged { object, cause: SealError::Damaged }.into());
    }
    for problems in [&outcome.failed, &outcome.attributes] {
        if problems.count > 0 {
            return Err(EngineError::Source(wrong(problems)));
        }
    }
    if outcome.owners_not_set > 0 {
        return Err(EngineError::Source(format!("{path}: only root may set the owners of files")));
    }
    Ok(())
}

async fn as_tar(
    repo: &Repository,
    tree: &Tree,
    mut target: Box<dyn Target>,
    progress: &Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<(Box<dyn Target>, u64), EngineError> {
    let (pieces, receiver) = bounded::<Piece>(PIECES_AHEAD);
    let stored = tree.stored.clone();
    let putting = tokio::task::spawn_blocking(move || {
        let mut reader = PieceReader::new(receiver);
        let put = target.put_tree(&stored, &mut reader);
        (target, put)
    });
    let mut writer = PieceWriter { pieces: pieces.clone() };
    let options = DumpOptions::default();
    let dumped = dump(repo, &tree.selected, &options, &mut writer, progress.clone(), cancel).await;
    let last = match &dumped {
        Ok(_) => Ok(Bytes::new()),
        Err(error) => Err(error.to_string()),
    };
    // Nobody may be listening any more.
    let _ = waiting(|| pieces.send(last));
    drop((pieces, writer));
    let (target, put) =
        putting.await.map_err(|_| EngineError::Source("the target panicked: this is a bug".into()))?;
    match (put, dumped) {
        // The reader of a target that gave up closes: then the target's own reason counts.
        (Err(error), Err(EngineError::Local { .. })) => Err(failed(error)),
        (_, Err(error)) => Err(error),
        (Err(error), Ok(_)) => Err(failed(error)),
        (Ok(()), Ok(dumped)) => Ok((target, dumped.bytes)),
    }
}

/// The far end reads what is written here.
struct PieceWriter {
    pieces: Sender<Piece>,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE_BYTES);
        if length == 0 {
            return Ok(0);
        }
        let piece = Ok(Bytes::copy_from_slice(&bytes[..length]));
        waiting(|| self.pieces.send(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
