//! One entry of a snapshot's tree: a file, folder, link, device or captured stream, with everything needed to
//! put it back.
//!
//! Device, inode and ctime are absent on purpose: a remount would change every page of the tree. They live in
//! the local cache only.

use super::codec::{Decoder, Encoder, FormatError};
use super::id::ShortId;

/// Longest path key, in bytes. Linux's PATH_MAX is 4096 for one call; a walk by descriptors can go deeper.
pub const KEY_LIMIT: usize = 64 * 1024;
/// An extended attribute value up to this many bytes stays in the entry, a longer one becomes a chunk.
pub const XATTR_INLINE_LIMIT: usize = 4096;
/// File content with at most this many chunks lists them in the entry; longer content gets recipe pages.
pub const INLINE_REFS: usize = 32;

/// One stored chunk as content refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    pub id: ShortId,
    /// Plaintext length in bytes, at least 1.
    pub length: u32,
}

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refs {
    /// At most [`INLINE_REFS`] chunks, in order.
    Inline(Vec<ChunkRef>),
    /// The root of the recipe pages, and how many levels of inner pages stand above the leaves.
    Recipe { root: ShortId, level: u8 },
}

/// A file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Apparent length in bytes, holes included.
    pub size_bytes: u64,
    /// Holes as (offset, length) in bytes: ascending, not touching, inside `size_bytes`. The chunks hold only the
    /// bytes outside them.
    pub holes: Vec<(u64, u64)>,
    /// Keyed BLAKE3 of the bytes outside the holes. `None` when there is at most one chunk, whose id says the same.
    pub hash: Option<[u8; 32]>,
    pub refs: Refs,
}

impl Content {
    /// Content of no bytes.
    pub fn empty() -> Self {
        Self { size_bytes: 0, holes: Vec::new(), hash: None, refs: Refs::Inline(Vec::new()) }
    }
    /// Bytes outside the holes: what the chunks add up to.
    pub fn data_bytes(&self) -> u64 {
        self.size_bytes - self.holes.iter().map(|(_, length)| length).sum::<u64>()
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File(Content),
    /// A stream that a command or standard input produced: content without a file's attributes.
    Stream(Content),
    /// The target's raw bytes.
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
}

/// An extended attribute's value. POSIX ACLs are the `system.posix_acl_*` attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XattrValue {
    Inline(Vec<u8>),
    /// Longer than [`XATTR_INLINE_LIMIT`].
    Chunk(ChunkRef),
}

/// An instant, nanoseconds below the second kept apart; before 1970 the seconds are negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub seconds: i64,
    /// 0..1_000_000_000
    pub nanoseconds: u32,
}

/// One entry, without its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// Permission, set-id and sticky bits: 0..=0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Owner's name where the number had one.
    pub user: Option<Vec<u8>>,
    pub group: Option<Vec<u8>>,
    pub mtime: Timestamp,
    /// Ascending by name.
    pub xattrs: Vec<(Vec<u8>, XattrValue)>,
    /// For a hard link that does not lead: the key of the path that does (the first in key order). The content is
    /// repeated here, so a subtree restores alone.
    pub hardlink_to: Option<Vec<u8>>,
}

impl Entry {
    /// The content of a file or stream.
    pub fn content(&self) -> Option<&Content> {
        match &self.kind {
            Kind::File(content) | Kind::Stream(content) => Some(content),
            _ => None,
        }
    }
    pub fn content_mut(&mut self) -> Option<&mut Content> {
        match &mut self.kind {
            Kind::File(content) | Kind::Stream(content) => Some(content),
            _ => None,
        }
    }
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
    /// Every chunk named directly by this entry: inline content and spilled attributes, not what recipe pages name.
    pub fn direct_refs(&self) -> impl Iterator<Item = &ChunkRef> {
        let content = match self.content().map(|content| &content.refs) {
            Some(Refs::Inline(refs)) => refs.as_slice(),
            _ => &[],
        };
        let spilled = self.xattrs.iter().filter_map(|(_, value)| match value {
            XattrValue::Chunk(reference) => Some(reference),
            XattrValue::Inline(_) => None,
        });
        content.iter().chain(spilled)
    }
}

pub(super) fn put_ref(encoder: &mut Encoder, reference: &ChunkRef) {
    encoder.short_id(&reference.id);
    encoder.varint(u64::from(reference.length));
}

pub(super) fn take_ref(decoder: &mut Decoder<'_>) -> Result<ChunkRef, FormatError> {
    let id = decoder.short_id()?;
    let length = decoder.varint_u32()?;
    if length == 0 { Err(decoder.invalid()) } else { Ok(ChunkRef { id, length }) }
}

