//! A project on its way back: volumes first, then networks, configs and, where their images are, services and
//! containers. What is there already is left alone, and what cannot be done is named.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use bollard::models::{
    ConfigSpec, ContainerCreateBody, NetworkConnectRequest, NetworkCreateRequest, ServiceSpec,
};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::address::Address;
use super::daemon::Daemon;
use super::target::VolumeTarget;
use super::{DockerError, VOLUMES};
use crate::source::capture::SourceError;
use crate::source::target::{Place, Placed, Returned, StoredPart, StoredTree, Target};

/// A part longer than this describes no project.
const PART_LIMIT_BYTES: u64 = 64 << 20;
const PARTS: [&str; 4] = ["networks", "configs", "services", "containers"];

/// The project of a snapshot, rebuilt.
pub struct ProjectTarget {
    daemon: Daemon,
    address: Address,
    force: bool,
    state: Option<PathBuf>,
    trees: Vec<StoredTree>,
    volumes: HashMap<String, Box<VolumeTarget>>,
    documents: HashMap<String, Vec<Value>>,
    /// New ids of networks and configs, by their old ones.
    ids: HashMap<String, String>,
    returned: Returned,
}

impl ProjectTarget {
    /// `force`: what is in its volumes may be replaced.
    pub fn new(daemon: Daemon, address: &Address, force: bool, state: Option<&Path>) -> Self {
        Self {
            daemon,
            address: address.clone(),
            force,
            state: state.map(Path::to_owned),
            trees: Vec::new(),
            volumes: HashMap::new(),
            documents: HashMap::new(),
            ids: HashMap::new(),
            returned: Returned::default(),
        }
    }

    fn of(&mut self, tree: &StoredTree) -> Result<&mut VolumeTarget, SourceError> {
        let found = self.volumes.get_mut(&tree.path).map(AsMut::as_mut);
        found.ok_or_else(|| {
            DockerError::Failed(format!("{} was not prepared: this is a bug", tree.path)).into()
        })
    }

    fn document(&mut self, name: &str) -> Vec<Value> {
        self.documents.remove(name).unwrap_or_default()
    }

    fn warn(&mut self, what: &str, name: &str, why: impl std::fmt::Display) {
        self.returned.warnings.push(format!("{what} {name}: {why}"));
    }

    fn not_made(&mut self, what: &str, name: &str, why: impl std::fmt::Display) {
        self.returned.not_done.push(format!("{what} {name}: {why}"));
    }

    fn made(&mut self, what: &str, names: &[String]) {
        if !names.is_empty() {
            self.returned.proven.push(format!("{what} made: {}", names.join(", ")));
        }
    }

    fn networks(&mut self) -> Result<(), DockerError> {
        let mut made = Vec::new();
        for network in self.document("networks") {
            let name = text(&network, "Name");
            let old = text(&network, "Id");
            let id =
                match self.daemon.call("find network", &name, self.daemon.api.inspect_network(&name, None)) {
                    Ok(found) => found.id,
                    Err(DockerError::Cancelled(cancelled)) => return Err(cancelled.into()),
                    Err(_) => match self.network(&name, &network) {
                        Ok(id) => {
                            made.push(name.clone());
                            Some(id)
                        }
                        Err(error) => {
                            self.not_made("network", &name, error);
                            None
                        }
                    },
                };
            if let Some(id) = id {
                self.ids.insert(old, id);
            }
        }
        self.made("networks", &made);
        Ok(())
    }

    fn network(&self, name: &str, network: &Value) -> Result<String, DockerError> {
        let mut request: NetworkCreateRequest = parsed("network", network)?;
        request.name = name.to_owned();
        Ok(self.daemon.call("make network", name, self.daemon.api.create_network(request))?.id)
    }

    fn configs(&mut self) -> Result<(), DockerError> {
        let mut made = Vec::new();
        for config in self.document("configs") {
            let (name, old) = (text(&config["Spec"], "Name"), text(&config, "ID"));
            let found = match self.daemon.call("find config", &name, self.daemon.api.inspect_config(&name)) {
                Ok(found) => found.id,
                Err(DockerError::Cancelled(cancelled)) => return Err(cancelled.into()),
                Err(_) => None,
            };
            let id = match found {
                Some(id) => Ok(id),
                None => parsed::<ConfigSpec>("config", &config["Spec"]).and_then(|spec| {
                    let id = self.daemon.call("make config", &name, self.daemon.api.create_config(spec))?.id;
                    made.push(name.clone());
                    Ok(id)
                }),
            };
            match id {
                Ok(id) => drop(self.ids.insert(old, id)),
                Err(error) => self.not_made("config", &name, error),
            }
        }
        self.made("configs", &made);
        Ok(())
    }

