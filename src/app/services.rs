//! Services by their address: which engine captures one, and which takes it back.
//!
//! An address is a scheme and what the engine makes of the rest; an engine's options stand in the address too, so
//! that one string names a source on the command line and in a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{AppError, series, unserved};
use crate::base::cancel::Cancel;
use crate::config::{SECRET_VARIABLES, ServiceSettings};
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, SourceError};
use crate::source::docker;
use crate::source::docker::address::Address as DockerAddress;
use crate::source::docker::capture::DockerCapture;
use crate::source::docker::daemon::Daemon;
use crate::source::docker::reach::Way;
use crate::source::docker::rebuild::ProjectTarget;
use crate::source::docker::target::VolumeTarget;
use crate::source::mariadb::{self, MariaCapture, MariaTarget};
use crate::source::postgres::{self, Address, Direct, PostgresCapture, PostgresTarget, RestoreFlags};
use crate::source::redis::address::Address as RedisAddress;
use crate::source::redis::capture::RedisCapture;
use crate::source::redis::folder::FolderTarget;
use crate::source::redis::live::{LiveOptions, LiveTarget};
use crate::source::redis::reach::Tcp as RedisTcp;
use crate::source::sqlite::{SqliteCapture, SqliteTarget};
use crate::source::target::Target;

/// What engines need of the world.
#[derive(Clone)]
pub struct Surroundings {
    pub cancel: Cancel,
    pub now: Timestamp,
    /// Folder for what cannot be streamed.
    pub spool: PathBuf,
    /// For engines that talk to their servers asynchronously.
    pub runtime: tokio::runtime::Handle,
    /// Who runs this.
    pub user: String,
    pub settings: ServiceSettings,
    /// Folder for what must outlive a run that is killed.
    pub state: Option<PathBuf>,
}

/// What a restore into a service may do.
#[derive(Clone, Debug, Default)]
pub struct TargetFlags {
    /// Replace what is there.
    pub force: bool,
    /// Empty the service first.
    pub flush_first: bool,
    /// Roles that exist get the rights and passwords of the snapshot.
    pub replace_roles: bool,
    /// SQL run before the restored service is shown.
    pub after_sql: Option<PathBuf>,
    /// Sessions that restore at once.
    pub jobs: u32,
}

/// The least time that an answer through a container is waited for.
const THROUGH_CONTAINER: Duration = Duration::from_secs(60);

/// A capture with its names.
pub struct OpenCapture {
    pub capture: Box<dyn Capture>,
    /// The manifest's word for the source.
    pub kind: &'static str,
    /// The job it belongs to unless one is named: the address without its secrets.
    pub job: String,
}

/// The schemes there are, longest first where one begins another.
const SCHEMES: [&str; 18] = [
    "docker-project:",
    "docker-volume:",
    "influxdb://",
    "influxdb2://",
    "victoria://",
    "mariadb://",
    "mysql://",
    "provider-snapshot:",
    "postgresql://",
    "postgres://",
    "redis-dir:",
    "rediss://",
    "redis://",
    "kubernetes:",
    "terraform:",
    "sqlite:",
    "certs:",
    "git:",
];

/// Whether `text` is the address of a service rather than a path.
pub fn is_service(text: &str) -> bool {
    scheme(text).is_some()
}

fn scheme(text: &str) -> Option<(&'static str, &str)> {
    SCHEMES.iter().find_map(|scheme| Some((*scheme, text.strip_prefix(scheme)?)))
}

fn unknown(address: &str) -> AppError {
    let schemes = SCHEMES.join(", ");
    AppError::Refused(format!("{address:?} is not the address of a service; there are {schemes}"))
}

