//! Where a drill restores to: made for it, named by it, gone after it.
//!
//! A sandbox lies in a folder of its own whose name holds the process that made it. One that a killed drill left
//! behind is swept by the next: whatever still works in the folder is ended, then the folder is removed.

mod directory;
mod docker;
mod mariadb;
mod postgres;
mod redis;
pub mod remote;
mod server;
mod sqlite;
mod sweep;
mod within;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use sweep::{MAKER, end_all_in, end_orphans, sweep};

use super::DrillError;
use super::check::CheckResult;
use crate::base::cancel::Cancel;
use crate::base::secret::Secret;
use crate::source::postgres::Session;
use crate::source::redis::ephemeral::Held;
use crate::source::target::Target;

/// Kinds of sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxKind {
    Directory,
    Sqlite,
    Redis,
    Postgres,
    Mariadb,
    /// A project brought up, or a volume filled, on a Docker server.
    Docker,
}

impl SandboxKind {
    pub const ALL: [Self; 6] =
        [Self::Directory, Self::Sqlite, Self::Redis, Self::Postgres, Self::Mariadb, Self::Docker];

    /// What suits a snapshot of this source.
    pub fn for_source(source: &str) -> Self {
        match source {
            "sqlite" => Self::Sqlite,
            "redis" => Self::Redis,
            "postgres" => Self::Postgres,
            "mariadb" => Self::Mariadb,
            "docker-project" => Self::Docker,
            _ => Self::Directory,
        }
    }

    /// Whether a snapshot of this source can be restored into it at all.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn takes(self, source: &str) -> Result<(), String> {
        let suits = Self::for_source(source);
        let fits = match self {
            Self::Directory => true,
            Self::Docker => matches!(source, "docker-project" | "docker-volume"),
            kind => kind == suits,
        };
        match fits {
            true => Ok(()),
            false => Err(format!(
                "a snapshot of {source} is not restored into a sandbox of kind {}\nhint: leave --sandbox out for one that \
                 suits it: {}",
                self.name(),
                suits.name()
            )),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
            Self::Docker => "docker",
        }
    }
}

/// A sandbox that cannot be made or asked.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot {operation} {}: {cause}", path.display())]
    File { operation: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Query(String),
}

/// A place to restore into. Dropping it removes everything.
pub trait Sandbox: Send {
    /// Where files are restored to, or the service's own folder.
    fn path(&self) -> Option<&Path>;
    /// The address a service is restored to; `None` where files are restored.
    fn address(&self) -> Option<String>;
    /// What takes the snapshot, where that is no address that others reach too.
    fn target(&mut self) -> Option<Box<dyn Target>> {
        None
    }
    /// Sets going what was restored; one result for each service.
    ///
    /// # Errors
    /// Nothing can be set going here.
    fn start(&mut self) -> Result<Vec<CheckResult>, SandboxError> {
        Ok(Vec::new())
    }
    /// Where a service of the sandbox answers, by the name its project gives it.
    fn host_of(&self, _service: &str) -> Option<IpAddr> {
        None
    }
    /// One line about what it is.
    fn describe(&self) -> String;
    /// The first value of a query's first row.
    ///
    /// # Errors
    /// There is nothing to query, or the query fails.
    fn sql(&mut self, query: &str) -> Result<Option<String>, SandboxError>;
    /// Runs SQL that changes what was restored: a step of the drill.
    ///
    /// # Errors
    /// There is nothing to run it in, or it fails.
    fn execute(&mut self, _sql: &str) -> Result<(), SandboxError> {
        Err(SandboxError::Query(format!("{} runs no SQL", self.describe())))
    }
    /// A session in one of the databases, for a PostgreSQL server.
    ///
    /// # Errors
    /// It is none, or does not answer.
    fn session(&mut self, _database: &str) -> Result<Box<dyn Session>, SandboxError> {
        Err(SandboxError::Query(format!("{} is no PostgreSQL server", self.describe())))
    }
    /// Keys by database, of a Redis server.
    ///
    /// # Errors
    /// It is none, or does not answer.
    fn keys(&mut self) -> Result<BTreeMap<u64, Held>, SandboxError> {
        Err(SandboxError::Query(format!("{} holds no keys", self.describe())))
    }
    /// Stops the service and starts it again on what it left.
    ///
    /// # Errors
    /// It does not start.
    fn restart(&mut self) -> Result<(), SandboxError> {
        Err(SandboxError::Query(format!("{} is no service", self.describe())))
    }
    /// The folder of a service, where there is one.
    fn folder(&self) -> Option<&Path> {
        None
    }
    /// Variables by which a client program finds the service, or what stands beside it.
    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// What must not be shown of what it or its clients say.
    fn secrets(&self) -> Vec<Secret> {
        Vec::new()
    }
    /// What stays untested in it.
    fn not_tested(&self) -> Vec<String>;
    /// Removes it, and says if that fails.
    ///
    /// # Errors
    /// Something stays behind.
    fn clean(self: Box<Self>) -> Result<(), SandboxError>;
}

/// Options of a PostgreSQL address that libpq knows too.
const OF_LIBPQ: [&str; 7] = ["host", "port", "user", "sslmode", "sslcert", "sslkey", "sslrootcert"];

