//! Level 2: what a store obeys. Filled by the level that reads files and the environment; nothing here does.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::format::parity::Share;

/// Whom to be at the service. Only the fields of the location's own scheme are looked at.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub s3_access_key_id: Option<String>,
    pub s3_secret_access_key: Option<SecretString>,
    pub s3_session_token: Option<SecretString>,
    pub b2_key_id: Option<String>,
    pub b2_application_key: Option<SecretString>,
    /// Basic authentication; the user in the URL wins over this one.
    pub webdav_user: Option<String>,
    pub webdav_password: Option<SecretString>,
    /// Bearer authentication, instead of user and password.
    pub webdav_token: Option<SecretString>,
}

/// What to do about an SSH server whose key is not in the known-hosts file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeyCheck {
    /// Refuse. The known-hosts file is only read.
    #[default]
    Strict,
    /// Add the key of a host never seen before to the known-hosts file; refuse a changed key.
    AcceptNew,
}

/// Tunables of a store, all bounded; the defaults suit a service on the internet.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub credentials: Credentials,
    /// Operations under way at once. SFTP is additionally capped at [`crate::store::sftp::MAX_SESSIONS`].
    pub max_concurrent: usize,
    /// Further tries after a temporary error, 0 = one try only.
    pub max_retries: u32,
    /// The first pause between tries; doubled each time, with as much again at random, never above 30 s.
    pub retry_delay: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long one try of an operation may take, not counting its bytes; a try that moves bytes gets
    /// additionally the time they need at 32 KiB/s, or at its share of a bandwidth limit that is lower.
    pub timeout: Duration,
    /// Upper limit over all operations of this store; `None` = as fast as it goes. Local disk ignores both.
    pub upload_limit_bytes_per_second: Option<u64>,
    pub download_limit_bytes_per_second: Option<u64>,
    /// Δ, see [`crate::store::Store::settle`]. `None` = zero, right for every service the documentation names.
    pub settle: Option<Duration>,
    /// How much parity is put after every pack: see [`Share`]. The stores themselves know nothing of it.
    pub parity: Option<Share>,
    /// Private key for SFTP; `None` = what `ssh` finds itself (agent, `~/.ssh/config`).
    pub ssh_identity_file: Option<PathBuf>,
    /// `None` = the user's own.
    pub ssh_known_hosts_file: Option<PathBuf>,
    pub ssh_host_key_check: HostKeyCheck,
    /// The SSH client to run.
    pub ssh_program: PathBuf,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            max_concurrent: 8,
            max_retries: 5,
            retry_delay: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(20),
            timeout: Duration::from_secs(60),
            upload_limit_bytes_per_second: None,
            download_limit_bytes_per_second: None,
            settle: None,
            parity: None,
            ssh_identity_file: None,
            ssh_known_hosts_file: None,
            ssh_host_key_check: HostKeyCheck::default(),
            ssh_program: PathBuf::from("ssh"),
        }
    }
}

/// The slowest line a try is given time for.
const FLOOR_BYTES_PER_SECOND: u64 = 32 << 10;

impl StoreOptions {
    /// How long one try that moves this many bytes may take.
    pub(super) fn allowance(&self, bytes: u64) -> Duration {
        let limits = [self.upload_limit_bytes_per_second, self.download_limit_bytes_per_second];
        // Operations under way share a limit, so each may see only its part of it; half of that for safety.
        let share = |limit: u64| limit / (2 * self.max_concurrent.max(1) as u64);
        let floor = limits.into_iter().flatten().map(share).min().unwrap_or(FLOOR_BYTES_PER_SECOND);
        self.timeout + Duration::from_secs(bytes / floor.clamp(1, FLOOR_BYTES_PER_SECOND))
    }
}
