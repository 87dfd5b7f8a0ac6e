//! A Redis or Valkey server of its own: on loopback, with a password nobody else knows, gone with the drill. When
//! root drills, it runs as another user.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::{Ground, Sandbox, SandboxError, close, unprivileged};
use crate::base::cancel::Cancel;
use crate::base::secret::Secret;
use crate::source::redis::ephemeral::{Ephemeral, EphemeralOptions, Held};

/// Users that a server may run as when we are root.
const USERS: [&str; 4] = ["redis", "valkey", "nobody", "daemon"];
const DATABASES: u64 = 16;

pub struct Redis {
    folder: tempfile::TempDir,
    /// `None` only while it is started anew.
    server: Option<Ephemeral>,
    about: String,
    like: String,
    databases: u64,
    append_only: bool,
    user: Option<(u32, u32)>,
    withheld: &'static [&'static str],
    cancel: Cancel,
}

fn refused(error: &dyn std::error::Error) -> SandboxError {
    SandboxError::Refused(format!(
        "no server for the sandbox: {error}\nhint: apt-get install redis-server, or valkey-server"
    ))
}

fn lost() -> SandboxError {
    SandboxError::Query("the server was not started again".into())
}

impl Redis {
    /// `facts`: the snapshot's, which name the server it was taken from and how that was configured.
    pub fn start(
        folder: tempfile::TempDir,
        facts: &serde_json::Value,
        ground: &Ground,
    ) -> Result<Self, SandboxError> {
        let source = |key: &str| facts.pointer(&format!("/redis/{key}")).and_then(|value| value.as_str());
        let like = source("server").unwrap_or("redis").to_ascii_lowercase();
        let user = unprivileged(folder.path(), &USERS)?;
        let databases = source("config/databases").and_then(|number| number.parse().ok());
        let append_only = source("config/appendonly") == Some("yes");
        let mut sandbox = Self {
            folder,
            server: None,
            about: String::new(),
            like: like.clone(),
            databases: databases.unwrap_or(DATABASES),
            append_only,
            user,
            withheld: ground.withheld,
            cancel: ground.cancel.clone(),
        };
        sandbox.begin()?;
        let info = sandbox.running()?.info().map_err(|error| refused(&error))?;
        let (program, version) = match info.text("valkey_version") {
            "" => ("Redis", info.text("redis_version")),
            version => ("Valkey", version),
        };
        let was = source("version").unwrap_or("of an unknown version");
        sandbox.about = format!("{program} {version} of its own, on loopback; the source was {like} {was}");
        Ok(sandbox)
    }

    fn begin(&mut self) -> Result<(), SandboxError> {
        let options = EphemeralOptions {
            folder: self.folder.path(),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            like: &self.like,
            databases: self.databases,
            append_only: self.append_only,
            user: self.user,
            withheld: self.withheld,
        };
        self.server = Some(Ephemeral::start(&options, &self.cancel).map_err(|error| refused(&error))?);
        Ok(())
    }

    fn running(&mut self) -> Result<&mut Ephemeral, SandboxError> {
        self.server.as_mut().ok_or_else(lost)
    }
}

impl Sandbox for Redis {
    fn path(&self) -> Option<&Path> {
        None
    }
    fn address(&self) -> Option<String> {
        let server = self.server.as_ref()?;
        Some(format!("redis://default:{}@{}", server.password, server.at))
    }
    fn describe(&self) -> String {
        self.about.clone()
    }
    fn sql(&mut self, _: &str) -> Result<Option<String>, SandboxError> {
        Err(SandboxError::Query("a Redis server answers no SQL".into()))
    }
    fn keys(&mut self) -> Result<BTreeMap<u64, Held>, SandboxError> {
        self.running()?.held().map_err(|error| SandboxError::Query(error.to_string()))
    }
    fn restart(&mut self) -> Result<(), SandboxError> {
        self.server.take().ok_or_else(lost)?.shut_down();
        self.begin()
    }
    fn folder(&self) -> Option<&Path> {
        Some(self.folder.path())
    }
    fn environment(&self) -> Vec<(String, String)> {
        let Some(server) = &self.server else { return Vec::new() };
        vec![
            ("REDISCLI_AUTH".into(), server.password.clone()),
            ("LIFEBOAT_DRILL_HOST".into(), server.at.ip().to_string()),
            ("LIFEBOAT_DRILL_PORT".into(), server.at.port().to_string()),
        ]
    }
    fn secrets(&self) -> Vec<Secret> {
        self.server.iter().map(|server| Secret::from_text(server.password.clone())).collect()
    }
    fn not_tested(&self) -> Vec<String> {
        vec!["the applications that use the server, and its configuration".into()]
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        if let Some(server) = self.server {
            server.end();
        }
        close(self.folder)
    }
}
