//! The server, asked through its own client: SQL on its standard input, rows of text on its output.
//!
//! Invariant: every name and value that goes into SQL goes through [`ident`] or [`literal`]; no SQL is an argument.

use std::io::{Read as _, Write as _};
use std::process::Command;

use super::address::Server;
use super::login::OptionFile;
use super::tools::{Flavour, Tools};
use super::{MariaError, World, error, login, tools};
use crate::base::cancel::Cancel;
use crate::base::process::{Process, ProcessOptions};
use crate::source::capture::SourceError;

/// Most bytes of an answer.
const ANSWER_LIMIT: u64 = 256 << 20;
/// Variables that would lead a tool elsewhere than the address says.
const MISLEADING: [&str; 8] = [
    "MARIADB_HOME",
    "MYSQL_GROUP_SUFFIX",
    "MYSQL_HOME",
    "MYSQL_HOST",
    "MYSQL_PWD",
    "MYSQL_TCP_PORT",
    "MYSQL_TEST_LOGIN_FILE",
    "MYSQL_UNIX_PORT",
];

/// A name in SQL.
pub fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text in SQL, whatever the server thinks of backslashes.
pub fn literal(text: &str) -> String {
    if !text.contains('\\') {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("CONVERT(0x{digits} USING utf8mb4)")
}

/// A server, and the tools that talk to it.
pub struct Reach {
    pub server: Server,
    pub tools: Tools,
    pub flavour: Flavour,
    /// As the server says it.
    pub version: String,
    pub warnings: Vec<String>,
    /// Server's clock less ours, seconds.
    pub skew_seconds: f64,
    options: OptionFile,
    world: World,
}

impl Reach {
    /// Finds tools and asks the server what it is.
    ///
    /// # Errors
    /// There are no tools, nobody answers, or the answer is no.
    pub fn connect(
        server: &Server,
        named_tools: Option<&std::path::Path>,
        world: &World,
    ) -> Result<Self, SourceError> {
        let server = login::complete(server, world)?;
        let sets = tools::find(named_tools, &world.path);
        let first = tools::any(&sets)?.clone();
        let options = OptionFile::write(&server, first.flavour, &world.spool)?;
        let mut reach = Self {
            server,
            flavour: first.flavour,
            tools: first,
            version: String::new(),
            warnings: Vec::new(),
            skew_seconds: 0.0,
            options,
            world: world.clone(),
        };
        let before = std::time::SystemTime::now();
        let sql = "SELECT VERSION(), @@version_comment, UNIX_TIMESTAMP(NOW(6))";
        let row = reach.query("connect", None, sql)?.pop().unwrap_or_default();
        let cell = |column: usize| row.get(column).cloned().unwrap_or_default();
        let ours = before.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let theirs: f64 = cell(2).parse().unwrap_or(ours);
        reach.skew_seconds = ((theirs - ours) * 1e3).round() / 1e3;
        reach.version = cell(0);
        reach.flavour = Flavour::of(&format!("{} {}", cell(0), cell(1)));
        if let Some(suiting) = tools::suiting(&sets, reach.flavour).filter(|set| **set != reach.tools) {
            reach.options = OptionFile::write(&reach.server, suiting.flavour, &world.spool)?;
            reach.tools = suiting.clone();
        }
        reach.warnings.extend(tools::doubt(&reach.tools, reach.flavour, &reach.version));
        Ok(reach)
    }

    fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new(program);
        // First, or it is not understood: no other option file is read.
        command.arg(format!("--defaults-file={}", self.options.path.display()));
        for name in MISLEADING.iter().chain(self.world.withheld) {
            command.env_remove(name);
        }
        // Complaints are read by us, too.
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// The dump of one database, what is in it as far as `with` says.
    pub fn dump(&self, database: &str, with: &[String]) -> Command {
        let mut command = self.command(&self.tools.dump);
        command.args([
            "--single-transaction",
            "--quick",
            "--skip-lock-tables",
            "--skip-add-locks",
            "--skip-add-drop-table",
            "--extended-insert",
            "--create-options",
            "--quote-names",
            "--set-charset",
            "--default-character-set=utf8mb4",
            "--hex-blob",
            "--tz-utc",
            "--comments",
            "--skip-dump-date",
            "--no-tablespaces",
            "--max-allowed-packet=1G",
        ]);
        if self.tools.flavour == Flavour::MySql {
            command.args(["--set-gtid-purged=OFF", "--column-statistics=0"]);
        }
        command.args(with).arg("--").arg(database);
        command
    }

    /// The client, fed SQL; the only thing it understands beside SQL is `DELIMITER`.
    pub fn client(&self, database: Option<&str>) -> Command {
        let mut command = self.command(&self.tools.client);
        let seconds = self.server.connect_timeout.as_secs();
        command.args([
            "--batch",
            "--skip-column-names",
            "--binary-mode",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
            "--skip-reconnect",
            "--no-auto-rehash",
        ]);
        command.arg(format!("--connect-timeout={seconds}"));
        if let Some(database) = database {
            command.arg(format!("--database={database}"));
        }
        command
    }

    /// Runs SQL, several statements perhaps, and returns the rows of all of them; NULL reads `NULL`. `what` names it
    /// in an error: `list the databases`.
    ///
    /// # Errors
    /// The server's, or the run was cancelled.
    pub fn query(
        &self,
        what: &str,
        database: Option<&str>,
        sql: &str,
    ) -> Result<Vec<Vec<String>>, SourceError> {
        self.run(what, database, sql.as_bytes(), &self.world.cancel)
    }

    /// The same for cleaning up, which a cancelled run does too.
    ///
    /// # Errors
    /// The server's.
    pub fn farewell(
        &self,
        what: &str,
        database: Option<&str>,
        sql: &str,
    ) -> Result<Vec<Vec<String>>, SourceError> {
        self.run(what, database, sql.as_bytes(), &Cancel::new())
    }

    /// Runs a script.
    ///
    /// # Errors
    /// The server's, or the run was cancelled.
    pub fn run(
        &self,
        what: &str,
        database: Option<&str>,
        sql: &[u8],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<String>>, SourceError> {
        let subject = || format!("{what} at {}", self.server.shown());
        let options = ProcessOptions { no_progress: None, ..ProcessOptions::default() };
        let started = Process::start_fed(self.client(database), options, cancel);
        let (mut process, mut feed) = started.map_err(|error| error::tool(subject(), error))?;
        // One that is gone says why when it is asked how it ended.
        let _ = feed.write_all(sql);
        drop(feed);
        let mut answer = Vec::new();
        let read = (&mut process).take(ANSWER_LIMIT).read_to_end(&mut answer);
        if read.is_ok() && !process.at_end() {
            return Err(MariaError::Other(format!("{}: the answer is too large", subject())).into());
        }
        process.finish().map_err(|error| error::tool(subject(), error))?;
        let rows = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(rows.map(|line| line.split(|byte| *byte == b'\t').map(unescaped).collect()).collect())
    }
}

/// A cell as the client writes it in batches.
fn unescaped(cell: &[u8]) -> String {
    let mut out = Vec::with_capacity(cell.len());
    let mut bytes = cell.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(byte) => *byte,
                None => b'\\',
            },
            byte => *byte,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_end_their_quotes() {
        assert_eq!(ident("a`b"), "`a``b`");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\'"), "CONVERT(0x5c27 USING utf8mb4)");
        assert_eq!(unescaped(b"a\\tb\\\\n\\n"), "a\tb\\n\n");
    }
}
