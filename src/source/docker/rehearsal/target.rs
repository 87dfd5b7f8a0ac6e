//! Takes a snapshot of a project or a volume into a rehearsal: what describes it, then every volume, each into a new one
//! that nobody else knows.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;

use bollard::models::VolumeCreateRequest;
use serde_json::{Map, Value, json};

use super::super::address::{Address, Options};
use super::super::helper::nonce;
use super::super::target::VolumeTarget;
use super::super::{DockerError, VOLUMES};
use super::{Rehearsal, plan};
use crate::source::capture::SourceError;
use crate::source::target::{Place, Placed, Returned, StoredPart, StoredTree, Target};

/// A part longer than this describes no project.
const PART_LIMIT_BYTES: u64 = 64 << 20;
const CONTAINERS: &str = "/project/containers.json";

pub struct RehearsalTarget {
    rehearsal: Arc<Rehearsal>,
    trees: Vec<StoredTree>,
    facts: Map<String, Value>,
    volumes: HashMap<String, Box<VolumeTarget>>,
    returned: Returned,
}

impl RehearsalTarget {
    pub fn new(rehearsal: Arc<Rehearsal>) -> Self {
        Self {
            rehearsal,
            trees: Vec::new(),
            facts: Map::new(),
            volumes: HashMap::new(),
            returned: Returned::default(),
        }
    }

    /// A new volume on the server's own disk. Its driver options are not taken over: they may name real data.
    fn volume(&self, name: &str) -> Result<String, DockerError> {
        let new = format!("{}_{name}", self.rehearsal.prefix());
        let request = VolumeCreateRequest {
            name: Some(new.clone()),
            driver: Some("local".into()),
            labels: Some(self.rehearsal.labels()),
            ..VolumeCreateRequest::default()
        };
        let daemon = &self.rehearsal.daemon;
        daemon.call("make volume", &new, daemon.api.create_volume(request))?;
        Ok(new)
    }

    fn of(&mut self, tree: &StoredTree) -> Result<&mut VolumeTarget, SourceError> {
        let found = self.volumes.get_mut(&tree.path).map(AsMut::as_mut);
        found.ok_or_else(|| {
            DockerError::Failed(format!("{} was not prepared: this is a bug", tree.path)).into()
        })
    }

    /// What cannot be started is known before the volumes are fetched.
    fn require_images(&self, plans: &mut [plan::ContainerPlan]) -> Result<(), DockerError> {
        let daemon = &self.rehearsal.daemon;
        for plan in plans {
            let mut there = false;
            for image in [plan.image.clone(), plan.image_id.clone()] {
                if image.is_empty() {
                    continue;
                }
                match daemon.call("find image", &image, daemon.api.inspect_image(&image)) {
                    Ok(_) => {
                        plan.image = image;
                        there = true;
                        break;
                    }
                    Err(error) if error.is_missing() => {}
                    Err(error) => return Err(error),
                }
            }
            if !there {
                let why = format!(
                    "image {} of service {} is not on this server, and a drill fetches none\nhint: docker pull {}",
                    plan.image, plan.service, plan.image
                );
                return Err(DockerError::Refused(why));
            }
        }
        Ok(())
    }
}

impl Target for RehearsalTarget {
    fn trees(&mut self, trees: &[StoredTree]) {
        self.trees = trees.to_vec();
    }

    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        self.facts = facts.clone();
        let wanted: Vec<usize> = (0..parts.len()).filter(|at| parts[*at].path == CONTAINERS).collect();
        if wanted.is_empty() && self.trees.is_empty() {
            return Err(SourceError::Refused(
                "the snapshot is neither of a Docker project nor of a volume".into(),
            ));
        }
        let mut names = BTreeMap::new();
        for tree in &self.trees {
            let name = tree.path.strip_prefix(&format!("/{VOLUMES}/")).unwrap_or("data");
            names.insert(name.to_owned(), self.volume(name)?);
        }
        self.rehearsal.state().volumes = names;
        Ok(wanted)
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        let mut bytes = Vec::new();
        let local = |cause| DockerError::Local { operation: "read", subject: part.path.clone(), cause };
        content.take(PART_LIMIT_BYTES).read_to_end(&mut bytes).map_err(local)?;
        let containers: Vec<Value> = serde_json::from_slice(&bytes)
            .map_err(|error| DockerError::Failed(format!("{} cannot be understood: {error}", part.path)))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let (volumes, listed) = (self.rehearsal.volumes(), &self.rehearsal.listed);
        let mut planned =
            plan::plan(&containers, &volumes, listed, (cores / 2).max(1), || nonce() + &nonce());
        self.require_images(&mut planned.containers)?;
        let mut state = self.rehearsal.state();
        state.differs.extend(planned.differs);
        state.plans = planned.containers;
        state.secrets = planned.secrets;
        Ok(())
    }

    fn place(&mut self, tree: &StoredTree) -> Result<Place, SourceError> {
        let name = tree.path.strip_prefix(&format!("/{VOLUMES}/")).unwrap_or("data");
        let new = self.rehearsal.volumes().get(name).cloned();
        let new = new.ok_or_else(|| DockerError::Failed(format!("{} was not expected", tree.path)))?;
        let address = Address { name: new, options: Options::default() };
        let (daemon, state) = (self.rehearsal.daemon.clone(), self.rehearsal.state_folder.as_deref());
        let mut target = Box::new(VolumeTarget::new(daemon, &address, false, state));
        target.trees(std::slice::from_ref(tree));
        target.prepare(&[], &self.facts)?;
        let place = target.place(tree)?;
        self.volumes.insert(tree.path.clone(), target);
        Ok(place)
    }

    fn placed(&mut self, tree: &StoredTree, placed: Placed) -> Result<(), SourceError> {
        self.of(tree)?.placed(tree, placed)
    }

    fn put_tree(&mut self, tree: &StoredTree, tar: &mut dyn Read) -> Result<(), SourceError> {
        self.of(tree)?.put_tree(tree, tar)
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        let names = self.rehearsal.volumes();
        for (_, target) in std::mem::take(&mut self.volumes) {
            let returned = target.finish()?;
            let real =
                |line: String| names.iter().fold(line, |line, (real, new)| line.replace(new.as_str(), real));
            self.returned.proven.extend(returned.proven.into_iter().map(real));
            self.returned.not_done.extend(returned.not_done);
        }
        self.returned.proven.sort();
        let services = self.rehearsal.state().plans.len();
        self.returned.facts.insert("docker".into(), json!({ "services": services }));
        Ok(std::mem::take(&mut self.returned))
    }
}
