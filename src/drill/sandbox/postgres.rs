//! A PostgreSQL server of its own, of the source's major version: on a unix socket in a folder that only its user
//! enters, without a port, gone with the drill.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Ground, Sandbox, SandboxError, close, unprivileged};
use crate::base::cancel::Cancel;
use crate::base::process::{Process, ProcessOptions};
use crate::base::url::encode;
use crate::drill::check::database_and_query;
use crate::format::entry::Timestamp;
use crate::source::postgres::{Address, Direct, Reach as _, Session, World, server_tools};

/// Users that a server may run as when we are root, which it refuses to be.
const USERS: [&str; 3] = ["postgres", "nobody", "daemon"];
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// A socket's path may not be longer.
const SOCKET_LIMIT_BYTES: usize = 100;
/// Separates columns in psql's answer; no text holds it by chance.
const SEPARATOR: char = '\u{1f}';

pub struct Postgres {
    folder: tempfile::TempDir,
    process: Process,
    tools: PathBuf,
    user: Option<(u32, u32)>,
    /// Databases of the snapshot.
    names: Vec<String>,
    about: String,
    withheld: &'static [&'static str],
    cancel: Cancel,
}

fn refused(why: impl Into<String>) -> SandboxError {
    SandboxError::Refused(why.into())
}

