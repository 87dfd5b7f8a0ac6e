//! What a drill needs of this machine: its name, the key it signs evidence with, and the way into services.

use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::AppError;
use super::services::{self, Surroundings, TargetFlags};
use crate::base::random::{self, SystemRandom};
use crate::base::whole_file;
use crate::config::Settings;
use crate::drill::evidence::Machine;
use crate::source::capture::SourceError;
use crate::source::target::Target;

/// Describes this machine.
pub fn machine(settings: &Settings) -> Machine {
    let system = rustix::system::uname();
    Machine {
        host: settings.hostname.clone(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        system: format!(
            "{} {} {}",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy(),
            system.machine().to_string_lossy()
        ),
        program: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
    }
}

/// Where it is written down which drills are under way on this machine.
///
/// # Errors
/// There is no folder for this machine's state.
pub fn folder(settings: &Settings) -> Result<PathBuf, AppError> {
    Ok(state(settings)?.join("drills"))
}

fn state(settings: &Settings) -> Result<&Path, AppError> {
    let none = "there is no folder for this machine's state\nhint: set LIFEBOAT_STATE_DIR";
    settings.state.value.as_deref().ok_or_else(|| AppError::Refused(none.into()))
}

/// This machine's key for evidence; made at the first drill.
///
/// # Errors
/// The state folder cannot be used, or the key in it is none.
pub fn signing_key(settings: &Settings) -> Result<SigningKey, AppError> {
    let state = state(settings)?;
    let path = state.join("drill.key");
    match std::fs::read(&path).map(Zeroizing::new) {
        Ok(bytes) => {
            let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(
                bytes
                    .as_slice()
                    .try_into()
                    .map_err(|_| AppError::Refused(format!("{} is no key of 32 bytes", path.display())))?,
            );
            Ok(SigningKey::from_bytes(&bytes))
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => make_key(state, &path),
        Err(cause) => Err(AppError::State { operation: "read", path, cause }),
    }
}

/// The same key, if a drill was ever run here.
pub fn known_key(settings: &Settings) -> Option<SigningKey> {
    let path = settings.state.value.as_deref()?.join("drill.key");
    let bytes = Zeroizing::new(std::fs::read(path).ok()?);
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.as_slice().try_into().ok()?);
    Some(SigningKey::from_bytes(&bytes))
}

fn make_key(state: &Path, path: &Path) -> Result<SigningKey, AppError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |cause| AppError::State { operation, path, cause }
    };
    std::fs::create_dir_all(state).map_err(failed("make", state))?;
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(random::array(&SystemRandom));
    match whole_file::make_new(path, whole_file::PRIVATE, bytes.as_slice()) {
        // Another drill was quicker: its key is the machine's.
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            let found = std::fs::read(path).map(Zeroizing::new).map_err(failed("read", path))?;
            let refused = |_| AppError::Refused(format!("{} is no key of 32 bytes", path.display()));
            let bytes: [u8; 32] = found.as_slice().try_into().map_err(refused)?;
            Ok(SigningKey::from_bytes(&bytes))
        }
        made => made.map(|()| SigningKey::from_bytes(&bytes)).map_err(failed("make", path)),
    }
}

/// Opens a sandbox's service for a restore. A sandbox is empty: nothing has to be forced.
///
/// # Errors
/// The service cannot be reached.
pub fn open_target(address: &str, around: &Surroundings) -> Result<Box<dyn Target>, SourceError> {
    match services::target(address, TargetFlags::default(), around) {
        Ok(target) => Ok(target),
        Err(AppError::Source(error)) => Err(error),
        Err(error) => Err(SourceError::Refused(error.to_string())),
    }
}
