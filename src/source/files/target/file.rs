//! A regular file on its way back: written at offsets by several threads, then finished once.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, fstat, ftruncate, openat, unlinkat};
use rustix::io::Errno;

use super::metadata::Subject;
use super::{Directory, Target, TargetError, temporary_name};
use crate::format::entry::Entry;
use crate::source::files::FileError;
use crate::source::files::stat::Stat;

/// Space for files from this size on is reserved before the first byte: a full disk shows at once, and the
/// file lies in one piece.
const RESERVE_FROM_BYTES: u64 = 1024 * 1024;
const BLOCK_BYTES: usize = 4096;

/// A file being put back. Dropped unfinished, what was written beside its name is removed again.
#[derive(Debug)]
pub struct TargetFile {
    target: Arc<Target>,
    key: Vec<u8>,
    parent: Arc<Directory>,
    name: Vec<u8>,
    /// `None` when the existing file is updated in place, and when it has its final name.
    temporary: Option<Vec<u8>>,
    in_place: bool,
    fd: OwnedFd,
    size_bytes: u64,
    /// The end of what was there or written.
    end: AtomicU64,
}

impl Target {
    /// Begins a file of `size_bytes`, all zeros until written. `dense`: no holes are known, so space may be
    /// reserved.
    ///
    /// # Errors
    /// It cannot be made; [`Errno::NOSPC`] already here when a large file cannot fit.
    pub fn create_file(
        self: &Arc<Self>,
        key: &[u8],
        size_bytes: u64,
        dense: bool,
    ) -> Result<TargetFile, TargetError> {
        let (parent, name) = self.parent(key)?;
        let temporary = temporary_name(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(&parent.fd, &temporary, flags, Mode::RUSR | Mode::WUSR);
        let mut opened = open();
        if matches!(opened, Err(Errno::EXIST)) {
            // Left by a run that was killed.
            opened = unlinkat(&parent.fd, &temporary, AtFlags::empty()).and_then(|()| open());
        }
        let fd = opened.map_err(|errno| self.error("create", key, errno))?;
        let mut file = TargetFile {
            target: self.clone(),
            key: key.to_vec(),
            name: name.to_vec(),
            parent,
            temporary: Some(temporary),
            in_place: false,
            fd,
            size_bytes,
            end: AtomicU64::new(0),
        };
        if dense && !self.options.sparse && size_bytes >= RESERVE_FROM_BYTES {
            file.reserve()?;
        }
        Ok(file)
    }

    /// Opens the regular file at `key` to be updated in place; its bytes can be compared first. `None` where that
    /// is not possible or not safe: nothing there, another type, several hard links (the others are not ours to
    /// change), in use as a program, not writable. The caller creates it then.
    ///
    /// # Errors
    /// The key is no path below the target.
    pub fn update_file(
        self: &Arc<Self>,
        key: &[u8],
        size_bytes: u64,
    ) -> Result<Option<TargetFile>, TargetError> {
        Self::check_key(key)?;
        let Ok((parent, name)) = self.existing_parent(key) else { return Ok(None) };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(fd) = openat(&parent.fd, name, flags, Mode::empty()) else { return Ok(None) };
        let Ok(stat) = fstat(&fd).map(|stat| Stat::from(&stat)) else { return Ok(None) };
        if !stat.is_file() || stat.links != 1 {
            return Ok(None);
        }
        Ok(Some(TargetFile {
            target: self.clone(),
            key: key.to_vec(),
            name: name.to_vec(),
            parent,
            temporary: None,
            in_place: true,
            fd,
            size_bytes,
            end: AtomicU64::new(stat.size_bytes),
        }))
    }
}

impl TargetFile {
    fn reserve(&mut self) -> Result<(), TargetError> {
        match fallocate(&self.fd, FallocateFlags::empty(), 0, self.size_bytes) {
            Ok(()) => {
                *self.end.get_mut() = self.size_bytes;
                Ok(())
            }
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                Err(self.target.error("reserve space for", &self.key, errno))
            }
            // A file system that cannot reserve can still be written.
            Err(_) => Ok(()),
        }
    }

