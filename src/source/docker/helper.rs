//! What is made on the server to reach a volume, and taken away again: an empty image, containers that are created
//! and never started, volumes of our own.
//!
//! A container that is not started still serves the archive API, with its volumes mounted. It cannot run anything,
//! for its image is empty; and when it only reads, its volume is mounted read-only.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
    ListImagesOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use futures::StreamExt;

use super::DockerError;
use super::daemon::Daemon;
use super::guard::Act;
use super::journal::{Journal, Kept};
use crate::base::random::Random as _;

/// What we make carries this label; its value is the run.
pub const LABEL: &str = "lifeboat.helper";
/// Where a helper has its volume.
pub const MOUNT: &str = "/v";

/// The run's things on one server. Everything made through it is gone when it is.
pub struct Workshop {
    pub daemon: Daemon,
    /// The label's value.
    pub run: String,
    image: String,
    /// Dropped after everything else was removed.
    journal: Option<Mutex<Journal>>,
}

impl Workshop {
    /// Makes the empty image. `state`: where it is written down what is made and done.
    ///
    /// # Errors
    /// The daemon does not take it, the state folder cannot be written.
    pub fn open(daemon: &Daemon, state: Option<&Path>) -> Result<Arc<Self>, DockerError> {
        let run = nonce();
        let journal = state.map(|state| Journal::begin(state, &daemon.host, &run)).transpose()?;
        // An archive without members: two blocks of zeros.
        let empty = bollard::body_full(vec![0; 1024].into());
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .changes(vec![format!("LABEL {LABEL}={run}")])
            .build();
        let import = async {
            let mut said = daemon.api.create_image(Some(options), Some(empty), None);
            let mut id = String::new();
            while let Some(info) = said.next().await {
                id = info?.status.unwrap_or(id);
            }
            Ok(id)
        };
        let image = daemon.call("make", "an empty image", import)?;
        if !image.starts_with("sha256:") {
            return Err(DockerError::Failed(format!("making an empty image, the daemon said {image:?}")));
        }
        Ok(Arc::new(Self { daemon: daemon.clone(), run, image, journal: journal.map(Mutex::new) }))
    }

    /// Writes down what is about to be done to containers.
    ///
    /// # Errors
    /// There is nowhere to write it, and so it must not be done.
    pub fn intend(&self, acts: &[Act]) -> Result<(), DockerError> {
        let Some(journal) = &self.journal else {
            let why = "containers are stopped only where it can be written down first, and there is no state folder\n\
                       hint: name one in LIFEBOAT_STATE_DIR";
            return Err(DockerError::Refused(why.into()));
        };
        journal.lock().unwrap_or_else(PoisonError::into_inner).write(acts)
    }

    /// From now on the volume stays, whatever happens to this run: it holds what `instead_of` is to hold.
    ///
    /// # Errors
    /// It cannot be written down, and so the other must not be removed.
    pub fn keep_volume(&self, volume: &mut OwnVolume, instead_of: &str) -> Result<(), DockerError> {
        if let Some(journal) = &self.journal {
            let kept = Kept { volume: volume.name.clone(), instead_of: instead_of.to_owned() };
            journal.lock().unwrap_or_else(PoisonError::into_inner).keep_volume(kept)?;
        }
        volume.keep = true;
        Ok(())
    }

