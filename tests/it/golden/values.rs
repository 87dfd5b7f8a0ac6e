//! A fixed value of everything that is encoded. Numbers are chosen so that every field differs from its neighbour.

use lifeboat::format::entry::{ChunkRef, Content, Entry, Kind, Refs, Timestamp, XattrValue};
use lifeboat::format::header::{Header, Kem, ObjectKind, pad};
use lifeboat::format::id::{ChunkId, KeyId, ObjectHash, RepoId, RunId, ShortId, SnapshotId};
use lifeboat::format::keyring::*;
use lifeboat::format::manifest::{Contents, Head, Statistics, Summary};
use lifeboat::format::pack::{Block, Codec, Directory, Index, IndexPack, Origin};
use lifeboat::format::page::{Child, RecipePage, TreePage, TreeRoot};
use lifeboat::format::parity::Table;
use lifeboat::format::signed::{Config, Mark, Run, Signed, Tombstone, with_checksum};

pub const REPO: RepoId = RepoId([0xa0; 16]);

fn header() -> Header {
    let mut header = Header::new(ObjectKind::Data, Kem::X25519, REPO, 3, 4);
    header.optional_features = 8;
    header.instance = 5;
    header.directory_offset = 6000;
    header.directory_length = 700;
    header.enc = vec![0xb0; 32];
    header.commitment = [0xb1; 32];
    header
}

pub fn config() -> Config {
    Config {
        number: 2,
        created_seconds: 1_800_000_000,
        owner_key: [0xc0; 32],
        replica: true,
        pack_bytes: 32 << 20,
        compression_level: -3,
    }
}

fn epoch(epoch: u32, whole: bool) -> EpochKeys {
    let key = |byte| whole.then_some(Key([byte; 32]));
    EpochKeys {
        epoch,
        index: Key([0xd0; 32]),
        pre_shared: key(0xd1),
        data_public: [0xd2; 32],
        meta_public: [0xd3; 32],
        data_secret: key(0xd4),
        meta_secret: key(0xd5),
    }
}

fn keyring() -> Keyring {
    let keys = |domain, whole: bool| DomainKeys {
        domain,
        label: format!("domain {domain}"),
        id: whole.then_some(Key([0xd6; 32])),
        cut: whole.then_some(Key([0xd7; 32])),
        epochs: vec![epoch(0, whole), epoch(300, whole)],
    };
    Keyring { number: 9, domains: vec![keys(0, true), keys(7, false)] }
}

fn roster() -> Roster {
    let member = |role, revoked, grant: &[u8]| Member {
        key: KeyId([0xe0; 16]),
        role,
        domain: 200,
        verifying: [0xe1; 32],
        recipient: [0xe2; 32],
        created_seconds: -1,
        revoked,
        grant: grant.to_vec(),
    };
    let revoked = Some(vec![([0xe3; 16], 400)]);
    Roster {
        number: 1,
        members: vec![member(Role::Owner, None, b""), member(Role::Writer, revoked, b"grant")],
    }
}

fn slot_info() -> SlotInfo {
    SlotInfo {
        label: "läbel".into(),
        role: Role::Auditor,
        key: KeyId([0xe4; 16]),
        owner_key: [0xe5; 32],
        created_seconds: 63,
        memory_kib: 65536,
        passes: 3,
        lanes: 1,
    }
}

fn origin(byte: u8) -> Origin {
    let (enc, commitment) = (vec![byte; 32], [byte + 1; 32]);
    Origin { version: 1, epoch: 128, kem: Kem::X25519 as u8, enc, commitment }
}

fn blocks<Id>(id: impl Fn(u8) -> Id) -> Vec<Block<Id>> {
    let block = |stored_length, raw_length, codec, origin, ordinal, chunks| Block {
        stored_length,
        raw_length,
        codec,
        origin,
        ordinal,
        chunks,
    };
    vec![
        block(500, 1000, Codec::Zstd, 0, 1, vec![(id(1), 300), (id(2), 700)]),
        block(66, 50, Codec::Raw, 1, 4, vec![(id(3), 50)]),
        block(116, 100, Codec::Raw, 0, 2, vec![]),
    ]
}

pub fn directory() -> Directory {
    Directory {
        author: KeyId([0xf0; 16]),
        run: RunId([0xf1; 16]),
        origins: vec![origin(0x30)],
        blocks: blocks(|byte| ChunkId([byte; 32])),
        block_hashes: vec![[0xf2; 32], [0xf3; 32], [0xf4; 32]],
    }
}

pub fn index() -> Index {
    let pack = IndexPack {
        pack: ObjectHash([0xf5; 32]),
        kind: ObjectKind::Meta,
        size_bytes: 4096,
        author: KeyId([0xf0; 16]),
        run: RunId([0xf1; 16]),
        own: origin(0x40),
        origins: vec![origin(0x30)],
        blocks: blocks(|byte| ShortId([byte; 16])),
    };
    Index { author: Some(KeyId([0xf0; 16])), supersedes: vec![ObjectHash([0xf6; 32])], packs: vec![pack] }
}

