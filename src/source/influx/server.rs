//! The server, asked over HTTP, and its own program run against the port for backups.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::version::{self, Version};
use super::{Address, InfluxError, World, http_error, tool_error};
use crate::base::http::Http;
use crate::base::process::{Process, ProcessOptions};
use crate::base::secret::Secret;
use crate::source::capture::SourceError;

/// How long the port for backups has to answer: the tool itself would try for minutes.
const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// What the tool says when it tries a third time; it would go on for minutes.
const GIVES_UP: &str = "retrying (2)";
/// A database whose shards are not opened yet is asked so often, with a pause between.
const TRIES: u32 = 200;

/// Points by retention policy, measurement and field.
pub type Counts = BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>;

/// See the module.
pub struct Server {
    http: Http,
    program: PathBuf,
    backup: String,
    pub version: String,
    world: World,
}

fn said(text: impl Into<String>) -> SourceError {
    InfluxError::Said(text.into()).into()
}

/// A name in a query.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

impl Server {
    /// Asks the server what it is and looks for its program.
    ///
    /// # Errors
    /// Nobody answers, the program is not here, or is of another version.
    pub fn connect(address: &Address, world: &World) -> Result<Self, SourceError> {
        let mut password = address.password.clone().or_else(|| world.password.clone());
        if let Some(path) = &address.password_file {
            let text = std::fs::read(path)
                .map_err(|cause| said(format!("cannot read password-file {}: {cause}", path.display())))?;
            password = Some(Secret::from_line(text));
        }
        let none = || Secret::from_text(String::new());
        let login = (!address.user.is_empty()).then(|| (address.user.clone(), password.unwrap_or_else(none)));
        let patience = Duration::from_secs(30 * 60);
        let http =
            Http::new(&address.url(), login, patience, &world.runtime, &world.cancel).map_err(http_error)?;
        is_of_1(&version::ask(&http).map_err(http_error)?, &address.url())?;
        let program =
            world.path.iter().map(|folder| folder.join("influxd")).find(|program| program.is_file());
        let program = program.ok_or_else(|| {
            said("influxd is not here, and it is what makes backups\nhint: apt-get install influxdb, of the server's version 1.x")
        })?;
        let mut server = Self {
            http,
            program,
            backup: address.backup.clone(),
            version: String::new(),
            world: world.clone(),
        };
        let version = Command::new(&server.program).arg("version").output();
        let version = version.map_err(|error| said(format!("cannot run influxd: {error}")))?;
        let text = String::from_utf8_lossy(&version.stdout).into_owned();
        server.version = text.split_whitespace().nth(1).unwrap_or("?").trim_start_matches('v').to_owned();
        if !server.version.starts_with("1.") {
            return Err(said(format!(
                "influxd here has version {}, and only 1.x makes these backups\nhint: apt-get install influxdb; servers of 2.x need \
                 no influxd here: influxdb2://HOST:8086/BUCKET",
                server.version
            )));
        }
        Ok(server)
    }

