//! From a stat to an entry and its bytes.
//!
//! A small regular file costs few system calls: open, fstat, flistxattr, read, fstat, close. What is captured is
//! described from the open descriptor, so name, attributes and bytes belong to one file even when it is replaced
//! between the walk and the read. Reads never follow links, block on FIFOs, or touch access times where allowed.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Advice, CWD, FileType, OFlags, SeekFrom, fadvise, fstat, major, minor, readlinkat, seek};
use rustix::io::Errno;

use super::owner::Owners;
use super::place::Places;
use super::stat::Stat;
use super::xattrs::Subject;
use super::{FileError, path_of_key, split_key};
use crate::format::entry::{Content, Entry, Kind, XATTR_INLINE_LIMIT, XattrValue};

/// From here on the kernel is told to read ahead further.
const SEQUENTIAL_FROM_BYTES: u64 = 256 * 1024;
/// More holes than this and the shortest are read as zeros: an entry must stay small.
const HOLES_LIMIT: usize = 1024;
/// Longest path handed to the system in one piece.
const PATH_LIMIT_BYTES: usize = 4000;

/// Reads what a walk found. Shared between threads.
#[derive(Debug)]
pub struct FileReader {
    places: Arc<Places>,
    owners: Owners,
}

/// A path's metadata, as it goes into a snapshot.
#[derive(Debug)]
pub struct Captured {
    /// What the entry was made from; newer than the walk's when the file was opened.
    pub stat: Stat,
    /// A file's content is still empty, and attributes longer than an entry holds are still missing.
    pub entry: Entry,
    /// The attributes above [`XATTR_INLINE_LIMIT`], ascending by name, for the caller to store as chunks.
    pub long_xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Attributes that exist and could not be read.
    pub problems: Vec<FileError>,
}

impl Captured {
    /// The entry with its long attributes in place, each stored by `store`.
    ///
    /// # Errors
    /// The first of `store`.
    pub fn into_entry<E>(
        self,
        mut store: impl FnMut(&[u8]) -> Result<crate::format::entry::ChunkRef, E>,
    ) -> Result<Entry, E> {
        let mut entry = self.entry;
        for (name, value) in self.long_xattrs {
            let at = entry.xattrs.partition_point(|(other, _)| *other < name);
            entry.xattrs.insert(at, (name, XattrValue::Chunk(store(&value)?)));
        }
        Ok(entry)
    }
}

impl FileReader {
    /// A reader for the keys of the walk that gave `places`.
    pub fn new(places: Arc<Places>) -> Self {
        Self { places, owners: Owners::default() }
    }

    /// The metadata of what the walk found at `key`, by path: for everything but regular files about to be read.
    ///
    /// # Errors
    /// Something whose type no snapshot has, or a link that cannot be read.
    pub fn metadata(&self, key: &[u8], stat: &Stat) -> Result<Captured, FileError> {
        let error = |operation, errno: Errno| FileError::new(operation, path_of_key(key), errno);
        let (path, _parent) = self.short_path(key).map_err(|errno| error("open the parent of", errno))?;
        let kind = match stat.file_type() {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File(Content::empty()),
            FileType::Symlink => {
                let target =
                    readlinkat(CWD, &path, Vec::new()).map_err(|errno| error("read the link", errno))?;
                Kind::Symlink(target.into_bytes())
            }
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => {
                Kind::CharDevice { major: major(stat.rdev as _), minor: minor(stat.rdev as _) }
            }
            FileType::BlockDevice => {
                Kind::BlockDevice { major: major(stat.rdev as _), minor: minor(stat.rdev as _) }
            }
            FileType::Unknown => return Err(error("store the type of", Errno::NOTSUP)),
        };
        Ok(self.capture(key, *stat, kind, Subject::Path(&path)))
    }

    /// Opens the regular file the walk found at `key`.
    ///
    /// # Errors
    /// It cannot be opened, or is no regular file any more.
    pub fn open(&self, key: &[u8]) -> Result<OpenFile, FileError> {
        let error = |operation, errno: Errno| FileError::new(operation, path_of_key(key), errno);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.places.open(key, flags).map_err(|errno| error("open", errno))?;
        let stat = Stat::from(&fstat(&fd).map_err(|errno| error("stat", errno))?);
        if !stat.is_file() {
            let cause = io::Error::new(io::ErrorKind::NotFound, "replaced by something that is not a file");
            return Err(FileError::new("read", path_of_key(key), cause));
        }
        if stat.size_bytes >= SEQUENTIAL_FROM_BYTES {
            // Advice only.
            let _ = fadvise(&fd, 0, None, Advice::Sequential);
        }
        let holes = if stat.may_have_holes() { find_holes(&fd, stat.size_bytes) } else { Vec::new() };
        Ok(OpenFile { key: key.to_vec(), fd, stat, holes, passed: 0, position: 0, ended: false })
    }

    /// The metadata of an open file.
    pub fn describe(&self, file: &OpenFile) -> Captured {
        let kind = Kind::File(Content::empty());
        self.capture(&file.key, file.stat, kind, Subject::Open(file.fd.as_fd()))
    }

    fn capture(&self, key: &[u8], stat: Stat, kind: Kind, subject: Subject<'_>) -> Captured {
        let mut problems = Vec::new();
        let mut xattrs = Vec::new();
        let mut long_xattrs = Vec::new();
        match subject.all() {
            Ok(all) => {
                for (name, value) in all {
                    if value.len() > XATTR_INLINE_LIMIT {
                        long_xattrs.push((name, value));
                    } else {
                        xattrs.push((name, XattrValue::Inline(value)));
                    }
                }
            }
            Err(errno) => {
                problems.push(FileError::new("read the extended attributes of", path_of_key(key), errno));
            }
        }
        let entry = Entry {
            kind,
            mode: stat.permissions(),
            uid: stat.uid,
            gid: stat.gid,
            user: self.owners.user(stat.uid),
            group: self.owners.group(stat.gid),
            mtime: stat.mtime,
            xattrs,
            hardlink_to: None,
        };
        Captured { stat, entry, long_xattrs, problems }
    }

