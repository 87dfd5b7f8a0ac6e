//! One regular file on its way: shared by the planner and every worker that has bytes for it.
//!
//! It counts what is still missing. Whoever brings the last piece finishes it, on its own thread.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use super::{Shared, target_error};
use crate::base::causes::causes;
use crate::engine::EngineError;
use crate::format::entry::{Content, Entry};
use crate::pack::PackError;
use crate::source::files::target::{TargetError, TargetFile};
use crate::source::files::{FileError, FileErrorKind};

/// Where the bytes of a stream lie in a file with holes.
#[derive(Debug)]
pub(super) struct HoleMap {
    /// (offset in the stream, offset in the file) where each stretch of data begins, ascending.
    stretches: Vec<(u64, u64)>,
}

impl HoleMap {
    pub(super) fn new(content: &Content) -> Option<Self> {
        if content.holes.is_empty() {
            return None;
        }
        let (mut stream, mut file) = (0, 0);
        let mut stretches = Vec::with_capacity(content.holes.len() + 1);
        for (offset, length) in &content.holes {
            if *offset > file {
                stretches.push((stream, file));
                stream += offset - file;
            }
            file = offset + length;
        }
        stretches.push((stream, file));
        Some(Self { stretches })
    }

    /// Calls `visit` with (offset in the file, offset in the range, length) for each piece of a stream's range.
    pub(super) fn pieces<E>(
        &self,
        stream: u64,
        length: u64,
        mut visit: impl FnMut(u64, u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = self.stretches.partition_point(|(start, _)| *start <= stream).saturating_sub(1);
        let mut done = 0;
        while done < length {
            let (start, file) = self.stretches[at];
            let end = self.stretches.get(at + 1).map_or(u64::MAX, |(start, _)| *start);
            let position = stream + done;
            let step = (length - done).min(end - position);
            visit(file + (position - start), done, step)?;
            done += step;
            at += 1;
        }
        Ok(())
    }
}

/// What the file is written to.
#[derive(Debug)]
pub(super) enum Output {
    /// Nothing yet: made at the first byte.
    None,
    /// The file that was there; so far nothing differs from it.
    Same(TargetFile),
    /// What was there differs: a new file is built beside, from it and from the repository.
    Rebuilding {
        old: TargetFile,
        new: TargetFile,
    },
    Writing(TargetFile),
}

impl Output {
    /// What bytes go to.
    pub(super) fn sink(&self) -> Option<&TargetFile> {
        match self {
            Self::Rebuilding { new, .. } => Some(new),
            Self::Writing(file) => Some(file),
            Self::None | Self::Same(_) => None,
        }
    }

