//! A folder as a tar stream: POSIX.1-2001 with PAX records for what the old header cannot hold (long names, large
//! numbers, nanoseconds, extended attributes as `SCHILY.xattr.*`, as GNU tar and libarchive write them).
//!
//! Names are relative to the folder, which itself comes first as `./`. Holes are written as zeros. Sockets are left
//! out, because tar has no such thing, and counted.

use std::collections::{HashMap, VecDeque};

use ::tar::{EntryType, Header};

use super::{Dumped, Out, write_error};
use crate::engine::EngineError;
use crate::engine::read::filter::slashed;
use crate::engine::read::select::Selected;
use crate::engine::read::stream::ContentStream;
use crate::engine::read::walk::TreeWalk;
use crate::format::entry::{Content, Entry, Kind, XattrValue};
use crate::format::header::ObjectKind;
use crate::repo::tree::is_within;

/// Entries looked at ahead of the one that is written, and the content bytes that they may need.
const AHEAD_ENTRIES: usize = 1024;
const AHEAD_BYTES: u64 = 16 << 20;
const BLOCK_BYTES: u64 = 512;
/// What an octal field of the old header holds.
const SIZE_LIMIT: u64 = 0o77_777_777_777;
const ID_LIMIT: u64 = 0o7_777_777;

/// Writes everything below the selected folder.
pub(super) async fn folder(
    out: &mut Out<'_>,
    selected: &Selected,
    dumped: &mut Dumped,
) -> Result<(), EngineError> {
    dumped.is_tar = true;
    let mut stream = ContentStream::start(out.reader.clone(), out.domain, &out.fetch)?;
    let result = entries(out, selected, &mut stream, dumped).await;
    stream.finish().await;
    result
}

/// What ends a tar.
pub(super) fn end(out: &mut Out<'_>) -> Result<(), EngineError> {
    out.write(&[0; 2 * BLOCK_BYTES as usize])
}

async fn entries(
    out: &mut Out<'_>,
    selected: &Selected,
    stream: &mut ContentStream,
    dumped: &mut Dumped,
) -> Result<(), EngineError> {
    let reader = out.reader.clone();
    let mut walk = TreeWalk::new(&reader, out.domain, selected.root, &selected.key);
    let mut ahead: VecDeque<(Vec<u8>, Entry)> = VecDeque::new();
    let (mut ahead_bytes, mut ended) = (0u64, false);
    // First path of hard links whose own first path is not below this folder.
    let mut leaders: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let size = |entry: &Entry| entry.content().map_or(0, Content::data_bytes);
    loop {
        while !ended && ahead.len() < AHEAD_ENTRIES && ahead_bytes < AHEAD_BYTES {
            match walk.next().await? {
                None => ended = true,
                Some((key, entry)) => {
                    if let Some(content) = entry.content() {
                        stream.prefetch(content).await?;
                    }
                    ahead_bytes += size(&entry);
                    ahead.push_back((key, entry));
                }
            }
        }
        let Some((key, entry)) = ahead.pop_front() else { return Ok(()) };
        out.cancel.check()?;
        ahead_bytes -= size(&entry);
        let link = entry.hardlink_to.as_ref().and_then(|leader| {
            if is_within(leader, &selected.key) {
                return Some(name_of(leader, &selected.key, false));
            }
            let known = leaders.get(leader).cloned();
            if known.is_none() {
                leaders.insert(leader.clone(), name_of(&key, &selected.key, false));
            }
            known
        });
        let name = name_of(&key, &selected.key, entry.is_directory());
        one(out, stream, &name, &entry, link, dumped).await?;
    }
}

/// The member's name: relative to the folder, which is `./` itself.
fn name_of(key: &[u8], top: &[u8], is_directory: bool) -> Vec<u8> {
    let rest = key.strip_prefix(top).unwrap_or(key);
    let rest = if top.is_empty() { rest } else { rest.strip_prefix(b"\0").unwrap_or(rest) };
    let mut name = if rest.is_empty() { b".".to_vec() } else { slashed(rest) };
    if is_directory {
        name.push(b'/');
    }
    name
}

