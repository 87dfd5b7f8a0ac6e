//! A Compose project or Swarm stack: what is needed to build it again, besides the bytes of its volumes.
//!
//! Everything comes from the engine (labels, inspection, service specifications), so that it is there also when the
//! file it was once made from is not; that file is kept beside it where it can be read. The engine gives no secret's
//! content: their names are kept, and said.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::query_parameters::{
    ListConfigsOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    ListSecretsOptionsBuilder, ListServicesOptionsBuilder, ListVolumesOptionsBuilder,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::DockerError;
use super::daemon::Daemon;
use super::volume::{COMPOSE_PROJECT, STACK, User};

/// Compose says here which files a project was made from.
const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// A larger one is no description of a project.
const FILE_LIMIT_BYTES: u64 = 16 << 20;

/// A project as the engine knows it.
#[derive(Debug, Default)]
pub struct Project {
    pub members: Vec<User>,
    /// Names.
    pub volumes: Vec<String>,
    /// Parts of the snapshot by their paths.
    pub parts: BTreeMap<String, Vec<u8>>,
    pub warnings: Vec<String>,
    pub fact: Value,
}

/// Which of the two kinds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Compose,
    Swarm,
}

/// Collects a project.
///
/// # Errors
/// Nothing carries its name; the daemon does not answer.
pub fn collect(daemon: &Daemon, name: &str) -> Result<Project, DockerError> {
    let mut project = Project::default();
    let compose = containers(daemon, &format!("{COMPOSE_PROJECT}={name}"))?;
    let (sort, label) = match compose.is_empty() {
        false => (Sort::Compose, format!("{COMPOSE_PROJECT}={name}")),
        true => (Sort::Swarm, format!("{STACK}={name}")),
    };
    project.members = if sort == Sort::Compose { compose } else { containers(daemon, &label)? };
    let services = services(daemon, &label, sort)?;
    if project.members.is_empty() && services.is_empty() {
        let why = format!(
            "there is no project {name:?}: no container and no service carries its label\n\
             hint: docker compose ls and docker stack ls list what there is"
        );
        return Err(DockerError::Failed(why));
    }
    let mut details = Vec::new();
    let mut images = BTreeMap::new();
    for user in &project.members {
        let look = daemon.api.inspect_container(&user.id, None);
        let found = value(&daemon.call("look at container", &user.name, look)?)?;
        if let Some(image) = found["Image"].as_str() {
            images.entry(image.to_owned()).or_insert_with(|| Value::Null);
        }
        details.push(found);
    }
    for (id, image) in &mut images {
        // An image may be gone while its container is there.
        if let Ok(found) = daemon.call("look at image", id, daemon.api.inspect_image(id)) {
            *image = json!({
                "id": found.id, "tags": found.repo_tags, "digests": found.repo_digests, "size_bytes": found.size,
                "architecture": found.architecture, "os": found.os, "created": found.created,
            });
        }
    }
    project.volumes = volumes(daemon, &label, &details)?;
    let networks = networks(daemon, &label)?;
    let (configs, secrets) = swarm_things(daemon, &label, sort)?;
    if !secrets.is_empty() {
        let names = secrets.iter().filter_map(|secret| secret["Spec"]["Name"].as_str()).collect::<Vec<_>>();
        project.warnings.push(format!(
            "the contents of secrets cannot be exported from Swarm and are not in the snapshot: {}",
            names.join(", ")
        ));
    }
    if sort == Sort::Compose {
        project.add_files();
    }
    project.fact = json!({
        "name": name,
        "kind": if sort == Sort::Compose { "compose" } else { "swarm" },
        "containers": project.members.iter().map(User::fact).collect::<Vec<_>>(),
        "services": services.len(), "networks": networks.len(), "configs": configs.len(),
        "secrets": secrets.len(), "volumes": project.volumes,
        "images": images.values().map(|image| &image["digests"]).collect::<Vec<_>>(),
    });
    let documents: [(&str, Value); 7] = [
        ("containers", details.into()),
        ("configs", configs.into()),
        ("images", json!(images)),
        ("networks", networks.into()),
        ("project", project.fact.clone()),
        ("secrets", secrets.into()),
        ("services", services.into()),
    ];
    for (part, document) in documents {
        let text =
            serde_json::to_vec_pretty(&document).map_err(|error| DockerError::Failed(error.to_string()))?;
        project.parts.insert(format!("/project/{part}.json"), text);
    }
    Ok(project)
}

