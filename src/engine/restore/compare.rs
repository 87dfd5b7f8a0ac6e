//! Delta: which chunks of existing files are right already. The target's own bytes are hashed at the chunks'
//! boundaries; what has its chunk's id need not be fetched.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Shared;
use super::file::{FileTask, Output};
use super::window::{Want, Window};
use crate::source::files::target::{TargetError, TargetFile};

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Takes from the window what existing files hold already. Runs on all cores.
pub(super) async fn drop_present(shared: &Arc<Shared>, window: &mut Window, threads: usize) {
    if !window.files.iter().any(|task| task.compares()) {
        return;
    }
    let wants = std::mem::take(&mut window.wants);
    let (mut groups, mut rest): (Vec<Vec<Want>>, Vec<Want>) = (Vec::new(), Vec::new());
    for group in wants.chunk_by(|a, b| a.file == b.file) {
        if window.files[group[0].file as usize].compares() {
            groups.push(group.to_vec());
        } else {
            rest.extend_from_slice(group);
        }
    }
    let files: Arc<[Arc<FileTask>]> = window.files.clone().into();
    let groups = Arc::new(groups);
    let next = Arc::new(AtomicUsize::new(0));
    let left = Arc::new(Mutex::new(rest));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (shared, files, groups) = (shared.clone(), files.clone(), groups.clone());
            let (next, left) = (next.clone(), left.clone());
            tokio::task::spawn_blocking(move || {
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let task = &files[group[0].file as usize];
                    let missing = compare(&shared, task, group);
                    left.lock().unwrap_or_else(PoisonError::into_inner).extend(missing);
                }
            })
        })
        .collect();
    for worker in workers {
        let _ = worker.await;
    }
    let mut left = std::mem::take(&mut *left.lock().unwrap_or_else(PoisonError::into_inner));
    left.sort_by_key(|want| (want.file, want.offset));
    window.wants = left;
}

/// The wants of one file that its present content does not answer.
fn compare(shared: &Shared, task: &FileTask, wants: &[Want]) -> Vec<Want> {
    match try_compare(shared, task, wants) {
        Ok(missing) => missing,
        Err(error) => {
            task.fail(shared, error);
            Vec::new()
        }
    }
}

fn try_compare(shared: &Shared, task: &FileTask, wants: &[Want]) -> Result<Vec<Want>, TargetError> {
    let mut present = Vec::with_capacity(wants.len());
    let in_place;
    {
        let output = task.output.read().unwrap_or_else(PoisonError::into_inner);
        let Some(old) = output.before() else { return Ok(wants.to_vec()) };
        in_place = matches!(&*output, Output::Writing(_));
        let mut buffer = Vec::new();
        for want in wants {
            if shared.stopped() {
                return Ok(Vec::new());
            }
            buffer.resize(want.length as usize, 0);
            present
                .push(read_stream(task, old, want.offset, &mut buffer)? && is_chunk(shared, want, &buffer));
        }
    }
    let of = |is: bool| wants.iter().zip(&present).filter(move |(_, p)| **p == is).map(|(want, _)| want);
    let missing: Vec<Want> = of(false).cloned().collect();
    shared.progress.add_done(of(true).map(|want| u64::from(want.length)).sum(), 0);
    if in_place {
        return Ok(missing);
    }
    // At the first difference a new file is begun, and gets what was found right before.
    let begun = !missing.is_empty() && task.rebuild(shared)?;
    let output = task.output.read().unwrap_or_else(PoisonError::into_inner);
    if let Output::Rebuilding { old, new } = &*output {
        if begun {
            copy(task, old, new, 0, wants.first().map_or(0, |want| want.offset))?;
        }
        for want in of(true) {
            copy(task, old, new, want.offset, u64::from(want.length))?;
        }
    }
    Ok(missing)
}

/// Fills the buffer with the stream's bytes; false when the file ends before.
fn read_stream(
    task: &FileTask,
    file: &TargetFile,
    offset: u64,
    buffer: &mut [u8],
) -> Result<bool, TargetError> {
    let Some(holes) = &task.holes else { return Ok(file.read_at(offset, buffer)? == buffer.len()) };
    let mut whole = true;
    holes.pieces(offset, buffer.len() as u64, |at, from, length| {
        let piece = &mut buffer[from as usize..(from + length) as usize];
        whole &= file.read_at(at, piece)? == piece.len();
        Ok::<(), TargetError>(())
    })?;
    Ok(whole)
}

fn copy(
    task: &FileTask,
    old: &TargetFile,
    new: &TargetFile,
    offset: u64,
    length: u64,
) -> Result<(), TargetError> {
    let mut buffer = vec![0; (length as usize).min(COPY_BYTES)];
    let mut done = 0;
    while done < length {
        let step = ((length - done) as usize).min(buffer.len());
        read_stream(task, old, offset + done, &mut buffer[..step])?;
        task.put(new, offset + done, &buffer[..step])?;
        done += step as u64;
    }
    Ok(())
}

fn is_chunk(shared: &Shared, want: &Want, bytes: &[u8]) -> bool {
    let domain = shared.repo_reader.access().domain(shared.domain);
    domain.and_then(|domain| domain.data_id(bytes)).is_ok_and(|id| id.short() == want.id)
}
