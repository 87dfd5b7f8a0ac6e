//! Level 1: a parity object, what a damaged pack is made whole from.
//!
//! ```text
//! front = header ‖ table ‖ H(header ‖ table) [32]
//! front ‖ recovery shards ‖ front ‖ u64 length of front
//! ```
//!
//! A pack is cut into shards of equal size, the last filled up with zeros. The front stands twice, so that no single sector of it is needed. The table has 16 bytes of hash for every shard
//! of the pack and every recovery shard, so what is still sound in either is known without the other. It has a hash of
//! its own: damage among the recovery shards leaves the rest of the object useful. Nothing here is sealed or signed: the
//! ciphertext is no secret to who can read it, and what is rebuilt must have the pack's name as its hash.

use super::FormatError;
use super::codec::{Decoder, Encoder};
use super::header::{Header, Kem, ObjectKind};
use super::id::{ObjectHash, RepoId};
use super::pack::PACK_LIMIT_BYTES;

/// Smallest shard of a pack that has more than one, in bytes: what a disk loses at once.
pub const SHARD_BYTES: u64 = 4096;
/// Most shards of a pack, and most recovery shards.
pub const SHARDS_LIMIT: u64 = 1 << 15;
/// Shard sizes are multiples of this.
const SHARD_STEP: u64 = 64;

/// The front of H over a shard as it is coded: with the zeros behind the last one.
pub type ShardHash = [u8; 16];

/// Hash of a shard.
pub fn shard_hash(shard: &[u8]) -> ShardHash {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(shard).as_bytes()[..16]);
    short
}

/// `parity/<pack>.<hash of the parity object>`
pub fn object_name(pack: &ObjectHash, hash: &ObjectHash) -> String {
    format!("{}/{pack}.{hash}", ObjectKind::Parity.folder())
}

/// Takes apart what [`object_name`] made: the pack and the object's own hash.
pub fn parse_object_name(name: &str) -> Option<(ObjectHash, ObjectHash)> {
    let (pack, hash) = name.strip_prefix("parity/")?.split_once('.')?;
    Some((ObjectHash::from_hex(pack)?, ObjectHash::from_hex(hash)?))
}

/// How a pack is cut: bytes of a shard, and how many there are.
pub fn cut(pack_bytes: u64) -> (u64, u64) {
    if pack_bytes <= SHARD_BYTES {
        return (pack_bytes.max(1).next_multiple_of(SHARD_STEP), 1);
    }
    let mut shard_bytes = SHARD_BYTES;
    while pack_bytes.div_ceil(shard_bytes) > SHARDS_LIMIT {
        shard_bytes *= 2;
    }
    (shard_bytes, pack_bytes.div_ceil(shard_bytes))
}

/// How much parity is made, in thousandths of the pack: so much of it may be lost, in shards of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u16);

impl Share {
    /// As much parity as pack: it comes back from nothing.
    pub const WHOLE: Self = Self(1000);

    /// `5%`, `0.5%`, `100%`; nothing below a thousandth, nothing above the whole.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, tenth) = match text.strip_suffix('%')?.split_once('.') {
            Some((whole, tenth)) if tenth.len() == 1 => (whole, tenth.parse::<u16>().ok()?),
            Some(_) => return None,
            None => (text.strip_suffix('%')?, 0),
        };
        let permille = whole.parse::<u16>().ok()?.checked_mul(10)?.checked_add(tenth)?;
        (1..=1000).contains(&permille).then_some(Self(permille))
    }

    /// Bytes of recovery shards for a pack of this size.
    pub fn parity_bytes(self, pack_bytes: u64) -> u64 {
        let (shard_bytes, count) = cut(pack_bytes);
        self.recovery(count) * shard_bytes
    }

    /// Recovery shards for so many shards: at least two, because damage seldom keeps to the edges of one.
    pub fn recovery(self, originals: u64) -> u64 {
        let wanted = (originals * u64::from(self.0)).div_ceil(1000);
        wanted.max(originals.min(2))
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, tenth) => write!(f, "{whole}.{tenth}%"),
        }
    }
}

