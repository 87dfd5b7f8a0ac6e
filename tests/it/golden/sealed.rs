//! Whole objects from fixed keys and the seeded random stream, and the numbers that are format without being
//! objects: derived keys, chunk ids, cut points, page boundaries.

use std::sync::atomic::AtomicU64;

use lifeboat::base::random::SeededRandom;
use lifeboat::chunk::{Cutter, Profile};
use lifeboat::format::header::{ObjectKind, padme};
use lifeboat::format::id::{ChunkId, KeyId, ObjectHash, RunId};
use lifeboat::format::keyring::{DomainKeys, EpochKeys, Key, Keyring, Role, SlotInfo, SlotSecret};
use lifeboat::format::parity::Share;
use lifeboat::pack::build::{PackBuilder, PackSeed};
use lifeboat::pack::parity::make;
use lifeboat::repo::tree::write::TreeWriter;
use lifeboat::seal::access::{Access, OwnerRoot};
use lifeboat::seal::block::{Codecs, Compression};
use lifeboat::seal::derive::{commitment, derive};
use lifeboat::seal::member::seal_grant;
use lifeboat::seal::object::{seal_index, seal_keyring, seal_manifest, sign_object};
use lifeboat::seal::slot::{Cost, Unlock, seal_slot};
use x25519_dalek::{PublicKey, StaticSecret};

use super::values;

pub fn root() -> OwnerRoot {
    OwnerRoot(Key([1; 32]))
}

pub fn keyring() -> Keyring {
    let public = |byte: u8| PublicKey::from(&StaticSecret::from([byte; 32])).to_bytes();
    let epoch = EpochKeys {
        epoch: 0,
        index: Key([2; 32]),
        pre_shared: Some(Key([3; 32])),
        data_public: public(4),
        meta_public: public(5),
        data_secret: Some(Key([4; 32])),
        meta_secret: Some(Key([5; 32])),
    };
    let domain = DomainKeys {
        domain: 0,
        label: "owner".into(),
        id: Some(Key([6; 32])),
        cut: Some(Key([7; 32])),
        epochs: vec![epoch],
    };
    Keyring { number: 0, domains: vec![domain] }
}

fn access() -> Access {
    Access::new(values::REPO, Role::Owner, root().identity(), 0, keyring()).unwrap()
}

fn slot(unlock: &Unlock, cost: Cost) -> Vec<u8> {
    let info = SlotInfo {
        label: "golden".into(),
        role: Role::Owner,
        key: root().identity().key,
        owner_key: root().identity().verifying(),
        created_seconds: 0,
        memory_kib: 0,
        passes: 0,
        lanes: 0,
    };
    let secret = SlotSecret::Owner { root: root().0 };
    seal_slot(values::REPO, info, &secret, unlock, cost, &SeededRandom::new(1)).unwrap()
}

/// A pack of one stored and one moved block, and padding.
fn pack() -> Vec<u8> {
    let (access, random, counter) = (access(), SeededRandom::new(2), AtomicU64::new(0));
    let seed = PackSeed { access: &access, random: &random, run: RunId([8; 16]), counter: &counter };
    let sealer = seed.sealer(ObjectKind::Data, &[ChunkId([9; 32])]).unwrap();
    let mut codecs = Codecs::new().unwrap();
    let text = b"golden block ".repeat(20);
    let id = access.home().data_id(&text).unwrap();
    let mut builder = PackBuilder::new(&sealer, 4096);
    let sealed = sealer.seal(&mut codecs, 0, &text, Compression::None).unwrap();
    builder.append(&sealed, vec![(id, text.len() as u32)]);
    builder.finish(&sealer, &access, RunId([8; 16]), &mut codecs).unwrap().bytes.to_vec()
}

/// Which of the keys 0, 1, 2, … of level 0 end a page.
fn boundaries() -> Vec<u8> {
    let access = access();
    let mut hasher = blake3::Hasher::new_keyed(access.home().boundary_key().unwrap());
    let ends = (0..5000u32).filter(|n| {
        hasher.reset();
        hasher.update(&[0]);
        hasher.update(&n.to_be_bytes());
        hasher.finalize().as_bytes()[0] == 0
    });
    ends.flat_map(u32::to_le_bytes).collect()
}

