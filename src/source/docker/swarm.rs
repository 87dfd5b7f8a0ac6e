//! Swarm services: their replicas taken away and given back. Stopping a task's container would only make Swarm start
//! another.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::models::{Service, ServiceSpec};
use bollard::query_parameters::{ListContainersOptionsBuilder, UpdateServiceOptionsBuilder};

use super::DockerError;
use super::daemon::Daemon;
use super::volume::SWARM_SERVICE;

/// How long tasks may take to go, besides their own time to stop.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);
/// Updates that somebody else's update got in the way of are tried again.
const TRIES: usize = 5;

fn inspect(daemon: &Daemon, service: &str) -> Result<Service, DockerError> {
    daemon.undo("find service", service, daemon.api.inspect_service(service, None))
}

/// How many replicas a service wants.
///
/// # Errors
/// There is no such service here, or it runs on every node and cannot be scaled.
pub fn replicas(daemon: &Daemon, service: &str) -> Result<u64, DockerError> {
    let spec = inspect(daemon, service)?.spec.unwrap_or_default();
    let replicated = spec.mode.and_then(|mode| mode.replicated);
    let count = replicated.and_then(|replicated| replicated.replicas).map(i64::unsigned_abs);
    count.ok_or_else(|| {
        let why = format!(
            "service {service} runs on every node and cannot be scaled to none\nhint: pause it instead, with pause={service}"
        );
        DockerError::Refused(why)
    })
}

/// Gives a service so many replicas. `wait`: until no container of it runs on this daemon.
///
/// # Errors
/// The daemon refuses, or tasks do not go.
pub fn scale(daemon: &Daemon, service: &str, replicas: u64, wait: bool) -> Result<(), DockerError> {
    let mut tried = 0;
    loop {
        tried += 1;
        let found = inspect(daemon, service)?;
        let version = found.version.and_then(|version| version.index).unwrap_or_default();
        let mut spec: ServiceSpec = found.spec.unwrap_or_default();
        if let Some(replicated) = spec.mode.as_mut().and_then(|mode| mode.replicated.as_mut()) {
            replicated.replicas = i64::try_from(replicas).ok();
        }
        let options =
            UpdateServiceOptionsBuilder::new().version(i32::try_from(version).unwrap_or(i32::MAX)).build();
        let update = daemon.api.update_service(service, spec, options, None);
        match daemon.undo("scale service", service, update) {
            Ok(_) => break,
            Err(error) if tried == TRIES => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    if !wait {
        return Ok(());
    }
    let begin = Instant::now();
    while tasks_here(daemon, service)? > 0 {
        daemon.cancel.check()?;
        if begin.elapsed() > PATIENCE {
            return Err(DockerError::Failed(format!("service {service}: its containers do not end")));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Containers of the service that run on this daemon.
fn tasks_here(daemon: &Daemon, service: &str) -> Result<usize, DockerError> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{SWARM_SERVICE}={service}")])]);
    let options = ListContainersOptionsBuilder::new().filters(&filters).build();
    Ok(daemon
        .undo("list the containers of service", service, daemon.api.list_containers(Some(options)))?
        .len())
}
