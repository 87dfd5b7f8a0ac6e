//! Writes large objects past the page cache.
//!
//! A pack is not read again soon, so copying it into the cache only to flush it a moment later costs processor
//! time, pushes out what others need and, measured, several times the wall time. What is written is the same either
//! way, and the caller's fsync still makes it durable: this is a shortcut and no promise, so wherever a file system
//! will not have it the rest goes through the cache.

use std::fs::File;
use std::io::{self, ErrorKind, Write};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Smaller writes are not worth the two calls.
const LEAST_BYTES: usize = 1 << 20;
/// Written at a time, out of a buffer of this size, where the bytes lie as they come.
const STEP_BYTES: usize = 1 << 20;
/// Written at a time where the bytes already lie as they must.
const ALIGNED_STEP_BYTES: usize = 4 << 20;
/// Address, offset and length of a direct write are multiples of the device's block: 512 or 4096.
const ALIGNMENT_BYTES: usize = 4096;

/// Writes all of `bytes` to an empty file.
pub fn write_around_cache(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    if bytes.len() >= LEAST_BYTES && set_direct(file, true).is_ok() {
        let result = write_aligned(file, bytes);
        set_direct(file, false)?;
        written = result?;
    }
    file.write_all(&bytes[written..])
}

fn set_direct(file: &File, on: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    Ok(fcntl_setfl(file, flags)?)
}

/// Writes as much as goes in whole blocks; returns how much that was.
fn write_aligned(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
    let whole = bytes.len() / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
    let mut room = if is_aligned(bytes) { Vec::new() } else { vec![0; STEP_BYTES + ALIGNMENT_BYTES] };
    let start = room.as_ptr().align_offset(ALIGNMENT_BYTES).min(ALIGNMENT_BYTES);
    let mut written = 0;
    while written < whole {
        let rest = &bytes[written..whole];
        let step = if room.is_empty() {
            &rest[..rest.len().min(ALIGNED_STEP_BYTES)]
        } else {
            let step = &mut room[start..start + rest.len().min(STEP_BYTES)];
            step.copy_from_slice(&rest[..step.len()]);
            step
        };
        match file.write(step) {
            Ok(0) => break,
            Ok(count) => written += count,
            // Another alignment is wanted here, or a short write broke ours.
            Err(error) if error.kind() == ErrorKind::InvalidInput => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(ALIGNMENT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On disk and, where it is one, in memory: sizes around every boundary arrive as they are.
    #[test]
    fn every_length_arrives_whole() {
        let places = [std::env::temp_dir(), "/dev/shm".into(), ".".into()];
        for place in places.iter().filter(|place| place.is_dir()) {
            for length in [0, 1, LEAST_BYTES - 1, LEAST_BYTES, LEAST_BYTES + 1, 3 * STEP_BYTES + 4097] {
                let room: Vec<u8> = (0..length + ALIGNMENT_BYTES + 1).map(|n| (n % 251) as u8).collect();
                let start = room.as_ptr().align_offset(ALIGNMENT_BYTES);
                for bytes in [&room[start..start + length], &room[start + 1..start + 1 + length]] {
                    let mut file = tempfile::NamedTempFile::new_in(place).unwrap();
                    write_around_cache(file.as_file_mut(), bytes).unwrap();
                    assert!(std::fs::read(file.path()).unwrap() == bytes, "{length} bytes in {place:?}");
                    assert!(!fcntl_getfl(file.as_file()).unwrap().contains(OFlags::DIRECT));
                }
            }
        }
    }
}