async fn one(
    out: &mut Out<'_>,
    stream: &mut ContentStream,
    name: &[u8],
    entry: &Entry,
    link: Option<Vec<u8>>,
    dumped: &mut Dumped,
) -> Result<(), EngineError> {
    let (kind, target, device) = match &entry.kind {
        _ if link.is_some() => (EntryType::Link, link.clone(), None),
        Kind::Directory => (EntryType::Directory, None, None),
        Kind::File(_) | Kind::Stream(_) => (EntryType::Regular, None, None),
        Kind::Symlink(to) => (EntryType::Symlink, Some(to.clone()), None),
        Kind::Fifo => (EntryType::Fifo, None, None),
        Kind::CharDevice { major, minor } => (EntryType::Char, None, Some((*major, *minor))),
        Kind::BlockDevice { major, minor } => (EntryType::Block, None, Some((*major, *minor))),
        Kind::Socket => {
            dumped.left_out += 1;
            return Ok(());
        }
    };
    let content = entry.content().filter(|_| link.is_none());
    let size = content.map_or(0, |content| content.size_bytes);
    let mut pax = Pax::default();
    let mut header = header_of(entry, kind, size, &mut pax);
    if let Some((major, minor)) = device {
        header.set_device_major(major).map_err(write_error)?;
        header.set_device_minor(minor).map_err(write_error)?;
    }
    if let Some(ustar) = header.as_ustar_mut() {
        pax.text(b"path", name, &mut ustar.name);
        pax.text(b"linkpath", target.as_deref().unwrap_or_default(), &mut ustar.linkname);
        pax.text(b"uname", entry.user.as_deref().unwrap_or_default(), &mut ustar.uname);
        pax.text(b"gname", entry.group.as_deref().unwrap_or_default(), &mut ustar.gname);
    }
    attributes(out, entry, &mut pax).await?;
    pax.write(out)?;
    header.set_cksum();
    out.write(header.as_bytes())?;
    dumped.files += u64::from(entry.content().is_some());
    let Some(content) = content else { return Ok(()) };
    out.content(stream, content).await?;
    dumped.bytes += size;
    out.zeros(size.next_multiple_of(BLOCK_BYTES) - size)
}

/// The fields that are numbers; what does not fit goes to `pax`.
fn header_of(entry: &Entry, kind: EntryType, size: u64, pax: &mut Pax) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    let mut number = |key: &[u8], value: u64, limit: u64| {
        if value > limit {
            pax.record(key, value.to_string().as_bytes());
        }
        value.min(limit)
    };
    header.set_uid(number(b"uid", entry.uid.into(), ID_LIMIT));
    header.set_gid(number(b"gid", entry.gid.into(), ID_LIMIT));
    header.set_size(number(b"size", size, SIZE_LIMIT));
    let (seconds, nanoseconds) = (entry.mtime.seconds, entry.mtime.nanoseconds);
    let in_field = u64::try_from(seconds).unwrap_or(0).min(SIZE_LIMIT);
    if nanoseconds > 0 || i64::try_from(in_field) != Ok(seconds) {
        pax.record(b"mtime", decimal_time(seconds, nanoseconds).as_bytes());
    }
    header.set_mtime(in_field);
    header
}

/// Seconds with nanoseconds as a decimal fraction; the fraction of a negative time counts downwards.
fn decimal_time(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        let whole = seconds + 1;
        let sign = if whole == 0 { "-" } else { "" };
        return format!("{sign}{whole}.{:09}", 1_000_000_000 - nanoseconds);
    }
    format!("{seconds}.{nanoseconds:09}")
}

async fn attributes(out: &Out<'_>, entry: &Entry, pax: &mut Pax) -> Result<(), EngineError> {
    for (name, value) in &entry.xattrs {
        let key = [b"SCHILY.xattr.", name.as_slice()].concat();
        match value {
            XattrValue::Inline(bytes) => pax.record(&key, bytes),
            XattrValue::Chunk(reference) => {
                let bytes = out.reader.chunk(out.domain, ObjectKind::Data, &reference.id).await?;
                pax.record(&key, &bytes);
            }
        }
    }
    Ok(())
}

/// Records of an extended header, in the order they are added.
#[derive(Default)]
struct Pax {
    records: Vec<u8>,
}

impl Pax {
    /// `LENGTH KEY=VALUE\n`, where the length counts itself.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.records.extend_from_slice(length.to_string().as_bytes());
        self.records.push(b' ');
        self.records.extend_from_slice(key);
        self.records.push(b'=');
        self.records.extend_from_slice(value);
        self.records.push(b'\n');
    }

    /// Puts text into a field of the old header, and into a record where the field is too short.
    fn text(&mut self, key: &[u8], value: &[u8], field: &mut [u8]) {
        let fits = value.len().min(field.len());
        field[..fits].copy_from_slice(&value[..fits]);
        if fits < value.len() {
            self.record(key, value);
        }
    }

    fn write(&self, out: &mut Out<'_>) -> Result<(), EngineError> {
        if self.records.is_empty() {
            return Ok(());
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(self.records.len() as u64);
        if let Some(ustar) = header.as_ustar_mut() {
            ustar.name[..5].copy_from_slice(b"./PAX");
        }
        header.set_cksum();
        out.write(header.as_bytes())?;
        out.write(&self.records)?;
        let length = self.records.len() as u64;
        out.zeros(length.next_multiple_of(BLOCK_BYTES) - length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        for length in [0, 1, 89, 90, 91, 92, 985, 990, 9990] {
            let mut pax = Pax::default();
            pax.record(b"path", &vec![b'x'; length]);
            let text = String::from_utf8(pax.records.clone()).unwrap();
            let said: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, pax.records.len());
        }
    }

    #[test]
    fn times_before_1970_count_down() {
        assert_eq!(decimal_time(5, 1), "5.000000001");
        assert_eq!(decimal_time(-1, 250_000_000), "-0.750000000");
        assert_eq!(decimal_time(-3, 250_000_000), "-2.750000000");
        assert_eq!(decimal_time(-3, 0), "-3.000000000");
    }
}
