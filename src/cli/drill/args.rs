//! `drill run` as it is typed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::CliError;
use super::super::json_to::{JsonTo, STDOUT, file_and_name};
use super::super::text::name as printable;
use super::faults::FaultArgs;
use super::sandbox::sandbox_of;
use crate::config::file::{ConfigFile, not_a_drill};
use crate::config::{file, parse_duration};
use crate::drill::Spec;
use crate::drill::check::{CheckSpec, HttpCheck};
use crate::drill::spec::{From, Step};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A drill of the configuration file, or what this one is called; its runs are compared with each other
    /// [default: drill]
    #[arg(value_name = "NAME", value_parser = drill_name)]
    name: Option<String>,
    /// Every drill of the configuration file
    #[arg(long, conflicts_with_all = ["name", "snapshot", "host"])]
    pub all: bool,
    /// Snapshot to restore: latest, JOB@latest, an id… Everything else stays as the configuration file tells it of NAME
    /// [default: what the configuration file says of NAME, else latest]
    #[arg(long, value_name = "SNAP")]
    pub snapshot: Option<String>,
    /// Whose snapshots, where several machines have such; of a stack each component's [default: what the configuration
    /// file says, else this machine's]
    #[arg(long, value_name = "NAME", value_parser = printable)]
    pub host: Option<String>,
    /// Where to restore to: directory, sqlite, redis, postgres, docker, or the address of a server that is lent to
    /// drills [default: what suits the snapshot]
    #[arg(long, value_name = "KIND|ADDRESS")]
    sandbox: Option<String>,
    /// Recovery time that is tolerated, such as 30m; exit code 22 above it
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    rto: Option<Duration>,
    /// Loss that is tolerated, such as 6h; exit code 22 above it
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    rpo: Option<Duration>,
    /// Time people need to notice; counts towards the RTO
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    detect: Duration,
    /// Time people need to decide; counts towards the RTO
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    decide: Duration,
    /// A check by its name (may be repeated): rows, roles, sequences, extensions, locale, constraints, keys,
    /// append-only, files, modes, owners, certificates[=14d], freshness=TABLE.COLUMN/1h
    #[arg(long, value_name = "CHECK", value_parser = file::named_check)]
    check: Vec<CheckSpec>,
    /// A query whose first value must be true or not 0 (may be repeated)
    #[arg(long, value_name = "QUERY")]
    check_sql: Vec<String>,
    /// A shell command that must end with 0; it finds the restored state in LIFEBOAT_DRILL_PATH or
    /// LIFEBOAT_DRILL_ADDRESS, and psql needs no arguments (may be repeated)
    #[arg(long, value_name = "COMMAND")]
    check_command: Vec<String>,
    /// An address that must answer 200, or with the status behind it: 'http://web:8080/health 204'. It proves something
    /// if it names a service of a Docker project; this machine's loopback proves nothing, others are refused (may be
    /// repeated)
    #[arg(long, value_name = "URL", value_parser = http_check)]
    check_http: Vec<HttpCheck>,
    /// A shell command to run in the sandbox once it is restored and before the checks above, such as a migration
    /// (may be repeated)
    #[arg(long, value_name = "COMMAND")]
    step: Vec<String>,
    /// Folder for the sandbox [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Print the signed evidence, or write it into a file whose name has a dot or a slash: evidence.json, ./evidence
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT, value_parser = JsonTo::parse)]
    json: Option<JsonTo>,
    /// Write JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write a summary in Markdown, such as to $GITHUB_STEP_SUMMARY
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write a page with the timeline and the trend
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Keep nothing in the repository: for storage credentials that only read
    #[arg(long)]
    pub no_keep: bool,
    #[command(flatten)]
    pub faults: FaultArgs,
}