    /// Where it will be, for messages.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether the bytes that were there before are still there where nothing was written.
    pub fn in_place(&self) -> bool {
        self.in_place
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The path and why: a full disk, an I/O error.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        if !self.target.options.sparse {
            return self.write_all(offset, bytes);
        }
        let mut offset = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            // Blocks by the file's offsets, not the buffer's: only whole blocks can be holes.
            let first = BLOCK_BYTES - (offset % BLOCK_BYTES as u64) as usize;
            let zeros = run(rest, first, true);
            self.zero_at(offset, zeros as u64)?;
            let data = zeros + run(&rest[zeros..], if zeros > 0 { BLOCK_BYTES } else { first }, false);
            self.write_all(offset + zeros as u64, &rest[zeros..data])?;
            offset += data as u64;
            rest = &rest[data..];
        }
        Ok(())
    }

    /// Makes a range zeros, as a hole where the file system has them.
    ///
    /// # Errors
    /// The path and why.
    pub fn zero_at(&self, offset: u64, length: u64) -> Result<(), FileError> {
        let old_end = self.end.load(Ordering::Relaxed);
        if length == 0 || !self.in_place || offset >= old_end {
            // New files, and what is past the old end, are zeros until written.
            return Ok(());
        }
        let length = length.min(old_end - offset);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(&self.fd, flags, offset, length).is_ok() {
            return Ok(());
        }
        let zeros = vec![0; 64 * 1024];
        let mut done = 0;
        while done < length {
            let step = (length - done).min(zeros.len() as u64);
            self.write_all(offset + done, &zeros[..step as usize])?;
            done += step;
        }
        Ok(())
    }

    fn write_all(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        if bytes.is_empty() {
            // Nothing is there yet: the end stays where it is.
            return Ok(());
        }
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&self.fd, &bytes[done..], offset + done as u64) {
                Ok(0) => return Err(self.target.file_error("write", &self.key, Errno::IO)),
                Ok(length) => done += length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.target.file_error("write", &self.key, errno)),
            }
        }
        self.end.fetch_max(offset + bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Fills as much of `buffer` as the file has from `offset` on; how much that was.
    ///
    /// # Errors
    /// The path and why.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, FileError> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&self.fd, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(length) => done += length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.target.file_error("read", &self.key, errno)),
            }
        }
        Ok(done)
    }

    /// Sets length and metadata, and only then gives the file its name. Returns the attributes that could not be
    /// set. Attributes of `entry` must be inline.
    ///
    /// # Errors
    /// The file does not have its name: length, or the rename.
    pub fn finish(mut self, entry: &Entry) -> Result<Vec<FileError>, TargetError> {
        if self.end.load(Ordering::Relaxed) != self.size_bytes {
            ftruncate(&self.fd, self.size_bytes)
                .map_err(|errno| self.target.error("set the length of", &self.key, errno))?;
        }
        let subject = Subject::Open(self.fd.as_fd());
        let fresh = !self.in_place && self.parent.plain;
        let problems = self.target.apply(&self.key, subject, entry, fresh);
        if let Some(temporary) = &self.temporary {
            self.target.rename(&self.key, &self.parent, temporary, &self.name)?;
            self.temporary = None;
        }
        Ok(problems)
    }
}

impl Drop for TargetFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = unlinkat(&self.parent.fd, temporary, AtFlags::empty());
        }
    }
}

/// How many bytes at the front are whole blocks (the first of `first` bytes) that are all zero, or that are not.
fn run(bytes: &[u8], first: usize, zero: bool) -> usize {
    let mut end = 0;
    let mut next = first;
    while end < bytes.len() {
        let block = &bytes[end..bytes.len().min(next)];
        if block.iter().all(|&byte| byte == 0) != zero {
            break;
        }
        end += block.len();
        next = end + BLOCK_BYTES;
    }
    end
}
