//! How an entry of a snapshot is shown: one line for people, one object for programs.

use serde::Serialize;

use super::paths::{JsonPath, shown_key};
use super::text::{iso_time, local_time, shown};
use crate::format::entry::{Entry, Kind};
use crate::format::id::to_hex;

/// An entry in JSON.
#[derive(Debug, Serialize)]
pub struct JsonEntry {
    #[serde(flatten)]
    path: JsonPath,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: u32,
    permissions: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardlink_to: Option<JsonPath>,
}

impl JsonEntry {
    pub fn new(key: &[u8], entry: &Entry) -> Self {
        let lossy = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let target = match &entry.kind {
            Kind::Symlink(target) => Some(target),
            _ => None,
        };
        Self {
            path: JsonPath::of_key(key),
            kind: kind_name(&entry.kind),
            mode: entry.mode,
            permissions: permissions(entry),
            uid: entry.uid,
            gid: entry.gid,
            user: entry.user.as_ref().map(lossy),
            group: entry.group.as_ref().map(lossy),
            mtime: iso_time(entry.mtime),
            size: entry.content().map(|content| content.size_bytes),
            link_target: target.map(lossy),
            link_target_hex: target.filter(|bytes| std::str::from_utf8(bytes).is_err()).map(|b| to_hex(b)),
            hardlink_to: entry.hardlink_to.as_ref().map(|key| JsonPath::of_key(key)),
        }
    }
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory => "directory",
        Kind::File(_) => "file",
        Kind::Stream(_) => "stream",
        Kind::Symlink(_) => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice { .. } => "char_device",
        Kind::BlockDevice { .. } => "block_device",
    }
}

/// `drwxr-sr-t`, as `ls` writes it.
fn permissions(entry: &Entry) -> String {
    let mut text = String::with_capacity(10);
    text.push(match &entry.kind {
        Kind::Directory => 'd',
        Kind::File(_) | Kind::Stream(_) => '-',
        Kind::Symlink(_) => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice { .. } => 'c',
        Kind::BlockDevice { .. } => 'b',
    });
    for (shift, special, with, without) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// The line for people; with attributes when `long`.
pub fn line(key: &[u8], entry: &Entry, long: bool) -> String {
    let mut path = shown_key(key);
    if !long {
        return path;
    }
    if let Kind::Symlink(target) = &entry.kind {
        path = format!("{path} -> {}", shown(target));
    }
    let owner = |name: &Option<Vec<u8>>, id: u32| name.as_ref().map_or(id.to_string(), |name| shown(name));
    let size = match &entry.kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => format!("{major},{minor}"),
        _ => entry.content().map_or(String::from("-"), |content| content.size_bytes.to_string()),
    };
    format!(
        "{} {:>8} {:>8} {size:>12} {} {path}",
        permissions(entry),
        owner(&entry.user, entry.uid),
        owner(&entry.group, entry.gid),
        local_time(entry.mtime),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::Timestamp;

    #[test]
    fn permissions_read_as_ls_writes_them() {
        let of = |kind, mode| {
            let (user, group) = (None, None);
            let (mtime, xattrs) = (Timestamp::default(), Vec::new());
            permissions(&Entry { kind, mode, uid: 0, gid: 0, user, group, mtime, xattrs, hardlink_to: None })
        };
        assert_eq!(of(Kind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(of(Kind::Fifo, 0o4640), "prwSr-----");
        assert_eq!(of(Kind::Symlink(vec![]), 0o2751), "lrwxr-s--x");
    }
}
