//! A PostgreSQL server of its own, of the source's major version: on a unix socket in a folder that only its user
//! enters, without a port, gone with the drill.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::{Server, address_of, database_of, refused};
use super::{Ground, Sandbox, SandboxError, close, unprivileged};
use crate::base::cancel::Cancel;
use crate::base::process::Process;
use crate::base::url::encode;
use crate::format::entry::Timestamp;
use crate::source::postgres::{Address, Direct, Reach as _, Session, World, server_tools};

/// Users that a server may run as when we are root, which it refuses to be.
const USERS: [&str; 3] = ["postgres", "nobody", "daemon"];
/// Separates columns in psql's answer; no text holds it by chance.
const SEPARATOR: char = '\u{1f}';

pub struct Postgres {
    folder: tempfile::TempDir,
    process: Process,
    tools: PathBuf,
    server: Server,
    /// Databases of the snapshot.
    names: Vec<String>,
    about: String,
    cancel: Cancel,
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
        let user = unprivileged(folder.path(), &USERS)?;
        let place = folder.path().to_owned();
        let server = Server { name: "PostgreSQL", folder: place, user, withheld: ground.withheld };
        server.socket(".s.PGSQL.5432")?;
        let data = folder.path().join("data").display().to_string();
        let initdb =
            ["-A", "trust", "--no-sync", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-D", &data];
        server.set_up(&tools.join("initdb"), &initdb.map(str::to_owned), ground)?;
        let mut command = server.command(&tools.join("postgres"));
        command.args([
            "-D",
            &data,
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "full_page_writes=off",
        ]);
        command.arg("-c").arg(format!("unix_socket_directories={}", folder.path().display()));
        let mut process = server.start(command, ground)?;
        server.wait(&mut process, ground, || ask(&tools, folder.path(), "postgres", "select 1", true))?;
        let version = source["server_version"].as_str().unwrap_or("of an unknown version");
        let about = format!("PostgreSQL {major} of its own, no port; the source was {version}");
        Ok(Self { folder, process, tools, server, names, about, cancel: ground.cancel.clone() })
    }

    fn ask(&self, database: &str, query: &str, only_reads: bool) -> Result<Option<String>, SandboxError> {
        ask(&self.tools, self.folder.path(), database, query, only_reads)
    }
}

/// The first value of the first row.
fn ask(
    tools: &Path,
    folder: &Path,
    database: &str,
    query: &str,
    only_reads: bool,
) -> Result<Option<String>, SandboxError> {
    let mut psql = Command::new(tools.join("psql"));
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-F", &SEPARATOR.to_string(), "-h"]);
    psql.arg(folder).args(["-d", database, "-c", query]);
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

impl Sandbox for Postgres {
    fn path(&self) -> Option<&Path> {
        None
    }
    fn address(&self) -> Option<String> {
        let database = address_of(&self.names);
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
        let (database, query) = database_of(&self.names, query)?;
        self.ask(&database, &query, true)
    }
    fn execute(&mut self, sql: &str) -> Result<(), SandboxError> {
        let (database, sql) = database_of(&self.names, sql)?;
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
            path: Vec::new(),
            password: None,
            pgpass: None,
            user: "postgres".into(),
            withheld: self.server.withheld,
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
        let Self { folder, mut process, tools, server, .. } = *self;
        // At once, but orderly: killed, it would leave its shared memory behind.
        let mut stop = server.command(&tools.join("pg_ctl"));
        let stopped =
            stop.arg("-D").arg(folder.path().join("data")).args(["-m", "immediate", "-w", "stop"]).output();
        if let Err(error) = stopped {
            tracing::warn!(%error, "cannot stop the sandbox's PostgreSQL orderly");
        }
        process.end();
        close(folder)
    }
}
