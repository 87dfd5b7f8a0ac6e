//! A sandbox among others: that of one component of a stack, whose checks also find the components it needs.

use std::path::Path;

use super::{Sandbox, SandboxError};

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
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn sql(&mut self, query: &str) -> Result<Option<String>, SandboxError> {
        self.inner.sql(query)
    }
    fn environment(&self) -> Vec<(String, String)> {
        let mut all = self.variables.clone();
        all.extend(self.inner.environment());
        all
    }
    fn not_tested(&self) -> Vec<String> {
        self.inner.not_tested()
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        self.inner.clean()
    }
}
