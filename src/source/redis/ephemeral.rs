//! A server of our own, for as long as a restore takes: it loads the RDB and serves it to the target, or writes the
//! append-only files of a folder.
//!
//! It listens on one address only, wants a password nobody else knows, and ends when it is dropped.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::address::{Address, Mode};
use super::info::{self, Info};
use super::reach::{Reach, Tcp};
use super::wire::{Login, Reply, Wire};
use super::{RedisError, spool};
use crate::base::cancel::Cancel;
use crate::base::process::{Process, ProcessOptions};
use crate::base::secret::Secret;

const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
const PAUSE: Duration = Duration::from_millis(20);
const TRIES: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(300);

/// What it is started with.
pub struct EphemeralOptions<'a> {
    /// Holds `dump.rdb`; gets a configuration and a log.
    pub folder: &'a Path,
    pub listen: IpAddr,
    /// `valkey` or `redis`: the program asked for first.
    pub like: &'a str,
    pub databases: u64,
    /// Whether it keeps an append-only file in the folder, and reads the one it finds there.
    pub append_only: bool,
    /// User and group that it runs as, to whom the folder belongs; `None`: ours.
    pub user: Option<(u32, u32)>,
    pub withheld: &'static [&'static str],
}

/// Keys of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub keys: u64,
    /// Of them: those that will be gone one day.
    pub expiring: u64,
}

/// The running server.
pub struct Ephemeral {
    process: Process,
    pub wire: Wire,
    pub at: SocketAddr,
    pub password: String,
}

