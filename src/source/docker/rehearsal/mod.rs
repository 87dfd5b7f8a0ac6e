//! A captured project brought up beside the real one, so that it can hurt nobody.
//!
//! What stands between a rehearsal and the world:
//! - networks are internal and new: no way out, no published port, no address of the real ones;
//! - no folder of the host is mounted, no device, no socket; nothing is privileged;
//! - variables that look like secrets get other values, unless they are listed;
//! - the project's own labels are left off, for proxies and agents act on them; logs stay on this server;
//! - volumes are new ones on the server's own disk, whatever driver options the real ones have.
//!
//! Everything carries [`LABEL`] and nothing without it is ever touched. A rehearsal that was killed is removed by the
//! next one, once its maker is gone or its time is over.

mod plan;
mod secrets;
mod start;
mod sweep;
mod target;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};

use super::DockerError;
use super::daemon::Daemon;
use super::helper::nonce;
use crate::base::secret::Secret;
use crate::source::target::Target;

pub use sweep::sweep;

/// What is made for a rehearsal carries this label; its value is the rehearsal's.
pub const LABEL: &str = "lifeboat.drill";
/// The process that made it.
const MAKER: &str = "lifeboat.drill.maker";
/// Unix time in seconds from which anybody may remove it.
const UNTIL: &str = "lifeboat.drill.until";
/// How long a rehearsal may last before others take it for left behind.
const LASTS_SECONDS: i64 = 24 * 3600;

/// What a rehearsal found when it was brought up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    pub service: String,
    /// Running, and healthy where it says so itself; in words.
    pub outcome: Result<String, String>,
    /// The end of what it wrote, if it failed. Secrets may stand in it.
    pub said: String,
}

/// What was made and learnt so far.
#[derive(Default)]
struct State {
    plans: Vec<plan::ContainerPlan>,
    /// Real name → new name.
    volumes: BTreeMap<String, String>,
    /// By service.
    addresses: BTreeMap<String, IpAddr>,
    /// What is not as it is in reality.
    differs: Vec<String>,
    secrets: Vec<Secret>,
    cleaned: bool,
}

/// One rehearsal on one server. Dropping it removes everything it made.
pub struct Rehearsal {
    daemon: Daemon,
    run: String,
    state_folder: Option<PathBuf>,
    /// Variables that keep their values although they look like secrets.
    listed: Vec<String>,
    state: Mutex<State>,
}

impl Rehearsal {
    /// Makes nothing yet. `listed`: variables to keep. `state_folder`: where it is written down what is made.
    pub fn new(daemon: Daemon, listed: &[String], state_folder: Option<&Path>) -> Arc<Self> {
        Arc::new(Self {
            daemon,
            run: nonce(),
            state_folder: state_folder.map(Path::to_owned),
            listed: listed.to_vec(),
            state: Mutex::default(),
        })
    }

    /// What takes the snapshot.
    pub fn target(self: &Arc<Self>) -> Box<dyn Target> {
        Box::new(target::RehearsalTarget::new(self.clone()))
    }

    /// The server, for people.
    pub fn engine(&self) -> &str {
        &self.daemon.version
    }

    /// The name that projects, containers, networks and volumes begin with.
    fn prefix(&self) -> String {
        format!("lifeboat-drill-{}", self.run)
    }

    fn labels(&self) -> HashMap<String, String> {
        let until = jiff::Timestamp::now().as_second() + LASTS_SECONDS;
        HashMap::from([
            (LABEL.to_owned(), self.run.clone()),
            (MAKER.to_owned(), sweep::maker()),
            (UNTIL.to_owned(), until.to_string()),
        ])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where services answer, by name.
    pub fn addresses(&self) -> BTreeMap<String, IpAddr> {
        self.state().addresses.clone()
    }

    /// The new names of volumes, by their real ones.
    pub fn volumes(&self) -> BTreeMap<String, String> {
        self.state().volumes.clone()
    }

    /// What is not as it is in reality, for people.
    pub fn differs(&self) -> Vec<String> {
        self.state().differs.clone()
    }

    /// What must not be shown of what services say: production's secrets, and those made up for them.
    pub fn secrets(&self) -> Vec<Secret> {
        self.state().secrets.clone()
    }

    /// Removes everything, whether the run was cancelled or not.
    ///
    /// # Errors
    /// What is left.
    pub fn clean(&self) -> Result<(), DockerError> {
        self.state().cleaned = true;
        remove(&self.daemon, &self.run)
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        if !self.state().cleaned
            && let Err(error) = self.clean()
        {
            tracing::warn!("{error}; what is left carries the label {LABEL}={}", self.run);
        }
    }
}

/// Removes what carries a rehearsal's label: containers first, for they hold on to the rest.
fn remove(daemon: &Daemon, run: &str) -> Result<(), DockerError> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{LABEL}={run}")])]);
    let (api, what) = (&daemon.api, "what a drill made");
    let mut first: Result<(), DockerError> = Ok(());
    let mut note = |done: Result<(), DockerError>| {
        if let Err(error) = done
            && !error.is_missing()
            && first.is_ok()
        {
            first = Err(error);
        }
    };
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    for container in daemon.undo("list", what, api.list_containers(Some(options)))? {
        let Some(id) = container.id else { continue };
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        note(daemon.undo("remove", what, api.remove_container(&id, Some(options))));
    }
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    for network in daemon.undo("list", what, api.list_networks(Some(options)))? {
        let Some(id) = network.id else { continue };
        note(daemon.undo("remove", what, api.remove_network(&id)));
    }
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let volumes = daemon.undo("list", what, api.list_volumes(Some(options)))?;
    for volume in volumes.volumes.unwrap_or_default() {
        let options = RemoveVolumeOptionsBuilder::new().force(true).build();
        note(daemon.undo("remove", what, api.remove_volume(&volume.name, Some(options))));
    }
    first
}
