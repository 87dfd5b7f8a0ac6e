//! A sandbox among others: that of one component of a stack, whose checks also find the components it needs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::{Sandbox, SandboxError};
use crate::base::secret::Secret;
use crate::base::url::Url;
use crate::drill::check::CheckResult;
use crate::source::postgres::Session;
use crate::source::redis::ephemeral::Held;
use crate::source::target::Target;

pub struct Within {
    pub inner: Box<dyn Sandbox>,
    /// How the others are found.
    pub variables: Vec<(String, String)>,
}

impl Sandbox for Within {
    fn path(&self) -> Option<&Path> {
        self.inner.path()
    }
    fn address(&self) -> Option<String> {
        self.inner.address()
    }
    fn target(&mut self) -> Option<Box<dyn Target>> {
        self.inner.target()
    }
    fn start(&mut self) -> Result<Vec<CheckResult>, SandboxError> {
        self.inner.start()
    }
    fn host_of(&self, service: &str) -> Option<IpAddr> {
        self.inner.host_of(service)
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn sql(&mut self, query: &str) -> Result<Option<String>, SandboxError> {
        self.inner.sql(query)
    }
    fn execute(&mut self, sql: &str) -> Result<(), SandboxError> {
        self.inner.execute(sql)
    }
    fn session(&mut self, database: &str) -> Result<Box<dyn Session>, SandboxError> {
        self.inner.session(database)
    }
    fn keys(&mut self) -> Result<BTreeMap<u64, Held>, SandboxError> {
        self.inner.keys()
    }
    fn restart(&mut self) -> Result<(), SandboxError> {
        self.inner.restart()
    }
    fn folder(&self) -> Option<&Path> {
        self.inner.folder()
    }
    fn environment(&self) -> Vec<(String, String)> {
        let mut all = self.variables.clone();
        all.extend(self.inner.environment());
        all
    }
    fn secrets(&self) -> Vec<Secret> {
        let parsed =
            self.variables.iter().filter_map(|(_, value)| Url::parse(value.split_once("://")?.1).ok());
        let mut all: Vec<Secret> = parsed.filter_map(|url| url.password).collect();
        all.extend(self.inner.secrets());
        all
    }
    fn not_tested(&self) -> Vec<String> {
        self.inner.not_tested()
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        self.inner.clean()
    }
}
