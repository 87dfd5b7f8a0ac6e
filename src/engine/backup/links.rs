//! The files with several names that a backup is in the middle of.
//!
//! Memory: a file is kept from its first name to its last, as the link count tells it. Names outside the backup never
//! come, so a tree can hold any number of files that wait for ever: what is known of each goes to a temporary file
//! once there is much of it, and a few dozen bytes stay.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::file_cache::{Identity, Record};
use crate::engine::EngineError;
use crate::format::codec::Encoder;
use crate::source::files::stat::Stat;

/// Bytes of records held in memory.
const MEMORY_BYTES: usize = 8 << 20;

/// Device and inode.
pub type Inode = (u64, u64);

fn inode(stat: &Stat) -> Inode {
    (stat.device, stat.inode)
}

/// The planner's part: which names are further names of a file that it dealt out already.
#[derive(Default)]
pub struct Names {
    /// A hash of what the first name's stat told, and how many names are still to come.
    waiting: HashMap<Inode, (u64, u32)>,
}

impl Names {
    /// Whether a path is another name of a file seen before. By size and times too: an inode that was freed during the
    /// walk may already be another file.
    pub fn is_further(&mut self, stat: &Stat) -> bool {
        let identity = hash(&Identity::from(stat));
        match self.waiting.get_mut(&inode(stat)) {
            Some((known, left)) if *known == identity => {
                *left -= 1;
                if *left == 0 {
                    self.waiting.remove(&inode(stat));
                }
                true
            }
            _ => {
                self.waiting.insert(inode(stat), (identity, stat.links.saturating_sub(1).max(1)));
                false
            }
        }
    }
}

fn hash(identity: &Identity) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    hasher.finish()
}

enum Place {
    Memory(Box<Record>),
    File { offset: u64, length: u32 },
}

/// How a file counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    New,
    Changed,
    Unmodified,
}

struct Leader {
    place: Place,
    left: u32,
    counted: Counted,
}

/// The assembler's part: what was stored under a file's first name.
#[derive(Default)]
pub struct Leaders {
    waiting: HashMap<Inode, Leader>,
    memory_bytes: usize,
    file: Option<(File, u64)>,
}

fn size(record: &Record) -> usize {
    record.key.len() + record.entry.len() + record.ids.len() + std::mem::size_of::<Record>()
}

impl Leaders {
    /// Notes a file's first name.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub fn add(&mut self, stat: &Stat, record: Record, counted: Counted) -> Result<(), EngineError> {
        let left = stat.links.saturating_sub(1);
        self.forget(&inode(stat));
        if left == 0 {
            return Ok(());
        }
        let size = size(&record);
        let place = if self.memory_bytes + size <= MEMORY_BYTES {
            self.memory_bytes += size;
            Place::Memory(Box::new(record))
        } else {
            self.spill(&record).map_err(failed("write"))?
        };
        self.waiting.insert(inode(stat), Leader { place, left, counted });
        Ok(())
    }

    fn spill(&mut self, record: &Record) -> std::io::Result<Place> {
        if self.file.is_none() {
            self.file = Some((tempfile::tempfile()?, 0));
        }
        let Some((file, end)) = &mut self.file else { return Err(std::io::ErrorKind::NotFound.into()) };
        let mut encoder = Encoder::new();
        record.encode(&mut encoder);
        let bytes = encoder.as_slice();
        let length = u32::try_from(bytes.len()).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
        let offset = *end;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)?;
        *end += u64::from(length);
        Ok(Place::File { offset, length })
    }

    /// What was stored of the file that `stat` is another name of, and how it counted.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn of(&self, stat: &Stat) -> Result<Option<(Record, Counted)>, EngineError> {
        let Some(leader) = self.waiting.get(&inode(stat)) else { return Ok(None) };
        match (&leader.place, &self.file) {
            (Place::Memory(record), _) => Ok(Some((record.as_ref().clone(), leader.counted))),
            (Place::File { offset, length }, Some((file, _))) => {
                let mut bytes = vec![0; *length as usize];
                file.read_exact_at(&mut bytes, *offset).map_err(failed("read"))?;
                // It is our own file, without a name: nobody else wrote there.
                Ok(Record::decode(&bytes).ok().map(|record| (record, leader.counted)))
            }
            (Place::File { .. }, None) => Ok(None),
        }
    }

    /// One more name of the file was stored.
    pub fn took(&mut self, stat: &Stat) {
        let Some(leader) = self.waiting.get_mut(&inode(stat)) else { return };
        leader.left -= 1;
        if leader.left == 0 {
            self.forget(&inode(stat));
        }
    }

    fn forget(&mut self, inode: &Inode) {
        if let Some(Leader { place: Place::Memory(record), .. }) = self.waiting.remove(inode) {
            self.memory_bytes -= size(&record);
        }
    }
}

fn failed(operation: &'static str) -> impl Fn(std::io::Error) -> EngineError {
    move |cause| EngineError::Local { operation, path: "the temporary file of hard links".into(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::Timestamp;

    fn stat(inode: u64, links: u32) -> Stat {
        let time = Timestamp { seconds: 5, nanoseconds: 6 };
        Stat {
            device: 1,
            inode,
            mtime: time,
            ctime: time,
            size_bytes: 7,
            blocks: 8,
            raw_mode: 0o100_644,
            uid: 0,
            gid: 0,
            links,
            rdev: 0,
        }
    }

    fn record(stat: &Stat, ids_bytes: usize) -> Record {
        let key = stat.inode.to_le_bytes().to_vec();
        let ids = vec![stat.inode as u8; ids_bytes];
        Record { key, identity: Identity::from(stat), entry: vec![1], content_bytes: 7, ids }
    }

    #[test]
    fn nothing_is_kept_of_files_whose_names_all_came() {
        let (mut names, mut leaders) = (Names::default(), Leaders::default());
        let stat = stat(1, 3);
        assert!(!names.is_further(&stat));
        leaders.add(&stat, record(&stat, 17), Counted::New).unwrap();
        for _ in 0..2 {
            assert!(names.is_further(&stat));
            assert_eq!(leaders.of(&stat).unwrap(), Some((record(&stat, 17), Counted::New)));
            leaders.took(&stat);
        }
        assert!(names.waiting.is_empty() && leaders.waiting.is_empty() && leaders.memory_bytes == 0);
        assert_eq!(leaders.of(&stat).unwrap(), None);
    }

    #[test]
    fn an_inode_that_is_another_file_by_now_is_no_further_name() {
        let mut names = Names::default();
        assert!(!names.is_further(&stat(1, 2)));
        assert!(!names.is_further(&Stat { size_bytes: 8, ..stat(1, 2) }));
        assert!(names.is_further(&Stat { size_bytes: 8, ..stat(1, 2) }));
    }

    #[test]
    fn many_that_wait_for_ever_go_to_a_file_and_come_back_from_it() {
        let mut leaders = Leaders::default();
        for n in 0..40 {
            let stat = stat(n, 2);
            leaders.add(&stat, record(&stat, 1 << 20), Counted::Changed).unwrap();
        }
        assert!(leaders.memory_bytes <= MEMORY_BYTES);
        for n in 0..40 {
            let stat = stat(n, 2);
            assert_eq!(leaders.of(&stat).unwrap(), Some((record(&stat, 1 << 20), Counted::Changed)), "{n}");
        }
    }
}
