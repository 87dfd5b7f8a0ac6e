//! Servers in containers, found by Compose project or Swarm stack and service: where they listen, and who may enter.
//!
//! A service that publishes no port is reached at its container's own address, if that is routable from here, which
//! is proven by connecting; else through the container (`super::tunnel`).

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::daemon::Daemon;
use super::project::members;
use super::volume::User;
use super::{DockerError, exec, tunnel};
use crate::base::secret::Secret;
use crate::base::socket::Socket;

/// How long a container next door may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How to get there.
#[derive(Clone)]
pub enum Way {
    Address(IpAddr),
    /// Through the container.
    Through(Socket),
}

/// A server in a container.
pub struct Found {
    pub way: Way,
    daemon: Daemon,
    user: User,
    environment: Vec<String>,
    arguments: Vec<String>,
}

/// Looks for a running container of `service` in `project`, and for the way to its `port`. `None`: no such container.
/// `spool`: a folder for a socket.
///
/// # Errors
/// It is there, none of its addresses answers, and there is no way through it.
pub fn find(
    daemon: &Daemon,
    service: &str,
    project: &str,
    port: u16,
    spool: &Path,
) -> Result<Option<Found>, DockerError> {
    let found = members(daemon, project)?;
    let user = found.into_iter().find(|user| user.running && user.service() == Some(service));
    let Some(user) = user else { return Ok(None) };
    let container =
        daemon.call("look at container", &user.name, daemon.api.inspect_container(&user.id, None))?;
    let networks =
        container.network_settings.clone().and_then(|settings| settings.networks).unwrap_or_default();
    let addresses = networks.into_values().filter_map(|network| network.ip_address?.parse().ok());
    let found = |way| {
        let config = container.config.clone().unwrap_or_default();
        let mut arguments = config.entrypoint.unwrap_or_default();
        arguments.extend(config.cmd.unwrap_or_default());
        let environment = config.env.unwrap_or_default();
        Found { way, daemon: daemon.clone(), user: user.clone(), environment, arguments }
    };
    let mut tried = Vec::new();
    for address in addresses {
        let place = SocketAddr::new(address, port);
        match TcpStream::connect_timeout(&place, CONNECT_LIMIT) {
            Ok(_) => return Ok(Some(found(Way::Address(address)))),
            Err(error) => tried.push(format!("{place}: {error}")),
        }
    }
    let tried = if tried.is_empty() { "it has no address of its own".into() } else { tried.join(", ") };
    match tunnel::open(daemon, &user, port, spool) {
        Ok(socket) => Ok(Some(found(Way::Through(socket)))),
        Err(cancelled @ DockerError::Cancelled(_)) => Err(cancelled),
        Err(error) => Err(DockerError::Failed(format!(
            "container {} of service {service} cannot be reached from here ({tried}); {error}",
            user.name
        ))),
    }
}

impl Found {
    /// A variable of the container, or the first line of the file that the variable with `_FILE` at its end names.
    ///
    /// # Errors
    /// The file cannot be read inside the container.
    pub fn variable(&self, name: &str) -> Result<Option<String>, DockerError> {
        let value = |name: &str| {
            let mut pairs = self.environment.iter().filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value.to_owned())
        };
        if let Some(value) = value(name) {
            return Ok(Some(value));
        }
        let Some(file) = value(&format!("{name}_FILE")) else { return Ok(None) };
        let quoted = format!("'{}'", file.replace('\'', "'\\''"));
        let said = exec::run(&self.daemon, &self.user, &format!("cat {quoted}"))?;
        Ok(said.lines().next().map(str::to_owned))
    }

    /// The same as a secret.
    ///
    /// # Errors
    /// As [`Self::variable`].
    pub fn secret(&self, name: &str) -> Result<Option<Secret>, DockerError> {
        Ok(self.variable(name)?.map(Secret::from_text))
    }

    /// What follows an argument such as `--requirepass`.
    pub fn argument(&self, name: &str) -> Option<Secret> {
        let at = self.arguments.iter().position(|argument| argument == name)?;
        self.arguments.get(at + 1).cloned().map(Secret::from_text)
    }
}