    /// What was there before and can be compared with.
    pub(super) fn before(&self) -> Option<&TargetFile> {
        match self {
            Self::Same(old) | Self::Rebuilding { old, .. } => Some(old),
            Self::Writing(file) if file.in_place() => Some(file),
            Self::None | Self::Writing(_) => None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct FileTask {
    /// Relative to the target.
    pub key: Vec<u8>,
    pub entry: Entry,
    pub size_bytes: u64,
    /// Bytes of the stream; less than `size_bytes` when there are holes.
    pub data_bytes: u64,
    pub holes: Option<HoleMap>,
    pub output: RwLock<Output>,
    /// Pieces still to come, and one for the planner until it has named them all.
    left: AtomicUsize,
    failed: AtomicBool,
}

impl FileTask {
    pub(super) fn new(key: Vec<u8>, entry: Entry, output: Output) -> Self {
        let content = entry.content();
        Self {
            size_bytes: content.map_or(0, |content| content.size_bytes),
            data_bytes: content.map_or(0, Content::data_bytes),
            holes: content.and_then(HoleMap::new),
            key,
            entry,
            output: RwLock::new(output),
            left: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
        }
    }

    pub(super) fn await_pieces(&self, pieces: usize) {
        self.left.fetch_add(pieces, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether existing content is still to be compared with.
    pub(super) fn compares(&self) -> bool {
        let output = self.output.read().unwrap_or_else(PoisonError::into_inner);
        output.before().is_some()
    }

    fn create(&self, shared: &Shared) -> Result<TargetFile, TargetError> {
        shared.target.create_file(&self.key, self.size_bytes, self.holes.is_none())
    }

    /// Writes a stretch of the stream.
    pub(super) fn write(&self, shared: &Shared, offset: u64, bytes: &[u8]) {
        if self.has_failed() || shared.stopped() {
            return;
        }
        if let Err(error) = self.try_write(shared, offset, bytes) {
            self.fail(shared, error);
        }
    }

    fn try_write(&self, shared: &Shared, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        {
            let output = self.output.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(file) = output.sink() {
                return Ok(self.put(file, offset, bytes)?);
            }
        }
        let mut output = self.output.write().unwrap_or_else(PoisonError::into_inner);
        if output.sink().is_none() {
            *output = Output::Writing(self.create(shared)?);
        }
        output.sink().map_or(Ok(()), |file| Ok(self.put(file, offset, bytes)?))
    }

    /// Writes a stretch of the stream around the holes.
    pub(super) fn put(&self, file: &TargetFile, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        match &self.holes {
            None => file.write_at(offset, bytes),
            Some(holes) => holes.pieces(offset, bytes.len() as u64, |at, from, length| {
                file.write_at(at, &bytes[from as usize..(from + length) as usize])
            }),
        }
    }

    /// From now on a new file is built beside the old one; false when that was so already.
    pub(super) fn rebuild(&self, shared: &Shared) -> Result<bool, TargetError> {
        let mut output = self.output.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *output, Output::None) {
            Output::Same(old) => {
                *output = Output::Rebuilding { old, new: self.create(shared)? };
                Ok(true)
            }
            other => {
                *output = other;
                Ok(false)
            }
        }
    }

    /// Notes that the file cannot be restored for a local reason; a full disk stops everything.
    pub(super) fn fail(&self, shared: &Shared, error: TargetError) {
        let first = !self.failed.swap(true, Ordering::Relaxed);
        if first || is_full(&error) {
            not_written(shared, &self.key, error);
        }
    }

    /// Notes that stored data is wrong or gone. Anything else, such as storage that does not answer, stops the
    /// restore: what cannot be reached is not lost.
    pub(super) fn lose(&self, shared: &Shared, error: PackError) {
        if !error.is_damage() {
            self.failed.store(true, Ordering::Relaxed);
            shared.outcome.stop_with(EngineError::from(error));
        } else if !self.failed.swap(true, Ordering::Relaxed) {
            shared.outcome.damaged(&self.key, causes(&error));
        }
    }

    /// Notes damage found while the file was planned.
    pub(super) fn lose_with(&self, shared: &Shared, message: String) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            shared.outcome.damaged(&self.key, message);
        }
    }

    /// `pieces` have arrived. Finishes the file with the last.
    pub(super) fn release(&self, shared: &Shared, pieces: usize) {
        if pieces > 0 && self.left.fetch_sub(pieces, Ordering::AcqRel) == pieces {
            self.finish(shared);
        }
    }

    fn finish(&self, shared: &Shared) {
        let mut output = self.output.write().unwrap_or_else(PoisonError::into_inner);
        let output = std::mem::replace(&mut *output, Output::None);
        if self.has_failed() || shared.stopped() {
            // Dropped, what was written beside the name goes away again.
            return;
        }
        let mut unchanged = false;
        let finished = match output {
            Output::Rebuilding { new: file, .. } | Output::Writing(file) => file.finish(&self.entry),
            Output::None => self.create(shared).and_then(|file| file.finish(&self.entry)),
            Output::Same(file) => {
                drop(file);
                unchanged = true;
                shared.target.finish_metadata(&self.key, &self.entry)
            }
        };
        match finished {
            Ok(problems) => {
                note_attributes(shared, &self.key, problems);
                shared.outcome.add(|outcome| {
                    outcome.files += 1;
                    outcome.unchanged += u64::from(unchanged);
                    outcome.bytes += self.size_bytes;
                });
                shared.progress.add_done(0, 1);
            }
            Err(error) => self.fail(shared, error),
        }
    }
}

fn is_full(error: &TargetError) -> bool {
    matches!(error, TargetError::File(file) if file.kind() == FileErrorKind::Full)
}

/// Notes that something cannot be restored for a local reason; a full disk stops everything.
pub(super) fn not_written(shared: &Shared, key: &[u8], error: TargetError) {
    match error {
        error if is_full(&error) => shared.outcome.stop_with(target_error(error)),
        // Only a hostile or damaged snapshot asks for such a thing.
        TargetError::Unsafe(_) => shared.outcome.damaged(key, causes(&error)),
        error => shared.outcome.failed(key, causes(&error)),
    }
}

/// Counts attributes that could not be set. Owners are not for everybody to give.
pub(super) fn note_attributes(shared: &Shared, key: &[u8], problems: Vec<FileError>) {
    if problems.is_empty() {
        return;
    }
    let root = rustix::process::geteuid().is_root();
    shared.outcome.add(|outcome| {
        for problem in problems {
            if !root && problem.operation == "change the owner of" {
                outcome.owners_not_set += 1;
            } else {
                outcome.attributes.add(key, causes(&problem));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::Refs;

    fn pieces(size_bytes: u64, holes: &[(u64, u64)], stream: u64, length: u64) -> Vec<(u64, u64, u64)> {
        let content = Content { size_bytes, holes: holes.to_vec(), hash: None, refs: Refs::Inline(vec![]) };
        let mut found = Vec::new();
        let visit = |at, from, length| {
            found.push((at, from, length));
            Ok::<(), ()>(())
        };
        HoleMap::new(&content).unwrap().pieces(stream, length, visit).unwrap();
        found
    }

    #[test]
    fn streams_flow_around_holes() {
        // 10 data, 5 hole, 10 data, 5 hole
        let holes = [(10, 5), (25, 5)];
        assert_eq!(pieces(30, &holes, 0, 20), [(0, 0, 10), (15, 10, 10)]);
        assert_eq!(pieces(30, &holes, 4, 10), [(4, 0, 6), (15, 6, 4)]);
        assert_eq!(pieces(30, &holes, 10, 10), [(15, 0, 10)]);
        // A hole first.
        assert_eq!(pieces(10, &[(0, 4)], 0, 6), [(4, 0, 6)]);
    }
}
