//! What the environment says to the engines that talk to services: where programs are, whose passwords these are.

use super::Environment;
use crate::base::secret::Secret;

/// See the module. Holds secrets, so it does not print.
#[derive(Clone, Default)]
pub struct ServiceSettings {
    /// `REDISCLI_AUTH`
    pub redis_password: Option<Secret>,
}

impl ServiceSettings {
    /// Reads the variables, no files.
    pub fn of(environment: &Environment) -> Self {
        Self { redis_password: environment.bytes("REDISCLI_AUTH").map(Secret::from_bytes) }
    }
}