/// The containers of a Compose project or Swarm stack.
///
/// # Errors
/// The daemon does not answer.
pub fn members(daemon: &Daemon, name: &str) -> Result<Vec<User>, DockerError> {
    let mut found = containers(daemon, &format!("{COMPOSE_PROJECT}={name}"))?;
    found.extend(containers(daemon, &format!("{STACK}={name}"))?);
    Ok(found)
}

impl Project {
    /// The files the project was made from.
    fn add_files(&mut self) {
        let listed = self.members.iter().filter_map(|user| user.labels.get(CONFIG_FILES));
        let files: BTreeSet<String> = listed
            .flat_map(|list| list.split(','))
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect();
        for path in files {
            let read = std::fs::metadata(&path).and_then(|stat| {
                match stat.is_file() && stat.len() <= FILE_LIMIT_BYTES {
                    true => std::fs::read(&path),
                    false => Err(std::io::Error::other("no file of a usual size")),
                }
            });
            match read {
                Ok(bytes) => {
                    // The number keeps files of the same name apart.
                    let name = path.rsplit('/').next().unwrap_or_default();
                    let number = self.parts.len();
                    self.parts.insert(format!("/project/compose/{number}-{name}"), bytes);
                }
                Err(error) => self.warnings.push(format!(
                    "the file {path} that the project was made from cannot be read here and is not in the snapshot: {error}"
                )),
            }
        }
    }
}

fn value(thing: &impl Serialize) -> Result<Value, DockerError> {
    serde_json::to_value(thing).map_err(|error| DockerError::Failed(error.to_string()))
}

fn filter(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}

fn containers(daemon: &Daemon, label: &str) -> Result<Vec<User>, DockerError> {
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filter(label)).build();
    let list = daemon.call("list", "containers", daemon.api.list_containers(Some(options)))?;
    let mut users: Vec<User> = list.into_iter().map(|summary| User::of(summary, None)).collect();
    users.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(users)
}

fn services(daemon: &Daemon, label: &str, sort: Sort) -> Result<Vec<Value>, DockerError> {
    if sort == Sort::Compose {
        return Ok(Vec::new());
    }
    let options = ListServicesOptionsBuilder::new().filters(&filter(label)).build();
    match daemon.call("list", "services", daemon.api.list_services(Some(options))) {
        Ok(list) => list.iter().map(value).collect(),
        Err(DockerError::Cancelled(cancelled)) => Err(cancelled.into()),
        // No Swarm here.
        Err(_) => Ok(Vec::new()),
    }
}

/// Those that carry the label, and those that members have mounted by name.
fn volumes(daemon: &Daemon, label: &str, details: &[Value]) -> Result<Vec<String>, DockerError> {
    let options = ListVolumesOptionsBuilder::new().filters(&filter(label)).build();
    let list = daemon.call("list", "volumes", daemon.api.list_volumes(Some(options)))?;
    let labelled = list.volumes.unwrap_or_default().into_iter().map(|volume| volume.name);
    let mounts = details.iter().filter_map(|container| container["Mounts"].as_array()).flatten();
    let mounted = mounts.filter(|mount| mount["Type"] == "volume").filter_map(|mount| mount["Name"].as_str());
    let names: BTreeSet<String> = labelled.chain(mounted.map(str::to_owned)).collect();
    Ok(names.into_iter().collect())
}

fn networks(daemon: &Daemon, label: &str) -> Result<Vec<Value>, DockerError> {
    let options = ListNetworksOptionsBuilder::new().filters(&filter(label)).build();
    let list = daemon.call("list", "networks", daemon.api.list_networks(Some(options)))?;
    list.iter().map(value).collect()
}

/// Configs with their content, and secrets without.
fn swarm_things(daemon: &Daemon, label: &str, sort: Sort) -> Result<(Vec<Value>, Vec<Value>), DockerError> {
    if sort == Sort::Compose {
        return Ok((Vec::new(), Vec::new()));
    }
    let options = ListConfigsOptionsBuilder::new().filters(&filter(label)).build();
    let configs = daemon.call("list", "configs", daemon.api.list_configs(Some(options)))?;
    let options = ListSecretsOptionsBuilder::new().filters(&filter(label)).build();
    let secrets = daemon.call("list", "secrets", daemon.api.list_secrets(Some(options)))?;
    let configs = configs.iter().map(value).collect::<Result<_, _>>()?;
    Ok((configs, secrets.iter().map(value).collect::<Result<_, _>>()?))
}
