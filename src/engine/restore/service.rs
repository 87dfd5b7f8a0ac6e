//! Giving a captured service back: the parts of a snapshot to a [`Target`], in the order it wants them.
//!
//! Chunks are verified before a target sees them; one that cannot be had breaks the part's stream, so a target
//! never takes half a part for a whole one.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::trees;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::engine::backup::stream::failed;
use crate::engine::read::fetch::FetchOptions;
use crate::engine::read::select::{Selected, look_up};
use crate::engine::read::stream::ContentStream;
use crate::engine::read::walk::TreeWalk;
use crate::format::entry::{Content, Entry, Kind};
use crate::repo::Repository;
use crate::repo::tree::{is_within, key_of_path, path_of_key};
use crate::source::capture::SourceError;
use crate::source::target::{Met, Returned, StoredPart, Target};

/// Pieces of at most [`PIECE_BYTES`] bytes that wait for the target.
pub(super) const PIECES_AHEAD: usize = 16;
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// What was given back.
#[derive(Clone, Debug, Default)]
pub struct GivenBack {
    pub parts: u64,
    pub bytes: u64,
    pub returned: Returned,
}

pub(super) type Piece = Result<Bytes, String>;
type Facts = serde_json::Map<String, serde_json::Value>;

/// Gives the selected snapshot, or the parts below the selected path, to `target`.
///
/// # Errors
/// The snapshot holds no stream, the target refuses, storage fails or is damaged, the service's own errors.
pub async fn to_service(
    repo: &Repository,
    selected: &Selected,
    target: Box<dyn Target>,
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<GivenBack, EngineError> {
    progress.phase("looking");
    let trees = trees::find(repo, selected).await?;
    let facts: Facts = serde_json::from_str(&selected.snapshot.summary.facts).unwrap_or_default();
    let (parts, contents) = parts(repo, selected, &trees, &target.companions(&facts)).await?;
    if parts.is_empty() && trees.is_empty() {
        let why = "the snapshot holds nothing that goes back to a service: restore it with --target DIR";
        return Err(EngineError::Refused(why.into()));
    }
    let (target, order) = {
        let (parts, mut target) = (parts.clone(), target);
        let trees: Vec<_> = trees.iter().map(|tree| tree.stored.clone()).collect();
        blocking(move || {
            target.trees(&trees);
            target.prepare(&parts, &facts).map(|order| (target, order))
        })
        .await?
    };
    let mut given = GivenBack::default();
    for &place in &order {
        let content = contents.get(place).map_or(0, |content| content.size_bytes);
        progress.add_total(content, 1);
    }
    progress.phase("restoring");
    let mut stream =
        ContentStream::start(repo.reader.clone(), selected.snapshot.domain, &FetchOptions::default())?;
    let mut held = Some(target);
    let result = async {
        for place in order {
            cancel.check()?;
            let (Some(part), Some(content)) = (parts.get(place), contents.get(place)) else {
                return Err(EngineError::Source("the target wants a part that is not there".into()));
            };
            give(&mut stream, part, content, &mut held, progress.as_ref(), cancel).await?;
            given.parts += 1;
            given.bytes += content.size_bytes;
        }
        Ok(())
    }
    .await;
    stream.finish().await;
    if let Err(error) = result {
        // It may have to wait for its service while it undoes what it did.
        let _ = tokio::task::spawn_blocking(move || drop(held)).await;
        return Err(error);
    }
    let mut target = held.ok_or_else(|| EngineError::Source("the target was lost".into()))?;
    for tree in &trees {
        target = trees::give(repo, tree, target, &mut given, &progress, cancel).await?;
    }
    progress.phase("proving");
    given.returned = blocking(move || target.finish()).await?;
    Ok(given)
}

/// What a restore into a service would bring.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    pub parts: u64,
    pub bytes: u64,
    /// What is there; `None`: the target does not tell.
    pub met: Option<Met>,
}

/// Lets a target look at what it would be given, as [`to_service`] does before it fetches anything; then the target is
/// dropped, and with it whatever it made to look.
///
/// # Errors
/// What would stop the restore before it begins.
pub async fn look(
    repo: &Repository,
    selected: &Selected,
    mut target: Box<dyn Target>,
) -> Result<Looked, EngineError> {
    let trees = trees::find(repo, selected).await?;
    let facts: Facts = serde_json::from_str(&selected.snapshot.summary.facts).unwrap_or_default();
    let (parts, _) = parts(repo, selected, &trees, &target.companions(&facts)).await?;
    let stored: Vec<_> = trees.iter().map(|tree| tree.stored.clone()).collect();
    let whole_bytes = selected.snapshot.summary.statistics.total_bytes;
    blocking(move || {
        target.only_looks();
        target.trees(&stored);
        let order = target.prepare(&parts, &facts)?;
        let bytes = order.iter().filter_map(|place| parts.get(*place)).map(|part| part.size_bytes).sum();
        let bytes = if stored.is_empty() { bytes } else { whole_bytes };
        Ok(Looked { parts: (order.len() + stored.len()) as u64, bytes, met: target.met() })
    })
    .await
}