impl Ephemeral {
    /// Starts the first program there is that takes the RDB, and waits until it has.
    ///
    /// # Errors
    /// [`RedisError::Unable`]: no program, or none that reads this RDB.
    pub fn start(options: &EphemeralOptions<'_>, cancel: &Cancel) -> Result<Self, RedisError> {
        let mut why = "neither redis-server nor valkey-server is installed here".to_owned();
        let mut programs = PROGRAMS;
        programs.sort_by_key(|program| !program.starts_with(options.like));
        for program in programs {
            for _ in 0..TRIES {
                match Self::try_start(program, options, cancel) {
                    Ok(Some(server)) => return Ok(server),
                    Ok(None) => break,
                    Err(RedisError::Unable(said)) => {
                        let is_port_taken = said.contains("Address already in use");
                        why = said;
                        if !is_port_taken {
                            break;
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(RedisError::Unable(why))
    }

    /// `None`: there is no such program.
    fn try_start(
        program: &str,
        options: &EphemeralOptions<'_>,
        cancel: &Cancel,
    ) -> Result<Option<Self>, RedisError> {
        let unable = |what: String| RedisError::Unable(format!("{program}: {what}"));
        let at = free_address(options.listen).map_err(|cause| unable(cause.to_string()))?;
        let password = password()?;
        let (config, log) = (options.folder.join("ephemeral.conf"), options.folder.join("ephemeral.log"));
        write_config(&config, &log, at, &password, options)?;
        let mut command = Command::new(program);
        command.arg(&config).current_dir(options.folder);
        if let Some((uid, gid)) = options.user {
            command.uid(uid).gid(gid);
        }
        let supervised =
            ProcessOptions { no_progress: None, grace: Duration::from_secs(1), withheld: options.withheld };
        let process = match Process::start(command, supervised, cancel) {
            Ok(process) => process,
            Err(crate::base::process::ProcessError::Start { cause, .. })
                if cause.kind() == std::io::ErrorKind::NotFound =>
            {
                return Ok(None);
            }
            Err(error) => return Err(unable(error.to_string())),
        };
        let (reach, login) = way(at, &password);
        let wire = loop {
            cancel.check()?;
            if process.has_exited() {
                return Err(unable(last_words(&log)));
            }
            match Wire::open(&reach, &login, cancel) {
                Ok(mut wire) => match info::loaded(&mut wire, TIMEOUT) {
                    Ok(_) => break wire,
                    Err(RedisError::Cancelled(cancelled)) => return Err(cancelled.into()),
                    Err(_) => {}
                },
                Err(RedisError::Cancelled(cancelled)) => return Err(cancelled.into()),
                Err(_) => {}
            }
            std::thread::sleep(PAUSE);
        };
        Ok(Some(Self { process, wire, at, password }))
    }

    pub fn info(&mut self) -> Result<Info, RedisError> {
        Info::of(&mut self.wire)
    }

    /// Keys by database, as the server counts them: expired ones it has not met yet included.
    ///
    /// # Errors
    /// The server is lost.
    pub fn held(&mut self) -> Result<BTreeMap<u64, Held>, RedisError> {
        Ok(self.info()?.held())
    }

    /// Ends it, and waits until it has.
    pub fn end(mut self) {
        self.process.end();
    }

    /// Ends it as an operator would, so that an append-only file is whole.
    pub fn shut_down(mut self) {
        // It answers by closing the connection; one that does not is ended.
        let _ = self.wire.ask(&["SHUTDOWN", "NOSAVE"]);
        self.process.end();
    }
}

/// The newest RDB version a server reads, which is the one it writes.
///
/// # Errors
/// The server is lost.
pub fn rdb_version(wire: &mut Wire, info: &Info) -> Result<Option<u32>, RedisError> {
    if info.major() >= 7 {
        match wire.ask(&["FUNCTION", "DUMP"]) {
            // It ends in the version and the checksum.
            Ok(Reply::Bulk(Some(payload))) => {
                let version = payload.len().checked_sub(10).and_then(|at| payload.get(at..at + 2));
                return Ok(version.and_then(|v| v.try_into().ok()).map(|v| u16::from_le_bytes(v).into()));
            }
            Ok(_) | Err(RedisError::Said { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(match info.major() {
        5 | 6 => Some(9),
        4 => Some(8),
        3 => Some(7),
        _ => None,
    })
}

fn free_address(listen: IpAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind((listen, 0))?.local_addr()
}

fn password() -> Result<String, RedisError> {
    let mut bytes = [0_u8; 24];
    getrandom::fill(&mut bytes).map_err(|cause| RedisError::Unable(format!("no randomness: {cause}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn way(at: SocketAddr, password: &str) -> (Arc<dyn Reach>, Login) {
    let address = Address {
        through: None,
        is_tls: false,
        host: at.ip().to_string(),
        port: at.port(),
        user: None,
        password: Some(Secret::from_text(password.to_owned())),
        mode: Mode::Auto,
        ca: None,
        timeout: TIMEOUT,
    };
    (Arc::new(Tcp::of(&address)), Login::of(&address))
}

fn write_config(
    path: &Path,
    log: &Path,
    at: SocketAddr,
    password: &str,
    options: &EphemeralOptions<'_>,
) -> Result<(), RedisError> {
    use std::io::Write as _;
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let text = format!(
        "bind {}\nport {}\nrequirepass {password}\ndir {}\ndbfilename dump.rdb\nlogfile {}\ndatabases {}\n\
         save \"\"\nappendonly {}\ndaemonize no\nprotected-mode no\nrepl-diskless-sync yes\n\
         repl-diskless-sync-delay 0\nclient-output-buffer-limit replica 0 0 0\nmaxmemory 0\n",
        at.ip(),
        at.port(),
        quoted(options.folder),
        quoted(log),
        options.databases.max(16),
        if options.append_only { "yes" } else { "no" },
    );
    let _ = std::fs::remove_file(log);
    let _ = std::fs::remove_file(path);
    let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.and_then(|mut file| file.write_all(text.as_bytes())).map_err(spool::file("write", path))?;
    let Some((uid, gid)) = options.user else { return Ok(()) };
    chown(path, Some(uid), Some(gid)).map_err(spool::file("give away", path))
}

/// The last line of a log, without its time.
fn last_words(log: &PathBuf) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let worth = |line: &&str| line.contains('#') || line.contains("rror") || line.contains("annot");
    let line = text.lines().rev().find(worth).or_else(|| text.lines().last()).unwrap_or("it ended at once");
    line.split_once(" # ").map_or(line, |(_, words)| words).to_owned()
}