    /// A path the system takes in one piece: the real one, or through a descriptor of its parent, which must live
    /// as long as the path is used.
    fn short_path(&self, key: &[u8]) -> rustix::io::Result<(PathBuf, Option<OwnedFd>)> {
        let mut path = vec![b'/'];
        path.extend(self.places.real_path(key));
        if path.len() <= PATH_LIMIT_BYTES {
            return Ok((PathBuf::from(std::ffi::OsStr::from_bytes(&path)), None));
        }
        let (parent, name) = split_key(key).ok_or(Errno::NAMETOOLONG)?;
        let parent = self.places.open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
        Ok((path.join(std::ffi::OsStr::from_bytes(name)), Some(parent)))
    }
}

/// A regular file being read: its bytes outside the holes, in order, through [`Read`].
#[derive(Debug)]
pub struct OpenFile {
    key: Vec<u8>,
    fd: OwnedFd,
    stat: Stat,
    holes: Vec<(u64, u64)>,
    /// Holes before `position`.
    passed: usize,
    position: u64,
    /// The end came before the size said.
    ended: bool,
}

/// How reading a file ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Apparent length, holes included, of what was read.
    pub size_bytes: u64,
    /// Holes as (offset, length), inside `size_bytes`.
    pub holes: Vec<(u64, u64)>,
    /// Size, mtime or ctime moved, or the end came early: the bytes may be no state the file ever had.
    pub changed: bool,
}

impl OpenFile {
    /// As it was when opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// (offset, length) in bytes: ascending, not touching.
    pub fn holes(&self) -> &[(u64, u64)] {
        &self.holes
    }

    /// Bytes outside the holes, as the stat has it; 0 also where the system does not know (`/proc`).
    pub fn data_bytes(&self) -> u64 {
        self.stat.size_bytes - self.holes.iter().map(|(_, length)| length).sum::<u64>()
    }

    /// Whether size, mtime or ctime are not what they were when the file was opened.
    ///
    /// # Errors
    /// The file cannot be looked at any more.
    pub fn changed_while_reading(&self) -> Result<bool, FileError> {
        let now = fstat(&self.fd).map_err(|errno| FileError::new("stat", path_of_key(&self.key), errno))?;
        let now = Stat::from(&now);
        let same = |a: &Stat, b: &Stat| (a.size_bytes, a.mtime, a.ctime) == (b.size_bytes, b.mtime, b.ctime);
        Ok(self.ended || !same(&now, &self.stat))
    }

    /// Ends the reading: what was read, and whether it can be trusted to be one state of the file.
    ///
    /// # Errors
    /// The file cannot be looked at any more.
    pub fn finish(self) -> Result<ReadOutcome, FileError> {
        let changed = self.changed_while_reading()?;
        let mut size_bytes = self.stat.size_bytes.max(self.position);
        let mut holes = self.holes;
        if self.ended {
            size_bytes = self.position;
            holes.retain(|(offset, length)| offset + length <= size_bytes);
        }
        Ok(ReadOutcome { size_bytes, holes, changed })
    }

    /// How many bytes may be read from the current position before the next hole or the end.
    fn available(&mut self) -> u64 {
        while let Some((offset, length)) = self.holes.get(self.passed).copied() {
            if self.position < offset {
                return offset - self.position;
            }
            self.position = offset + length;
            self.passed += 1;
        }
        self.stat.size_bytes.saturating_sub(self.position)
    }
}

impl Read for OpenFile {
    /// Errors carry the path.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.available();
        if self.stat.size_bytes == 0 {
            // Files of /proc and /sys have bytes and no size; an empty file costs one read more.
            available = u64::MAX;
        }
        let wanted = usize::try_from(available).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 || self.ended {
            return Ok(0);
        }
        loop {
            match rustix::io::pread(&self.fd, &mut buffer[..wanted], self.position) {
                Ok(length) => {
                    self.position += length as u64;
                    self.ended = length == 0 && self.stat.size_bytes > 0;
                    return Ok(length);
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let error = FileError::new("read", path_of_key(&self.key), errno);
                    return Err(io::Error::new(error.cause.kind(), error));
                }
            }
        }
    }
}

/// The holes of a file of `size_bytes`; none when the file system cannot tell.
fn find_holes(fd: &OwnedFd, size_bytes: u64) -> Vec<(u64, u64)> {
    let mut holes: Vec<(u64, u64)> = Vec::new();
    let mut shortest = 0;
    let mut position = 0;
    while position < size_bytes {
        let data = match seek(fd, SeekFrom::Data(position)) {
            Ok(data) => data.min(size_bytes),
            Err(Errno::NXIO) => size_bytes,
            Err(_) => return Vec::new(),
        };
        if data > position && data - position > shortest {
            holes.push((position, data - position));
        }
        while holes.len() > HOLES_LIMIT {
            shortest = (shortest * 2).max(4096);
            holes.retain(|(_, length)| *length > shortest);
        }
        if data >= size_bytes {
            break;
        }
        match seek(fd, SeekFrom::Hole(data)) {
            Ok(hole) if hole > data => position = hole,
            _ => break,
        }
    }
    holes
}