    fn services(&mut self) -> Result<(), DockerError> {
        let mut made = Vec::new();
        for service in self.document("services") {
            let mut spec = service["Spec"].clone();
            let name = text(&spec, "Name");
            if self.daemon.call("find service", &name, self.daemon.api.inspect_service(&name, None)).is_ok() {
                self.warn("service", &name, "exists already and was left as it is");
                continue;
            }
            self.daemon.cancel.check()?;
            match self.service(&name, &mut spec) {
                Ok(()) => made.push(name),
                Err(error) => self.not_made("service", &name, error),
            }
        }
        self.made("services", &made);
        Ok(())
    }

    fn service(&self, name: &str, spec: &mut Value) -> Result<(), DockerError> {
        self.require_image(&text(&spec["TaskTemplate"]["ContainerSpec"], "Image"))?;
        for network in members(&mut spec["TaskTemplate"]["Networks"]) {
            if let Some(id) = self.ids.get(&text(network, "Target")) {
                network["Target"] = id.clone().into();
            }
        }
        for config in members(&mut spec["TaskTemplate"]["ContainerSpec"]["Configs"]) {
            if let Some(id) = self.ids.get(&text(config, "ConfigID")) {
                config["ConfigID"] = id.clone().into();
            }
        }
        for secret in members(&mut spec["TaskTemplate"]["ContainerSpec"]["Secrets"]) {
            let wanted = text(secret, "SecretName");
            let found = self.daemon.call("find secret", &wanted, self.daemon.api.inspect_secret(&wanted));
            let Some(id) = found.ok().and_then(|found| found.id) else {
                let why =
                    format!("secret {wanted} is not there, and its content is in no snapshot: make it first");
                return Err(DockerError::Failed(why));
            };
            secret["SecretID"] = id.into();
        }
        let spec: ServiceSpec = parsed("service", spec)?;
        self.daemon.call("make service", name, self.daemon.api.create_service(spec, None)).map(drop)
    }

    fn require_image(&self, image: &str) -> Result<(), DockerError> {
        let found = self.daemon.call("find image", image, self.daemon.api.inspect_image(image));
        found.map(drop).map_err(|error| match error {
            DockerError::Cancelled(cancelled) => cancelled.into(),
            _ => DockerError::Failed(format!("image {image} is not there: docker pull {image}")),
        })
    }

    fn containers(&mut self) -> Result<(), DockerError> {
        let mut made = Vec::new();
        for container in self.document("containers") {
            let name = text(&container, "Name").trim_start_matches('/').to_owned();
            if !container["Config"]["Labels"]["com.docker.swarm.service.name"].is_null() {
                // Swarm makes its own.
                continue;
            }
            if self
                .daemon
                .call("find container", &name, self.daemon.api.inspect_container(&name, None))
                .is_ok()
            {
                self.warn("container", &name, "exists already and was left as it is");
                continue;
            }
            self.daemon.cancel.check()?;
            match self.container(&name, &container) {
                Ok(()) => made.push(name),
                Err(error) => self.not_made("container", &name, error),
            }
        }
        self.made("containers", &made);
        Ok(())
    }

