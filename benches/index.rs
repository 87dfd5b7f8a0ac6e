//! Makes a local index of ten million chunks (or as many as the first argument says) and measures what it costs:
//! memory, disk, and the rate of inserts, hits and misses. Run by `cargo bench --bench index`; the figures stand in
//! `docs/performance.md`.

use std::time::Instant;

use lifeboat::format::header::ObjectKind;
use lifeboat::format::id::{KeyId, ObjectHash, RunId, ShortId};
use lifeboat::format::pack::{Block, Codec, IndexPack, Origin};
use lifeboat::pack::index::IndexMap;

const CHUNK_BYTES: u32 = 12 << 10;
const CHUNKS_PER_BLOCK: u64 = 96;
const BLOCKS_PER_PACK: u64 = 100;

fn id(number: u64) -> ShortId {
    let hash = blake3::hash(&number.to_le_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_bytes()[..16]);
    ShortId(id)
}

fn pack(number: u64) -> IndexPack {
    let first = number * BLOCKS_PER_PACK * CHUNKS_PER_BLOCK;
    let block = |n: u64| Block {
        stored_length: 300_000,
        raw_length: CHUNKS_PER_BLOCK as u32 * CHUNK_BYTES,
        codec: Codec::Zstd,
        origin: 0,
        ordinal: n as u32,
        chunks: (0..CHUNKS_PER_BLOCK).map(|c| (id(first + n * CHUNKS_PER_BLOCK + c), CHUNK_BYTES)).collect(),
    };
    IndexPack {
        pack: ObjectHash(*blake3::hash(&number.to_be_bytes()).as_bytes()),
        kind: ObjectKind::Data,
        size_bytes: 32 << 20,
        author: KeyId([1; 16]),
        run: RunId([2; 16]),
        own: Origin { version: 1, epoch: 0, kem: 2, enc: vec![3; 32], commitment: [4; 32] },
        origins: Vec::new(),
        blocks: (0..BLOCKS_PER_PACK).map(block).collect(),
    }
}

/// A field of `/proc/self/status`, in MiB.
fn status_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib =
        line.and_then(|line| line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn rate(what: &str, count: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what:<28} {count:>10} in {seconds:>6.1} s   {:>9.0}/s", count as f64 / seconds);
}

fn main() {
    let wanted = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10_000_000u64);
    let packs = wanted.div_ceil(BLOCKS_PER_PACK * CHUNKS_PER_BLOCK);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let index = IndexMap::open(Some(folder.path())).expect("an index in a new folder");
    let started = Instant::now();
    // As a backup does: some 250,000 chunks at a time.
    for first in (0..packs).step_by(26) {
        let some: Vec<_> = (first..packs.min(first + 26)).map(pack).collect();
        index.add_packs(0, &some).expect("rows are added");
    }
    let chunks = packs * BLOCKS_PER_PACK * CHUNKS_PER_BLOCK;
    rate("inserts", chunks, started);
    index.save_filter().expect("the filter is kept");
    drop(index);
    println!("{:<28} {:>10.0} MiB", "peak memory while filling", status_mib("VmHWM"));

    let started = Instant::now();
    let index = IndexMap::open(Some(folder.path())).expect("the index opens again");
    println!("{:<28} {:>10.2} s", "opening", started.elapsed().as_secs_f64());
    let found = |number: u64| index.find(0, ObjectKind::Data, &id(number)).expect("a look-up").is_some();
    let started = Instant::now();
    let hits = (0..1_000_000).filter(|n| found(chunks / 2 + n)).count() as u64;
    rate("hits in stored order", hits, started);
    let started = Instant::now();
    let hits =
        (0..100_000u64).filter(|n| found(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % chunks)).count() as u64;
    rate("hits at random", hits, started);
    let started = Instant::now();
    let wrong = (0..1_000_000).filter(|n| found(chunks + n)).count() as u64;
    rate("misses", 1_000_000 - wrong, started);
    assert_eq!((hits, wrong), (100_000, 0), "every stored chunk is found and no other");
    let bytes: u64 = std::fs::read_dir(folder.path())
        .expect("the folder lists")
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum();
    println!("{:<28} {:>10} MiB", "on disk", bytes >> 20);
    println!("{:<28} {:>10.0} MiB", "peak memory", status_mib("VmHWM"));
}
