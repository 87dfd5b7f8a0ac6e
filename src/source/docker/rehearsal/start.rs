//! Brings a rehearsal up: its networks, then each container after those it needs, until it runs and says that it is
//! healthy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HealthStatusEnum, NetworkConnectRequest,
    NetworkCreateRequest, NetworkingConfig,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, LogsOptionsBuilder};
use futures::StreamExt;

use super::super::DockerError;
use super::super::volume::{COMPOSE_PROJECT, COMPOSE_SERVICE};
use super::plan::ContainerPlan;
use super::{Rehearsal, Up};
use crate::base::order::{Needs, sorted};

/// How long a service may take to say that it is healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(180);
/// One that says nothing of its health must run this long.
const RUNS_FOR: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
/// Lines of a container's log that are told when it fails.
const LINES: &str = "5";
const SAID_LIMIT_BYTES: usize = 64 << 10;

impl Rehearsal {
    /// Brings everything up. One that fails does not stop the others, but what needs it is not started.
    ///
    /// # Errors
    /// The server does not let us make what is needed.
    pub fn start(&self) -> Result<Vec<Up>, DockerError> {
        let plans = self.state().plans.clone();
        let mut networks = BTreeMap::new();
        for name in plans.iter().flat_map(|plan| &plan.networks) {
            if !networks.contains_key(name) {
                networks.insert(name.clone(), self.network(name)?);
            }
        }
        let needs: Needs = plans.iter().map(|plan| (plan.service.clone(), plan.needs.clone())).collect();
        let mut order: Vec<String> = sorted(&needs).into_iter().map(|(name, _)| name).collect();
        // What waits for itself is started all the same: Compose would have refused it.
        order.extend(needs.keys().filter(|name| !order.contains(name)).cloned().collect::<Vec<_>>());
        let mut up: Vec<Up> = Vec::new();
        for service in order {
            let Some(plan) = plans.iter().find(|plan| plan.service == service) else { continue };
            let failed: Option<&Up> =
                up.iter().find(|up| up.outcome.is_err() && plan.needs.contains(&up.service));
            let (outcome, said) = match failed {
                Some(failed) => (Err(format!("not started: it needs {}", failed.service)), String::new()),
                None => self.container(plan, &networks)?,
            };
            up.push(Up { service, outcome, said });
        }
        Ok(up)
    }

    /// An internal network: nothing leads out of it.
    fn network(&self, name: &str) -> Result<String, DockerError> {
        let new = format!("{}_{name}", self.prefix());
        let request = NetworkCreateRequest {
            name: new.clone(),
            driver: Some("bridge".into()),
            internal: Some(true),
            labels: Some(self.labels()),
            ..NetworkCreateRequest::default()
        };
        self.daemon.call("make network", &new, self.daemon.api.create_network(request))?;
        Ok(new)
    }

    fn container(
        &self,
        plan: &ContainerPlan,
        networks: &BTreeMap<String, String>,
    ) -> Result<(Result<String, String>, String), DockerError> {
        let name = format!("{}_{}", self.prefix(), plan.service);
        let mut body: ContainerCreateBody = serde_json::from_value(plan.body.clone()).map_err(|error| {
            DockerError::Failed(format!("{}: cannot be understood: {error}", plan.service))
        })?;
        let mut labels = self.labels();
        labels.insert(COMPOSE_PROJECT.into(), self.prefix());
        labels.insert(COMPOSE_SERVICE.into(), plan.service.clone());
        (body.image, body.labels) = (Some(plan.image.clone()), Some(labels));
        let endpoint =
            || EndpointSettings { aliases: Some(plan.aliases.clone()), ..EndpointSettings::default() };
        let mut own: Vec<&String> = plan.networks.iter().filter_map(|name| networks.get(name)).collect();
        let host = body.host_config.get_or_insert_default();
        match own.pop() {
            // Older engines take one network when a container is made, and the others after.
            Some(first) => {
                host.network_mode = Some(first.clone());
                let endpoints = HashMap::from([(first.clone(), endpoint())]);
                body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
            }
            None => host.network_mode = Some("none".into()),
        }
        let (daemon, api) = (&self.daemon, &self.daemon.api);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let made = daemon.call("make container", &name, api.create_container(Some(options), body))?;
        for network in own {
            let request =
                NetworkConnectRequest { container: made.id.clone(), endpoint_config: Some(endpoint()) };
            daemon.call("connect to network", network, api.connect_network(network, request))?;
        }
        match daemon.call("start container", &name, api.start_container(&made.id, None)) {
            Ok(()) => {}
            Err(DockerError::Cancelled(cancelled)) => return Err(cancelled.into()),
            Err(error) => return Ok((Err(error.to_string()), String::new())),
        }
        let outcome = self.wait(plan, &made.id)?;
        let said = if outcome.is_err() { self.said(&made.id) } else { String::new() };
        Ok((outcome, said))
    }

    /// Until it is healthy, or runs on without saying so.
    fn wait(&self, plan: &ContainerPlan, id: &str) -> Result<Result<String, String>, DockerError> {
        let begin = Instant::now();
        loop {
            let look = self.daemon.api.inspect_container(id, None);
            let found = self.daemon.call("look at container", &plan.service, look)?;
            let state = found.state.clone().unwrap_or_default();
            if state.running != Some(true) {
                let code = state.exit_code.unwrap_or(-1);
                return Ok(Err(format!("ended with exit status {code}")));
            }
            let health = state.health.and_then(|health| health.status);
            let words = match health {
                Some(HealthStatusEnum::HEALTHY) => Some("healthy"),
                Some(HealthStatusEnum::UNHEALTHY) => {
                    return Ok(Err("says that it is not healthy".into()));
                }
                _ if !plan.has_health && begin.elapsed() >= RUNS_FOR => {
                    Some("runs; it says nothing of its health")
                }
                _ => None,
            };
            if let Some(words) = words {
                if let Some(address) = address(&found) {
                    self.state().addresses.insert(plan.service.clone(), address);
                }
                return Ok(Ok(words.to_owned()));
            }
            if begin.elapsed() > HEALTHY_WITHIN {
                let seconds = HEALTHY_WITHIN.as_secs();
                return Ok(Err(format!("was not healthy within {seconds} s")));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The end of what a container wrote.
    fn said(&self, id: &str) -> String {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(LINES).build();
        let read = async {
            let mut log = self.daemon.api.logs(id, Some(options));
            let mut text = String::new();
            while let Some(piece) = log.next().await {
                if let LogOutput::StdErr { message }
                | LogOutput::StdOut { message }
                | LogOutput::Console { message } = piece?
                {
                    text.push_str(&String::from_utf8_lossy(&message));
                }
                if text.len() > SAID_LIMIT_BYTES {
                    break;
                }
            }
            Ok(text)
        };
        self.daemon.call("read the log of", "a container", read).unwrap_or_default()
    }
}

fn address(found: &ContainerInspectResponse) -> Option<IpAddr> {
    let networks = found.network_settings.as_ref()?.networks.as_ref()?;
    let ordered: BTreeSet<&String> = networks.keys().collect();
    ordered.into_iter().find_map(|name| networks.get(name)?.ip_address.as_ref()?.parse().ok())
}