/// Where it is for programs that are not ours: what only ours understand in an address, a client program refuses.
pub fn for_programs(sandbox: &dyn Sandbox) -> Option<String> {
    let address = sandbox.address()?;
    let Some((base, query)) = address.split_once('?') else { return Some(address) };
    let is_theirs = |pair: &&str| match base.split("://").next() {
        Some("postgres" | "postgresql") => OF_LIBPQ.contains(&pair.split('=').next().unwrap_or_default()),
        Some("redis" | "rediss") => false,
        _ => true,
    };
    let theirs: Vec<&str> = query.split('&').filter(is_theirs).collect();
    // Of several databases none is meant: the client's own default is.
    let base = base.strip_suffix('*').unwrap_or(base);
    Some(match theirs.is_empty() {
        true => base.to_owned(),
        false => format!("{base}?{}", theirs.join("&")),
    })
}

/// A name as the end of a variable's.
pub fn as_variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// What every sandbox is made with.
#[derive(Clone)]
pub struct Ground {
    /// Sandboxes are made below this folder.
    pub scratch: PathBuf,
    /// Folders that programs are looked for in.
    pub path: Vec<PathBuf>,
    /// Variables that servers started here do not get.
    pub withheld: &'static [&'static str],
    pub cancel: Cancel,
    /// What checks find in their environment besides this sandbox: of the components that this one needs.
    pub variables: Vec<(String, String)>,
    pub docker: DockerGround,
    /// A server that is lent to this drill.
    pub lent: Option<Arc<dyn remote::Lent>>,
}

/// What is needed of a Docker server.
#[derive(Clone, Default)]
pub struct DockerGround {
    /// Where the daemon listens; `None`: at the usual place.
    pub host: Option<String>,
    /// Where it is written down what is made there.
    pub state: Option<PathBuf>,
    /// Variables that keep their values although they look like secrets.
    pub secrets: Vec<String>,
}

/// Makes a sandbox. `facts`: the snapshot's.
///
/// # Errors
/// It cannot be made on this machine.
pub fn provision(
    kind: SandboxKind,
    ground: &Ground,
    facts: &serde_json::Value,
) -> Result<Box<dyn Sandbox>, SandboxError> {
    if let Some(lent) = &ground.lent {
        return Ok(Box::new(remote::Remote::new(lent.clone(), facts)?));
    }
    let folder = own_folder(&ground.scratch)?;
    let made: Box<dyn Sandbox> = match kind {
        SandboxKind::Directory => Box::new(directory::Directory::new(folder)?),
        SandboxKind::Sqlite => Box::new(sqlite::Sqlite::new(folder)),
        SandboxKind::Postgres => Box::new(postgres::Postgres::start(folder, facts, ground)?),
        SandboxKind::Mariadb => Box::new(mariadb::Mariadb::start(folder, facts, ground)?),
        SandboxKind::Redis => Box::new(redis::Redis::start(folder, facts, ground)?),
        SandboxKind::Docker => Box::new(docker::Docker::start(ground)?),
    };
    Ok(match ground.variables.is_empty() {
        true => made,
        false => Box::new(within::Within { inner: made, variables: ground.variables.clone() }),
    })
}

/// Begins every sandbox's folder.
const PREFIX: &str = "lifeboat-drill-";

fn own_folder(scratch: &Path) -> Result<tempfile::TempDir, SandboxError> {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(scratch);
    made.map_err(|cause| SandboxError::File {
        operation: "make a sandbox in",
        path: scratch.to_owned(),
        cause,
    })
}

/// An empty folder that a later drill sweeps if nobody removes it; dropping it does.
///
/// # Errors
/// It cannot be made.
pub fn scratch_folder(scratch: &Path) -> Result<tempfile::TempDir, SandboxError> {
    own_folder(scratch)
}

fn close(folder: tempfile::TempDir) -> Result<(), SandboxError> {
    let path = folder.path().to_owned();
    folder.close().map_err(|cause| SandboxError::File { operation: "remove", path, cause })
}

impl From<SandboxError> for DrillError {
    fn from(error: SandboxError) -> Self {
        Self::Spec(error.to_string())
    }
}

/// Gives the folder to whom a server will run as, which is never root; `None`: to us, who are not.
///
/// # Errors
/// There is no such user, or it could not enter.
fn unprivileged(folder: &Path, users: &[&str]) -> Result<Option<(u32, u32)>, SandboxError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let found = users.iter().find_map(|name| nix::unistd::User::from_name(name).ok().flatten());
    let user = found.ok_or_else(|| {
        SandboxError::Refused(format!(
            "a server does not run as root here, and there is no user {}",
            users.join(" or ")
        ))
    })?;
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    for above in folder.ancestors().skip(1) {
        let enters = std::fs::metadata(above).is_ok_and(|found| {
            let (mode, owner, group) = (found.mode(), found.uid(), found.gid());
            mode & 0o001 != 0 || (owner == uid && mode & 0o100 != 0) || (group == gid && mode & 0o010 != 0)
        });
        if !enters && !above.as_os_str().is_empty() {
            return Err(SandboxError::Refused(format!(
                "the sandbox's server runs as {}, who may not enter {}\nhint: --scratch names a folder that everybody \
                 may enter",
                user.name,
                above.display()
            )));
        }
    }
    chown(folder, Some(uid), Some(gid)).map_err(|cause| SandboxError::File {
        operation: "give away",
        path: folder.to_owned(),
        cause,
    })?;
    Ok(Some((uid, gid)))
}