/// A tree of three thousand empty folders: its pages one after the other, then the root's id.
fn tree() -> Vec<u8> {
    use lifeboat::format::entry::{Entry, Kind, Timestamp};
    let access = access();
    let mut writer = TreeWriter::new(access.home()).unwrap();
    let mut pages = Vec::new();
    let mut keep = |_, page: Vec<u8>| {
        pages.extend_from_slice(&(page.len() as u32).to_le_bytes());
        pages.extend_from_slice(&page);
        Ok(())
    };
    for n in 0..3000u32 {
        let entry = Entry {
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            mtime: Timestamp { seconds: i64::from(n), nanoseconds: 0 },
            xattrs: vec![],
            hardlink_to: None,
        };
        writer.add(format!("folder{n:05}").as_bytes(), &entry, &mut keep).unwrap();
    }
    let root = writer.finish(&mut keep).unwrap();
    pages.extend_from_slice(root.page.as_bytes());
    pages
}

fn cuts(profile: Profile) -> Vec<u8> {
    let cutter = Cutter::new(&[7; 32], profile);
    let mut stream = vec![0; 1 << 20];
    blake3::Hasher::new().update(b"golden stream").finalize_xof().fill(&mut stream);
    let (mut rest, mut lengths) = (stream.as_slice(), Vec::new());
    while !rest.is_empty() {
        let length = cutter.cut(rest);
        lengths.extend_from_slice(&(length as u32).to_le_bytes());
        rest = &rest[length..];
    }
    lengths
}

fn parity() -> Vec<u8> {
    let mut pack = pack();
    let mut more = vec![0; 40_000];
    blake3::Hasher::new().update(b"golden parity").finalize_xof().fill(&mut more);
    pack.extend_from_slice(&more);
    let hash = ObjectHash(*blake3::hash(&pack).as_bytes());
    make(ObjectKind::Data, hash, &pack, Share::parse("25%").unwrap()).unwrap().bytes.to_vec()
}

pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let access = access();
    let home = access.home();
    let random = |seed| SeededRandom::new(seed);
    let keyring_object = seal_keyring(&root(), values::REPO, &keyring(), &random(3)).unwrap();
    let (id, manifest) =
        seal_manifest(&access, values::summary(), &values::contents(), &keyring_object, &random(4)).unwrap();
    let member = KeyId([10; 16]);
    let recipient = PublicKey::from(&StaticSecret::from([11; 32])).to_bytes();
    let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
    let passphrase = Unlock::Passphrase(zeroize::Zeroizing::new(b"golden".to_vec()));
    let config =
        sign_object(&root().identity(), values::REPO, ObjectKind::Config, 0, values::config().encode());
    vec![
        ("derive", derive("lifeboat v1 pack key", &[b"one", b"", b"three"]).0.to_vec()),
        ("commitment", commitment(&Key([12; 32])).to_vec()),
        ("owner verifying key", root().identity().verifying().to_vec()),
        ("owner key id", root().identity().key.0.to_vec()),
        ("data chunk id", home.data_id(b"golden").unwrap().0.to_vec()),
        ("meta chunk id", home.meta_id(b"golden").unwrap().0.to_vec()),
        ("content hash", blake3::keyed_hash(home.content_key().unwrap(), b"golden").as_bytes().to_vec()),
        ("padmé of 0..5000", (0..5000).flat_map(|n: u64| padme(n).to_le_bytes()).collect()),
        ("page boundaries", boundaries()),
        ("tree", tree()),
        ("cuts, files", cuts(Profile::FILES)),
        ("cuts, database", cuts(Profile::DATABASE)),
        ("slot, key file", slot(&Unlock::KeyFile(Key([13; 32])), cost)),
        ("slot, passphrase", slot(&passphrase, cost)),
        ("signed config", config),
        ("sealed keyring", keyring_object),
        ("grant", seal_grant(&values::REPO, &member, &recipient, &keyring(), &random(5)).unwrap()),
        ("sealed index", seal_index(&access, home, &values::index(), &random(6)).unwrap()),
        ("pack", pack()),
        ("parity", parity()),
        ("manifest", manifest),
        ("snapshot id", id.0.to_vec()),
    ]
}
