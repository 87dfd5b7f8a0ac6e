//! The manifest: one committed (or not yet confirmed) snapshot.
//!
//! ```text
//! header ‖ sealed summary ‖ u32 length ‖ keyring object ‖ sealed contents
//! ```
//!
//! The header's directory offset and length say where the summary is. The newest keyring object stands there as it
//! is stored, sealed by itself for the owner: outside the other seals, whose keys are in the keyring, so that losing
//! `keyring/` loses nothing while one manifest is left.
//!
//! ```text
//! snapshot id = hash(summary ‖ signature)         summary ∋ hash(contents)
//! ```
//!
//! The **summary** opens with the index key: what lists, `status` and retention need. The **contents** open only
//! with the `meta` secret: tree root and paths. The summary holds the hash of the contents and is what the author
//! signs, so the snapshot id (a hash of summary and signature, both plaintext) covers everything and survives
//! re-sealing. Manifests of one (author, job) form a chain by sequence and previous id, and each lists the latest
//! it has seen of every other chain, so a removed or rolled back manifest shows.

use super::codec::{Decoder, Encoder, FormatError};
use super::entry::Timestamp;
use super::id::{KeyId, SnapshotId};
use super::page::TreeRoot;

/// Longest name of a job, host or tag, in bytes.
pub const NAME_LIMIT: usize = 4096;
/// [`Summary::source`] of a snapshot that holds a drill's evidence and no data of its own.
pub const DRILL_SOURCE: &str = "drill";
/// Most bytes of facts.
pub const FACTS_LIMIT: usize = 16 << 20;

/// What a backup counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unmodified: u64,
    /// Content bytes in the snapshot.
    pub total_bytes: u64,
    /// Content bytes read from the source.
    pub read_bytes: u64,
    /// Plaintext bytes not in the repository before.
    pub new_bytes: u64,
    /// Bytes uploaded for them: packs with directories, both kinds.
    pub added_bytes: u64,
    pub chunks: u64,
    pub new_chunks: u64,
    /// Paths that could not be read or changed while read; above 0 the snapshot is partial.
    pub problems: u64,
}

/// A place in a chain of manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub author: KeyId,
    /// Hash of the job's name: chains are per (author, job).
    pub job: [u8; 16],
    pub sequence: u64,
    pub snapshot: SnapshotId,
}

/// What the index key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub author: KeyId,
    /// `files`, `command`, `stdin`, later `postgres` and so on.
    pub source: String,
    pub job: String,
    pub host: String,
    pub user: String,
    pub tags: Vec<String>,
    pub started: Timestamp,
    /// The instant the data is true for; RPO counts from it.
    pub consistent: Timestamp,
    pub finished: Timestamp,
    pub statistics: Statistics,
    /// Facts of the source as a JSON object.
    pub facts: String,
    pub parent: Option<SnapshotId>,
    /// The snapshot this one was copied from, when it was re-sealed under other keys.
    pub original: Option<SnapshotId>,
    /// Nominal chunk size in bytes.
    pub chunk_bytes: u32,
    /// 0 for the first of its chain.
    pub sequence: u64,
    pub previous: Option<SnapshotId>,
    pub heads: Vec<Head>,
    /// Version of lifeboat that wrote it.
    pub program: String,
    pub nonce: [u8; 16],
    /// BLAKE3 of the contents' canonical encoding.
    pub contents_hash: [u8; 32],
}

/// What only the `meta` secret opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub root: TreeRoot,
    /// What was asked to be backed up: raw path bytes, or the stream's name.
    pub paths: Vec<Vec<u8>>,
    /// Random, so that the hash in the summary tells nothing of the contents.
    pub nonce: [u8; 32],
}

fn put_time(encoder: &mut Encoder, time: Timestamp) {
    encoder.signed(time.seconds);
    encoder.varint(u64::from(time.nanoseconds));
}

fn take_time(decoder: &mut Decoder<'_>) -> Result<Timestamp, FormatError> {
    Ok(Timestamp {
        seconds: decoder.signed()?,
        nanoseconds: decoder.bounded("nanoseconds", 999_999_999)? as u32,
    })
}

impl Statistics {
    fn fields(&self) -> [u64; 13] {
        [
            self.files,
            self.directories,
            self.others,
            self.files_new,
            self.files_changed,
            self.files_unmodified,
            self.total_bytes,
            self.read_bytes,
            self.new_bytes,
            self.added_bytes,
            self.chunks,
            self.new_chunks,
            self.problems,
        ]
    }
    fn take(d: &mut Decoder<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            files: d.varint()?,
            directories: d.varint()?,
            others: d.varint()?,
            files_new: d.varint()?,
            files_changed: d.varint()?,
            files_unmodified: d.varint()?,
            total_bytes: d.varint()?,
            read_bytes: d.varint()?,
            new_bytes: d.varint()?,
            added_bytes: d.varint()?,
            chunks: d.varint()?,
            new_chunks: d.varint()?,
            problems: d.varint()?,
        })
    }
}