impl Postgres {
    pub fn start(
        folder: tempfile::TempDir,
        facts: &serde_json::Value,
        ground: &Ground,
    ) -> Result<Self, SandboxError> {
        let source = &facts["postgres"];
        let major = source["server_major"].as_u64().and_then(|major| u32::try_from(major).ok());
        let major =
            major.ok_or_else(|| refused("the snapshot does not say which PostgreSQL it came from"))?;
        let names: Vec<String> =
            source["databases"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
        let tools = server_tools(major, &ground.path).ok_or_else(|| {
            refused(format!(
                "PostgreSQL {major} is not installed here, and a drill wants the source's own version\nhint: \
                 apt-get install postgresql-{major}"
            ))
        })?;
        if folder.path().as_os_str().len() + "/.s.PGSQL.5432".len() > SOCKET_LIMIT_BYTES {
            return Err(refused(format!("the path {} is too long for a socket", folder.path().display())));
        }
        let user = unprivileged(folder.path(), &USERS)?;
        let data = folder.path().join("data");
        let run = |program: &str, arguments: &[&str]| {
            let mut command = command(&tools.join(program), folder.path(), user, ground.withheld);
            command.args(arguments).arg("-D").arg(&data);
            let said = command.output().map_err(|error| refused(format!("cannot run {program}: {error}")))?;
            match said.status.success() {
                true => Ok(()),
                false => Err(refused(format!("{program}: {}", String::from_utf8_lossy(&said.stderr).trim()))),
            }
        };
        run("initdb", &["-A", "trust", "--no-sync", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"])?;
        let mut server = command(&tools.join("postgres"), folder.path(), user, ground.withheld);
        server.arg("-D").arg(&data).args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "full_page_writes=off",
        ]);
        server.arg("-c").arg(format!("unix_socket_directories={}", folder.path().display()));
        let options =
            ProcessOptions { no_progress: None, withheld: ground.withheld, ..ProcessOptions::default() };
        let process = Process::start(server, options, &ground.cancel)
            .map_err(|error| refused(format!("cannot start PostgreSQL: {error}")))?;
        let version = source["server_version"].as_str().unwrap_or("of an unknown version");
        let about = format!("PostgreSQL {major} of its own, no port; the source was {version}");
        let (withheld, cancel) = (ground.withheld, ground.cancel.clone());
        let mut server = Self { folder, process, tools, user, names, about, withheld, cancel };
        server.wait(ground)?;
        Ok(server)
    }

    fn wait(&mut self, ground: &Ground) -> Result<(), SandboxError> {
        let mut waited = Duration::ZERO;
        loop {
            ground.cancel.check().map_err(|error| refused(error.to_string()))?;
            match self.ask("postgres", "select 1", true) {
                Ok(_) => return Ok(()),
                Err(error) if self.process.has_exited() || waited > STARTS_WITHIN => {
                    let said = self.process.stderr();
                    return Err(refused(format!("PostgreSQL did not start: {error}; {}", said.trim())));
                }
                Err(_) => {}
            }
            std::thread::sleep(PAUSE);
            waited += PAUSE;
        }
    }

    fn ask(&self, database: &str, query: &str, only_reads: bool) -> Result<Option<String>, SandboxError> {
        let mut psql = Command::new(self.tools.join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-F", &SEPARATOR.to_string(), "-h"]);
        psql.arg(self.folder.path()).args(["-d", database, "-c", query]);
        psql.env_clear().current_dir("/");
        if only_reads {
            // A check asks: whatever it calls changes nothing.
            psql.env("PGOPTIONS", "-c default_transaction_read_only=on -c timezone=UTC");
        }
        let said = psql.output().map_err(|error| SandboxError::Query(format!("cannot run psql: {error}")))?;
        if !said.status.success() {
            return Err(SandboxError::Query(String::from_utf8_lossy(&said.stderr).trim().to_owned()));
        }
        let text = String::from_utf8_lossy(&said.stdout);
        Ok(text.lines().next().map(|line| line.split(SEPARATOR).next().unwrap_or_default().to_owned()))
    }
}

impl Postgres {
    /// `shop: select …` where there are several databases.
    fn database_of(&self, text: &str) -> Result<(String, String), SandboxError> {
        let (named, query) = database_and_query(text);
        let named = named.filter(|name| self.names.iter().any(|known| known == name));
        match (self.names.as_slice(), named) {
            (_, Some(name)) => Ok((name.to_owned(), query.to_owned())),
            ([one], None) => Ok((one.clone(), text.to_owned())),
            (names, None) => Err(SandboxError::Query(format!(
                "several databases came back: write NAME: QUERY, with one of {}",
                names.join(", ")
            ))),
        }
    }
}

fn command(program: &Path, folder: &Path, user: Option<(u32, u32)>, withheld: &[&str]) -> Command {
    let mut command = Command::new(program);
    // In its folder, so that the next drill finds it should this one be killed.
    command.current_dir(folder).env("LC_ALL", "C.UTF-8");
    for name in withheld {
        command.env_remove(name);
    }
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

impl Sandbox for Postgres {
    fn path(&self) -> Option<&Path> {
        None
    }
    fn address(&self) -> Option<String> {
        let database = match self.names.as_slice() {
            [one] => encode(one, ""),
            _ => "*".to_owned(),
        };
        let place = |path: &Path| encode(&path.to_string_lossy(), "");
        let (host, tools) = (place(self.folder.path()), place(&self.tools));
        Some(format!(
            "postgres:///{database}?host={host}&port=5432&user=postgres&sslmode=disable&tools={tools}"
        ))
    }
    fn describe(&self) -> String {
        self.about.clone()
    }
    fn sql(&mut self, query: &str) -> Result<Option<String>, SandboxError> {
        let (database, query) = self.database_of(query)?;
        self.ask(&database, &query, true)
    }
    fn execute(&mut self, sql: &str) -> Result<(), SandboxError> {
        let (database, sql) = self.database_of(sql)?;
        self.ask(&database, &sql, false).map(|_| ())
    }
    fn session(&mut self, database: &str) -> Result<Box<dyn Session>, SandboxError> {
        let told = |error: &dyn std::error::Error| SandboxError::Query(error.to_string());
        let address = self.address().unwrap_or_default();
        let address = Address::parse(&address).map_err(|error| told(&error))?;
        let world = World {
            cancel: self.cancel.clone(),
            now: Timestamp::default(),
            spool: self.folder.path().to_owned(),
            runtime: tokio::runtime::Handle::current(),
            path: Vec::new(),
            password: None,
            pgpass: None,
            user: "postgres".into(),
            withheld: self.withheld,
        };
        let reach = Direct::new(&address, &world).map_err(|error| told(&error))?;
        reach.session(database).map_err(|error| told(&error))
    }
    fn folder(&self) -> Option<&Path> {
        Some(self.folder.path())
    }
    fn environment(&self) -> Vec<(String, String)> {
        let database = self.names.first().map_or("postgres", String::as_str);
        vec![
            ("PGHOST".into(), self.folder.path().to_string_lossy().into_owned()),
            ("PGPORT".into(), "5432".into()),
            ("PGUSER".into(), "postgres".into()),
            ("PGDATABASE".into(), database.into()),
        ]
    }
    fn not_tested(&self) -> Vec<String> {
        vec!["the applications that use the databases, and the server's configuration".into()]
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        let Self { folder, mut process, tools, user, withheld, .. } = *self;
        // At once, but orderly: killed, it would leave its shared memory behind.
        let mut stop = command(&tools.join("pg_ctl"), Path::new("/"), user, withheld);
        let stopped =
            stop.arg("-D").arg(folder.path().join("data")).args(["-m", "immediate", "-w", "stop"]).output();
        if let Err(error) = stopped {
            tracing::warn!(%error, "cannot stop the sandbox's PostgreSQL orderly");
        }
        process.end();
        close(folder)
    }
}
