//! Services without a server to talk to: repositories, state, certificates and what a program tells.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::AppError;
use super::services::{OpenCapture, Surroundings};
use crate::config::SECRET_VARIABLES;
use crate::source::capture::SourceError;
use crate::source::certs::{CertsCapture, CertsTarget};
use crate::source::git::capture::GitCapture;
use crate::source::git::target::GitTarget;
use crate::source::git::{Address as GitAddress, Git};
use crate::source::hook::{self, HookTarget, Runner};
use crate::source::kubernetes::capture as kubernetes;
use crate::source::kubernetes::target::KubernetesTarget;
use crate::source::kubernetes::{Address as KubernetesAddress, Kubectl};
use crate::source::target::Target;
use crate::source::terraform::{self, FilePlace, Place, ProgramPlace, TerraformError, TerraformTarget};
use crate::store::{self, Location, Store, StoreErrorKind};

/// Starts a capture of what follows `scheme`; `None` when the scheme is none of these.
///
/// # Errors
/// As [`super::services::capture`].
pub fn capture(scheme: &str, rest: &str, around: &Surroundings) -> Result<Option<OpenCapture>, AppError> {
    Ok(Some(match scheme {
        "git:" => {
            let address = GitAddress::parse(rest).map_err(SourceError::from)?;
            let job = format!("git:{}", address.path.display());
            let capture = Box::new(GitCapture::start(&address, git(around), around.now)?);
            OpenCapture { capture, kind: "git", job }
        }
        "certs:" => {
            let path = folder(rest)?;
            let job = format!("certs:{}", path.display());
            OpenCapture { capture: Box::new(CertsCapture::start(&path, around.now)?), kind: "certs", job }
        }
        "terraform:" => {
            let (place, job) = state(rest, false, around)?;
            let capture = Box::new(terraform::capture(place.as_ref(), around.now)?);
            OpenCapture { capture, kind: "terraform", job }
        }
        "kubernetes:" => {
            let address = KubernetesAddress::parse(rest).map_err(SourceError::from)?;
            let capture = Box::new(kubernetes::capture(&address, &kubectl(&address, around), around.now)?);
            OpenCapture { capture, kind: "kubernetes", job: address.shown() }
        }
        "provider-snapshot:" => {
            let address = hook::Address::parse(rest).map_err(SourceError::from)?;
            let job = format!("provider-snapshot:{}", address.name);
            let capture = Box::new(hook::capture(&address, &runner(around), around.now)?);
            OpenCapture { capture, kind: "provider-snapshot", job }
        }
        _ => return Ok(None),
    }))
}

/// Opens a target; `None` when the scheme is none of these.
///
/// # Errors
/// As [`super::services::target`].
pub fn target(
    scheme: &str,
    rest: &str,
    force: bool,
    around: &Surroundings,
) -> Result<Option<Box<dyn Target>>, AppError> {
    Ok(Some(match scheme {
        "git:" => {
            let address = GitAddress::parse(rest).map_err(SourceError::from)?;
            Box::new(GitTarget::new(address, git(around), force, stamp(around)))
        }
        "certs:" => Box::new(CertsTarget::new(folder(rest)?, force, stamp(around), around.now)),
        "terraform:" => {
            let (place, _) = state(rest, force, around)?;
            Box::new(TerraformTarget::new(place, force, around.cancel.clone()))
        }
        "kubernetes:" => {
            let address = KubernetesAddress::parse(rest).map_err(SourceError::from)?;
            let kubectl = kubectl(&address, around);
            Box::new(KubernetesTarget::new(address, kubectl, force))
        }
        "provider-snapshot:" => {
            let address = hook::Address::parse(rest).map_err(SourceError::from)?;
            Box::new(HookTarget::new(address, runner(around), force))
        }
        _ => return Ok(None),
    }))
}

fn git(around: &Surroundings) -> Git {
    Git { withheld: SECRET_VARIABLES, cancel: around.cancel.clone() }
}

fn kubectl(address: &KubernetesAddress, around: &Surroundings) -> Kubectl {
    Kubectl {
        context: address.context.clone(),
        kubeconfig: address.kubeconfig.clone(),
        withheld: SECRET_VARIABLES,
        cancel: around.cancel.clone(),
    }
}

fn runner(around: &Surroundings) -> Runner {
    Runner { withheld: SECRET_VARIABLES, cancel: around.cancel.clone() }
}

