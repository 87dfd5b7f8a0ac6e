//! From what was captured of a project's containers to what is made of them in a rehearsal.
//!
//! Pure. It takes over what a container needs to run and nothing that reaches out of it: everything not named here is
//! left behind.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::super::volume::{COMPOSE_SERVICE, STACK, SWARM_SERVICE};
use super::secrets::Secrets;
use crate::base::secret::Secret;

/// Most memory a container of a rehearsal gets.
const MEMORY_BYTES: u64 = 2 << 30;
/// Most processes.
const PROCESSES: u64 = 1024;
/// Of the usual 1024: whatever else runs on the server comes first.
const CPU_SHARES: u64 = 256;
/// Compose says here what a service waits for: `db:service_healthy:true,cache:service_started:false`.
const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// Networks that are no networks of the project.
const NOT_OURS: [&str; 5] = ["host", "none", "bridge", "ingress", "default"];
/// What of a container's settings it needs to run; all else stays behind.
const CONFIG: [&str; 10] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "WorkingDir",
    "User",
    "Healthcheck",
    "StopSignal",
    "StopTimeout",
    "Tty",
    "OpenStdin",
];
const HOST_CONFIG: [&str; 6] = ["Tmpfs", "ShmSize", "Init", "ReadonlyRootfs", "CapDrop", "Ulimits"];

/// One container of a rehearsal.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerPlan {
    /// What the project calls it.
    pub service: String,
    /// Image by name and by id.
    pub image: String,
    pub image_id: String,
    /// For the engine, without image, name, labels and networks.
    pub body: Value,
    /// Real names.
    pub networks: BTreeSet<String>,
    pub aliases: Vec<String>,
    pub needs: BTreeSet<String>,
    pub has_health: bool,
}