/// Starts the capture of a service. Waits: call it on a thread that may.
///
/// # Errors
/// The address makes no sense, the service cannot be reached or refuses.
pub fn capture(address: &str, around: &Surroundings) -> Result<OpenCapture, AppError> {
    match scheme(address) {
        Some(("sqlite:", path)) => {
            let path = std::path::absolute(Path::new(path))
                .map_err(|cause| AppError::System { what: "the capture", cause })?;
            let capture = SqliteCapture::start(&path, &around.spool, around.now, &around.cancel)?;
            let job = format!("sqlite:{}", path.display());
            Ok(OpenCapture { capture: Box::new(capture), kind: "sqlite", job })
        }
        Some(("redis://" | "rediss://", _)) => {
            let (server, job) = redis(address, around)?;
            let reach = Arc::new(RedisTcp::of(&server));
            let capture = RedisCapture::start(&server, reach, around.now, &around.cancel)?;
            Ok(OpenCapture { capture: Box::new(capture), kind: "redis", job })
        }
        Some(("redis-dir:", _)) => Err(AppError::Refused(
            "a folder is no consistent source while its server writes\nhint: back up the server: redis://HOST".into(),
        )),
        Some(("docker-volume:", rest)) => {
            let address = DockerAddress::parse("volume", rest).map_err(SourceError::from)?;
            let state = around.state.as_deref();
            let capture = DockerCapture::volume(daemon_of(around)?, &address, around.now, state)?;
            let job = format!("docker-volume:{}", address.name);
            Ok(OpenCapture { capture: Box::new(capture), kind: "docker-volume", job })
        }
        Some(("docker-project:", rest)) => {
            let address = DockerAddress::parse("project", rest).map_err(SourceError::from)?;
            let state = around.state.as_deref();
            let capture = DockerCapture::project(daemon_of(around)?, &address, around.now, state)?;
            let job = format!("docker-project:{}", address.name);
            Ok(OpenCapture { capture: Box::new(capture), kind: "docker-project", job })
        }
        Some(("postgres://" | "postgresql://", _)) => {
            let (parsed, reach, world) = postgres(address, around)?;
            let job = shown(address);
            let capture = PostgresCapture::start(parsed, Box::new(reach), world)?;
            Ok(OpenCapture { capture: Box::new(capture), kind: "postgres", job })
        }
        Some(("mariadb://" | "mysql://", _)) => {
            let (parsed, world) = mariadb(address, around)?;
            let capture = MariaCapture::start(parsed, world)?;
            Ok(OpenCapture { capture: Box::new(capture), kind: "mariadb", job: shown(address) })
        }
        Some((scheme, rest)) => match series::capture(scheme, rest, around)? {
            Some(open) => Ok(open),
            None => unserved::capture(scheme, rest, around)?.ok_or_else(|| unknown(address)),
        },
        None => Err(unknown(address)),
    }
}

/// An address of MariaDB or MySQL; of one in a container with what its container says.
fn mariadb(address: &str, around: &Surroundings) -> Result<(mariadb::Address, mariadb::World), AppError> {
    let mut parsed =
        mariadb::Address::parse(address).map_err(|error| AppError::Refused(error.to_string()))?;
    let server = &mut parsed.server;
    if let Some(found) = in_container(&server.user, &server.host, server.port, around)? {
        match &found.way {
            Way::Address(address) => server.host = address.to_string(),
            Way::Through(socket) => {
                server.socket = Some(socket.path().to_owned());
                server.through = Some(socket.clone());
                server.connect_timeout = server.connect_timeout.max(THROUGH_CONTAINER);
            }
        }
        let mut root = None;
        for name in ["MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD"] {
            root = root.or(found.secret(name).map_err(SourceError::from)?);
        }
        server.user = "root".into();
        if server.password.is_none() && server.password_file.is_none() {
            server.password = root;
        }
    }
    let Surroundings { settings, .. } = around;
    let world = mariadb::World {
        cancel: around.cancel.clone(),
        now: around.now,
        spool: around.spool.clone(),
        path: settings.path.clone(),
        password: settings.mysql_password.clone(),
        options: settings.mysql_options.clone(),
        user: around.user.clone(),
        withheld: SECRET_VARIABLES,
    };
    Ok((parsed, world))
}

