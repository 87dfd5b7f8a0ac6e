//! MariaDB servers, one for all tests that can share it: making its tables takes seconds.
//!
//! A server runs as the user `mysql` when the tests run as root, lets `root` in without a password on loopback, and
//! does not wait for disks.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Server, program};

/// A data folder as it is at first: made once, for it takes seconds.
pub fn template() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
    let version = Command::new(program("mariadbd")).arg("--version").output().unwrap().stdout;
    let done = folder.join(format!("mariadb-{}", &blake3::hash(&version).to_hex()[..16]));
    if done.is_dir() {
        return done;
    }
    std::fs::create_dir_all(&folder).unwrap();
    // Where the server's user may come, wherever the sources lie.
    let made = tempfile::tempdir().unwrap();
    give_away(made.path());
    let data = made.path().join("data");
    let mut install = Command::new(program("mariadb-install-db"));
    install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    install.args(["--innodb-flush-method=nosync", "--innodb-log-file-size=16M"]);
    install.arg(format!("--datadir={}", data.display()));
    let said = as_server(&mut install).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    let beside = tempfile::tempdir_in(&folder).unwrap();
    let copied = Command::new("cp").arg("-a").arg(&data).arg(beside.path().join("data")).status().unwrap();
    assert!(copied.success());
    // Somebody else may have been faster: then theirs is as good.
    let _ = std::fs::rename(beside.path().join("data"), &done);
    done
}

/// A running server.
pub struct Maria {
    pub server: Server,
}

/// The user a server runs as: it does not like to be root.
fn as_server(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() {
        let user = nix::unistd::User::from_name("mysql").unwrap().expect("Debian's package makes the user");
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.env("HOME", "/tmp").current_dir("/")
}

fn give_away(folder: &Path) {
    if rustix::process::geteuid().is_root() {
        let user = nix::unistd::User::from_name("mysql").unwrap().unwrap();
        std::os::unix::fs::chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

impl Maria {
    /// Starts a server of its own with these options beside the usual ones.
    pub fn start(options: &[&str]) -> Self {
        let server = Server::start("mariadbd", |folder, port| {
            give_away(folder);
            let copied =
                Command::new("cp").arg("-a").arg(template()).arg(folder.join("data")).status().unwrap();
            assert!(copied.success());
            let mut command = Command::new(program("mariadbd"));
            command.args(["--no-defaults", "--bind-address=127.0.0.1", "--innodb-log-file-size=16M"]);
            command.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]);
            command.args([
                "--innodb-flush-method=nosync",
                "--event-scheduler=1",
                "--character-set-server=latin1",
            ]);
            // A server that starts removes whatever others' temporary tables are in a folder they share.
            for (key, value) in
                [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid"), ("tmpdir", "")]
            {
                command.arg(format!("--{key}={}", folder.join(value).display()));
            }
            command.arg(format!("--port={port}")).args(options);
            as_server(&mut command);
            command
        });
        let maria = Self { server };
        while maria.try_sql("", "SELECT 1").is_err() {}
        maria
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub fn socket(&self) -> PathBuf {
        self.server.dir.path().join("socket")
    }

    /// `mariadb://root@127.0.0.1:port/database`
    pub fn address(&self, database: &str) -> String {
        format!("mariadb://root@127.0.0.1:{}/{database}", self.port())
    }

    /// A client tool, told where the server is.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.env_clear().arg("--no-defaults").arg("-h127.0.0.1").arg(format!("-P{}", self.port()));
        command.args(["-uroot"]).stdin(Stdio::null());
        command
    }

    /// Runs SQL and returns what it answers, one line a row.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        match self.try_sql(database, sql) {
            Ok(said) => said,
            Err(said) => panic!("{sql}: {said}"),
        }
    }

    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut command = self.tool("mariadb");
        command.args(["-N", "-B", "--default-character-set=utf8mb4", "-D", database]);
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
        self.sql("", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Everything in a database as the dump tool writes it; its own name where it stands replaced.
    pub fn text(&self, database: &str) -> String {
        let mut command = self.tool("mariadb-dump");
        let output = command.args(["--routines", "--events", "--triggers", "--hex-blob", "--skip-dump-date"]);
        let output = output.args(["--default-character-set=utf8mb4", "--order-by-primary"]).arg(database);
        let output = output.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout)
            .replace(&format!("`{database}`"), "`D`")
            .replace(database, "D")
    }

    /// Sessions on a database.
    pub fn sessions(&self, database: &str) -> String {
        let sql = format!("SELECT count(*) FROM information_schema.PROCESSLIST WHERE DB = '{database}'");
        self.sql("", &sql)
    }

    /// Databases whose name begins so.
    pub fn databases(&self, begin: &str) -> String {
        self.sql("", &format!("SHOW DATABASES LIKE '{begin}%'"))
    }
}

/// The server that all tests share.
pub fn shared() -> &'static Maria {
    static SERVER: OnceLock<Maria> = OnceLock::new();
    SERVER.get_or_init(|| {
        // A server dies with the thread that started it: this one stays as long as the process.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let maria = Maria::start(&[]);
            super::postgres::remove_after_us(maria.server.dir.path());
            sender.send(maria).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().unwrap()
    })
}
