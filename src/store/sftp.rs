//! Level 2: objects as files on an SFTP server (OpenSSH, Hetzner Storage Box, any NAS).
//!
//! A write goes to a temporary name, is flushed to the server's disk where the server can (`fsync@openssh.com`),
//! is checked for its size, and is renamed: no half-written file ever has an object's name. Sessions are
//! pooled; one that meets anything but a plain answer of the server is thrown away, and the retry gets another.

use std::fmt;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use openssh_sftp_client::Error;
use openssh_sftp_client::error::SftpErrorKind;
use openssh_sftp_client::file::File;
use tokio::io::AsyncSeekExt;

use super::pace::Pace;
use super::retry::Tries;
use super::ssh::{Server, Session};
use super::{
    LARGEST_OBJECT_BYTES, Listed, Store, StoreError, StoreErrorKind, StoreOptions, name, temp, too_large,
};

/// Sessions at once. A Hetzner Storage Box allows ten for the whole account.
pub const MAX_SESSIONS: usize = 6;
/// What one request asks for; servers may do less, and then the rest is asked for again.
const BLOCK_BYTES: u64 = 128 << 10;
/// Requests under way in one operation: 4 MiB, enough for 100 MB/s at 40 ms.
const WINDOW_BLOCKS: usize = 32;
/// See the module's page.
pub(super) struct SftpStore {
    server: Server,
    root: PathBuf,
    options: StoreOptions,
    location: String,
    tries: Tries,
    upload: Pace,
    download: Pace,
    idle: Mutex<Vec<Session>>,
    swept: AtomicBool,
}

/// Why one try failed, before it is a [`StoreError`].
enum Failure {
    Sftp(Error),
    Kind(StoreErrorKind, String),
    /// The server is connected and silent.
    TimedOut,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sftp(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Sftp(Error::IOError(error))
    }
}

impl Failure {
    /// Whether the server itself said so, in order: the session is as good as before.
    fn is_answer(&self) -> bool {
        matches!(self, Self::Sftp(Error::SftpError(..)) | Self::Kind(..))
    }

    fn is_missing(&self) -> bool {
        matches!(self, Self::Sftp(Error::SftpError(SftpErrorKind::NoSuchFile, _)))
    }

    fn is_general(&self) -> bool {
        matches!(self, Self::Sftp(Error::SftpError(SftpErrorKind::Failure, _)))
    }

    fn into_parts(self, operation: &'static str) -> (StoreErrorKind, String) {
        let error = match self {
            Self::Kind(kind, cause) => return (kind, cause),
            Self::TimedOut => return (StoreErrorKind::Temporary, "the server does not answer".into()),
            Self::Sftp(error) => error,
        };
        let kind = match &error {
            // Writing has no absence: its folder could not be made.
            Error::SftpError(SftpErrorKind::NoSuchFile, _) if operation == "write" => StoreErrorKind::Other,
            Error::SftpError(SftpErrorKind::NoSuchFile, _) => StoreErrorKind::NotFound,
            Error::SftpError(SftpErrorKind::PermDenied, _) => StoreErrorKind::Denied,
            Error::SftpError(SftpErrorKind::OpUnsupported | SftpErrorKind::BadMessage, _) => {
                StoreErrorKind::Other
            }
            // "Failure" says nothing; a server short of something may have it later.
            _ => StoreErrorKind::Temporary,
        };
        (kind, error.to_string())
    }
}

type Tried<T> = Result<T, Failure>;