/// Ends the names of what a restore replaces and keeps.
fn stamp(around: &Surroundings) -> String {
    let now = jiff::Timestamp::from_second(around.now.seconds);
    now.map_or_else(|_| around.now.seconds.to_string(), |now| now.strftime("%Y%m%dt%H%M%S").to_string())
}

/// The folder that an address without options names.
fn folder(rest: &str) -> Result<PathBuf, AppError> {
    if rest.is_empty() {
        return Err(AppError::Refused("the path is missing\nhint: certs:/etc/letsencrypt".into()));
    }
    std::path::absolute(rest).map_err(|cause| AppError::System { what: "the capture", cause })
}

/// Where a Terraform state lies, and what its job is called.
fn state(rest: &str, force: bool, around: &Surroundings) -> Result<(Box<dyn Place>, String), AppError> {
    let stamp = stamp(around);
    if rest.starts_with("s3://") {
        let place = Bucket::open(rest, stamp, around)?;
        let job = format!("terraform:{}", place.shown());
        return Ok((Box::new(place), job));
    }
    if rest.is_empty() {
        let why = "the path is missing\nhint: terraform:PATH of a state or of a folder, or terraform:s3://BUCKET/KEY";
        return Err(AppError::Refused(why.into()));
    }
    let path = std::path::absolute(Path::new(rest))
        .map_err(|cause| AppError::System { what: "the capture", cause })?;
    let job = format!("terraform:{}", path.display());
    if !path.is_dir() {
        return Ok((Box::new(FilePlace::new(path, stamp)), job));
    }
    let programs = &around.settings.path;
    let place = ProgramPlace::new(path, programs, SECRET_VARIABLES, &around.cancel, force, stamp);
    Ok((Box::new(place.map_err(SourceError::from)?), job))
}

/// A state as the S3 backend keeps it: an object of a bucket, and one beside it while somebody is at work.
struct Bucket {
    store: Arc<dyn Store>,
    name: String,
    shown: String,
    stamp: String,
    runtime: tokio::runtime::Handle,
}

impl Bucket {
    fn open(address: &str, stamp: String, around: &Surroundings) -> Result<Self, AppError> {
        let location: Location = address.parse()?;
        let Location::S3 { bucket, prefix, endpoint, region, virtual_host } = location else {
            return Err(AppError::Refused("a state lies in a file, a folder or s3://BUCKET/KEY".into()));
        };
        let (folder, name) = prefix.rsplit_once('/').unwrap_or(("", &prefix));
        if name.is_empty() {
            let why = "the key is missing\nhint: terraform:s3://BUCKET/path/terraform.tfstate";
            return Err(AppError::Refused(why.into()));
        }
        let shown = format!("s3://{bucket}/{prefix}");
        let location = Location::S3 {
            bucket,
            prefix: folder.to_owned(),
            endpoint: endpoint.or(around.settings.s3_endpoint.clone()),
            region: region.or(around.settings.s3_region.clone()),
            virtual_host,
        };
        let store = store::open(&location, &around.settings.store)?;
        Ok(Self { store, name: name.to_owned(), shown, stamp, runtime: around.runtime.clone() })
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, TerraformError> {
        match self.runtime.block_on(self.store.get(name)) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), TerraformError> {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        self.runtime.block_on(self.store.put(name, bytes)).map_err(|error| failed(&error))
    }
}

fn failed(error: &store::StoreError) -> TerraformError {
    TerraformError::Failed(format!("cannot {error}: {}", error.cause))
}

impl Place for Bucket {
    fn shown(&self) -> String {
        self.shown.clone()
    }

    fn read(&self) -> Result<Option<Vec<u8>>, TerraformError> {
        self.get(&self.name)
    }

    fn lock(&self) -> Result<Option<String>, TerraformError> {
        let lock = self.get(&format!("{}.tflock", self.name))?;
        Ok(lock.map(|bytes| {
            let said: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let word = |key: &str| said[key].as_str().unwrap_or("?").to_owned();
            format!("{} by {}", word("Operation"), word("Who"))
        }))
    }

    fn write(&self, state: &[u8], old: Option<&[u8]>) -> Result<Option<String>, TerraformError> {
        let mut kept = None;
        if let Some(old) = old {
            let name = format!("{}.before-{}", self.name, self.stamp);
            self.put(&name, old)?;
            kept = Some(format!("{}.before-{}", self.shown, self.stamp));
        }
        self.put(&self.name, state)?;
        Ok(kept)
    }
}
