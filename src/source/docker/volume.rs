//! One volume: what the engine knows of it, who uses it, and whether a database lives in it.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, Volume};
use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, ListContainersOptionsBuilder};
use serde_json::{Value, json};

use super::DockerError;
use super::daemon::Daemon;
use super::helper::{Helper, LABEL, MOUNT};

/// Compose and Swarm say with these what a container belongs to.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";
pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";
pub const STACK: &str = "com.docker.stack.namespace";
pub const SWARM_SERVICE: &str = "com.docker.swarm.service.name";

/// Folders looked into for a database.
const DEPTH: usize = 3;
/// Names looked at in all; the databases looked for stand near the top.
const NAMES: usize = 20_000;

/// A container that has a volume mounted, or belongs to a project.
#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub name: String,
    pub labels: HashMap<String, String>,
    /// Running, paused or being restarted: its processes are there.
    pub running: bool,
    pub paused: bool,
    /// Of the volume asked for.
    pub writes: bool,
}

impl User {
    pub fn of(summary: ContainerSummary, volume: Option<&str>) -> Self {
        use ContainerSummaryStateEnum as State;
        let name = summary.names.unwrap_or_default().into_iter().next().unwrap_or_default();
        let mounts = summary.mounts.unwrap_or_default();
        let state = summary.state;
        Self {
            id: summary.id.unwrap_or_default(),
            name: name.trim_start_matches('/').to_owned(),
            labels: summary.labels.unwrap_or_default(),
            running: matches!(state, Some(State::RUNNING | State::PAUSED | State::RESTARTING)),
            paused: state == Some(State::PAUSED),
            writes: mounts.iter().any(|mount| mount.name.as_deref() == volume && mount.rw != Some(false)),
        }
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// The Compose project or Swarm stack.
    pub fn project(&self) -> Option<&str> {
        self.label(COMPOSE_PROJECT).or_else(|| self.label(STACK))
    }

    /// The service inside its project.
    pub fn service(&self) -> Option<&str> {
        let swarm = self.label(SWARM_SERVICE).map(|full| {
            let stack = self.label(STACK).unwrap_or_default();
            full.strip_prefix(stack).and_then(|rest| rest.strip_prefix('_')).unwrap_or(full)
        });
        self.label(COMPOSE_SERVICE).or(swarm)
    }

    /// What people call it.
    pub fn called(&self) -> &str {
        self.service().unwrap_or(&self.name)
    }

    /// For the facts of a snapshot.
    pub fn fact(&self) -> Value {
        json!({
            "container": self.name, "service": self.service(), "project": self.project(),
            "running": self.running, "writes": self.writes,
        })
    }
}

/// Looks a volume up.
///
/// # Errors
/// There is none of that name.
pub fn inspect(daemon: &Daemon, name: &str) -> Result<Volume, DockerError> {
    daemon.call("find volume", name, daemon.api.inspect_volume(name))
}

/// The containers that have the volume mounted, running or not; our own left out.
///
/// # Errors
/// The daemon does not answer.
pub fn users(daemon: &Daemon, volume: &str) -> Result<Vec<User>, DockerError> {
    let filters = HashMap::from([("volume".to_owned(), vec![volume.to_owned()])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let list = daemon.call("list the users of volume", volume, daemon.api.list_containers(Some(options)))?;
    let users = list.into_iter().map(|summary| User::of(summary, Some(volume)));
    Ok(users.filter(|user| !user.labels.contains_key(LABEL)).collect())
}

/// A database whose files copied one by one, while its server writes, make no database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Postgres,
    Redis,
    Mysql,
}

impl Database {
    const ALL: [(&'static str, Self); 3] =
        [("PG_VERSION", Self::Postgres), ("appendonlydir", Self::Redis), ("ibdata1", Self::Mysql)];

    /// What a name says.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, database)| *database)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
            Self::Mysql => "MySQL or MariaDB",
        }
    }

    /// The source to use instead.
    fn instead(self, user: &User) -> String {
        let service = match (user.service(), user.project()) {
            (Some(service), Some(project)) => Some(format!("{service}@{project}")),
            _ => None,
        };
        match (self, service) {
            (Self::Postgres, Some(service)) => format!("postgres://{service}/*"),
            (Self::Postgres, None) => "postgres://USER@HOST/*".into(),
            (Self::Redis, Some(service)) => format!("redis://{service}"),
            (Self::Redis, None) => "redis://HOST".into(),
            (Self::Mysql, _) => "mysql://USER@HOST/all".into(),
        }
    }
}

/// Why a volume with a database under a running server is not read, and what to do instead.
pub fn refusal(volume: &str, database: Database, user: &User) -> DockerError {
    DockerError::Refused(format!(
        "volume {volume} holds the files of {} under the running container {}: read one by one they make no database\n\
         hint: back up {}, and of a project the rest with exclude-volume={volume}; or stop it meanwhile with stop=yes; \
         crash-unsafe=true reads it all the same",
        database.name(),
        user.name,
        database.instead(user),
    ))
}

/// Looks for a database near the top of a folder.
pub fn database_in_folder(folder: &Path) -> Option<Database> {
    let mut level = vec![folder.to_owned()];
    let mut names = 0;
    for _ in 0..DEPTH {
        let mut below = Vec::new();
        for folder in level {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                use std::os::unix::ffi::OsStrExt;
                if let Some(database) = Database::of_name(entry.file_name().as_bytes()) {
                    return Some(database);
                }
                names += 1;
                if names > NAMES {
                    return None;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    below.push(entry.path());
                }
            }
        }
        level = below;
    }
    None
}

/// Looks for a database at the places where images keep theirs, through the engine. Deeper ones are noticed while
/// the volume is read.
///
/// # Errors
/// The daemon does not answer.
pub fn database_through_engine(helper: &Helper) -> Result<Option<Database>, DockerError> {
    let daemon = &helper.workshop.daemon;
    for folder in ["", "/data", "/pgdata"] {
        for (name, database) in Database::ALL {
            let path = format!("{MOUNT}{folder}/{name}");
            let options = ContainerArchiveInfoOptionsBuilder::new().path(&path).build();
            let look = daemon.api.get_container_archive_info(&helper.id, Some(options));
            match daemon.call("look into", "a volume", look) {
                Ok(_) => return Ok(Some(database)),
                Err(DockerError::Cancelled(cancelled)) => return Err(cancelled.into()),
                // Not there, or not to be looked at: the stream decides.
                Err(_) => {}
            }
        }
    }
    Ok(None)
}

/// What is recorded of a volume, so that it can be made again.
pub fn fact(volume: &Volume, users: &[User], through: &str) -> Value {
    let sorted = |map: &HashMap<String, String>| {
        let map: std::collections::BTreeMap<_, _> = map.iter().collect();
        json!(map)
    };
    json!({
        "driver": volume.driver,
        "options": sorted(&volume.options),
        "labels": sorted(&volume.labels),
        "created": volume.created_at,
        "read_through": through,
        "used_by": users.iter().map(User::fact).collect::<Vec<_>>(),
    })
}
