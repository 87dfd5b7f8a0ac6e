//! The log of every chunk a snapshot reaches, kept while it is made.
//!
//! A writer cannot read back the pages it seals, yet must prove before confirming that everything they name still
//! exists. So it writes the ids down: 17 bytes each in a temporary file, looked at only when a pack went.

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
    file: File,
    place: PathBuf,
    /// What stands in the file.
    written_bytes: u64,
    /// What comes after that.
    rest: Vec<u8>,
    count: u64,
}

const RECORD_BYTES: usize = 17;
/// Bytes gathered before they are written, and read at once: whole records.
const BUFFER_BYTES: usize = RECORD_BYTES << 14;
/// Where the file goes on when there is no folder, or no room in it.
const ELSEWHERE: &str = "/var/tmp";

impl Reach {
    /// An empty log in `folder`, or in the system's temporary folder. It has no name and vanishes when dropped.
    ///
    /// # Errors
    /// There is no place for a temporary file.
    pub fn new(folder: Option<&Path>) -> Result<Self, RepoError> {
        let made = folder.and_then(|folder| {
            let made = tempfile::tempfile_in(folder);
            let made = made.map_err(|cause| cache_lost("make a temporary file in", folder, &cause));
            Some((made.ok()?, folder))
        });
        let (file, place) = match made {
            Some((file, folder)) => (file, folder),
            None => (elsewhere()?, Path::new(ELSEWHERE)),
        };
        Ok(Self { file, place: place.to_owned(), written_bytes: 0, rest: Vec::new(), count: 0 })
    }

    fn flush(&mut self) -> Result<(), RepoError> {
        if let Err(cause) = self.file.write_all_at(&self.rest, self.written_bytes) {
            if self.place == Path::new(ELSEWHERE) {
                return Err(error("write a temporary file in", &self.place)(cause));
            }
            cache_lost("write a temporary file in", &self.place, &cause);
            let file = elsewhere()?;
            self.place = ELSEWHERE.into();
            self.moved_to(&file).map_err(error("write a temporary file in", &self.place))?;
            self.file = file;
        }
        self.written_bytes += self.rest.len() as u64;
        self.rest.clear();
        Ok(())
    }

    fn moved_to(&self, file: &File) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = 0;
        while at < self.written_bytes {
            let length = (self.written_bytes - at).min(BUFFER_BYTES as u64);
            let part = &mut buffer[..length as usize];
            self.file.read_exact_at(part, at)?;
            file.write_all_at(part, at)?;
            at += length;
        }
        file.write_all_at(&self.rest, at)
    }

    /// Notes that the snapshot reaches a chunk.
    pub fn add(&mut self, kind: ObjectKind, id: &ShortId) -> Result<(), RepoError> {
        self.rest.push(kind as u8);
        self.rest.extend_from_slice(id.as_bytes());
        self.count += 1;
        if self.rest.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// How many were noted, repeats included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Calls `visit` with every chunk noted.
    pub fn for_each(
        &mut self,
        mut visit: impl FnMut(ObjectKind, ShortId) -> Result<(), RepoError>,
    ) -> Result<(), RepoError> {
        self.flush()?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = 0;
        while at < self.written_bytes {
            let length = (self.written_bytes - at).min(BUFFER_BYTES as u64);
            let part = &mut buffer[..length as usize];
            self.file.read_exact_at(part, at).map_err(error("read a temporary file in", &self.place))?;
            for record in part.as_chunks::<RECORD_BYTES>().0 {
                let mut id = [0; 16];
                id.copy_from_slice(&record[1..]);
                let kind =
                    if record[0] == ObjectKind::Data as u8 { ObjectKind::Data } else { ObjectKind::Meta };
                visit(kind, ShortId(id))?;
            }
            at += length;
        }
        Ok(())
    }
}

fn elsewhere() -> Result<File, RepoError> {
    let place = Path::new(ELSEWHERE);
    tempfile::tempfile_in(place).map_err(error("create a temporary file in", place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_comes_back_in_order_also_after_a_move_to_another_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut reach = Reach::new(Some(folder.path())).unwrap();
        let id = |number: u32| {
            let mut id = [7; 16];
            id[..4].copy_from_slice(&number.to_le_bytes());
            ShortId(id)
        };
        let many = 3 * (BUFFER_BYTES / RECORD_BYTES) as u32 + 5;
        for number in 0..many {
            if number == many / 2 {
                // A file that takes no more but can still be read, as on a full disk.
                let path = std::path::PathBuf::from(format!("/proc/self/fd/{}", {
                    use std::os::fd::AsRawFd as _;
                    reach.file.as_raw_fd()
                }));
                reach.file = File::open(path).unwrap();
            }
            let kind = if number % 2 == 0 { ObjectKind::Data } else { ObjectKind::Meta };
            reach.add(kind, &id(number)).unwrap();
        }
        assert_eq!(reach.count(), u64::from(many));
        let mut next = 0;
        let mut check = |kind, found| {
            assert_eq!((kind == ObjectKind::Data, found), (next % 2 == 0, id(next)));
            next += 1;
            Ok(())
        };
        reach.for_each(&mut check).unwrap();
        assert_eq!(next, many);
    }
}
