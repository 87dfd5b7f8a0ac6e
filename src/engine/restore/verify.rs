//! Reads what was restored back from the target and compares it with the snapshot: type, length, link target, and
//! the hash over each file's whole stream.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::entries::target_key;
use super::{RestoreOptions, Shared};
use crate::base::causes::causes;
use crate::engine::EngineError;
use crate::engine::read::fetch::Fetcher;
use crate::engine::read::filter::{PathFilter, Verdict, slashed};
use crate::engine::read::select::Selected;
use crate::engine::read::walk::TreeWalk;
use crate::format::entry::{Content, Entry, Kind, Refs};
use crate::repo::Repository;
use crate::repo::tree::is_within;
use crate::source::files::place::open_beneath;
use crate::source::files::target::Target;

/// Files handed to a thread together.
const BATCH: usize = 32;
const READ_BYTES: usize = 256 << 10;

/// Compares everything that is wanted and was not named as lost already.
pub(super) async fn verify(
    repo: &Repository,
    selected: &Selected,
    options: &RestoreOptions,
    filter: &PathFilter,
    shared: &Arc<Shared>,
) -> Result<(), EngineError> {
    shared.progress.phase("verifying");
    let local =
        |cause| EngineError::Local { operation: "open", path: options.target.display().to_string(), cause };
    // What is compared should come from the disk: written first, and not only into memory.
    shared.target.sync().map_err(super::target_error)?;
    let root = Arc::new(std::fs::File::open(&options.target).map_err(local)?);
    let threads: Fetcher<()> =
        Fetcher::start(repo.reader.clone(), &options.fetch, Arc::new(|_, (), _| ())).map_err(local)?;
    let mut walk = TreeWalk::new(&repo.reader, shared.domain, selected.root, &selected.key);
    let mut folders: Vec<(Vec<u8>, bool)> = Vec::new();
    let mut batch = Vec::new();
    let result = loop {
        if let Err(error) = shared.check() {
            break Err(error);
        }
        let (key, entry) = match walk.next().await {
            Ok(Some(found)) => found,
            Ok(None) => break Ok(()),
            // Named by the restore already.
            Err(error) if error.is_damage() => continue,
            Err(error) => break Err(error.into()),
        };
        let below = target_key(&key, selected).to_vec();
        while folders.pop_if(|(folder, _)| !is_within(&below, folder)).is_some() {}
        let parent_wanted = folders.last().is_some_and(|(_, wanted)| *wanted);
        let verdict = filter.judge(&key, entry.is_directory(), parent_wanted);
        if verdict == Verdict::Unwanted || Target::check_key(&below).is_err() {
            walk.skip_below(&key);
            continue;
        }
        if entry.is_directory() {
            folders.push((below.clone(), verdict == Verdict::Wanted));
        }
        if verdict == Verdict::Wanted && !shared.outcome.is_lost(&below) {
            batch.push((below, entry));
            if batch.len() == BATCH {
                send(&threads, shared, &root, std::mem::take(&mut batch)).await;
            }
        }
    };
    send(&threads, shared, &root, batch).await;
    let whole = threads.finish().await;
    result?;
    shared.check()?;
    if whole { Ok(()) } else { Err(EngineError::Source("a verifying thread failed unexpectedly".into())) }
}

async fn send(
    threads: &Fetcher<()>,
    shared: &Arc<Shared>,
    root: &Arc<std::fs::File>,
    batch: Vec<(Vec<u8>, Entry)>,
) {
    let (shared, root) = (shared.clone(), root.clone());
    threads
        .run(move || {
            for (key, entry) in &batch {
                if shared.stopped() {
                    return;
                }
                match check(&shared, &root, key, entry) {
                    Ok(None) => {
                        let bytes = entry.content().map_or(0, |content| content.size_bytes);
                        shared
                            .outcome
                            .add(|outcome| outcome.verified += u64::from(entry.content().is_some()));
                        shared.progress.add_done(bytes, 1);
                    }
                    Ok(Some(difference)) => shared.outcome.failed(key, format!("verify: {difference}")),
                    Err(error) => shared.outcome.failed(key, format!("verify: {}", causes(&error))),
                }
            }
        })
        .await;
}

/// What differs, if anything.
fn check(
    shared: &Shared,
    root: &std::fs::File,
    key: &[u8],
    entry: &Entry,
) -> std::io::Result<Option<&'static str>> {
    let existing = shared.target.existing(key).map_err(std::io::Error::other)?;
    let Some(stat) = existing else { return Ok(Some("it is missing")) };
    match &entry.kind {
        Kind::Directory => Ok((!stat.is_directory()).then_some("it is no folder")),
        Kind::Symlink(to) => {
            let now = shared.target.read_link(key).map_err(std::io::Error::other)?;
            Ok((now != *to).then_some("it leads elsewhere"))
        }
        Kind::File(content) | Kind::Stream(content) => {
            if !stat.is_file() {
                return Ok(Some("it is no regular file"));
            }
            if stat.size_bytes != content.size_bytes {
                return Ok(Some("its length is wrong"));
            }
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let fd = open_beneath(root.as_fd(), &slashed(key), flags, Mode::empty())?;
            let right = is_content(shared, &mut std::fs::File::from(fd), content)?;
            Ok((!right).then_some("its content is wrong"))
        }
        _ => Ok((stat.is_directory() || stat.is_file()).then_some("it is of another type")),
    }
}

/// Reads the whole file: zeros in the holes, and a stream with the hash that was stored.
fn is_content(shared: &Shared, file: &mut std::fs::File, content: &Content) -> std::io::Result<bool> {
    let Ok(domain) = shared.repo_reader.access().domain(shared.domain) else { return Ok(false) };
    let single = match (&content.hash, &content.refs) {
        (None, Refs::Inline(refs)) if refs.len() <= 1 => refs.first(),
        (Some(_), _) => None,
        // Without a hash of the whole there is nothing to compare with but each chunk, which restore did.
        (None, _) => return Ok(true),
    };
    let key = if content.hash.is_some() { domain.content_key() } else { domain.data_id_key() };
    let Ok(key) = key else { return Ok(false) };
    let mut hasher = blake3::Hasher::new_keyed(key);
    let mut buffer = vec![0; READ_BYTES.min(content.size_bytes as usize + 1)];
    let mut at = 0u64;
    let mut hole = 0;
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            while content.holes.get(hole).is_some_and(|(start, length)| start + length <= at) {
                hole += 1;
            }
            let (in_hole, end) = match content.holes.get(hole) {
                Some((start, length)) if *start <= at => (true, start + length),
                Some((start, _)) => (false, *start),
                None => (false, u64::MAX),
            };
            let (piece, after) = rest.split_at((end - at).min(rest.len() as u64) as usize);
            if !in_hole {
                hasher.update(piece);
            } else if piece.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += piece.len() as u64;
            rest = after;
        }
    }
    let found = hasher.finalize();
    Ok(at == content.size_bytes
        && match (content.hash, single) {
            (Some(hash), _) => found == hash,
            (None, Some(reference)) => found.as_bytes()[..16] == reference.id.0,
            (None, None) => content.data_bytes() == 0,
        })
}
