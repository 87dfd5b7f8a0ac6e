//! Pages of the two content-defined B-trees: the snapshot's tree (keyed by path) and a file's recipe (by position).
//!
//! A page is stored as a chunk in a meta pack. Entries are in key order; a key repeats only what differs from
//! the key before it. Inner pages carry sums, never offsets, so an edit far away leaves a page alone.

use super::codec::{Decoder, Encoder, FormatError};
use super::entry::{ChunkRef, Entry, KEY_LIMIT, put_ref, take_ref};
use super::id::ShortId;

/// A page ends at a boundary only from this many bytes on.
pub const PAGE_MIN_BYTES: usize = 16 << 10;
/// A page ends before it would pass this many bytes, unless a single entry is longer.
pub const PAGE_MAX_BYTES: usize = 256 << 10;
/// Deeper trees than this are refused: 32 levels of fan-out ≥ 2 outnumber any storage.
pub const LEVEL_LIMIT: u8 = 32;

/// A page of either tree below another page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub page: ChunkRef,
    /// Entries (tree) or chunks (recipe) in all leaves below.
    pub count: u64,
    /// Content bytes in all leaves below.
    pub bytes: u64,
}

/// A page of a snapshot's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreePage {
    Leaf(Vec<(Vec<u8>, Entry)>),
    /// Children with the last key below each; level ≥ 1.
    Inner {
        level: u8,
        children: Vec<(Vec<u8>, Child)>,
    },
}

/// A page of a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipePage {
    Leaf(Vec<ChunkRef>),
    Inner { level: u8, children: Vec<Child> },
}

/// Appends `key` as (bytes shared with `previous`, rest).
pub fn put_key(encoder: &mut Encoder, previous: &[u8], key: &[u8]) {
    let shared = previous.iter().zip(key).take_while(|(a, b)| a == b).count();
    encoder.varint(shared as u64);
    encoder.bytes(&key[shared..]);
}

/// Takes what [`put_key`] wrote; the key must be above `previous` unless it is the page's first.
pub fn take_key(decoder: &mut Decoder<'_>, previous: Option<&[u8]>) -> Result<Vec<u8>, FormatError> {
    let before = previous.unwrap_or(&[]);
    let shared = decoder.bounded("shared key bytes", before.len() as u64)? as usize;
    let rest = decoder.bytes(KEY_LIMIT)?;
    if shared + rest.len() > KEY_LIMIT {
        return Err(decoder.invalid());
    }
    // One encoding: the shared part is as long as it can be, which with ascending order means that the first
    // byte of the rest is above the byte it replaces.
    if previous.is_some() && rest.first().is_none_or(|b| before.get(shared).is_some_and(|a| b <= a)) {
        return Err(decoder.invalid());
    }
    let mut key = Vec::with_capacity(shared + rest.len());
    key.extend_from_slice(&before[..shared]);
    key.extend_from_slice(rest);
    Ok(key)
}

fn put_child(encoder: &mut Encoder, child: &Child) {
    put_ref(encoder, &child.page);
    encoder.varint(child.count);
    encoder.varint(child.bytes);
}

impl Child {
    /// Appends the canonical encoding, as it stands behind a key in an inner page.
    pub fn encode(&self, encoder: &mut Encoder) {
        put_child(encoder, self);
    }
    /// Reads an inner page's body that holds a single item: its key, then the child.
    pub fn decode_only(body: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(body, "tree page");
        take_key(&mut decoder, None)?;
        let child = take_child(&mut decoder)?;
        decoder.finish()?;
        Ok(child)
    }
}

fn take_child(decoder: &mut Decoder<'_>) -> Result<Child, FormatError> {
    Ok(Child { page: take_ref(decoder)?, count: decoder.varint()?, bytes: decoder.varint()? })
}

fn take_level(decoder: &mut Decoder<'_>) -> Result<u8, FormatError> {
    let level = decoder.u8()?;
    if level > LEVEL_LIMIT { Err(decoder.invalid()) } else { Ok(level) }
}

impl TreePage {
    /// 0 for a leaf.
    pub fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner { level, .. } => *level,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u8(self.level());
        let mut previous: &[u8] = &[];
        match self {
            Self::Leaf(entries) => {
                encoder.varint(entries.len() as u64);
                for (key, entry) in entries {
                    put_key(&mut encoder, previous, key);
                    entry.encode(&mut encoder);
                    previous = key;
                }
            }
            Self::Inner { children, .. } => {
                encoder.varint(children.len() as u64);
                for (key, child) in children {
                    put_key(&mut encoder, previous, key);
                    put_child(&mut encoder, child);
                    previous = key;
                }
            }
        }
        encoder.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes, "tree page");
        let level = take_level(&mut decoder)?;
        let page = if level == 0 {
            let mut entries: Vec<(Vec<u8>, Entry)> = Vec::new();
            let count = decoder.bounded("entries", bytes.len() as u64 / 8)?;
            for _ in 0..count {
                let key = take_key(&mut decoder, entries.last().map(|(key, _)| key.as_slice()))?;
                entries.push((key, Entry::decode(&mut decoder)?));
            }
            Self::Leaf(entries)
        } else {
            let mut children: Vec<(Vec<u8>, Child)> = Vec::new();
            let count = decoder.bounded("children", bytes.len() as u64 / 20)?;
            for _ in 0..count {
                let key = take_key(&mut decoder, children.last().map(|(key, _)| key.as_slice()))?;
                children.push((key, take_child(&mut decoder)?));
            }
            if children.is_empty() {
                return Err(decoder.invalid());
            }
            Self::Inner { level, children }
        };
        decoder.finish()?;
        Ok(page)
    }
}

impl RecipePage {
    pub fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner { level, .. } => *level,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u8(self.level());
        match self {
            Self::Leaf(refs) => encoder.list(refs.iter(), put_ref),
            Self::Inner { children, .. } => encoder.list(children.iter(), put_child),
        }
        encoder.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes, "recipe page");
        let page = match take_level(&mut decoder)? {
            0 => Self::Leaf(decoder.list(17, take_ref)?),
            level => {
                let children = decoder.list(19, take_child)?;
                if children.is_empty() {
                    return Err(decoder.invalid());
                }
                Self::Inner { level, children }
            }
        };
        decoder.finish()?;
        Ok(page)
    }
}

/// The root of a snapshot's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeRoot {
    pub page: ShortId,
    pub length: u32,
    pub level: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_share_prefixes_and_refuse_disorder() {
        let mut encoder = Encoder::new();
        put_key(&mut encoder, b"", b"etc");
        put_key(&mut encoder, b"etc", b"etc\0passwd");
        put_key(&mut encoder, b"etc\0passwd", b"etc-old");
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes, "test");
        let first = take_key(&mut decoder, None).unwrap();
        let second = take_key(&mut decoder, Some(&first)).unwrap();
        let third = take_key(&mut decoder, Some(&second)).unwrap();
        assert_eq!((second.as_slice(), third.as_slice()), (&b"etc\0passwd"[..], &b"etc-old"[..]));
        let mut encoder = Encoder::new();
        put_key(&mut encoder, b"b", b"a");
        let bytes = encoder.finish();
        assert!(take_key(&mut Decoder::new(&bytes, "test"), Some(b"b")).is_err());
    }
}
