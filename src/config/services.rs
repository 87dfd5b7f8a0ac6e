//! Passwords of services, as their own tools find them in the environment. Handed to the engines, never shown.

use std::fmt;

use super::Environment;
use crate::base::secret::Secret;

/// One password a kind of service, for addresses that name none.
#[derive(Clone, Default)]
pub struct ServiceSecrets {
    /// `REDISCLI_AUTH`.
    pub redis: Option<Secret>,
}

impl ServiceSecrets {
    pub(super) fn find(environment: &Environment) -> Self {
        Self { redis: environment.bytes("REDISCLI_AUTH").map(Secret::from_bytes) }
    }
}

/// Which there are, not what they are.
impl fmt::Debug for ServiceSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceSecrets").field("redis", &self.redis.is_some()).finish()
    }
}
