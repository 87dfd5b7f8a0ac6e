//! A MariaDB server of its own: on a unix socket in a folder that only its user enters, without a port, gone with the
//! drill.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::{Server, address_of, database_of, refused};
use super::{Ground, Sandbox, SandboxError, close, unprivileged};
use crate::base::process::Process;
use crate::base::random::{SystemRandom, array};
use crate::base::secret::Secret;
use crate::base::url::encode;

/// Users that a server may run as when we are root, which it does not like to be.
const USERS: [&str; 3] = ["mysql", "nobody", "daemon"];
/// Where its programs are besides the search path.
const FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];

/// How it is asked.
struct Client {
    program: PathBuf,
    socket: PathBuf,
    password: String,
}

pub struct Mariadb {
    folder: tempfile::TempDir,
    process: Process,
    client: Client,
    /// Databases of the snapshot.
    names: Vec<String>,
    about: String,
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
        let user = unprivileged(folder.path(), &USERS)?;
        let place = folder.path().to_owned();
        let own = Server { name: "MariaDB", folder: place, user, withheld: ground.withheld };
        let socket = own.socket("socket")?;
        let data = format!("--datadir={}", folder.path().join("data").display());
        let arguments =
            ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data];
        own.set_up(&install, &arguments.map(str::to_owned), ground)?;
        let mut command = own.command(&server);
        // Events stand still: a rehearsal must not do what they do.
        command.args([
            "--no-defaults",
            "--skip-networking",
            "--event-scheduler=OFF",
            "--max-allowed-packet=1G",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--skip-name-resolve",
            &data,
        ]);
        for (key, file) in [("socket", "socket"), ("pid-file", "pid"), ("tmpdir", "")] {
            command.arg(format!("--{key}={}", folder.path().join(file).display()));
        }
        let process = own.start(command, ground)?;
        let bytes: [u8; 16] = array(&SystemRandom);
        let fresh: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let version = source["server_version"].as_str().unwrap_or("of an unknown version");
        let about = String::new();
        let client = Client { program: client, socket, password: String::new() };
        let mut server = Self { folder, process, client, names, about };
        own.wait(&mut server.process, ground, || server.client.ask("", "SELECT 1", true))?;
        // So that no password of the environment is tried on it.
        server.client.ask("", &format!("SET PASSWORD = PASSWORD('{fresh}')"), false)?;
        server.client.password = fresh;
        let here = server.client.ask("", "SELECT VERSION()", true)?.unwrap_or_default();
        server.about = format!("MariaDB {here} of its own, no port; the source was {version}");
        Ok(server)
    }
}

impl Client {
    /// The first value of the first row. A check asks `read_only`: whatever it calls changes nothing.
    fn ask(&self, database: &str, query: &str, read_only: bool) -> Result<Option<String>, SandboxError> {
        let mut client = Command::new(&self.program);
        client.args([
            "--no-defaults",
            "-uroot",
            "-N",
            "-B",
            "--default-character-set=utf8mb4",
            "--protocol=socket",
        ]);
        client.arg(format!("--socket={}", self.socket.display()));
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

impl Sandbox for Mariadb {
    fn path(&self) -> Option<&Path> {
        None
    }
    fn address(&self) -> Option<String> {
        let database = address_of(&self.names);
        let socket = encode(&self.client.socket.to_string_lossy(), "");
        Some(format!("mariadb://root:{}@/{database}?socket={socket}", self.client.password))
    }
    fn describe(&self) -> String {
        self.about.clone()
    }
    fn sql(&mut self, query: &str) -> Result<Option<String>, SandboxError> {
        let (database, query) = database_of(&self.names, query)?;
        self.client.ask(&database, &query, true)
    }
    fn secrets(&self) -> Vec<Secret> {
        vec![Secret::from_text(self.client.password.clone())]
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
