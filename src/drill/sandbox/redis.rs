//! A Redis or Valkey server of its own: on loopback, with a password nobody else knows, gone with the drill.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::{Sandbox, SandboxError, close};
use crate::base::cancel::Cancel;
use crate::source::redis::ephemeral::{Ephemeral, EphemeralOptions};

pub struct Redis {
    folder: tempfile::TempDir,
    server: Ephemeral,
    about: String,
}

impl Redis {
    /// `facts`: the snapshot's, which name the server it was taken from.
    pub fn start(
        folder: tempfile::TempDir,
        facts: &serde_json::Value,
        withheld: &'static [&'static str],
        cancel: &Cancel,
    ) -> Result<Self, SandboxError> {
        let source = |key: &str| facts.pointer(&format!("/redis/{key}")).and_then(|value| value.as_str());
        let like = source("server").unwrap_or("redis").to_ascii_lowercase();
        let options = EphemeralOptions {
            folder: folder.path(),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            like: &like,
            databases: 16,
            withheld,
        };
        let refused = |error: &dyn std::error::Error| {
            SandboxError::Refused(format!("no server for the sandbox: {error}"))
        };
        let mut server = Ephemeral::start(&options, cancel).map_err(|error| refused(&error))?;
        let info = server.info().map_err(|error| refused(&error))?;
        let (program, version) = match info.text("valkey_version") {
            "" => ("Redis", info.text("redis_version")),
            version => ("Valkey", version),
        };
        let source = source("version").unwrap_or("of an unknown version");
        let about = format!("{program} {version} of its own, on loopback; the source was {like} {source}");
        Ok(Self { folder, server, about })
    }
}

impl Sandbox for Redis {
    fn path(&self) -> Option<&Path> {
        None
    }
    fn address(&self) -> Option<String> {
        Some(format!("redis://default:{}@{}", self.server.password, self.server.at))
    }
    fn describe(&self) -> String {
        self.about.clone()
    }
    fn sql(&mut self, _: &str) -> Result<Option<String>, SandboxError> {
        Err(SandboxError::Query("a Redis server answers no SQL".into()))
    }
    fn not_tested(&self) -> Vec<String> {
        vec!["the applications that use the server, its configuration and its append-only file".into()]
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        self.server.end();
        close(self.folder)
    }
}
