//! Whether the daemon's file system is ours, so that a volume's mount point means the same folder to both.
//!
//! That the path exists proves nothing: the daemon may be another machine's, in another mount namespace, or map
//! owners (user namespaces, rootless). So a token is put into a volume of our own *through the engine*, and looked
//! for below its mount point *through our file system*: content, owner, mode and time must be those that were put.
//! What is proven holds for the volumes beside it, whose folders are then compared one by one.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::models::Volume;
use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, UploadToContainerOptionsBuilder};

use super::DockerError;
use super::helper::{Helper, MOUNT, Workshop, nonce};

/// An owner that nobody's mapping leaves as it is.
const OWNER: (u64, u64) = (12_345, 54_321);
const MODE: u32 = 0o640;
const TIME: u64 = 1_234_567_890;
/// More would be no token of ours.
const TOKEN_LIMIT: u64 = 1024;

/// The folder that holds the folders of proven volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    volumes: PathBuf,
}

/// Tries to prove it. `None`: it is not so, and volumes are read through the engine.
///
/// # Errors
/// The daemon does not let us try.
pub fn prove(workshop: &Arc<Workshop>) -> Result<Option<Shared>, DockerError> {
    let volume = workshop.volume()?;
    let helper = workshop.helper(&volume.name, true)?;
    let (name, token) = (format!("lifeboat-{}", nonce()), nonce());
    let options = UploadToContainerOptionsBuilder::new().path(MOUNT).build();
    let body = bollard::body_full(archive(&name, &token)?.into());
    let put = workshop.daemon.api.upload_to_container(&helper.id, Some(options), body);
    workshop.daemon.call("put a token into volume", &volume.name, put)?;
    let folder = PathBuf::from(&volume.mountpoint);
    let found = found(&folder.join(&name), &token);
    tracing::debug!(mountpoint = %folder.display(), found, "looked for the token put through the engine");
    // …/volumes/NAME/_data
    Ok(folder
        .parent()
        .and_then(Path::parent)
        .filter(|_| found)
        .map(|volumes| Shared { volumes: volumes.into() }))
}

fn archive(name: &str, token: &str) -> Result<Vec<u8>, DockerError> {
    let mut header = tar::Header::new_ustar();
    header.set_size(token.len() as u64);
    header.set_mode(MODE);
    header.set_uid(OWNER.0);
    header.set_gid(OWNER.1);
    header.set_mtime(TIME);
    let mut builder = tar::Builder::new(Vec::new());
    let made = builder.append_data(&mut header, name, token.as_bytes()).and_then(|()| builder.into_inner());
    made.map_err(|cause| DockerError::Local { operation: "make", subject: "an archive".into(), cause })
}

fn found(path: &Path, token: &str) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return false };
    let Ok(stat) = file.metadata() else { return false };
    let mut content = String::new();
    let read = file.take(TOKEN_LIMIT).read_to_string(&mut content);
    read.is_ok()
        && content == token
        && (u64::from(stat.uid()), u64::from(stat.gid())) == OWNER
        && stat.mode() & 0o7777 == MODE
        && stat.mtime() == TIME as i64
}

impl Shared {
    /// The folder of a volume, if it may be read directly: a plain local one beside the proven one, that looks to
    /// us as it looks to the engine.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn folder(&self, volume: &Volume, helper: &Helper) -> Result<Option<PathBuf>, DockerError> {
        let folder = PathBuf::from(&volume.mountpoint);
        // Options mean a mount of its own, which may be made in the daemon's namespace, and only while it is used.
        let beside = folder.parent().and_then(Path::parent) == Some(self.volumes.as_path());
        if volume.driver != "local" || !volume.options.is_empty() || !beside {
            return Ok(None);
        }
        let options = ContainerArchiveInfoOptionsBuilder::new().path(MOUNT).build();
        let daemon = &helper.workshop.daemon;
        let info = daemon.api.get_container_archive_info(&helper.id, Some(options));
        let info = daemon.call("look at volume", &volume.name, info)?;
        let Ok(stat) = std::fs::metadata(&folder) else { return Ok(None) };
        let said = info.modification_time.as_deref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let ours = jiff::Timestamp::new(stat.mtime(), stat.mtime_nsec() as i32).ok();
        let same =
            stat.is_dir() && said.is_some() && said == ours && info.file_mode & 0o777 == stat.mode() & 0o777;
        // Without links on the way: that is how it will be opened.
        Ok(same.then(|| folder.canonicalize().ok()).flatten())
    }
}
