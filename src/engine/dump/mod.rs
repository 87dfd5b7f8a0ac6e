//! Dump: one file of a snapshot to a writer, or a folder as a tar stream.
//!
//! The bytes leave in order while the blocks behind them are read and opened ahead on threads. What was written is
//! hashed as it leaves: a stream whose hash is not the one stored ends in an error, after its bytes are out, so
//! whoever reads a pipe must look at the exit code.

mod tar;

use std::io::Write;
use std::sync::Arc;

use super::EngineError;
use super::read::fetch::FetchOptions;
use super::read::select::Selected;
use super::read::stream::ContentStream;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::entry::{Content, Kind};
use crate::pack::read::Reader;
use crate::repo::Repository;

/// How to dump.
#[derive(Clone, Debug, Default)]
pub struct DumpOptions {
    pub fetch: FetchOptions,
}

/// What was dumped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dumped {
    pub files: u64,
    /// Content bytes, holes included.
    pub bytes: u64,
    /// Sockets: tar has no such thing.
    pub left_out: u64,
    pub is_tar: bool,
}

/// Where the bytes go, with what is needed on the way.
struct Out<'o> {
    reader: Arc<Reader>,
    domain: u32,
    fetch: FetchOptions,
    to: &'o mut (dyn Write + Send),
    progress: Arc<dyn Progress>,
    cancel: Cancel,
}

/// Writes a file's content, or a folder as tar, to `to`.
///
/// # Errors
/// Nothing to dump there, storage that fails, the writer that fails, content whose hash is wrong.
pub async fn dump(
    repo: &Repository,
    selected: &Selected,
    options: &DumpOptions,
    to: &mut (dyn Write + Send),
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<Dumped, EngineError> {
    dump_all(repo, std::slice::from_ref(selected), options, to, progress, cancel).await
}

/// The same of several snapshots, which make one tar, one after the other.
///
/// # Errors
/// As [`dump`].
pub async fn dump_all(
    repo: &Repository,
    all: &[Selected],
    options: &DumpOptions,
    to: &mut (dyn Write + Send),
    progress: Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<Dumped, EngineError> {
    progress.phase("dumping");
    let mut out = Out {
        reader: repo.reader.clone(),
        domain: 0,
        fetch: options.fetch,
        to,
        progress,
        cancel: cancel.clone(),
    };
    let mut dumped = Dumped::default();
    for selected in all {
        out.domain = selected.snapshot.domain;
        one(&mut out, selected, all.len() > 1, &mut dumped).await?;
    }
    if dumped.is_tar {
        tar::end(&mut out)?;
    }
    out.to.flush().map_err(write_error)?;
    Ok(dumped)
}

async fn one(
    out: &mut Out<'_>,
    selected: &Selected,
    is_tar: bool,
    dumped: &mut Dumped,
) -> Result<(), EngineError> {
    match selected.entry.as_ref().map(|entry| &entry.kind) {
        Some(Kind::File(content) | Kind::Stream(content)) if !is_tar => {
            out.progress.add_total(content.size_bytes, 1);
            let mut stream = ContentStream::start(out.reader.clone(), out.domain, &out.fetch)?;
            let result = out.content(&mut stream, content).await;
            stream.finish().await;
            result?;
            *dumped = Dumped { files: 1, bytes: content.size_bytes, ..Dumped::default() };
            Ok(())
        }
        None | Some(Kind::Directory) => tar::folder(out, selected, dumped).await,
        Some(_) => {
            let why = "neither a file nor a folder: there is nothing to dump";
            Err(EngineError::Refused(why.into()))
        }
    }
}

fn write_error(cause: std::io::Error) -> EngineError {
    EngineError::Local { operation: "write to", path: "the output".into(), cause }
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.to.write_all(bytes).map_err(write_error)
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), EngineError> {
        const ZEROS: [u8; 16384] = [0; 16384];
        while count > 0 {
            self.cancel.check()?;
            let step = count.min(ZEROS.len() as u64);
            self.write(&ZEROS[..step as usize])?;
            count -= step;
        }
        Ok(())
    }

    /// Writes one content whole, holes as zeros; its hash is checked on the way.
    async fn content(&mut self, stream: &mut ContentStream, content: &Content) -> Result<(), EngineError> {
        let mut holes = content.holes.iter().peekable();
        let mut at = 0u64;
        let mut sink = |bytes: &[u8]| {
            self.cancel.check()?;
            let mut rest = bytes;
            while !rest.is_empty() {
                while let Some((_, length)) = holes.next_if(|(offset, _)| *offset == at) {
                    self.zeros(*length)?;
                    at += length;
                }
                let until = holes.peek().map_or(u64::MAX, |(offset, _)| offset - at);
                let (now, after) = rest.split_at((rest.len() as u64).min(until) as usize);
                self.write(now)?;
                at += now.len() as u64;
                rest = after;
            }
            self.progress.add_done(bytes.len() as u64, 0);
            Ok(())
        };
        stream.copy(content, &mut sink).await?;
        for (_, length) in holes {
            self.zeros(*length)?;
        }
        self.progress.add_done(0, 1);
        Ok(())
    }
}