/// The streams at and below the selected path, and those that come along with any.
async fn parts(
    repo: &Repository,
    selected: &Selected,
    trees: &[trees::Tree],
    companions: &[String],
) -> Result<(Vec<StoredPart>, Vec<Content>), EngineError> {
    let (mut parts, mut contents) = (Vec::new(), Vec::new());
    let mut add = |key: &[u8], entry: Entry| {
        if let Kind::Stream(content) = entry.kind {
            let path = String::from_utf8_lossy(&path_of_key(key)).into_owned();
            parts.push(StoredPart { path, size_bytes: content.size_bytes });
            contents.push(content);
        }
    };
    let domain = selected.snapshot.domain;
    let mut walk = TreeWalk::new(&repo.reader, domain, selected.root, &selected.key);
    while let Some((key, entry)) = walk.next().await? {
        if entry.is_directory() && trees.iter().any(|tree| tree.selected.key == key) {
            walk.skip_below(&key);
        }
        add(&key, entry);
    }
    for path in companions {
        let key = key_of_path(path.as_bytes());
        if !is_within(&key, &selected.key)
            && let Some(entry) = look_up(&repo.reader, domain, selected.root, &key).await?.flatten()
        {
            add(&key, entry);
        }
    }
    Ok((parts, contents))
}

/// Runs what may wait on a thread where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| EngineError::Source("the target panicked: this is a bug".into()))?.map_err(failed)
}

async fn give(
    stream: &mut ContentStream,
    part: &StoredPart,
    content: &Content,
    held: &mut Option<Box<dyn Target>>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    let mut target = held.take().ok_or_else(|| EngineError::Source("the target was lost".into()))?;
    let (pieces, receiver) = bounded::<Piece>(PIECES_AHEAD);
    let name = part.clone();
    let putting = tokio::task::spawn_blocking(move || {
        let mut reader = PieceReader::new(receiver);
        let put = target.put(&name, &mut reader);
        (target, put)
    });
    let copied = copy(stream, content, &pieces, progress, cancel).await;
    let last = match &copied {
        Ok(()) => Ok(Bytes::new()),
        Err(error) => Err(error.to_string()),
    };
    // Nobody may be listening any more.
    let _ = waiting(|| pieces.send(last));
    drop(pieces);
    let (target, put) =
        putting.await.map_err(|_| EngineError::Source("the target panicked: this is a bug".into()))?;
    *held = Some(target);
    match (put, copied) {
        // The reader of a target that gave up closes: then the target's own reason counts.
        (Err(error), Err(EngineError::Local { .. })) => Err(failed(error)),
        (_, Err(error)) => Err(error),
        (Err(error), Ok(())) => Err(failed(error)),
        (Ok(()), Ok(())) => {
            progress.add_done(0, 1);
            Ok(())
        }
    }
}

async fn copy(
    stream: &mut ContentStream,
    content: &Content,
    pieces: &Sender<Piece>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    let mut sink = |bytes: &[u8]| {
        cancel.check()?;
        progress.add_done(bytes.len() as u64, 0);
        for piece in bytes.chunks(PIECE_BYTES) {
            let piece = Ok(Bytes::copy_from_slice(piece));
            waiting(|| pieces.send(piece)).map_err(|_| {
                let cause = io::Error::from(io::ErrorKind::BrokenPipe);
                EngineError::Local { operation: "write to", path: "the target".into(), cause }
            })?;
        }
        Ok(())
    };
    stream.copy(content, &mut sink).await
}

/// Waits in the midst of asynchronous work; other work of a runtime with several threads goes on elsewhere.
pub fn waiting<T>(wait: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

/// A part's bytes as a blocking reader. It ends well only after the sender said that everything was sent.
pub(super) struct PieceReader {
    pieces: Receiver<Piece>,
    rest: Bytes,
    ended: bool,
}

impl PieceReader {
    pub(super) fn new(pieces: Receiver<Piece>) -> Self {
        Self { pieces, rest: Bytes::new(), ended: false }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.pieces.recv() {
                Ok(Ok(piece)) if piece.is_empty() => self.ended = true,
                Ok(Ok(piece)) => self.rest = piece,
                Ok(Err(message)) => return Err(io::Error::other(message)),
                Err(_) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}