    /// Leaves what was written down for the next run.
    pub fn keep_journal(&self) {
        if let Some(journal) = &self.journal {
            journal.lock().unwrap_or_else(PoisonError::into_inner).keep();
        }
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.run.clone())])
    }

    /// A container with the volume at [`MOUNT`], never to be started.
    ///
    /// # Errors
    /// There is no such volume, it cannot be mounted.
    pub fn helper(self: &Arc<Self>, volume: &str, writes: bool) -> Result<Helper, DockerError> {
        let options = MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() };
        let mount = Mount {
            target: Some(MOUNT.into()),
            source: Some(volume.into()),
            typ: Some(MountType::VOLUME),
            read_only: Some(!writes),
            volume_options: Some(options),
            ..Mount::default()
        };
        let body = ContainerCreateBody {
            image: Some(self.image.clone()),
            // Never run, and the engine wants one.
            cmd: Some(vec!["none".into()]),
            labels: Some(self.labels()),
            network_disabled: Some(true),
            host_config: Some(HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&format!("lifeboat-{}", nonce())).build();
        let create = self.daemon.api.create_container(Some(options), body);
        let made = self.daemon.call("make a helper container for volume", volume, create)?;
        Ok(Helper { workshop: self.clone(), id: made.id, volume: volume.to_owned() })
    }

    /// A volume of our own.
    ///
    /// # Errors
    /// The daemon does not make it.
    pub fn volume(self: &Arc<Self>) -> Result<OwnVolume, DockerError> {
        let name = format!("lifeboat-{}", nonce());
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(self.labels()),
            ..VolumeCreateRequest::default()
        };
        let made = self.daemon.call("make volume", &name, self.daemon.api.create_volume(request))?;
        Ok(OwnVolume { workshop: self.clone(), name, mountpoint: made.mountpoint, keep: false })
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        let remove = self.daemon.api.remove_image(&self.image, Some(options), None);
        note(self.daemon.undo("remove", "the empty image", remove));
    }
}

/// A container that is never started.
pub struct Helper {
    pub workshop: Arc<Workshop>,
    pub id: String,
    volume: String,
}

impl Helper {
    /// Another that reads the same volume.
    ///
    /// # Errors
    /// As [`Workshop::helper`].
    pub fn another(&self) -> Result<Self, DockerError> {
        self.workshop.helper(&self.volume, false)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        let daemon = &self.workshop.daemon;
        note(daemon.undo(
            "remove",
            "a helper container",
            daemon.api.remove_container(&self.id, Some(options)),
        ));
    }
}

/// A volume that is gone when this is, unless it is to be kept.
pub struct OwnVolume {
    workshop: Arc<Workshop>,
    pub name: String,
    pub mountpoint: String,
    pub keep: bool,
}

impl Drop for OwnVolume {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let options = RemoveVolumeOptionsBuilder::new().force(true).build();
        let daemon = &self.workshop.daemon;
        note(daemon.undo("remove volume", &self.name, daemon.api.remove_volume(&self.name, Some(options))));
    }
}

fn note<T>(done: Result<T, DockerError>) {
    if let Err(error) = done
        && !error.is_missing()
    {
        tracing::warn!("{error}; what is left carries the label {LABEL}");
    }
}

/// Removes what a run that is gone made, as far as it can be, but not the volumes that are to be `kept`.
pub fn remove_left(daemon: &Daemon, run: &str, kept: &[Kept]) {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{LABEL}={run}")])]);
    let (api, what) = (&daemon.api, "the leftovers of an earlier run");
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let containers = daemon.undo("list", what, api.list_containers(Some(options))).unwrap_or_default();
    for id in containers.into_iter().filter_map(|container| container.id) {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        note(daemon.undo("remove", what, api.remove_container(&id, Some(options))));
    }
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let volumes = daemon.undo("list", what, api.list_volumes(Some(options))).ok();
    for volume in volumes.and_then(|list| list.volumes).unwrap_or_default() {
        if kept.iter().any(|kept| kept.volume == volume.name) {
            continue;
        }
        let options = RemoveVolumeOptionsBuilder::new().force(true).build();
        note(daemon.undo("remove", what, api.remove_volume(&volume.name, Some(options))));
    }
    let options = ListImagesOptionsBuilder::new().all(true).filters(&filters).build();
    for image in daemon.undo("list", what, api.list_images(Some(options))).unwrap_or_default() {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        note(daemon.undo("remove", what, api.remove_image(&image.id, Some(options), None)));
    }
}

/// A name nobody else has.
pub fn nonce() -> String {
    let mut bytes = [0; 8];
    crate::base::random::SystemRandom.fill(&mut bytes);
    crate::format::id::to_hex(&bytes)
}