    fn container(&self, name: &str, container: &Value) -> Result<(), DockerError> {
        let mut body = container["Config"].clone();
        self.require_image(&text(&body, "Image"))?;
        body["HostConfig"] = container["HostConfig"].clone();
        let mode = text(&container["HostConfig"], "NetworkMode");
        let mut endpoints = Map::new();
        if let Some(networks) = container["NetworkSettings"]["Networks"].as_object() {
            for (network, settings) in networks {
                // Addresses and ids are given anew.
                let kept = json!({
                    "IPAMConfig": settings["IPAMConfig"], "Links": settings["Links"],
                    "Aliases": settings["Aliases"], "DriverOpts": settings["DriverOpts"],
                });
                endpoints.insert(network.clone(), kept);
            }
        }
        // Older engines take one network when a container is made, and the others after.
        let first = endpoints.remove(&mode).map(|settings| json!({ mode.as_str(): settings }));
        if let Some(first) =
            first.filter(|_| !matches!(mode.as_str(), "none" | "host" | "bridge" | "default"))
        {
            body["NetworkingConfig"] = json!({ "EndpointsConfig": first });
        }
        let body: ContainerCreateBody = parsed("container", &body)?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let create = self.daemon.api.create_container(Some(options), body);
        let made = self.daemon.call("make container", name, create)?;
        for (network, settings) in endpoints {
            let request: NetworkConnectRequest =
                parsed("network", &json!({ "Container": made.id, "EndpointConfig": settings }))?;
            let connect = self.daemon.api.connect_network(&network, request);
            self.daemon.call("connect to network", &network, connect)?;
        }
        if container["State"]["Running"] == true {
            self.daemon.call("start container", name, self.daemon.api.start_container(&made.id, None))?;
        }
        Ok(())
    }
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

fn members(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}

fn parsed<T: DeserializeOwned>(what: &str, value: &Value) -> Result<T, DockerError> {
    serde_json::from_value(value.clone())
        .map_err(|error| DockerError::Failed(format!("the snapshot's {what} cannot be understood: {error}")))
}

impl Target for ProjectTarget {
    fn trees(&mut self, trees: &[StoredTree]) {
        self.trees = trees.to_vec();
    }

    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let captured = facts.get("docker").and_then(|docker| docker["project"]["name"].as_str());
        if captured != Some(self.address.name.as_str()) {
            let why = match captured {
                Some(name) => format!(
                    "the snapshot is of project {name}, whose volumes, networks and services have its name\n\
                     hint: restore it to docker-project:{name}"
                ),
                None => "the snapshot is not of a Docker project".into(),
            };
            return Err(SourceError::Refused(why));
        }
        for tree in self.trees.clone() {
            let Some(name) = tree.path.strip_prefix(&format!("/{VOLUMES}/")) else { continue };
            let address = Address { name: name.to_owned(), options: self.address.options.clone() };
            let state = self.state.as_deref();
            let mut target = Box::new(VolumeTarget::new(self.daemon.clone(), &address, self.force, state));
            target.trees(std::slice::from_ref(&tree));
            target.prepare(&[], facts)?;
            self.volumes.insert(tree.path, target);
        }
        let wanted =
            |part: &StoredPart| PARTS.iter().any(|name| part.path == format!("/project/{name}.json"));
        Ok((0..parts.len()).filter(|&at| wanted(&parts[at])).collect())
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        let mut bytes = Vec::new();
        let local = |cause| DockerError::Local { operation: "read", subject: part.path.clone(), cause };
        content.take(PART_LIMIT_BYTES).read_to_end(&mut bytes).map_err(local)?;
        let value: Vec<Value> = serde_json::from_slice(&bytes)
            .map_err(|error| DockerError::Failed(format!("{} cannot be understood: {error}", part.path)))?;
        let name = part.path.trim_start_matches("/project/").trim_end_matches(".json");
        self.documents.insert(name.to_owned(), value);
        Ok(())
    }

    fn place(&mut self, tree: &StoredTree) -> Result<Place, SourceError> {
        self.of(tree)?.place(tree)
    }

    fn placed(&mut self, tree: &StoredTree, placed: Placed) -> Result<(), SourceError> {
        self.of(tree)?.placed(tree, placed)
    }

    fn put_tree(&mut self, tree: &StoredTree, tar: &mut dyn Read) -> Result<(), SourceError> {
        self.of(tree)?.put_tree(tree, tar)
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        let mut facts = Map::new();
        for (_, target) in std::mem::take(&mut self.volumes) {
            let returned = target.finish()?;
            self.returned.proven.extend(returned.proven);
            if let Some(volumes) = returned.facts["docker"]["volumes"].as_object() {
                facts.extend(volumes.clone());
            }
        }
        self.returned.proven.sort();
        self.networks()?;
        self.configs()?;
        self.services()?;
        self.containers()?;
        self.returned.facts.insert("docker".into(), json!({ "volumes": facts }));
        Ok(std::mem::take(&mut self.returned))
    }
}
