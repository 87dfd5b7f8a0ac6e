//! A snapshot's parts on their way back: RDB files in a folder of ours, proven while they are written.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use super::RedisError;
use super::capture::USERS_PART;
use super::rdb::{Nothing, Reader, Sink, Tally};
use crate::base::cancel::Cancel;
use crate::source::capture::SourceError;
use crate::source::target::StoredPart;

const COPY_BYTES: usize = 256 << 10;
/// No server has so many users.
const USERS_BYTES: u64 = 16 << 20;

/// One RDB, whole and proven.
pub struct Received {
    pub path: PathBuf,
    pub tally: Tally,
}

pub fn file(operation: &'static str, path: &Path) -> impl Fn(std::io::Error) -> RedisError {
    move |cause| RedisError::File { operation, path: path.display().to_string(), cause }
}

/// Which of the parts are wanted: the RDBs, then the users.
///
/// # Errors
/// There is no RDB among them.
pub fn wanted(parts: &[StoredPart]) -> Result<Vec<usize>, SourceError> {
    let (mut places, mut users) = (Vec::new(), Vec::new());
    for (place, part) in parts.iter().enumerate() {
        if part.path.ends_with(".rdb") {
            places.push(place);
        } else if is_users(part) {
            users.push(place);
        }
    }
    if places.is_empty() {
        let why = "nothing that was chosen is an RDB\nhint: choose the snapshot itself, without a path";
        return Err(SourceError::Refused(why.into()));
    }
    places.extend(users);
    Ok(places)
}

/// Whether `folder` has room for so many bytes.
///
/// # Errors
/// It has not.
pub fn room(folder: &Path, size_bytes: u64) -> Result<(), RedisError> {
    let stat = rustix::fs::statvfs(folder).map_err(|errno| file("look at", folder)(errno.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= size_bytes {
        return Ok(());
    }
    let (folder, needed, free) = (folder.display(), size_bytes >> 20, free >> 20);
    Err(RedisError::Unable(format!("{folder} has {free} MiB free and {needed} MiB are needed")))
}

pub fn is_users(part: &StoredPart) -> bool {
    part.path.trim_start_matches('/') == USERS_PART
}

/// Writes an RDB to `to`, which must be proven whole at its end. `now_ms`: when keys count as expired.
///
/// # Errors
/// `content` breaks, is no whole RDB, or the disk is full.
pub fn receive(
    content: &mut dyn Read,
    to: &Path,
    now_ms: i64,
    cancel: &Cancel,
) -> Result<Received, RedisError> {
    let mut out = File::create(to).map_err(file("create", to))?;
    let mut reader = Reader::new(now_ms);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        cancel.check()?;
        let length = content.read(&mut buffer).map_err(file("read the part for", to))?;
        if length == 0 {
            break;
        }
        reader.feed(&buffer[..length], &mut Nothing).map_err(not_whole)?;
        out.write_all(&buffer[..length]).map_err(file("write", to))?;
    }
    let tally = reader.finish().map_err(not_whole)?;
    out.sync_all().map_err(file("write", to))?;
    Ok(Received { path: to.to_owned(), tally })
}

/// One that its own structure contradicts came whole out of the repository: it is not what was captured.
fn not_whole(cause: super::rdb::RdbError) -> RedisError {
    RedisError::Differs(cause.to_string())
}

/// Reads a received RDB once more, for what it holds.
///
/// # Errors
/// The file cannot be read, or the sink refuses.
pub fn replay<S: Sink>(rdb: &Path, sink: &mut S, cancel: &Cancel) -> Result<(), RedisError> {
    let mut input = File::open(rdb).map_err(file("open", rdb))?;
    let mut reader = Reader::new(0);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        cancel.check()?;
        let length = input.read(&mut buffer).map_err(file("read", rdb))?;
        if length == 0 {
            return reader.finish().map(|_| ()).map_err(|cause| damaged(rdb, cause));
        }
        reader.feed(&buffer[..length], sink).map_err(|cause| damaged(rdb, cause))?;
    }
}

fn damaged(path: &Path, cause: super::rdb::RdbError) -> RedisError {
    RedisError::Rdb { server: path.display().to_string(), cause }
}

/// The users' part, a line each.
///
/// # Errors
/// `content` breaks, or is far too long.
pub fn users(content: &mut dyn Read) -> Result<Vec<String>, RedisError> {
    let mut text = String::new();
    let read = content.take(USERS_BYTES).read_to_string(&mut text);
    read.map_err(file("read", Path::new(USERS_PART)))?;
    Ok(text.lines().map(str::to_owned).collect())
}
