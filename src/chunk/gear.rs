//! The scan for a cut: a rolling hash over the bytes, tested against a mask at every position.
//!
//! Each step of a gear hash waits for the one before, so a single scan leaves most of a core idle. A byte is shifted
//! out of the masks' reach after [`MEMORY_BYTES`] others, though, so a hash may begin that far before where it is
//! wanted: four lanes run at once over neighbouring stretches. Invariant: the cut is the one that
//! `fastcdc::v2020::cut_gear` finds byte after byte; a test holds the two together.

/// The table: one random word for each value of a byte.
pub type Table = [u64; 256];

/// The masks' highest bit is 47: bytes further back have been shifted past it.
pub const MEMORY_BYTES: usize = 48;
const LANE_BYTES: usize = 512;
const LANES: usize = 4;
const GROUP_BYTES: usize = LANE_BYTES * LANES;

fn step(table: &Table, hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(table[usize::from(byte)])
}

/// First position in `bytes` at which no bit of `mask` is set. `hash` is that of the bytes before, and moves on.
pub fn scan(table: &Table, bytes: &[u8], mask: u64, hash: &mut u64) -> Option<usize> {
    let (groups, rest) = bytes.as_chunks::<GROUP_BYTES>();
    for (number, group) in groups.iter().enumerate() {
        if let Some(at) = scan_group(table, group, mask, hash) {
            return Some(number * GROUP_BYTES + at);
        }
    }
    let at = scan_lane(table, rest, mask, hash)?;
    Some(groups.len() * GROUP_BYTES + at)
}

fn scan_lane(table: &Table, bytes: &[u8], mask: u64, hash: &mut u64) -> Option<usize> {
    bytes.iter().position(|byte| {
        *hash = step(table, *hash, *byte);
        *hash & mask == 0
    })
}

fn scan_group(table: &Table, group: &[u8; GROUP_BYTES], mask: u64, hash: &mut u64) -> Option<usize> {
    let ([a, b, c, d], _) = group.as_chunks::<LANE_BYTES>() else {
        return scan_lane(table, group, mask, hash);
    };
    let end_of = |lane: &[u8; LANE_BYTES]| {
        lane[LANE_BYTES - MEMORY_BYTES..].iter().fold(0, |hash, byte| step(table, hash, *byte))
    };
    let (mut h, mut i, mut j, mut k) = (*hash, end_of(a), end_of(b), end_of(c));
    for at in 0..LANE_BYTES {
        h = step(table, h, a[at]);
        i = step(table, i, b[at]);
        j = step(table, j, c[at]);
        k = step(table, k, d[at]);
        if h & mask == 0 || i & mask == 0 || j & mask == 0 || k & mask == 0 {
            return settle(table, [a, b, c, d], [h, i, j, k], at, mask);
        }
    }
    *hash = k;
    None
}

/// Some lane found a cut at `at`. Those before it may still find one that comes earlier in the stream.
#[cold]
fn settle(
    table: &Table,
    lanes: [&[u8; LANE_BYTES]; LANES],
    hashes: [u64; LANES],
    at: usize,
    mask: u64,
) -> Option<usize> {
    lanes.into_iter().zip(hashes).enumerate().find_map(|(number, (lane, mut hash))| {
        let found = if hash & mask == 0 {
            Some(at)
        } else {
            scan_lane(table, &lane[at + 1..], mask, &mut hash).map(|further| at + 1 + further)
        };
        found.map(|at| number * LANE_BYTES + at)
    })
}