impl Args {
    /// With the name where it belongs, whatever it stood behind.
    pub fn settled(mut self) -> Result<Self, CliError> {
        let (_, name) = file_and_name(self.json.as_ref(), self.name.as_deref())?;
        if let (Some(name), None) = (name, &self.name) {
            if self.all {
                let why = format!("--json {name}: --all runs every drill, and {name} is no file");
                return Err(CliError::usage(why).hint(format!("--json ./{name} writes it")));
            }
            self.name = Some(drill_name(name).map_err(CliError::usage)?);
        }
        Ok(self)
    }

    /// The same with other faults.
    pub fn with(&self, faults: FaultArgs) -> Self {
        Self { faults, ..self.clone() }
    }

    /// What the drill is called.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("drill")
    }

    /// Where the signed evidence is written to.
    pub fn json_file(&self) -> Option<&Path> {
        match &self.json {
            Some(JsonTo::File(path)) => Some(path),
            _ => None,
        }
    }

    pub fn scratch(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }

    pub fn writes(&self) -> bool {
        self.json_file().is_some() || self.junit.is_some() || self.html.is_some()
    }

    /// The flags that tell a drill otherwise than the configuration file does.
    fn changes(&self) -> Vec<&'static str> {
        let given = [
            ("--sandbox", self.sandbox.is_some()),
            ("--rto", self.rto.is_some()),
            ("--rpo", self.rpo.is_some()),
            ("--detect", !self.detect.is_zero()),
            ("--decide", !self.decide.is_zero()),
            ("--check", !self.check.is_empty()),
            ("--check-sql", !self.check_sql.is_empty()),
            ("--check-command", !self.check_command.is_empty()),
            ("--check-http", !self.check_http.is_empty()),
            ("--step", !self.step.is_empty()),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag).collect()
    }

    /// A drill of the file is what the file says: flags that say otherwise would file another drill's runs under its
    /// name.
    pub fn refuse_changes(&self, drill: &str, found: &ConfigFile) -> Result<(), CliError> {
        let changes = self.changes();
        if changes.is_empty() {
            return Ok(());
        }
        let (path, changes) = (found.path.display(), changes.join(", "));
        let why = format!("drill {drill} is told by {path}: {changes} would make it another one");
        Err(CliError::usage(why).hint(format!(
            "write it there under [drill.{drill}]; or tell all of it here, by another name and with --snapshot"
        )))
    }

    pub fn spec(&self) -> Result<Spec, CliError> {
        let mut checks = self.check.clone();
        checks.extend(self.check_sql.iter().cloned().map(CheckSpec::Sql));
        checks.extend(self.check_command.iter().map(|line| CheckSpec::Command(file::shell(line))));
        checks.extend(self.check_http.iter().cloned().map(CheckSpec::Http));
        let (sandbox, lent) = sandbox_of("--sandbox", self.sandbox.as_deref())?;
        Ok(Spec {
            name: self.name().to_owned(),
            snapshot: self.snapshot.clone().unwrap_or_else(|| "latest".into()),
            machine: self.host.clone(),
            sandbox,
            lent,
            secrets: Vec::new(),
            rto: self.rto,
            rpo: self.rpo,
            detect: self.detect,
            decide: self.decide,
            steps: self.step.iter().map(|line| Step::Command(file::shell(line))).collect(),
            checks,
            faults: self.faults.faults.clone(),
            from: if self.faults.from_kit.is_some() { From::Kit } else { From::Here },
        })
    }
}

/// `URL` or `URL STATUS`.
fn http_check(text: &str) -> Result<HttpCheck, String> {
    let (url, status) = match text.trim().split_once(char::is_whitespace) {
        Some((url, status)) => (url, status.trim().parse().map_err(|_| format!("{status:?} is no status"))?),
        None => (text.trim(), 200),
    };
    Ok(HttpCheck { url: url.to_owned(), status, contains: None })
}

fn drill_name(text: &str) -> Result<String, String> {
    match not_a_drill(text) {
        Some(why) => Err(format!("{why}; --json, --junit, --markdown and --html write one")),
        None => printable(text),
    }
}