    /// Runs a query; the series of its first result.
    ///
    /// # Errors
    /// The server's.
    pub fn query(&self, what: &str, query: &str, database: &str) -> Result<Vec<Value>, SourceError> {
        let form = [("q", query), ("db", database), ("epoch", "ns")];
        let answer = self.http.ask(what, Method::POST, "/query", &form).map_err(http_error)?;
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|_| said(format!("cannot {what}: the answer is not InfluxDB's")))?;
        if let Some(error) = answer["results"][0]["error"].as_str().or_else(|| answer["error"].as_str()) {
            return Err(said(format!("cannot {what}: {error}")));
        }
        Ok(answer["results"][0]["series"].as_array().cloned().unwrap_or_default())
    }

    /// The first column of a `SHOW`.
    fn names(&self, what: &str, query: &str, database: &str) -> Result<Vec<String>, SourceError> {
        let series = self.query(what, query, database)?;
        let rows = series.iter().flat_map(|series| series["values"].as_array().cloned().unwrap_or_default());
        Ok(rows.filter_map(|row| row[0].as_str().map(str::to_owned)).collect())
    }

    pub fn databases(&self) -> Result<Vec<String>, SourceError> {
        self.names("list the databases", "SHOW DATABASES", "")
    }

    pub fn drop_database(&self, name: &str) -> Result<(), SourceError> {
        self.query("drop a database", &format!("DROP DATABASE {}", ident(name)), "").map(drop)
    }

    /// Drops one also in a cancelled run, and says nothing.
    pub fn farewell(&self, name: &str) {
        let form = [("q", &*format!("DROP DATABASE {}", ident(name)))];
        if let Err(error) = self.http.farewell().ask("drop what was restored", Method::POST, "/query", &form)
        {
            tracing::warn!("{error}");
        }
    }

    /// Counts the points of a database that are not younger than `until_ns`.
    ///
    /// # Errors
    /// The server's.
    pub fn count(&self, database: &str, until_ns: i128) -> Result<Counts, SourceError> {
        let policies = self.names(
            "list the retention policies",
            &format!("SHOW RETENTION POLICIES ON {}", ident(database)),
            database,
        )?;
        let mut counts = Counts::new();
        for policy in policies {
            let query = format!("SELECT count(*) FROM {}./.*/ WHERE time <= {until_ns}", ident(&policy));
            let of_policy = counts.entry(policy).or_default();
            for series in self.query("count the points", &query, database)? {
                let name = series["name"].as_str().unwrap_or_default().to_owned();
                let fields = of_policy.entry(name).or_default();
                let columns = series["columns"].as_array().cloned().unwrap_or_default();
                for (column, value) in
                    columns.iter().zip(series["values"][0].as_array().into_iter().flatten())
                {
                    let field = column.as_str().and_then(|column| column.strip_prefix("count_"));
                    if let (Some(field), Some(points)) = (field, value.as_u64()) {
                        fields.insert(field.to_owned(), points);
                    }
                }
            }
        }
        Ok(counts)
    }

    /// The same of a database that was restored this moment, whose shards may not be open yet.
    ///
    /// # Errors
    /// The server's.
    pub fn count_when_open(&self, database: &str, until_ns: i128) -> Result<Counts, SourceError> {
        let mut tried = 0;
        loop {
            match self.count(database, until_ns) {
                Err(error) if tried < TRIES && is_opening(&error.to_string()) => {}
                counted => return counted,
            }
            tried += 1;
            self.world.cancel.check()?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Runs `influxd backup` or `restore` with these arguments.
    ///
    /// # Errors
    /// It fails, or tries in vain to reach the server.
    pub fn run(&self, subject: &str, arguments: &[&str], folder: &Path) -> Result<(), SourceError> {
        let refused = || said(format!("{subject}: nobody takes backups at {}", self.backup));
        let places = self.backup.to_socket_addrs().map_err(|_| refused())?;
        let reach = |place| std::net::TcpStream::connect_timeout(&place, CONNECTS_WITHIN).is_ok();
        if !places.into_iter().any(reach) {
            return Err(refused());
        }
        let mut command = Command::new(&self.program);
        for name in self.world.withheld.iter().chain(&["INFLUX_PASSWORD", "INFLUX_TOKEN"]) {
            command.env_remove(name);
        }
        let (verb, rest) = arguments.split_first().unwrap_or((&"", &[]));
        command.args([verb, "-portable", "-host", &self.backup]).args(rest).arg(folder);
        let options = ProcessOptions { no_progress: None, ..ProcessOptions::default() };
        let failed = |error| tool_error(subject, error);
        let mut process = Process::start(command, options, &self.world.cancel).map_err(failed)?;
        while !process.has_exited() {
            self.world.cancel.check()?;
            let stderr = process.stderr();
            if stderr.contains(GIVES_UP) {
                process.end();
                let line = stderr.lines().rfind(|line| line.contains(" failed ")).unwrap_or_default();
                // Without the time before it, and what the tool would do next.
                let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || "/: ".contains(c));
                let line = line.split(".  Waiting").next().unwrap_or_default();
                return Err(said(format!(
                    "{subject}: the server that takes backups at {} is gone: {line}\nhint: its log says why",
                    self.backup
                )));
            }
            std::thread::sleep(PAUSE);
        }
        let mut rest = [0; 4096];
        while process.read_some(&mut rest).map_err(failed)? > 0 {}
        process.finish().map(drop).map_err(failed)
    }
}

/// A server that does not say what it is may be one of 1.x.
fn is_of_1(version: &Version, place: &str) -> Result<(), SourceError> {
    let text = match version.major() {
        Some(2) => format!(
            "InfluxDB {} answers at {place}, and influxdb:// is for 1.x\nhint: influxdb2://HOST:8086/BUCKET is for 2.x",
            version.text
        ),
        Some(3) => version.refusal_of_3(place),
        _ => return Ok(()),
    };
    Err(SourceError::Refused(text))
}

/// What a server says of a shard it is about to open.
fn is_opening(text: &str) -> bool {
    text.contains("shard is disabled") || text.contains("engine is closed")
}
