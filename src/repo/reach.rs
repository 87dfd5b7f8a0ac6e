//! The log of every chunk a snapshot reaches, kept while it is made.
//!
//! A writer cannot read back the pages it seals, yet must prove before confirming that everything they name still
//! exists. So it writes the ids down: 17 bytes each in a temporary file, looked at only when a pack went. Where no disk
//! takes them, they stay in memory up to a limit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::RepoError;
use super::local::error;
use crate::base::cache_lost::cache_lost;
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;

/// See the module.
pub struct Reach {
    /// `None` where no disk took one.
    file: Option<File>,
    place: PathBuf,
    /// Where it goes on when there is no room in `place`.
    elsewhere: PathBuf,
    /// What stands in the file.
    written_bytes: u64,
    /// What comes after that.
    rest: Vec<u8>,
    /// How much of that there may be before it is written.
    flush_bytes: usize,
    count: u64,
}

const RECORD_BYTES: usize = 17;
/// Bytes gathered before they are written, and read at once: whole records.
const BUFFER_BYTES: usize = RECORD_BYTES << 14;
/// Bytes gathered when no disk takes them: of 3.9 million chunks.
const MEMORY_BYTES: usize = 64 << 20;
/// Where the file goes on when there is no folder, or no room in it.
const ELSEWHERE: &str = "/var/tmp";

impl Reach {
    /// An empty log in `folder`, or in the system's temporary folder. It has no name and vanishes when dropped.
    pub fn new(folder: Option<&Path>) -> Self {
        let made = folder.and_then(|folder| {
            let made = tempfile::tempfile_in(folder);
            let made = made.map_err(|cause| cache_lost("make a temporary file in", folder, &cause));
            Some((made.ok()?, folder))
        });
        let elsewhere = PathBuf::from(ELSEWHERE);
        let (file, place) = match made {
            Some((file, folder)) => (Some(file), folder.to_owned()),
            None => (tempfile::tempfile_in(&elsewhere).ok(), elsewhere.clone()),
        };
        let (rest, flush_bytes) = (Vec::new(), BUFFER_BYTES);
        Self { file, place, elsewhere, written_bytes: 0, rest, flush_bytes, count: 0 }
    }

    /// Writes what was gathered; where no disk takes it, it stays in memory until there is too much of it.
    fn flush(&mut self) -> Result<(), RepoError> {
        match self.write() {
            Ok(()) => {
                self.written_bytes += self.rest.len() as u64;
                self.rest.clear();
                self.flush_bytes = BUFFER_BYTES;
            }
            Err(cause) if self.rest.len() < MEMORY_BYTES => {
                cache_lost("write a temporary file in", &self.elsewhere, &cause);
                self.flush_bytes = MEMORY_BYTES;
            }
            Err(cause) => return Err(error("write a temporary file in", &self.elsewhere)(cause)),
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            match file.write_all_at(&self.rest, self.written_bytes) {
                Err(cause) if self.place != self.elsewhere => {
                    cache_lost("write a temporary file in", &self.place, &cause);
                }
                written => return written,
            }
        }
        let file = tempfile::tempfile_in(&self.elsewhere)?;
        self.moved_to(&file)?;
        self.place.clone_from(&self.elsewhere);
        self.file = Some(file);
        Ok(())
    }

    fn moved_to(&self, file: &File) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = 0;
        while let Some((part, from)) = self.part(&mut buffer, at) {
            from.read_exact_at(part, at)?;
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        file.write_all_at(&self.rest, at)
    }