/// What stands before the recovery shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Data or meta.
    pub kind: ObjectKind,
    pub pack: ObjectHash,
    pub pack_bytes: u64,
    /// A multiple of 64.
    pub shard_bytes: u64,
    /// One for every shard of the pack.
    pub originals: Vec<ShardHash>,
    /// One for every recovery shard; at least one.
    pub recovery: Vec<ShardHash>,
}

impl Table {
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::with_capacity(64 + 16 * (self.originals.len() + self.recovery.len()));
        encoder.u8(self.kind as u8);
        encoder.raw(self.pack.as_bytes());
        encoder.varint(self.pack_bytes);
        encoder.varint(self.shard_bytes);
        for hashes in [&self.originals, &self.recovery] {
            encoder.list(hashes.iter(), |encoder, hash| encoder.raw(hash));
        }
        encoder.finish()
    }

    /// Reads a table from the front of bytes; returns it and its length in bytes.
    ///
    /// # Errors
    /// Lengths and counts that do not fit each other, or exceed the limits.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), FormatError> {
        let mut decoder = Decoder::new(bytes, "parity table");
        let kind = match decoder.u8()? {
            1 => ObjectKind::Data,
            2 => ObjectKind::Meta,
            _ => return Err(decoder.invalid()),
        };
        let pack = ObjectHash(decoder.array()?);
        let pack_bytes = decoder.bounded("pack size", PACK_LIMIT_BYTES)?;
        let shard_bytes = decoder.bounded("shard size", PACK_LIMIT_BYTES)?;
        let (wanted_bytes, count) = cut(pack_bytes);
        if pack_bytes == 0 || shard_bytes != wanted_bytes {
            return Err(decoder.invalid());
        }
        let mut hashes = || decoder.list(16, |decoder| decoder.array());
        let (originals, recovery): (Vec<ShardHash>, Vec<ShardHash>) = (hashes()?, hashes()?);
        if originals.len() as u64 != count || !(1..=SHARDS_LIMIT).contains(&(recovery.len() as u64)) {
            return Err(FormatError::Invalid("parity table"));
        }
        let length = bytes.len() - decoder.remaining();
        Ok((Self { kind, pack, pack_bytes, shard_bytes, originals, recovery }, length))
    }
}

/// A parity object as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parity<'b> {
    pub header: Header,
    pub table: Table,
    /// What is there of the recovery shards, sound or not, in order; a last one that is cut off is left out.
    pub shards: Vec<&'b [u8]>,
}

/// The whole object. `shards` must be as the table says.
pub fn encode<'s>(
    repo: RepoId,
    domain: u32,
    table: &Table,
    shards: impl Iterator<Item = &'s [u8]>,
) -> Vec<u8> {
    let mut object = Header::new(ObjectKind::Parity, Kem::None, repo, domain, 0).encode();
    let table_bytes = table.encode();
    object.reserve(table_bytes.len() + 32 + table.recovery.len() * table.shard_bytes as usize);
    object.extend_from_slice(&table_bytes);
    object.extend_from_slice(blake3::hash(&object).as_bytes());
    let front = object.clone();
    shards.for_each(|shard| object.extend_from_slice(shard));
    object.extend_from_slice(&front);
    object.extend_from_slice(&(front.len() as u64).to_le_bytes());
    object
}

impl<'b> Parity<'b> {
    /// Reads what is sound of an object: it takes one of the two fronts; shards are not judged.
    ///
    /// # Errors
    /// Why the first front cannot be read, where the second cannot be either.
    pub fn decode(bytes: &'b [u8]) -> Result<Self, FormatError> {
        let (header, table, end) = match front(bytes) {
            Ok(front) => front,
            Err(error) => second_front(bytes).and_then(|bytes| front(bytes).ok()).ok_or(error)?,
        };
        let shards = bytes.get(end..).unwrap_or_default().chunks_exact(table.shard_bytes as usize);
        let shards = shards.take(table.recovery.len()).collect();
        Ok(Self { header, table, shards })
    }
}