/// An address of PostgreSQL and the way there.
pub(super) fn postgres(
    address: &str,
    around: &Surroundings,
) -> Result<(Address, Direct, postgres::World), AppError> {
    let mut parsed = Address::parse(address).map_err(|error| AppError::Refused(error.to_string()))?;
    let server = &mut parsed.server;
    if let Some(found) = in_container(&server.user, &server.host, server.port, around)? {
        match &found.way {
            Way::Address(address) => server.host = address.to_string(),
            Way::Through(socket) => {
                server.through = Some(socket.clone());
                // A command has to start in the container first, which takes a while on a busy machine.
                server.connect_timeout = server.connect_timeout.max(THROUGH_CONTAINER);
            }
        }
        server.user =
            found.variable("POSTGRES_USER").map_err(SourceError::from)?.unwrap_or("postgres".into());
        if server.password.is_none() && server.password_file.is_none() {
            server.password = found.secret("POSTGRES_PASSWORD").map_err(SourceError::from)?;
        }
    }
    let Surroundings { settings, .. } = around;
    let world = postgres::World {
        cancel: around.cancel.clone(),
        now: around.now,
        spool: around.spool.clone(),
        path: settings.path.clone(),
        password: settings.postgres_password.clone(),
        pgpass: settings.postgres_pass_file.clone(),
        user: around.user.clone(),
        withheld: SECRET_VARIABLES,
    };
    let reach = Direct::new(&parsed, &world).map_err(SourceError::from)?;
    Ok((parsed, reach, world))
}

/// Whether an address holds a password: every process on the machine can read it while we run.
pub fn holds_password(address: &str) -> bool {
    let Some((_, rest)) = address.split_once("://").filter(|_| is_service(address)) else { return false };
    let place = rest.split(['/', '?']).next().unwrap_or_default();
    let user = place.rsplit_once('@').map(|(user, _)| user);
    user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
}

/// The address as it may be shown: without its secrets.
pub fn shown(address: &str) -> String {
    match scheme(address) {
        Some((scheme @ ("redis://" | "rediss://"), _)) => {
            RedisAddress::parse(address, None).map_or_else(|_| format!("{scheme}…"), |server| server.name())
        }
        Some((scheme @ ("postgres://" | "postgresql://"), _)) => {
            Address::parse(address).map_or_else(|_| format!("{scheme}…"), |address| address.shown())
        }
        Some((scheme @ ("mariadb://" | "mysql://"), _)) => {
            mariadb::Address::parse(address).map_or_else(|_| format!("{scheme}…"), |address| address.shown())
        }
        Some((scheme, rest)) => series::shown(scheme, rest).unwrap_or_else(|| address.to_owned()),
        None => address.to_owned(),
    }
}

/// The server that `service@host` means, when that is a service of a Docker project and not a user at a host.
fn in_container(
    service: &str,
    host: &str,
    port: u16,
    around: &Surroundings,
) -> Result<Option<docker::reach::Found>, SourceError> {
    // Names of hosts have dots, and addresses too; where no daemon answers there is no project.
    if service.is_empty() || !docker::address::is_name(host) || host.contains('.') || host == "localhost" {
        return Ok(None);
    }
    match daemon_of(around) {
        Ok(daemon) => Ok(docker::reach::find(&daemon, service, host, port, &around.spool)?),
        Err(SourceError::Cancelled(cancelled)) => Err(cancelled.into()),
        Err(_) => Ok(None),
    }
}

/// A Redis server's address, and what its job is called; of one in a container with what its container says.
pub(super) fn redis(address: &str, around: &Surroundings) -> Result<(RedisAddress, String), AppError> {
    let environment = around.settings.redis_password.as_ref();
    let mut server = RedisAddress::parse(address, None)?;
    let service = server.user.clone().unwrap_or_default();
    let Some(found) = in_container(&service, &server.host, server.port, around)? else {
        let server = RedisAddress::parse(address, environment)?;
        let job = server.name();
        return Ok((server, job));
    };
    let job = format!("redis://{service}@{}", server.host);
    match &found.way {
        Way::Address(address) => server.host = address.to_string(),
        Way::Through(_) if server.is_tls => {
            return Err(AppError::Refused(format!(
                "{job} has no address that is reached from here, and TLS does not go through a container\nhint: redis://, if \
                 the server listens without TLS inside"
            )));
        }
        Way::Through(socket) => server.through = Some(socket.clone()),
    }
    server.user = None;
    if server.password.is_none() {
        let variable = found.secret("REDIS_PASSWORD").map_err(SourceError::from)?;
        server.password = found.argument("--requirepass").or(variable).or(environment.cloned());
    }
    Ok((server, job))
}

