//! A project brought up, or a volume filled, on a Docker server: on networks that lead nowhere, beside the real thing
//! and unknown to it. See [`crate::source::docker::rehearsal`] for what keeps it apart.

use std::path::Path;
use std::sync::Arc;

use super::{Ground, Sandbox, SandboxError, as_variable};
use crate::base::secret::Secret;
use crate::drill::check::{CheckOutcome, CheckResult};
use crate::runbook::redact::Redactor;
use crate::source::docker::daemon::Daemon;
use crate::source::docker::rehearsal::{Rehearsal, sweep};
use crate::source::target::Target;

/// What is told of the log of a service that failed.
const SAID_CHARACTERS: usize = 400;

pub struct Docker {
    rehearsal: Arc<Rehearsal>,
}

impl Docker {
    /// Connects, and removes what killed drills left on the server.
    pub fn start(ground: &Ground) -> Result<Self, SandboxError> {
        let refused = |error: &dyn std::error::Error| SandboxError::Refused(error.to_string());
        let docker = &ground.docker;
        let runtime = tokio::runtime::Handle::current();
        let daemon = Daemon::connect(docker.host.as_deref(), &runtime, &ground.cancel);
        let daemon = daemon.map_err(|error| refused(&error))?;
        for left in sweep(&daemon).map_err(|error| refused(&error))? {
            tracing::warn!("removed from the Docker server what an earlier drill left behind: {left}");
        }
        let rehearsal = Rehearsal::new(daemon, &docker.secrets, docker.state.as_deref());
        Ok(Self { rehearsal })
    }
}

impl Sandbox for Docker {
    fn path(&self) -> Option<&Path> {
        None
    }
    fn address(&self) -> Option<String> {
        None
    }
    fn target(&mut self) -> Option<Box<dyn Target>> {
        Some(self.rehearsal.target())
    }
    fn start(&mut self) -> Result<Vec<CheckResult>, SandboxError> {
        let up = self.rehearsal.start().map_err(|error| SandboxError::Refused(error.to_string()))?;
        let redactor = Redactor::new(self.secrets());
        let result = |up: crate::source::docker::rehearsal::Up| {
            // Cleaned before it is cut: half a secret would not be known for one.
            let said: String = redactor.clean(up.said.trim()).chars().take(SAID_CHARACTERS).collect();
            let (outcome, detail) = match up.outcome {
                Ok(words) => (CheckOutcome::Passed, words),
                Err(words) if said.is_empty() => (CheckOutcome::Failed, words),
                Err(words) => (CheckOutcome::Failed, format!("{words}; it said: {said}")),
            };
            let name = format!("service {}", up.service);
            CheckResult { is_data: false, proves_data: false, ..CheckResult::new(name, outcome, detail) }
        };
        Ok(up.into_iter().map(result).collect())
    }
    fn describe(&self) -> String {
        format!(
            "Docker {}, internal networks, no published ports, no folder of the host",
            self.rehearsal.engine()
        )
    }
    fn sql(&mut self, _: &str) -> Result<Option<String>, SandboxError> {
        Err(SandboxError::Query("a Docker project answers no SQL: let a command ask its service".into()))
    }
    fn environment(&self) -> Vec<(String, String)> {
        let hosts = self.rehearsal.addresses().into_iter();
        let hosts =
            hosts.map(|(name, at)| (format!("LIFEBOAT_DRILL_HOST_{}", as_variable(&name)), at.to_string()));
        let volumes = self.rehearsal.volumes().into_iter();
        let volumes =
            volumes.map(|(name, new)| (format!("LIFEBOAT_DRILL_VOLUME_{}", as_variable(&name)), new));
        hosts.chain(volumes).collect()
    }
    fn host_of(&self, name: &str) -> Option<std::net::IpAddr> {
        self.rehearsal.addresses().get(name).copied()
    }
    fn secrets(&self) -> Vec<Secret> {
        self.rehearsal.secrets()
    }
    fn not_tested(&self) -> Vec<String> {
        let mut all = self.rehearsal.differs();
        all.push("what the services do with the world outside: none of it can be reached".into());
        all
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        self.rehearsal.clean().map_err(|error| SandboxError::Refused(error.to_string()))
    }
}
