//! What a server sends at one go and must not wait for: its metadata, for which it holds its own locks.
//!
//! So it is read at full speed into files without names in the spool folder, which the system removes with the process;
//! only then anything is stored. Bounded: a server's settings are megabytes, and what is far more is something else.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::bucket::Bucket;
use super::multipart::Parts;
use super::{Influx2Error, said};
use crate::source::capture::SourceError;

/// Most bytes of one of the server's two stores.
const STORE_LIMIT_BYTES: u64 = 16 << 30;
/// Most bytes of the list of buckets.
const LIST_LIMIT_BYTES: usize = 64 << 20;
const BUFFER_BYTES: usize = 256 << 10;
/// The server's stores by the names of their parts, and as they are called in a snapshot.
const STORES: [(&str, &str); 2] = [("kv", "kv.bolt"), ("sql", "sql.sqlite")];

/// What a server tells of itself.
pub struct Metadata {
    pub buckets: Vec<Bucket>,
    /// Name and content, at its beginning, of the stores that were asked for.
    pub stores: Vec<(&'static str, File)>,
    /// Parts that nobody here knows.
    pub unknown: Vec<String>,
}

fn local(operation: &'static str) -> impl Fn(std::io::Error) -> SourceError {
    move |cause| Influx2Error::Local { operation, cause }.into()
}

/// Reads the whole answer. `spool`: the folder for the stores; without one they are passed over.
///
/// # Errors
/// The answer breaks off or is not what it should be; the disk is full.
pub fn read<R: FnMut(&mut [u8]) -> Result<usize, SourceError>>(
    mut parts: Parts<R>,
    spool: Option<&Path>,
) -> Result<Metadata, SourceError> {
    let (mut buckets, mut stores, mut unknown) = (None, Vec::new(), Vec::new());
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Some(part) = parts.next()? {
        if part == "buckets" && buckets.is_none() {
            let mut list = Vec::new();
            loop {
                let length = parts.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                if list.len() + length > LIST_LIMIT_BYTES {
                    return Err(said("the server's list of buckets is too long to be one"));
                }
                list.extend_from_slice(&buffer[..length]);
            }
            buckets = Some(Bucket::read_all(&list).map_err(|error| said(error.to_string()))?);
            continue;
        }
        let Some((_, name)) = STORES.iter().find(|(store, _)| *store == part) else {
            unknown.push(part.chars().take(40).collect());
            continue;
        };
        let Some(folder) = spool else { continue };
        if stores.iter().any(|(there, _)| there == name) {
            return Err(said(format!("the server sends part {part:?} twice")));
        }
        let mut file = tempfile::tempfile_in(folder).map_err(local("make a spool file"))?;
        let mut size_bytes = 0;
        loop {
            let length = parts.read(&mut buffer)?;
            size_bytes += length as u64;
            if length == 0 {
                break;
            }
            if size_bytes > STORE_LIMIT_BYTES {
                return Err(said(format!("the server's {name} is too large to be one")));
            }
            file.write_all(&buffer[..length]).map_err(local("write a spool file"))?;
        }
        if size_bytes == 0 {
            return Err(said(format!("the server sends an empty {name}")));
        }
        file.seek(SeekFrom::Start(0)).map_err(local("read a spool file"))?;
        stores.push((*name, file));
    }
    let buckets = buckets.ok_or_else(|| said("the server's metadata has no list of buckets"))?;
    if spool.is_some() && stores.len() < STORES.len() {
        return Err(said("the server's metadata is not whole: kv or sql is missing"));
    }
    stores.sort_by_key(|(name, _)| *name);
    Ok(Metadata { buckets, stores, unknown })
}
