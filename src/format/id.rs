//! Ids are types. All are BLAKE3 outputs or random bytes and print as lower-case hex.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
            /// Lower-case hex, as in object names.
            pub fn hex(&self) -> String {
                to_hex(&self.0)
            }
            /// Reads exactly the lower-case hex that [`Self::hex`] writes.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $length];
                from_hex(text, &mut bytes).then_some(Self(bytes))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.hex())
            }
        }
    };
}

id!(
    /// Keyed BLAKE3-256 of a chunk's plaintext. Never in the clear on storage.
    ChunkId, 32);
id!(
    /// The first 16 bytes of a [`ChunkId`]: what recipes, trees and the index carry.
    ShortId, 16);
id!(
    /// BLAKE3-256 of an object's bytes as stored: packs and index objects are named by it.
    ObjectHash, 32);
id!(
    /// Hash of a manifest's canonical signed body; survives re-sealing.
    SnapshotId, 32);
id!(
    /// Sixteen random bytes drawn at `init`.
    RepoId, 16);
id!(
    /// Sixteen random bytes drawn by each run that writes; names its `runs/` and a prune's tombstone.
    RunId, 16);
id!(
    /// The first 16 bytes of the BLAKE3 of a signing key: names a writer, maintainer or the owner.
    KeyId, 16);

impl ChunkId {
    /// The prefix that recipes and the index carry.
    pub fn short(&self) -> ShortId {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        ShortId(bytes)
    }
}

/// Lower-case hex of any bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// Fills `out` from exactly twice as many lower-case hex digits; false when `text` is anything else.
pub fn from_hex(text: &str, out: &mut [u8]) -> bool {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        }
    }
    let text = text.as_bytes();
    if text.len() != out.len() * 2 {
        return false;
    }
    for (pair, byte) in text.chunks_exact(2).zip(out) {
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return false,
        }
    }
    true
}