pub fn summary() -> Summary {
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    Summary {
        author: KeyId([0x10; 16]),
        source: "files".into(),
        job: "job".into(),
        host: "host".into(),
        user: "user".into(),
        tags: vec!["one".into(), "two".into()],
        started: time(1_800_000_000, 1),
        consistent: time(1_800_000_001, 999_999_999),
        finished: time(-5, 0),
        statistics: Statistics {
            files: 1,
            directories: 2,
            others: 3,
            files_new: 4,
            files_changed: 5,
            files_unmodified: 6,
            total_bytes: 7 << 40,
            read_bytes: 8,
            new_bytes: 9,
            added_bytes: 10,
            chunks: 11,
            new_chunks: 12,
            problems: 13,
        },
        facts: "{\"a\":1}".into(),
        parent: Some(SnapshotId([0x11; 32])),
        original: None,
        chunk_bytes: 65536,
        sequence: 500,
        previous: Some(SnapshotId([0x12; 32])),
        heads: vec![Head {
            author: KeyId([0x13; 16]),
            job: [0x14; 16],
            sequence: 499,
            snapshot: SnapshotId([0x15; 32]),
        }],
        program: "0.1.0".into(),
        nonce: [0x16; 16],
        contents_hash: [0x17; 32],
    }
}

pub fn contents() -> Contents {
    Contents {
        root: TreeRoot { page: ShortId([0x18; 16]), length: 20_000, level: 2 },
        paths: vec![b"/etc".to_vec(), b"/h\xff".to_vec()],
        nonce: [0x19; 32],
    }
}

fn reference(byte: u8, length: u32) -> ChunkRef {
    ChunkRef { id: ShortId([byte; 16]), length }
}

fn entry(kind: Kind) -> Entry {
    Entry {
        kind,
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        user: Some(b"user".to_vec()),
        group: None,
        mtime: Timestamp { seconds: -1, nanoseconds: 500 },
        xattrs: vec![
            (b"user.a".to_vec(), XattrValue::Inline(b"value".to_vec())),
            (b"user.b".to_vec(), XattrValue::Chunk(reference(0x20, 5000))),
        ],
        hardlink_to: None,
    }
}

pub fn tree_leaf() -> TreePage {
    let inline = Content {
        size_bytes: 10_000,
        holes: vec![(0, 4096), (8192, 1000)],
        hash: Some([0x21; 32]),
        refs: Refs::Inline(vec![reference(0x22, 4000), reference(0x23, 904)]),
    };
    let root = ShortId([0x24; 16]);
    let long =
        Content { size_bytes: 1 << 40, holes: vec![], hash: None, refs: Refs::Recipe { root, level: 1 } };
    let mut linked = entry(Kind::File(long.clone()));
    linked.hardlink_to = Some(b"a".to_vec());
    let plain = |kind| Entry { user: None, xattrs: vec![], mode: 0o755, ..entry(kind) };
    TreePage::Leaf(vec![
        (b"".to_vec(), plain(Kind::Directory)),
        (b"a".to_vec(), entry(Kind::File(inline))),
        (b"a\0b".to_vec(), linked),
        (b"a-b".to_vec(), plain(Kind::Stream(long))),
        (b"l".to_vec(), plain(Kind::Symlink(b"../x".to_vec()))),
        (b"p".to_vec(), plain(Kind::Fifo)),
        (b"s".to_vec(), plain(Kind::Socket)),
        (b"t".to_vec(), plain(Kind::CharDevice { major: 5, minor: 300 })),
        (b"u".to_vec(), plain(Kind::BlockDevice { major: 8, minor: 1 })),
    ])
}

fn child(byte: u8) -> Child {
    Child { page: reference(byte, 16_400), count: 300, bytes: 1 << 33 }
}

fn parity_table() -> Table {
    Table {
        kind: ObjectKind::Meta,
        pack: ObjectHash([0x5c; 32]),
        pack_bytes: 9000,
        shard_bytes: 4096,
        originals: vec![[0x5d; 16], [0x5e; 16], [0x5f; 16]],
        recovery: vec![[0x60; 16], [0x61; 16]],
    }
}

/// Per parser, the encoding of its value.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut signed_header = Header::new(ObjectKind::Config, Kem::None, REPO, 0, 0);
    signed_header.optional_features = 1;
    let signed = Signed {
        header: signed_header,
        body: config().encode(),
        author: KeyId([0x50; 16]),
        signature: [0x51; 64],
    };
    let mut signed = signed.encode();
    signed.truncate(signed.len() - 32);
    let packs = vec![(ObjectKind::Data, ObjectHash([0x52; 32])), (ObjectKind::Meta, ObjectHash([0x51; 32]))];
    let (signing, recipient) = (Key([0x53; 32]), Key([0x54; 32]));
    vec![
        ("header", header().encode()),
        ("signed", signed),
        ("padding", pad(&[0x55; 77])),
        ("checksum", with_checksum(vec![0x56; 5])),
        ("config", config().encode()),
        ("run", Run { run: RunId([0x57; 16]), number: 1 << 20 }.encode()),
        ("mark", Mark { snapshot: SnapshotId([0x58; 32]) }.encode()),
        ("tombstone", Tombstone { pruner: RunId([0x59; 16]), sweeps: true, packs }.encode()),
        ("roster", roster().encode()),
        ("keyring", keyring().encode().to_vec()),
        ("slot_info", slot_info().encode()),
        ("slot_secret", SlotSecret::Member { signing, recipient }.encode().to_vec()),
        ("pack_directory", directory().encode()),
        ("parity_table", parity_table().encode()),
        ("index", index().encode()),
        ("manifest_summary", summary().encode()),
        ("manifest_contents", contents().encode()),
        ("tree_page", tree_leaf().encode()),
        ("recipe_page", RecipePage::Inner { level: 1, children: vec![child(0x5a), child(0x5b)] }.encode()),
    ]
}