impl SftpStore {
    pub(super) fn open(server: Server, root: &str, location: String, options: &StoreOptions) -> Self {
        let sessions = options.max_concurrent.clamp(1, MAX_SESSIONS);
        Self {
            server,
            root: PathBuf::from(root),
            tries: Tries::new(location.clone(), options, sessions),
            location,
            upload: Pace::new(options.upload_limit_bytes_per_second),
            download: Pace::new(options.download_limit_bytes_per_second),
            options: options.clone(),
            idle: Mutex::default(),
            swept: AtomicBool::new(false),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a session under the retry policy. A `work` cut off by its time limit takes its session along.
    async fn run<T, F>(
        &self,
        operation: &'static str,
        subject: &str,
        bytes: u64,
        work: impl Fn(Session) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = (Session, Tried<T>)>,
    {
        let attempt = || async {
            let error =
                |kind, cause: String| StoreError::new(kind, operation, subject, &self.location, cause);
            let pooled = self.idle().pop();
            let reused = pooled.is_some();
            let session = match pooled {
                Some(session) => session,
                None => {
                    let fresh = Session::connect(&self.server, &self.options).await;
                    fresh.map_err(|(kind, cause)| error(kind, cause))?
                }
            };
            let (session, result) = work(session).await;
            let failure = match result {
                Ok(done) => {
                    self.idle().push(session);
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            if failure.is_answer() {
                self.idle().push(session);
            } else if reused {
                // It died while idle, and the others were opened to the same server: begin anew.
                self.idle().clear();
            }
            let (kind, cause) = failure.into_parts(operation);
            Err(error(kind, cause))
        };
        self.tries.run(operation, subject, bytes, attempt).await
    }

    /// Bounds one request: a whole read may take long, one answer may not.
    async fn soon<T, E: Into<Failure>>(&self, request: impl Future<Output = Result<T, E>>) -> Tried<T> {
        let allowance = self.options.allowance(BLOCK_BYTES * WINDOW_BLOCKS as u64);
        match tokio::time::timeout(allowance, request).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(Failure::TimedOut),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() && self.root.as_os_str().is_empty() {
            return PathBuf::from(".");
        }
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }

    async fn put_once(&self, session: &Session, name: &str, bytes: &Bytes) -> Tried<()> {
        let leaf = temp::leaf().map_err(|e| Failure::Kind(StoreErrorKind::Other, e.to_string()))?;
        let temp = self.path(&format!("{}/{leaf}", temp::FOLDER));
        let result = self.write_and_rename(session, &temp, &self.path(name), bytes).await;
        let Err(failure) = result else { return Ok(()) };
        if !failure.is_answer() {
            return Err(failure);
        }
        let mut fs = session.sftp.fs();
        // Best effort; what stays is swept a week later.
        let _ = fs.remove_file(&temp).await;
        if failure.is_general() && session.sftp.support_statvfs() {
            // The protocol has no word for a full disk. The temporary file's space was just given back, so
            // what is free now is compared with what was needed.
            if let Ok(disk) = fs.statvfs(self.path("")).await {
                let free_bytes = disk.bavail.saturating_mul(disk.frsize);
                if free_bytes < bytes.len() as u64 + (64 << 10) {
                    return Err(Failure::Kind(StoreErrorKind::Full, format!("{free_bytes} bytes are free")));
                }
            }
        }
        Err(failure)
    }

    async fn write_and_rename(
        &self,
        session: &Session,
        temp: &Path,
        path: &Path,
        bytes: &Bytes,
    ) -> Tried<()> {
        let mut how = session.sftp.options();
        how.write(true).create_new(true);
        let mut file = match how.open(temp).await.map_err(Failure::from) {
            Err(e) if e.is_missing() => {
                make_folders(session, temp.parent()).await;
                how.open(temp).await?
            }
            other => other?,
        };
        let size = bytes.len() as u64;
        let blocks = (0..size).step_by(BLOCK_BYTES as usize).map(|from| {
            let piece = bytes.slice(from as usize..(from + BLOCK_BYTES).min(size) as usize);
            self.write_block(file.clone(), from, piece)
        });
        let blocks: Vec<_> = blocks.collect();
        stream::iter(blocks).buffer_unordered(WINDOW_BLOCKS).try_collect::<()>().await?;
        if session.sftp.support_fsync() {
            file.sync_all().await?;
        }
        file.close().await?;
        let mut fs = session.sftp.fs();
        let kept = fs.metadata(temp).await?.len();
        if kept != Some(size) {
            let cause = format!("the server kept {kept:?} of {size} bytes");
            return Err(Failure::Kind(StoreErrorKind::Temporary, cause));
        }
        let mut renamed = fs.rename(temp, path).await.map_err(Failure::from);
        if renamed.as_ref().is_err_and(Failure::is_missing) {
            make_folders(session, path.parent()).await;
            renamed = fs.rename(temp, path).await.map_err(Failure::from);
        }
        match renamed {
            // A server without posix-rename does not replace: is it the same object?
            Err(e) if e.is_general() && !session.sftp.support_posix_rename() => {
                let Ok(there) = self.read_whole(session, path).await else { return Err(e) };
                if there != *bytes {
                    return Err(Failure::Kind(StoreErrorKind::Conflict, "exists with other bytes".into()));
                }
                Ok(fs.remove_file(temp).await?)
            }
            other => other,
        }
    }

    async fn write_block(&self, mut file: File, from: u64, piece: Bytes) -> Tried<()> {
        self.upload.wait(piece.len()).await;
        let mut done = 0;
        while done < piece.len() {
            file.seek(SeekFrom::Start(from + done as u64)).await?;
            match self.soon(file.write(&piece[done..])).await? {
                0 => return Err(Failure::Kind(StoreErrorKind::Temporary, "the server takes no more".into())),
                n => done += n,
            }
        }
        Ok(())
    }

    /// From `offset` at most `length` bytes; fewer only where the file ends.
    async fn read(&self, file: &File, offset: u64, length: u64) -> Tried<Bytes> {
        let starts = (0..length).step_by(BLOCK_BYTES as usize);
        let blocks =
            starts.map(|at| self.read_block(file.clone(), offset + at, BLOCK_BYTES.min(length - at)));
        let blocks: Vec<_> = blocks.collect();
        let mut whole = BytesMut::new();
        let mut ordered = stream::iter(blocks).buffered(WINDOW_BLOCKS);
        while let Some(block) = ordered.next().await {
            let block = block?;
            let ended = block.is_empty();
            whole.extend_from_slice(&block);
            if ended {
                break;
            }
        }
        Ok(whole.freeze())
    }

    async fn read_block(&self, mut file: File, from: u64, length: u64) -> Tried<BytesMut> {
        self.download.wait(length as usize).await;
        let mut block = BytesMut::with_capacity(length as usize);
        while (block.len() as u64) < length {
            // The client advances its position by what was asked for, not by what came.
            file.seek(SeekFrom::Start(from + block.len() as u64)).await?;
            let rest = (length - block.len() as u64) as u32;
            match self.soon(file.read(rest, BytesMut::new())).await? {
                Some(got) if !got.is_empty() => block.extend_from_slice(&got),
                _ => break,
            }
        }
        block.truncate(length as usize);
        Ok(block)
    }

    async fn read_whole(&self, session: &Session, path: &Path) -> Tried<Bytes> {
        let mut file = self.soon(session.sftp.open(path)).await?;
        let size = self.soon(file.metadata()).await?.len().unwrap_or(0);
        if size > LARGEST_OBJECT_BYTES {
            return Err(Failure::Kind(StoreErrorKind::Other, too_large(size)));
        }
        let whole = self.read(&file, 0, size).await?;
        self.soon(file.close()).await?;
        if whole.len() as u64 != size {
            let cause = format!("{} of {size} bytes came", whole.len());
            return Err(Failure::Kind(StoreErrorKind::Temporary, cause));
        }
        Ok(whole)
    }

    async fn read_range(&self, session: &Session, path: &Path, offset: u64, length: u64) -> Tried<Bytes> {
        let mut file = self.soon(session.sftp.open(path)).await?;
        let size = self.soon(file.metadata()).await?.len().unwrap_or(0);
        if offset.checked_add(length).is_none_or(|end| end > size) {
            let cause = format!("has {size} bytes, wanted {length} from {offset}");
            return Err(Failure::Kind(StoreErrorKind::Truncated, cause));
        }
        let part = self.read(&file, offset, length).await?;
        self.soon(file.close()).await?;
        if part.len() as u64 != length {
            let cause = format!("{} of {length} bytes came", part.len());
            return Err(Failure::Kind(StoreErrorKind::Truncated, cause));
        }
        Ok(part)
    }

    async fn list_once(&self, session: &Session, folder: &Path) -> Tried<Vec<(String, u64)>> {
        let mut fs = session.sftp.fs();
        let dir = match self.soon(fs.open_dir(folder)).await {
            Err(e) if e.is_missing() => return Ok(Vec::new()),
            other => other?,
        };
        let mut entries = std::pin::pin!(dir.read_dir());
        let mut found = Vec::new();
        while let Some(entry) = self.soon(entries.try_next()).await? {
            let Some(leaf) = entry.filename().to_str() else { continue };
            // A server may leave the type out; then the name decides, and reading tells.
            if entry.file_type().is_none_or(|kind| kind.is_file()) {
                found.push((leaf.to_owned(), entry.metadata().len().unwrap_or(0)));
            }
        }
        Ok(found)
    }

    /// Once per store, removes what runs that died long ago left under the temporary folder.
    async fn sweep(&self, session: &Session) {
        if self.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let folder = self.path(temp::FOLDER);
        let Ok(found) = self.list_once(session, &folder).await else { return };
        for (leaf, _) in found.into_iter().filter(|(leaf, _)| temp::is_stale(leaf)) {
            let _ = session.sftp.fs().remove_file(folder.join(leaf)).await;
        }
    }
}

/// Makes a folder and those above it. Errors are left to whoever then uses it: "exists" is one of them.
async fn make_folders(session: &Session, folder: Option<&Path>) {
    let mut fs = session.sftp.fs();
    let mut ancestors: Vec<_> = folder.into_iter().flat_map(Path::ancestors).collect();
    ancestors.reverse();
    for folder in ancestors.into_iter().filter(|folder| folder.file_name().is_some()) {
        let _ = fs.create_dir(folder).await;
    }
}

impl fmt::Debug for SftpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SftpStore").field("location", &self.location).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SftpStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn settle(&self) -> Duration {
        self.options.settle.unwrap_or_default()
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        name::check("write", name, &self.location)?;
        let work = |session| async {
            self.sweep(&session).await;
            let result = self.put_once(&session, name, &bytes).await;
            (session, result)
        };
        self.run("write", name, bytes.len() as u64, work).await
    }

    /// In one step where the server has posix-rename.
    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self.put(name, bytes.clone()).await {
            Err(error) if error.kind == StoreErrorKind::Conflict => {
                self.delete(name).await?;
                self.put(name, bytes).await
            }
            other => other,
        }
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        name::check("read", name, &self.location)?;
        let path = self.path(name);
        let work = |session| async {
            let result = self.read_whole(&session, &path).await;
            (session, result)
        };
        self.run("read", name, LARGEST_OBJECT_BYTES, work).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        name::check("read", name, &self.location)?;
        let path = self.path(name);
        let work = |session| async {
            let result = self.read_range(&session, &path, offset, length).await;
            (session, result)
        };
        self.run("read", name, length.min(LARGEST_OBJECT_BYTES), work).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        name::check_folder(folder, &self.location)?;
        let path = self.path(folder);
        let work = |session| async {
            let result = self.list_once(&session, &path).await;
            (session, result)
        };
        let found = self.run("list", folder, LARGEST_OBJECT_BYTES, work).await?;
        let named = found.into_iter().filter_map(|(leaf, size_bytes)| {
            name::join(folder, &leaf).map(|name| Listed { name, size_bytes })
        });
        let mut listed: Vec<_> = named.collect();
        listed.sort_unstable();
        Ok(listed)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        name::check("delete", name, &self.location)?;
        let path = self.path(name);
        let work = |session: Session| async {
            let result = match session.sftp.fs().remove_file(&path).await.map_err(Failure::from) {
                Err(e) if e.is_missing() => Ok(()),
                other => other,
            };
            (session, result)
        };
        self.run("delete", name, 0, work).await
    }
}