fn daemon_of(around: &Surroundings) -> Result<Daemon, SourceError> {
    let host = around.settings.docker_host.as_deref();
    Ok(Daemon::connect(host, &around.runtime, &around.cancel)?)
}

/// The service a snapshot goes back to.
///
/// # Errors
/// The address makes no sense.
pub fn target(address: &str, flags: TargetFlags, around: &Surroundings) -> Result<Box<dyn Target>, AppError> {
    match scheme(address) {
        Some(("sqlite:", path)) => Ok(Box::new(SqliteTarget::new(Path::new(path), flags.force))),
        Some(("redis://" | "rediss://", _)) => {
            let (server, _) = redis(address, around)?;
            let reach = Arc::new(RedisTcp::of(&server));
            let TargetFlags { force, flush_first, .. } = flags;
            let made_users = Arc::default();
            let options = LiveOptions { force, flush_first, withheld: SECRET_VARIABLES, made_users };
            let target = LiveTarget::new(&server, reach, options, &around.spool, around.now, &around.cancel)?;
            Ok(Box::new(target))
        }
        Some(("redis-dir:", folder)) => {
            let withheld = crate::config::SECRET_VARIABLES;
            let target = FolderTarget::new(folder, flags.force, withheld, around.now, &around.cancel)?;
            Ok(Box::new(target))
        }
        Some(("docker-volume:", rest)) => {
            let address = DockerAddress::parse("volume", rest).map_err(SourceError::from)?;
            let state = around.state.as_deref();
            Ok(Box::new(VolumeTarget::new(daemon_of(around)?, &address, flags.force, state)))
        }
        Some(("docker-project:", rest)) => {
            let address = DockerAddress::parse("project", rest).map_err(SourceError::from)?;
            let state = around.state.as_deref();
            Ok(Box::new(ProjectTarget::new(daemon_of(around)?, &address, flags.force, state)))
        }
        Some(("postgres://" | "postgresql://", _)) => {
            let (parsed, reach, world) = postgres(address, around)?;
            let TargetFlags { force, replace_roles, after_sql, jobs, .. } = flags;
            let made = Arc::default();
            let flags = RestoreFlags { force, replace_roles, after_sql, jobs, made };
            Ok(Box::new(PostgresTarget::new(parsed, Box::new(reach), world, flags)))
        }
        Some(("mariadb://" | "mysql://", _)) => {
            let (parsed, world) = mariadb(address, around)?;
            let flags = mariadb::RestoreFlags { force: flags.force, replace_users: flags.replace_roles };
            Ok(Box::new(MariaTarget::new(parsed, world, flags)))
        }
        Some((scheme, rest)) => {
            if let Some(target) = series::target(scheme, rest, flags.force, around)? {
                return Ok(target);
            }
            unserved::target(scheme, rest, flags.force, around)?.ok_or_else(|| unknown(address))
        }
        None => Err(unknown(address)),
    }
}

/// Undoes what runs that were killed did to services. Returns what was done and what could not be, for people.
pub async fn repair(state: Option<PathBuf>, cancel: &Cancel) -> Vec<String> {
    let Some(state) = state.filter(|state| state.exists()) else { return Vec::new() };
    let (runtime, cancel) = (tokio::runtime::Handle::current(), cancel.clone());
    let done = tokio::task::spawn_blocking(move || docker::journal::repair(&state, &runtime, &cancel)).await;
    done.unwrap_or_default()
}