impl Content {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.varint(self.size_bytes);
        encoder.list(self.holes.iter(), |e, (offset, length)| {
            e.varint(*offset);
            e.varint(*length);
        });
        encoder.option(self.hash.as_ref(), |e, hash| e.raw(hash));
        match &self.refs {
            Refs::Inline(refs) => {
                encoder.u8(0);
                encoder.list(refs.iter(), put_ref);
            }
            Refs::Recipe { root, level } => {
                encoder.u8(1);
                encoder.short_id(root);
                encoder.u8(*level);
            }
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, FormatError> {
        let size_bytes = decoder.bounded("file size", i64::MAX as u64)?;
        let holes = decoder.list(2, |d| Ok((d.varint()?, d.varint()?)))?;
        let mut end = 0u64;
        for (index, (offset, length)) in holes.iter().enumerate() {
            let touches = index > 0 && *offset <= end;
            end = offset.checked_add(*length).ok_or(decoder.invalid())?;
            if touches || *length == 0 || end > size_bytes {
                return Err(decoder.invalid());
            }
        }
        let hash = decoder.option(|d| d.array())?;
        let refs = match decoder.u8()? {
            0 => {
                let refs = decoder.list(17, take_ref)?;
                if refs.len() > INLINE_REFS {
                    return Err(decoder.invalid());
                }
                Refs::Inline(refs)
            }
            1 => Refs::Recipe { root: decoder.short_id()?, level: decoder.u8()? },
            _ => return Err(decoder.invalid()),
        };
        let content = Self { size_bytes, holes, hash, refs };
        if let Refs::Inline(refs) = &content.refs
            && refs.iter().map(|r| u64::from(r.length)).sum::<u64>() != content.data_bytes()
        {
            return Err(decoder.invalid());
        }
        Ok(content)
    }
}

impl Entry {
    /// Appends the canonical encoding. Field order: what `ls` needs first.
    pub fn encode(&self, encoder: &mut Encoder) {
        let tag = match &self.kind {
            Kind::Directory => 0,
            Kind::File(_) => 1,
            Kind::Stream(_) => 2,
            Kind::Symlink(_) => 3,
            Kind::Fifo => 4,
            Kind::Socket => 5,
            Kind::CharDevice { .. } => 6,
            Kind::BlockDevice { .. } => 7,
        };
        encoder.u8(tag);
        encoder.varint(u64::from(self.mode));
        encoder.varint(u64::from(self.uid));
        encoder.varint(u64::from(self.gid));
        encoder.option(self.user.as_deref(), |e, name| e.bytes(name));
        encoder.option(self.group.as_deref(), |e, name| e.bytes(name));
        encoder.signed(self.mtime.seconds);
        encoder.varint(u64::from(self.mtime.nanoseconds));
        encoder.list(self.xattrs.iter(), |e, (name, value)| {
            e.bytes(name);
            match value {
                XattrValue::Inline(bytes) => {
                    e.u8(0);
                    e.bytes(bytes);
                }
                XattrValue::Chunk(reference) => {
                    e.u8(1);
                    put_ref(e, reference);
                }
            }
        });
        encoder.option(self.hardlink_to.as_deref(), |e, key| e.bytes(key));
        match &self.kind {
            Kind::File(content) | Kind::Stream(content) => content.encode(encoder),
            Kind::Symlink(target) => encoder.bytes(target),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                encoder.varint(u64::from(*major));
                encoder.varint(u64::from(*minor));
            }
            Kind::Directory | Kind::Fifo | Kind::Socket => {}
        }
    }

    /// Takes one entry from the front of `decoder`.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, FormatError> {
        let tag = decoder.u8()?;
        let mode = decoder.bounded("mode", 0o7777)? as u32;
        let uid = decoder.varint_u32()?;
        let gid = decoder.varint_u32()?;
        let user = decoder.option(|d| Ok(d.bytes(256)?.to_vec()))?;
        let group = decoder.option(|d| Ok(d.bytes(256)?.to_vec()))?;
        let mtime = Timestamp {
            seconds: decoder.signed()?,
            nanoseconds: decoder.bounded("nanoseconds", 999_999_999)? as u32,
        };
        let xattrs = decoder.list(3, |d| {
            let name = d.bytes(256)?.to_vec();
            let value = match d.u8()? {
                0 => XattrValue::Inline(d.bytes(XATTR_INLINE_LIMIT)?.to_vec()),
                1 => XattrValue::Chunk(take_ref(d)?),
                _ => return Err(d.invalid()),
            };
            Ok((name, value))
        })?;
        if !xattrs.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(decoder.invalid());
        }
        let hardlink_to = decoder.option(|d| Ok(d.bytes(KEY_LIMIT)?.to_vec()))?;
        let kind = match tag {
            0 => Kind::Directory,
            1 => Kind::File(Content::decode(decoder)?),
            2 => Kind::Stream(Content::decode(decoder)?),
            3 => Kind::Symlink(decoder.bytes(KEY_LIMIT)?.to_vec()),
            4 => Kind::Fifo,
            5 => Kind::Socket,
            6 => Kind::CharDevice { major: decoder.varint_u32()?, minor: decoder.varint_u32()? },
            7 => Kind::BlockDevice { major: decoder.varint_u32()?, minor: decoder.varint_u32()? },
            _ => return Err(decoder.invalid()),
        };
        Ok(Self { kind, mode, uid, gid, user, group, mtime, xattrs, hardlink_to })
    }
}
