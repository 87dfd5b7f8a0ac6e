//! How a server is reached: how to speak to it, and how its client tools are run against it.
//!
//! [`Direct`] connects from here and runs tools here. Another implementation may do both elsewhere, inside a
//! container for one; capture and restore know only [`Reach`].

use std::path::PathBuf;
use std::process::Command;

use super::PostgresError;
use super::address::{Address, Server, SslMode};
use super::passwords::{self, PassFile};
use super::session::{Session, Wire};
use super::tools::{self, Toolset};
use crate::base::cancel::Cancel;
use crate::base::random::{SystemRandom, array};
use crate::base::secret::Secret;
use crate::format::entry::Timestamp;
use crate::source::capture::SourceError;

/// Where servers put their sockets, the likeliest first.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// Variables of libpq that would lead a tool elsewhere than the address says.
const MISLEADING: [&str; 11] = [
    "PGHOSTADDR",
    "PGPASSWORD",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGREQUIRESSL",
    "PGTARGETSESSIONATTRS",
    "PGCLIENTENCODING",
    "PGDATESTYLE",
    "PGTZ",
    "PGGEQO",
    "PGSYSCONFDIR",
];

/// What the engine needs of the world.
#[derive(Clone)]
pub struct World {
    pub cancel: Cancel,
    /// The instant before.
    pub now: Timestamp,
    /// Folder for files that cannot be avoided.
    pub spool: PathBuf,
    /// Folders programs are looked for in.
    pub path: Vec<PathBuf>,
    /// `PGPASSWORD`
    pub password: Option<Secret>,
    /// `PGPASSFILE`, or where it is by default.
    pub pgpass: Option<PathBuf>,
    /// Who runs this: the user of an address that names none.
    pub user: String,
    /// Variables children do not get.
    pub withheld: &'static [&'static str],
}

/// A client tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Dump,
    DumpAll,
    Restore,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dump => "pg_dump",
            Self::DumpAll => "pg_dumpall",
            Self::Restore => "pg_restore",
        }
    }
}

/// See the module.
pub trait Reach: Send + Sync {
    /// Connects to a database.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no.
    fn session(&self, database: &str) -> Result<Box<dyn Session>, SourceError>;

    /// The same for cleaning up, which a cancelled run does too.
    ///
    /// # Errors
    /// As [`Self::session`].
    fn farewell(&self, database: &str) -> Result<Box<dyn Session>, SourceError>;

    /// The client tools there are.
    fn toolsets(&self) -> Vec<Toolset>;

    /// A tool, told by its environment where the server is, which database is meant and who asks.
    fn command(&self, tools: &Toolset, tool: Tool, database: &str) -> Command;

    /// The name all of this run's connections carry.
    fn application(&self) -> &str;

    /// Whether the server is known to run on this machine, with this file system.
    fn is_this_machine(&self) -> bool;

    /// The server without secrets, for messages.
    fn shown(&self) -> String;
}

/// From here, over the network or a socket.
pub struct Direct {
    server: Server,
    hosts: Vec<String>,
    tools: Option<PathBuf>,
    world: World,
    application: String,
    pass_file: PassFile,
}

impl Direct {
    /// Finds the password and names this run; connects to nothing yet.
    ///
    /// # Errors
    /// The password file cannot be read, or no file can be written for the tools.
    pub fn new(address: &Address, world: &World) -> Result<Self, PostgresError> {
        let mut server = address.server.clone();
        if server.user.is_empty() {
            server.user.clone_from(&world.user);
        }
        server.password = passwords::find(&server, world.password.as_ref(), world.pgpass.as_deref())?;
        let socket = |folder: &&str| {
            let name = format!(".s.PGSQL.{}", server.port);
            std::path::Path::new(folder).join(name).exists()
        };
        let hosts = match (&server.through, server.host.as_str()) {
            (Some(socket), _) => vec![socket.folder().to_string_lossy().into_owned()],
            (None, "") => {
                vec![SOCKET_FOLDERS.into_iter().find(socket).unwrap_or(SOCKET_FOLDERS[0]).to_owned()]
            }
            (None, host) => vec![host.to_owned()],
        };
        let pass_file = PassFile::write(server.password.as_ref(), &world.spool)?;
        let application = format!("lifeboat-{:08x}", u32::from_le_bytes(array(&SystemRandom)));
        Ok(Self { server, hosts, tools: address.tools.clone(), world: world.clone(), application, pass_file })
    }

    fn connect(&self, database: &str, cancel: &Cancel) -> Result<Box<dyn Session>, SourceError> {
        let wire = Wire::connect(&self.server, &self.hosts, database, &self.application, cancel)?;
        Ok(Box::new(wire))
    }
}

impl Reach for Direct {
    fn session(&self, database: &str) -> Result<Box<dyn Session>, SourceError> {
        self.connect(database, &self.world.cancel)
    }

    fn farewell(&self, database: &str) -> Result<Box<dyn Session>, SourceError> {
        self.connect(database, &Cancel::new())
    }

    fn toolsets(&self) -> Vec<Toolset> {
        tools::find(self.tools.as_deref(), &self.world.path)
    }

    fn command(&self, tools: &Toolset, tool: Tool, database: &str) -> Command {
        let mut command = Command::new(tools.folder.join(tool.name()));
        for name in MISLEADING.iter().chain(self.world.withheld) {
            command.env_remove(name);
        }
        command.arg("--no-password");
        command
            .env("PGHOST", self.hosts.join(","))
            .env("PGPORT", self.server.port.to_string())
            .env("PGUSER", &self.server.user)
            .env("PGDATABASE", database)
            .env("PGPASSFILE", &self.pass_file.path)
            .env("PGAPPNAME", &self.application)
            .env("PGCONNECT_TIMEOUT", self.server.connect_timeout.as_secs().max(2).to_string())
            // Text that is hashed must not depend on settings of a server, database or user.
            .env("PGOPTIONS", "-c timezone=UTC -c bytea_output=hex -c xmloption=content")
            // Complaints are read by us, too.
            .env("LC_ALL", "C")
            .env("PG_COLOR", "never");
        command.env(
            "PGSSLMODE",
            match self.server.ssl_mode {
                SslMode::Disable => "disable",
                SslMode::Prefer => "prefer",
                SslMode::Require => "require",
                SslMode::VerifyCa => "verify-ca",
                SslMode::VerifyFull => "verify-full",
            },
        );
        for (name, path) in [
            ("PGSSLROOTCERT", &self.server.ssl_root),
            ("PGSSLCERT", &self.server.ssl_certificate),
            ("PGSSLKEY", &self.server.ssl_key),
        ] {
            match path {
                Some(path) => command.env(name, path),
                // From 16 on the tools know the system's certificates, as we do.
                None if name == "PGSSLROOTCERT"
                    && self.server.ssl_mode >= SslMode::VerifyCa
                    && tools.major >= 16 =>
                {
                    command.env(name, "system")
                }
                None => command.env_remove(name),
            };
        }
        command
    }

    fn application(&self) -> &str {
        &self.application
    }

    fn is_this_machine(&self) -> bool {
        // A socket can be handed into a container, whose folders are others: the data folder is looked for, too.
        self.server.through.is_none() && self.hosts.iter().all(|host| host.starts_with('/'))
    }

    fn shown(&self) -> String {
        self.server.shown()
    }
}