/// Header, table and their length with the hash.
fn front(bytes: &[u8]) -> Result<(Header, Table, usize), FormatError> {
    let (header, at) = Header::decode_kind(bytes, ObjectKind::Parity)?;
    let (table, length) = Table::decode(&bytes[at..])?;
    let end = at + length;
    let hash = bytes.get(end..end + 32).ok_or(FormatError::Truncated("parity object"))?;
    if blake3::hash(&bytes[..end]).as_bytes() != hash {
        return Err(FormatError::Checksum);
    }
    Ok((header, table, end + 32))
}

fn second_front(bytes: &[u8]) -> Option<&[u8]> {
    let (rest, length) = bytes.split_last_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.get(rest.len().checked_sub(length)?..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pack_bytes: u64, recovery: usize) -> Table {
        let (shard_bytes, count) = cut(pack_bytes);
        Table {
            kind: ObjectKind::Data,
            pack: ObjectHash([5; 32]),
            pack_bytes,
            shard_bytes,
            originals: (0..count).map(|n| [n as u8; 16]).collect(),
            recovery: (0..recovery).map(|n| [n as u8 ^ 0xff; 16]).collect(),
        }
    }

    #[test]
    fn every_pack_is_cut_into_no_more_shards_than_the_code_takes() {
        for (pack_bytes, wanted) in [
            (1, (64, 1)),
            (4096, (4096, 1)),
            (4097, (4096, 2)),
            (16 << 20, (4096, 4096)),
            (128 << 20, (4096, 1 << 15)),
            ((128 << 20) + 1, (8192, (1 << 14) + 1)),
            (PACK_LIMIT_BYTES, (32768, 1 << 15)),
        ] {
            assert_eq!(cut(pack_bytes), wanted, "{pack_bytes}");
        }
    }

    #[test]
    fn an_object_comes_back_and_a_table_that_was_touched_is_refused() {
        let table = table(10_000, 2);
        let shards = [vec![1; 4096], vec![2; 4096]];
        let object = encode(RepoId([3; 16]), 7, &table, shards.iter().map(Vec::as_slice));
        let read = Parity::decode(&object).unwrap();
        assert_eq!((&read.table, read.header.domain, read.shards.len()), (&table, 7, 2));
        assert_eq!(read.shards[1], &shards[1][..]);
        let front = (object.len() - 2 * 4096 - 8) / 2;
        for at in (0..front).chain(front + 2 * 4096..object.len()) {
            let mut touched = object.clone();
            touched[at] ^= 1;
            assert_eq!(Parity::decode(&touched).unwrap(), read, "byte {at}: the other front is sound");
            // Both fronts hit: nothing of it is believed.
            touched[at % front] ^= 2;
            touched[front + 2 * 4096 + 20] ^= 2;
            assert!(Parity::decode(&touched).is_err(), "byte {at}");
        }
        assert_eq!(Parity::decode(&object[..front + 4095]).unwrap().shards.len(), 0);
        assert!(Parity::decode(&object[..front - 1]).is_err());
    }

    #[test]
    fn shares_are_read_as_they_are_written() {
        for text in ["5%", "0.5%", "100%", "12.5%"] {
            assert_eq!(Share::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "5", "%", "0%", "0.0%", "100.1%", "0.05%", "-1%", "5.%", ".5%", "99999%", "5 %"] {
            assert_eq!(Share::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn counts_that_do_not_fit_the_pack_are_refused() {
        let good = table(10_000, 2);
        assert_eq!(Table::decode(&good.encode()).unwrap().0, good);
        let broken: [fn(&mut Table); 6] = [
            |t| t.originals.truncate(1),
            |t| t.recovery.clear(),
            |t| t.shard_bytes = 64,
            |t| t.pack_bytes = 0,
            |t| t.pack_bytes = PACK_LIMIT_BYTES + 1,
            |t| t.originals = vec![[0; 16]; SHARDS_LIMIT as usize + 1],
        ];
        for (number, break_it) in broken.iter().enumerate() {
            let mut bad = good.clone();
            break_it(&mut bad);
            assert!(Table::decode(&bad.encode()).is_err(), "{number}");
        }
    }
}
