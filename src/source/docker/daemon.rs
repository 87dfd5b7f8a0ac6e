//! One Docker daemon, spoken to from ordinary threads.
//!
//! Every call names what was tried and on what; all but those that tidy up end early when the run is cancelled.

use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::runtime::Handle;

use super::DockerError;
use crate::base::cancel::{Cancel, Cancelled};
use crate::base::causes::causes;

/// Where the daemon listens unless somebody says otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// For what is answered at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// For what is answered when it is done: transfers, stops.
const WORK_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// A connection. Cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    /// For calls that are answered at once.
    pub api: Docker,
    /// For calls that are answered when long work is done.
    pub patient: Docker,
    pub host: String,
    pub runtime: Handle,
    pub cancel: Cancel,
    pub version: String,
    pub api_version: String,
}

impl Daemon {
    /// Connects to the daemon at `host` (`unix://…` or `tcp://…`; `None`: the usual socket) and agrees on a version
    /// of the API with it.
    ///
    /// # Errors
    /// The address makes no sense, nobody answers there.
    pub fn connect(host: Option<&str>, runtime: &Handle, cancel: &Cancel) -> Result<Self, DockerError> {
        let host = host.unwrap_or(DEFAULT_HOST).to_owned();
        let seconds = ANSWER_LIMIT.as_secs();
        let unreachable = |cause: String| {
            let hint = match host.as_str() {
                DEFAULT_HOST => {
                    "is Docker running, and may this user open its socket? DOCKER_HOST names another"
                }
                _ => "the address comes from DOCKER_HOST",
            };
            DockerError::Unreachable { host: host.clone(), cause, hint }
        };
        let api = if host.starts_with("unix://") {
            Docker::connect_with_unix(&host, seconds, API_DEFAULT_VERSION)
        } else if host.starts_with("tcp://") || host.starts_with("http://") {
            Docker::connect_with_http(&host, seconds, API_DEFAULT_VERSION)
        } else {
            let scheme = host.split("://").next().unwrap_or_default();
            let why = format!("{scheme}:// is not supported; unix:// and tcp:// are");
            return Err(DockerError::Refused(format!(
                "cannot reach the Docker daemon: {why}\nhint: forward its socket, such as with \
                 ssh -L /run/remote-docker.sock:/var/run/docker.sock HOST, and name that in DOCKER_HOST"
            )));
        };
        let api = api.map_err(|error| unreachable(causes(&error)))?;
        let negotiate = api.negotiate_version();
        let api = blocking(runtime, cancel, negotiate)?.map_err(|error| unreachable(causes(&error)))?;
        let version =
            blocking(runtime, cancel, api.version())?.map_err(|error| unreachable(causes(&error)))?;
        let patient = api.clone().with_timeout(WORK_LIMIT);
        Ok(Self {
            api,
            patient,
            host,
            runtime: runtime.clone(),
            cancel: cancel.clone(),
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
        })
    }

    /// Waits for a call.
    ///
    /// # Errors
    /// What the daemon said, or the run was cancelled.
    pub fn call<T>(
        &self,
        operation: &'static str,
        subject: &str,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, DockerError> {
        blocking(&self.runtime, &self.cancel, call)?.map_err(failed(operation, subject))
    }

    /// Waits for a call whether the run was cancelled or not: for undoing. May be called from any thread.
    ///
    /// # Errors
    /// What the daemon said.
    pub fn undo<T: Send>(
        &self,
        operation: &'static str,
        subject: &str,
        call: impl Future<Output = Result<T, ApiError>> + Send,
    ) -> Result<T, DockerError> {
        // A thread of its own: a drop may happen where waiting is not allowed.
        let done = std::thread::scope(|scope| scope.spawn(|| self.runtime.block_on(call)).join());
        let done =
            done.map_err(|_| DockerError::Failed(format!("cannot {operation} {subject}: a thread died")))?;
        done.map_err(failed(operation, subject))
    }
}

fn failed<'a>(operation: &'static str, subject: &'a str) -> impl FnOnce(ApiError) -> DockerError + 'a {
    move |cause| DockerError::Call { operation, subject: subject.to_owned(), cause }
}

/// Waits for `work` on a thread that may wait, or until the run is cancelled.
pub fn blocking<T>(runtime: &Handle, cancel: &Cancel, work: impl Future<Output = T>) -> Result<T, Cancelled> {
    cancel.check()?;
    runtime.block_on(async {
        let cancelled = async {
            while !cancel.is_cancelled() {
                tokio::time::sleep(CANCEL_POLL).await;
            }
        };
        tokio::select! {
            done = work => Ok(done),
            () = cancelled => Err(Cancelled),
        }
    })
}
