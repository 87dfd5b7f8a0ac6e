//! A MariaDB server of its own: on a unix socket in a folder that only its user enters, without a port, gone with the
//! drill.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Ground, Sandbox, SandboxError, close};
use crate::base::process::{Process, ProcessOptions};
use crate::base::random::{SystemRandom, array};
use crate::base::url::encode;

/// Users that a server may run as when we are root, which it does not like to be.
const USERS: [&str; 3] = ["mysql", "nobody", "daemon"];
/// Where its programs are besides the search path.
const FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// A socket's path may not be longer.
const SOCKET_LIMIT_BYTES: usize = 100;

pub struct Mariadb {
    folder: tempfile::TempDir,
    process: Process,
    client: PathBuf,
    password: String,
    /// Databases of the snapshot.
    names: Vec<String>,
    about: String,
}

fn refused(why: impl Into<String>) -> SandboxError {
    SandboxError::Refused(why.into())
}

/// Of these programs, the first that is here.
fn find(names: &[&str], path: &[PathBuf]) -> Result<PathBuf, SandboxError> {
    let folders: Vec<PathBuf> = path.iter().cloned().chain(FOLDERS.map(PathBuf::from)).collect();
    let found = names.iter().find_map(|name| {
        folders
            .iter()
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    });
    found.ok_or_else(|| {
        refused(format!(
            "{} is not installed here, and a drill wants a server of its own\nhint: apt-get install mariadb-server; or \
             --sandbox directory, which rehearses no more than that the dump comes back",
            names[0]
        ))
    })
}