/// What a rehearsal is made of.
#[derive(Default)]
pub struct ProjectPlan {
    pub containers: Vec<ContainerPlan>,
    /// What must not be shown of what they say.
    pub secrets: Vec<Secret>,
    /// What is not as it is in reality.
    pub differs: Vec<String>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The service a container belongs to, else its own name.
fn service_of(container: &Value) -> String {
    let labels = &container["Config"]["Labels"];
    if let Some(service) = labels[COMPOSE_SERVICE].as_str() {
        return service.to_owned();
    }
    if let Some(service) = labels[SWARM_SERVICE].as_str() {
        let stack = text(&labels[STACK]);
        return service
            .strip_prefix(stack)
            .and_then(|rest| rest.strip_prefix('_'))
            .unwrap_or(service)
            .to_owned();
    }
    text(&container["Name"]).trim_start_matches('/').to_owned()
}

/// Plans the containers that ran. `volumes`: real name → new name, of those that were captured. `listed`: variables to
/// keep. `make` makes values up, `limit_cpus` is what a container may use.
pub fn plan(
    documents: &[Value],
    volumes: &BTreeMap<String, String>,
    listed: &[String],
    limit_cpus: u64,
    make: impl Fn() -> String,
) -> ProjectPlan {
    let mut planned = ProjectPlan::default();
    let ran: Vec<&Value> =
        documents.iter().filter(|container| container["State"]["Running"] == true).collect();
    let mut secrets = Secrets::default();
    for container in &ran {
        secrets.look(&strings(&container["Config"]["Env"]), listed, &make);
    }
    for container in &ran {
        secrets.settle(&strings(&container["Config"]["Env"]));
    }
    let mut services = BTreeSet::new();
    for container in ran {
        let service = service_of(container);
        // Several of one service are the same thing more than once.
        if !services.insert(service.clone()) {
            planned.differs.push(format!("{service}: one container of several"));
            continue;
        }
        let made = one(container, service, volumes, &secrets, limit_cpus, &mut planned.differs);
        planned.containers.push(made);
    }
    let known: BTreeSet<String> = planned.containers.iter().map(|plan| plan.service.clone()).collect();
    for plan in &mut planned.containers {
        plan.needs.retain(|needed| known.contains(needed));
    }
    planned.secrets = secrets.all();
    if !secrets.replaced.is_empty() {
        let names: Vec<&str> = secrets.replaced.iter().map(String::as_str).collect();
        planned.differs.push(format!("secrets replaced by made-up ones: {}", names.join(", ")));
    }
    if !secrets.kept.is_empty() {
        let names: Vec<&str> = secrets.kept.iter().map(String::as_str).collect();
        planned.differs.push(format!("production's own secrets used, as listed: {}", names.join(", ")));
    }
    planned
}

fn one(
    container: &Value,
    service: String,
    volumes: &BTreeMap<String, String>,
    secrets: &Secrets,
    limit_cpus: u64,
    differs: &mut Vec<String>,
) -> ContainerPlan {
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    let mut body = Map::new();
    for key in CONFIG {
        if !config[key].is_null() {
            body.insert(key.to_owned(), hidden(&config[key], secrets));
        }
    }
    body.insert("Hostname".into(), short_name(&service).into());
    let mut limits = Map::new();
    for key in HOST_CONFIG {
        if !host[key].is_null() {
            limits.insert(key.to_owned(), host[key].clone());
        }
    }
    let memory = host["Memory"].as_u64().filter(|memory| *memory > 0).unwrap_or(MEMORY_BYTES);
    limits.insert("Memory".into(), memory.min(MEMORY_BYTES).into());
    limits.insert("NanoCpus".into(), (limit_cpus * 1_000_000_000).into());
    limits.insert("CpuShares".into(), CPU_SHARES.into());
    limits.insert("PidsLimit".into(), PROCESSES.into());
    limits.insert("SecurityOpt".into(), json!(["no-new-privileges:true"]));
    limits.insert("RestartPolicy".into(), json!({ "Name": "no" }));
    // A driver may send them to where production's go.
    limits.insert("LogConfig".into(), json!({ "Type": "json-file", "Config": { "max-size": "10m" } }));
    limits.insert("Mounts".into(), mounts(container, &service, volumes, differs).into());
    body.insert("HostConfig".into(), limits.into());
    if host["Privileged"] == true || host["Devices"].as_array().is_some_and(|devices| !devices.is_empty()) {
        differs.push(format!("{service}: without its privileges and devices"));
    }
    let labels = &config["Labels"];
    let needs = text(&labels[DEPENDS_ON]).split(',').filter_map(|one| one.split(':').next());
    let (networks, aliases) = networks(container, &service);
    ContainerPlan {
        image: text(&config["Image"]).to_owned(),
        image_id: text(&container["Image"]).to_owned(),
        body: body.into(),
        networks,
        aliases,
        needs: needs.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        has_health: has_health(config),
        service,
    }
}

/// Every text in it with its secrets replaced.
fn hidden(value: &Value, secrets: &Secrets) -> Value {
    match value {
        Value::String(text) => secrets.hide(text).into(),
        Value::Array(items) => items.iter().map(|item| hidden(item, secrets)).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), hidden(value, secrets))).collect(),
        other => other.clone(),
    }
}

fn has_health(config: &Value) -> bool {
    let test = strings(&config["Healthcheck"]["Test"]);
    test.first().is_some_and(|first| first != "NONE")
}

/// A host's name has at most 63 characters.
fn short_name(service: &str) -> String {
    service.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(60).collect()
}

fn mounts(
    container: &Value,
    service: &str,
    volumes: &BTreeMap<String, String>,
    differs: &mut Vec<String>,
) -> Vec<Value> {
    let mut made = Vec::new();
    for mount in container["Mounts"].as_array().into_iter().flatten() {
        let place = text(&mount["Destination"]);
        let name = text(&mount["Name"]);
        match (text(&mount["Type"]), volumes.get(name)) {
            ("volume", Some(new)) => made.push(json!({
                "Type": "volume", "Source": new, "Target": place, "ReadOnly": mount["RW"] == false,
                "VolumeOptions": { "NoCopy": true },
            })),
            ("volume", None) => {
                differs.push(format!("{service}: {place} is empty: volume {name} is not in the snapshot"));
                made.push(json!({ "Type": "tmpfs", "Target": place }));
            }
            ("tmpfs", _) => made.push(json!({ "Type": "tmpfs", "Target": place })),
            (kind, _) => {
                let source = text(&mount["Source"]);
                differs.push(format!("{service}: without {place}, which is {source} of the host ({kind})"));
            }
        }
    }
    made
}