impl Summary {
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        e.raw(self.author.as_bytes());
        e.str(&self.source);
        e.str(&self.job);
        e.str(&self.host);
        e.str(&self.user);
        e.list(self.tags.iter(), |e, tag| e.str(tag));
        put_time(&mut e, self.started);
        put_time(&mut e, self.consistent);
        put_time(&mut e, self.finished);
        for field in self.statistics.fields() {
            e.varint(field);
        }
        e.str(&self.facts);
        e.option(self.parent.as_ref(), |e, id| e.raw(id.as_bytes()));
        e.option(self.original.as_ref(), |e, id| e.raw(id.as_bytes()));
        e.varint(u64::from(self.chunk_bytes));
        e.varint(self.sequence);
        e.option(self.previous.as_ref(), |e, id| e.raw(id.as_bytes()));
        e.list(self.heads.iter(), |e, head| {
            e.raw(head.author.as_bytes());
            e.raw(&head.job);
            e.varint(head.sequence);
            e.raw(head.snapshot.as_bytes());
        });
        e.str(&self.program);
        e.raw(&self.nonce);
        e.raw(&self.contents_hash);
        e.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut d = Decoder::new(bytes, "manifest summary");
        let summary = Self {
            author: KeyId(d.array()?),
            source: d.str(NAME_LIMIT)?,
            job: d.str(NAME_LIMIT)?,
            host: d.str(NAME_LIMIT)?,
            user: d.str(NAME_LIMIT)?,
            tags: d.list(1, |d| d.str(NAME_LIMIT))?,
            started: take_time(&mut d)?,
            consistent: take_time(&mut d)?,
            finished: take_time(&mut d)?,
            statistics: Statistics::take(&mut d)?,
            facts: d.str(FACTS_LIMIT)?,
            parent: d.option(|d| Ok(SnapshotId(d.array()?)))?,
            original: d.option(|d| Ok(SnapshotId(d.array()?)))?,
            chunk_bytes: d.varint_u32()?,
            sequence: d.varint()?,
            previous: d.option(|d| Ok(SnapshotId(d.array()?)))?,
            heads: d.list(65, |d| {
                Ok(Head {
                    author: KeyId(d.array()?),
                    job: d.array()?,
                    sequence: d.varint()?,
                    snapshot: SnapshotId(d.array()?),
                })
            })?,
            program: d.str(NAME_LIMIT)?,
            nonce: d.array()?,
            contents_hash: d.array()?,
        };
        d.finish()?;
        Ok(summary)
    }

    /// The id of the snapshot this summary and its signature make.
    pub fn snapshot_id(encoded: &[u8], signature: &[u8; 64]) -> SnapshotId {
        let mut hasher = blake3::Hasher::new_derive_key("lifeboat v1 snapshot id");
        hasher.update(&(encoded.len() as u64).to_le_bytes());
        hasher.update(encoded);
        hasher.update(signature);
        SnapshotId(*hasher.finalize().as_bytes())
    }

    /// What the author signs.
    pub fn message(encoded: &[u8]) -> Vec<u8> {
        [b"lifeboat manifest v1\0".as_slice(), encoded].concat()
    }

    /// The job part of a [`Head`].
    pub fn job_hash(job: &str) -> [u8; 16] {
        let hash = blake3::derive_key("lifeboat v1 job of a chain", job.as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&hash[..16]);
        short
    }
}

impl Contents {
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        e.short_id(&self.root.page);
        e.varint(u64::from(self.root.length));
        e.u8(self.root.level);
        e.list(self.paths.iter(), |e, path| e.bytes(path));
        e.raw(&self.nonce);
        e.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut d = Decoder::new(bytes, "manifest contents");
        let contents = Self {
            root: TreeRoot { page: d.short_id()?, length: d.varint_u32()?, level: d.u8()? },
            paths: d.list(1, |d| Ok(d.bytes(super::entry::KEY_LIMIT)?.to_vec()))?,
            nonce: d.array()?,
        };
        d.finish()?;
        Ok(contents)
    }
}

/// `snapshots/<snapshot id>.<hash of the stored bytes>`
pub fn object_name(id: &SnapshotId, hash: &super::id::ObjectHash) -> String {
    format!("snapshots/{id}.{hash}")
}

/// Takes apart what [`object_name`] made.
pub fn parse_object_name(name: &str) -> Option<(SnapshotId, super::id::ObjectHash)> {
    let (id, hash) = name.strip_prefix("snapshots/")?.split_once('.')?;
    Some((SnapshotId::from_hex(id)?, super::id::ObjectHash::from_hex(hash)?))
}