impl Mariadb {
    pub fn start(
        folder: tempfile::TempDir,
        facts: &serde_json::Value,
        ground: &Ground,
    ) -> Result<Self, SandboxError> {
        let source = &facts["mariadb"];
        if source["flavour"] != "MariaDB" {
            return Err(refused(
                "drills start a MariaDB and no MySQL\nhint: --sandbox directory rehearses that the dump comes back, and no more",
            ));
        }
        let names: Vec<String> =
            source["databases"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
        let install = find(&["mariadb-install-db", "mysql_install_db"], &ground.path)?;
        let server = find(&["mariadbd", "mysqld"], &ground.path)?;
        let client = find(&["mariadb", "mysql"], &ground.path)?;
        let socket = folder.path().join("socket");
        if socket.as_os_str().len() > SOCKET_LIMIT_BYTES {
            return Err(refused(format!("the path {} is too long for a socket", socket.display())));
        }
        let user = unprivileged(folder.path())?;
        let data = folder.path().join("data");
        let mut install = command(&install, folder.path(), user, ground.withheld);
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        let said = install.arg(format!("--datadir={}", data.display())).output();
        let said = said.map_err(|error| refused(format!("cannot run mariadb-install-db: {error}")))?;
        if !said.status.success() {
            return Err(refused(format!(
                "mariadb-install-db: {}",
                String::from_utf8_lossy(&said.stderr).trim()
            )));
        }
        let mut server = command(&server, folder.path(), user, ground.withheld);
        // Events stand still: a rehearsal must not do what they do.
        server.args([
            "--no-defaults",
            "--skip-networking",
            "--event-scheduler=OFF",
            "--max-allowed-packet=1G",
        ]);
        server.args([
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--skip-name-resolve",
        ]);
        for (key, file) in [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid"), ("tmpdir", "")] {
            server.arg(format!("--{key}={}", folder.path().join(file).display()));
        }
        let options =
            ProcessOptions { no_progress: None, withheld: ground.withheld, ..ProcessOptions::default() };
        let process = Process::start(server, options, &ground.cancel)
            .map_err(|error| refused(format!("cannot start MariaDB: {error}")))?;
        let bytes: [u8; 16] = array(&SystemRandom);
        let fresh: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let version = source["server_version"].as_str().unwrap_or("of an unknown version");
        let mut server =
            Self { folder, process, client, password: String::new(), names, about: String::new() };
        server.wait(ground)?;
        // So that no password of the environment is tried on it.
        server.ask("", &format!("SET PASSWORD = PASSWORD('{fresh}')"), false)?;
        server.password = fresh;
        let here = server.ask("", "SELECT VERSION()", true)?.unwrap_or_default();
        server.about = format!("MariaDB {here} of its own, no port; the source was {version}");
        Ok(server)
    }

    fn wait(&mut self, ground: &Ground) -> Result<(), SandboxError> {
        let mut waited = Duration::ZERO;
        loop {
            ground.cancel.check().map_err(|error| refused(error.to_string()))?;
            match self.ask("", "SELECT 1", true) {
                Ok(_) => return Ok(()),
                Err(error) if self.process.has_exited() || waited > STARTS_WITHIN => {
                    let said = self.process.stderr();
                    return Err(refused(format!("MariaDB did not start: {error}; {}", said.trim())));
                }
                Err(_) => {}
            }
            std::thread::sleep(PAUSE);
            waited += PAUSE;
        }
    }

    /// The first value of the first row. A check asks `read_only`: whatever it calls changes nothing.
    fn ask(&self, database: &str, query: &str, read_only: bool) -> Result<Option<String>, SandboxError> {
        let mut client = Command::new(&self.client);
        client.args([
            "--no-defaults",
            "-uroot",
            "-N",
            "-B",
            "--default-character-set=utf8mb4",
            "--protocol=socket",
        ]);
        client.arg(format!("--socket={}", self.folder.path().join("socket").display()));
        if read_only {
            client.arg("--init-command=SET SESSION TRANSACTION READ ONLY");
        }
        client.args(["-D", database]).env_clear().current_dir("/");
        if !self.password.is_empty() {
            client.env("MYSQL_PWD", &self.password);
        }
        // The word that sets the password is in no argument.
        let mut child = client
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .map_err(|error| SandboxError::Query(format!("cannot run the client: {error}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that cannot connect is gone before it reads, and says why.
            let _ = std::io::Write::write_all(&mut stdin, query.as_bytes());
        }
        let said = child.wait_with_output().map_err(|error| SandboxError::Query(error.to_string()))?;
        if !said.status.success() {
            return Err(SandboxError::Query(String::from_utf8_lossy(&said.stderr).trim().to_owned()));
        }
        let text = String::from_utf8_lossy(&said.stdout);
        Ok(text.lines().next().map(|line| line.split('\t').next().unwrap_or_default().to_owned()))
    }
}

/// Gives the folder to whom the server will run as; `None`: us.
fn unprivileged(folder: &Path) -> Result<Option<(u32, u32)>, SandboxError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let found = USERS.iter().find_map(|name| nix::unistd::User::from_name(name).ok().flatten());
    let user = found.ok_or_else(|| refused("there is no user but root that MariaDB could run as"))?;
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    chown(folder, Some(uid), Some(gid)).map_err(|cause| SandboxError::File {
        operation: "give away",
        path: folder.to_owned(),
        cause,
    })?;
    Ok(Some((uid, gid)))
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

impl Sandbox for Mariadb {
    fn path(&self) -> Option<&Path> {
        None
    }
    fn address(&self) -> Option<String> {
        let database = match self.names.as_slice() {
            [one] => encode(one, ""),
            _ => "*".to_owned(),
        };
        let socket = encode(&self.folder.path().join("socket").to_string_lossy(), "");
        Some(format!("mariadb://root:{}@/{database}?socket={socket}", self.password))
    }
    fn describe(&self) -> String {
        self.about.clone()
    }
    fn sql(&mut self, query: &str) -> Result<Option<String>, SandboxError> {
        match self.names.as_slice() {
            [one] => self.ask(one, query, true),
            names => {
                // `shop: select …` where there are several.
                let (name, query) = query
                    .split_once(':')
                    .filter(|(name, _)| names.iter().any(|known| known == name.trim()))
                    .ok_or_else(|| {
                        SandboxError::Query(format!(
                            "several databases came back: write NAME: QUERY, with one of {}",
                            names.join(", ")
                        ))
                    })?;
                self.ask(name.trim(), query, true)
            }
        }
    }
    fn not_tested(&self) -> Vec<String> {
        vec!["the applications that use the databases, and the server's configuration".into()]
    }
    fn clean(self: Box<Self>) -> Result<(), SandboxError> {
        let Self { folder, mut process, .. } = *self;
        process.end();
        close(folder)
    }
}