fn networks(container: &Value, service: &str) -> (BTreeSet<String>, Vec<String>) {
    let mut names = BTreeSet::new();
    let mut aliases = vec![service.to_owned()];
    for (name, settings) in container["NetworkSettings"]["Networks"].as_object().into_iter().flatten() {
        if !NOT_OURS.contains(&name.as_str()) {
            names.insert(name.clone());
        }
        aliases.extend(strings(&settings["Aliases"]));
    }
    let name = text(&container["Name"]).trim_start_matches('/').to_owned();
    aliases.push(name);
    // The engine adds the start of the id of its own accord.
    let id = text(&container["Id"]);
    aliases.retain(|alias| !alias.is_empty() && !id.starts_with(alias.as_str()));
    aliases.sort();
    aliases.dedup();
    let mode = text(&container["HostConfig"]["NetworkMode"]);
    if names.is_empty() && mode != "none" {
        // On the host's network, or on the engine's own: here on one that leads nowhere.
        names.insert("default".into());
    }
    (names, aliases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured() -> Value {
        json!({
            "Id": "0123456789abcdef", "Name": "/shop-web-1", "Image": "sha256:aa", "State": { "Running": true },
            "Config": {
                "Image": "shop/web:3", "Env": ["DB_PASSWORD=hunter22", "MODE=live"], "Cmd": ["serve", "--pw=hunter22"],
                "ExposedPorts": { "80/tcp": {} }, "Healthcheck": { "Test": ["CMD", "true"] },
                "Labels": { "com.docker.compose.service": "web", "traefik.enable": "true",
                    "com.docker.compose.depends_on": "db:service_healthy:true,gone:service_started:false" },
            },
            "HostConfig": {
                "NetworkMode": "shop_default", "Privileged": true, "PortBindings": { "80/tcp": [{ "HostPort": "80" }] },
                "Binds": ["/var/run/docker.sock:/sock"], "CapAdd": ["SYS_ADMIN"], "Memory": 1000, "PidMode": "host",
                "ExtraHosts": ["mail:10.0.0.1"], "Dns": ["10.0.0.2"], "LogConfig": { "Type": "gelf" },
            },
            "Mounts": [
                { "Type": "volume", "Name": "shop_data", "Destination": "/data", "RW": true },
                { "Type": "volume", "Name": "shop_left_out", "Destination": "/cache", "RW": true },
                { "Type": "bind", "Source": "/var/run/docker.sock", "Destination": "/sock" },
            ],
            "NetworkSettings": { "Networks": { "shop_default": { "Aliases": ["web", "0123456789ab", "www"] } } },
        })
    }

    #[test]
    fn nothing_that_reaches_out_is_taken_over() {
        let volumes = BTreeMap::from([("shop_data".to_owned(), "drill_data".to_owned())]);
        let db = json!({ "Id": "f", "Name": "/shop-db-1", "State": { "Running": true }, "Config": {
            "Labels": { "com.docker.compose.service": "db" } }, "HostConfig": { "NetworkMode": "host" } });
        let stopped = json!({ "Name": "/shop-job-1", "State": { "Running": false } });
        let again = captured();
        let planned = plan(&[captured(), db, stopped, again], &volumes, &[], 1, || "made-up".into());
        assert_eq!(planned.containers.len(), 2);
        let web = &planned.containers[0];
        let text = web.body.to_string();
        for real in [
            "hunter22",
            "docker.sock",
            "HostPort",
            "SYS_ADMIN",
            "traefik",
            "10.0.0",
            "gelf",
            "shop_data",
            "PidMode",
            "ExposedPorts",
        ] {
            assert!(!text.contains(real), "{real}: {text}");
        }
        assert!(
            text.contains("DB_PASSWORD=made-up")
                && text.contains("--pw=made-up")
                && text.contains("MODE=live")
        );
        assert_eq!(web.body["HostConfig"]["Memory"], 1000);
        assert_eq!(web.body["HostConfig"]["Mounts"][0]["Source"], "drill_data");
        assert_eq!(web.needs.iter().collect::<Vec<_>>(), ["db"]);
        assert_eq!(
            (web.aliases.as_slice(), web.has_health),
            (&["shop-web-1".to_owned(), "web".into(), "www".into()][..], true)
        );
        assert_eq!(planned.containers[1].networks.iter().collect::<Vec<_>>(), ["default"], "not the host's");
        let differs = planned.differs.join("\n");
        for expected in
            ["/sock, which is", "/cache is empty", "privileges", "DB_PASSWORD", "one container of several"]
        {
            assert!(differs.contains(expected), "{expected}: {differs}");
        }
    }
}
