//! The server's client tools: where they are, and which of them suit it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::MariaError;

/// Folders beside the search path.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/usr/local/mysql/bin", "/opt/mariadb/bin"];
/// A dump tool and the client that goes with it, the better name first.
const PAIRS: [(&str, &str); 2] = [("mariadb-dump", "mariadb"), ("mysqldump", "mysql")];

/// Whose server or tool it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    MariaDb,
    MySql,
}

impl Flavour {
    /// Of what a program or a server says of its version.
    pub fn of(version: &str) -> Self {
        if version.contains("MariaDB") { Self::MariaDb } else { Self::MySql }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "MariaDB",
            Self::MySql => "MySQL",
        }
    }
}

/// A dump tool and its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    pub dump: PathBuf,
    pub client: PathBuf,
    pub flavour: Flavour,
    /// `10.11.19`
    pub version: String,
}

impl Tools {
    /// `mariadb-dump 10.11.19`
    pub fn shown(&self) -> String {
        let name = self.dump.file_name().unwrap_or_default().to_string_lossy();
        format!("{name} {} of {}", self.version, self.flavour.name())
    }

    /// Major and minor version.
    pub fn release(&self) -> Option<(u32, u32)> {
        release(&self.version)
    }
}

/// The first two numbers of a version.
pub fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// The version in `mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for …`, `mariadb-dump from 11.4.2-MariaDB, …`
/// or `mysqldump  Ver 8.0.36 for Linux …`.
fn version(said: &str) -> Option<String> {
    let after = |word: &str| Some(said.split_once(word)?.1);
    let rest = after(" Distrib ").or_else(|| after(" from ")).or_else(|| after(" Ver "))?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let version = &rest[..end];
    release(version).map(|_| version.to_owned())
}

fn look(folder: &Path) -> impl Iterator<Item = Tools> {
    PAIRS.into_iter().filter_map(move |(dump, client)| {
        let (dump, client) = (folder.join(dump), folder.join(client));
        let output = Command::new(&dump).args(["--no-defaults", "--version"]).env_clear().output().ok()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = version(&said)?;
        client.is_file().then_some(Tools { dump, client, flavour: Flavour::of(&said), version })
    })
}

/// All tools found: in `named` alone if that is given, else in the search path and the usual places.
pub fn find(named: Option<&Path>, path: &[PathBuf]) -> Vec<Tools> {
    if let Some(folder) = named {
        return look(folder).collect();
    }
    let folders = path.iter().cloned().chain(FOLDERS.map(PathBuf::from));
    let mut seen = Vec::new();
    for folder in folders.filter(|folder| folder.is_absolute()) {
        if !seen.contains(&folder) {
            seen.push(folder);
        }
    }
    seen.iter().flat_map(|folder| look(folder).collect::<Vec<_>>()).collect()
}

/// The first tools, with which the server is asked what it is.
///
/// # Errors
/// There are none.
pub fn any(sets: &[Tools]) -> Result<&Tools, MariaError> {
    sets.first().ok_or_else(|| {
        let hint = "apt-get install mariadb-client, or name their folder: ?tools=FOLDER";
        MariaError::Other(format!(
            "neither mariadb-dump nor mysqldump is here, with its client\nhint: {hint}"
        ))
    })
}

/// Those that suit the server: of its own flavour, the newest; else any.
pub fn suiting(sets: &[Tools], server: Flavour) -> Option<&Tools> {
    let own = sets.iter().filter(|set| set.flavour == server);
    // Of equals, the first that was found.
    let newest = own.reduce(|best, set| if set.release() > best.release() { set } else { best });
    newest.or_else(|| sets.first())
}

/// What is to be said of tools that are not the server's own.
pub fn doubt(tools: &Tools, server: Flavour, server_version: &str) -> Option<String> {
    if tools.flavour != server {
        return Some(format!(
            "{} reads a server of {}: its own tools are not here",
            tools.shown(),
            server.name()
        ));
    }
    let older = tools.release() < release(server_version);
    older.then(|| format!("{} is older than the server ({server_version})", tools.shown()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_off_what_tools_say() {
        for (said, expected) in [
            ("mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)", "10.11.19"),
            ("mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux (x86_64)", "11.4.2"),
            ("mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)", "8.0.36"),
        ] {
            assert_eq!(version(said).as_deref(), Some(expected));
        }
        assert_eq!(version("command not found"), None);
    }

    #[test]
    fn the_servers_own_tools_are_taken_the_newest_of_them() {
        let set = |version: &str, flavour| Tools {
            dump: "/x/mysqldump".into(),
            client: "/x/mysql".into(),
            flavour,
            version: version.into(),
        };
        let sets =
            [set("8.0.36", Flavour::MySql), set("10.6.1", Flavour::MariaDb), set("11.4.2", Flavour::MariaDb)];
        assert_eq!(suiting(&sets, Flavour::MariaDb).unwrap().version, "11.4.2");
        assert_eq!(suiting(&sets, Flavour::MySql).unwrap().version, "8.0.36");
        assert!(doubt(&sets[1], Flavour::MariaDb, "10.11.19-MariaDB").unwrap().contains("older"));
        assert_eq!(doubt(&sets[2], Flavour::MariaDb, "10.11.19-MariaDB"), None);
    }
}