    /// The room for what stands at `at` in the file, and the file; `None` at its end.
    fn part<'a>(&self, buffer: &'a mut [u8], at: u64) -> Option<(&'a mut [u8], &File)> {
        let length = self.written_bytes.saturating_sub(at).min(buffer.len() as u64);
        let file = self.file.as_ref().filter(|_| length > 0)?;
        Some((&mut buffer[..length as usize], file))
    }

    /// Notes that the snapshot reaches a chunk.
    pub fn add(&mut self, kind: ObjectKind, id: &ShortId) -> Result<(), RepoError> {
        self.rest.push(kind as u8);
        self.rest.extend_from_slice(id.as_bytes());
        self.count += 1;
        if self.rest.len() >= self.flush_bytes { self.flush() } else { Ok(()) }
    }

    /// How many were noted, repeats included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Calls `visit` with every chunk noted.
    pub fn for_each(
        &self,
        mut visit: impl FnMut(ObjectKind, ShortId) -> Result<(), RepoError>,
    ) -> Result<(), RepoError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = 0;
        while let Some((part, file)) = self.part(&mut buffer, at) {
            file.read_exact_at(part, at).map_err(error("read a temporary file in", &self.place))?;
            visit_all(part, &mut visit)?;
            at += part.len() as u64;
        }
        visit_all(&self.rest, &mut visit)
    }
}

fn visit_all(
    records: &[u8],
    visit: &mut impl FnMut(ObjectKind, ShortId) -> Result<(), RepoError>,
) -> Result<(), RepoError> {
    for record in records.as_chunks::<RECORD_BYTES>().0 {
        let mut id = [0; 16];
        id.copy_from_slice(&record[1..]);
        let kind = if record[0] == ObjectKind::Data as u8 { ObjectKind::Data } else { ObjectKind::Meta };
        visit(kind, ShortId(id))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn id(number: u32) -> ShortId {
        let mut id = [7; 16];
        id[..4].copy_from_slice(&number.to_le_bytes());
        ShortId(id)
    }

    fn add(reach: &mut Reach, number: u32) -> Result<(), RepoError> {
        let kind = if number.is_multiple_of(2) { ObjectKind::Data } else { ObjectKind::Meta };
        reach.add(kind, &id(number))
    }

    /// From here on its file takes no more but can still be read, as on a full disk.
    fn fill(reach: &mut Reach) {
        let path = format!("/proc/self/fd/{}", reach.file.as_ref().unwrap().as_raw_fd());
        reach.file = Some(File::open(path).unwrap());
    }

    fn assert_holds(reach: &Reach, count: u32) {
        let mut next = 0;
        let check = |kind, found| {
            assert_eq!((kind == ObjectKind::Data, found), (next % 2 == 0, id(next)));
            next += 1;
            Ok(())
        };
        reach.for_each(check).unwrap();
        assert_eq!((next, reach.count()), (count, u64::from(count)));
    }

    #[test]
    fn what_was_noted_comes_back_in_order_also_after_a_move_to_another_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut reach = Reach::new(Some(folder.path()));
        let many = 3 * (BUFFER_BYTES / RECORD_BYTES) as u32 + 5;
        for number in 0..many {
            if number == many / 2 {
                fill(&mut reach);
            }
            add(&mut reach, number).unwrap();
        }
        assert_eq!(reach.place, Path::new(ELSEWHERE));
        assert_holds(&reach, many);
    }

    #[test]
    fn where_no_disk_takes_what_was_noted_it_stays_in_memory_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let mut reach = Reach::new(Some(folder.path()));
        reach.elsewhere = folder.path().join("nowhere");
        let begun = (BUFFER_BYTES / RECORD_BYTES) as u32 + 5;
        for number in 0..begun {
            add(&mut reach, number).unwrap();
        }
        fill(&mut reach);
        let many = begun + 2 * (BUFFER_BYTES / RECORD_BYTES) as u32;
        for number in begun..many {
            add(&mut reach, number).unwrap();
        }
        assert_holds(&reach, many);
        let most = (MEMORY_BYTES / RECORD_BYTES) as u32;
        let failed = (many..many + most).find(|number| add(&mut reach, *number).is_err());
        assert!(failed.is_some(), "there is a limit");
    }

    #[test]
    fn without_any_file_what_was_noted_is_there_all_the_same() {
        let mut reach = Reach::new(None);
        (reach.file, reach.elsewhere) = (None, "/nowhere".into());
        reach.place = reach.elsewhere.clone();
        let many = 2 * (BUFFER_BYTES / RECORD_BYTES) as u32 + 5;
        for number in 0..many {
            add(&mut reach, number).unwrap();
        }
        assert_holds(&reach, many);
    }
}
