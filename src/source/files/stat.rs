//! What one `stat` tells, in the form the rest of the house uses.

use crate::format::entry::Timestamp;
pub use rustix::fs::FileType;

/// The attributes a walk finds without opening anything. Device, inode and ctime serve the local cache and hard
/// links; they never reach a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub device: u64,
    pub inode: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub size_bytes: u64,
    /// Units of 512 bytes that are allocated.
    pub blocks: u64,
    /// Type and permission bits, as in `st_mode`.
    pub raw_mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Saturates.
    pub links: u32,
    /// Of a device file: which device.
    pub rdev: u64,
}

impl Stat {
    /// What kind of file it is.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.raw_mode)
    }
    pub fn is_directory(&self) -> bool {
        self.file_type() == FileType::Directory
    }
    pub fn is_file(&self) -> bool {
        self.file_type() == FileType::RegularFile
    }
    /// Permission, set-id and sticky bits.
    pub fn permissions(&self) -> u32 {
        self.raw_mode & 0o7777
    }
    /// Fewer blocks than its length needs: probably sparse.
    pub fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size_bytes
    }
}

impl From<&rustix::fs::Stat> for Stat {
    // The widths of the system's fields differ between architectures.
    #[allow(clippy::unnecessary_cast)]
    fn from(raw: &rustix::fs::Stat) -> Self {
        let time = |seconds: i64, nanoseconds: u32| Timestamp { seconds, nanoseconds };
        Self {
            device: raw.st_dev as u64,
            inode: raw.st_ino as u64,
            mtime: time(raw.st_mtime as i64, raw.st_mtime_nsec as u32),
            ctime: time(raw.st_ctime as i64, raw.st_ctime_nsec as u32),
            size_bytes: raw.st_size as u64,
            blocks: raw.st_blocks as u64,
            raw_mode: raw.st_mode as u32,
            uid: raw.st_uid,
            gid: raw.st_gid,
            links: u32::try_from(raw.st_nlink as u64).unwrap_or(u32::MAX),
            rdev: raw.st_rdev as u64,
        }
    }
}
