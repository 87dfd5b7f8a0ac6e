//! The server's own client tools: which there are, and which suits.
//!
//! `pg_dump` reads servers up to its own major version; an archive is read by `pg_restore` from the version that
//! wrote it; and from 17 on `pg_restore` sets a parameter that older servers do not know. So a tool is chosen by
//! both ends, before anything is fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::PostgresError;

/// Where distributions put the tools of each version, with `*` for the version.
const FOLDERS: [(&str, &str); 3] =
    [("/usr/lib/postgresql", "bin"), ("/usr/local/lib/postgresql", "bin"), ("/opt/postgresql", "bin")];
/// From here on `pg_restore` begins with `SET transaction_timeout`.
const SETS_TRANSACTION_TIMEOUT: u32 = 17;

/// A folder of tools of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolset {
    pub folder: PathBuf,
    pub major: u32,
    /// `15.18 (Debian 15.18-0+deb12u1)`
    pub version: String,
}

/// The oldest major version whose `pg_restore` reads archives 1.`minor`.
pub fn oldest_reader(minor: u8) -> u32 {
    match minor {
        16.. => 17,
        15 => 16,
        14 => 12,
        _ => 10,
    }
}

/// Versions in `pg_dump (PostgreSQL) 15.18 (Debian …)`.
fn version(said: &str) -> Option<(u32, String)> {
    let version = said.trim().split_once("(PostgreSQL) ")?.1;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.to_owned()))
}

fn look(folder: &Path) -> Option<Toolset> {
    let program = folder.join("pg_dump");
    // Debian's wrapper picks a version of its own choice.
    if std::fs::canonicalize(&program).ok()?.ends_with("pg_wrapper") {
        return None;
    }
    let output = Command::new(&program).arg("--version").env_clear().output().ok()?;
    let (major, version) = version(std::str::from_utf8(&output.stdout).ok()?)?;
    Some(Toolset { folder: folder.to_owned(), major, version })
}

/// All tools found: in `named` alone if that is given, else in the search path and the usual places.
pub fn find(named: Option<&Path>, path: &[PathBuf]) -> Vec<Toolset> {
    if let Some(folder) = named {
        return look(folder).into_iter().collect();
    }
    let mut folders = path.to_vec();
    for (parent, child) in FOLDERS {
        let versions = std::fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(versions.map(|version| version.path().join(child)));
    }
    for version in std::fs::read_dir("/usr").into_iter().flatten().flatten() {
        if version.file_name().to_string_lossy().starts_with("pgsql-") {
            folders.push(version.path().join("bin"));
        }
    }
    let mut found: Vec<Toolset> = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_absolute()) {
        if let Some(set) = look(folder).filter(|set| !found.contains(set)) {
            found.push(set);
        }
    }
    found
}

/// The folder with the server's programs and the client's of one major version.
pub fn server_tools(major: u32, path: &[PathBuf]) -> Option<PathBuf> {
    let is_whole = |set: &Toolset| {
        set.major == major
            && ["initdb", "postgres", "psql", "pg_ctl"].iter().all(|name| set.folder.join(name).exists())
    };
    find(None, path).into_iter().find(is_whole).map(|set| set.folder)
}

fn names(sets: &[Toolset]) -> String {
    let names: Vec<_> =
        sets.iter().map(|set| format!("{} in {}", set.version, set.folder.display())).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// The tools that dump a server of version `server`: its own, else the next newer.
///
/// # Errors
/// There are none, or only older ones.
pub fn for_dump(sets: &[Toolset], server: u32) -> Result<&Toolset, PostgresError> {
    let newer = sets.iter().filter(|set| set.major >= server).min_by_key(|set| set.major);
    newer.ok_or_else(|| {
        PostgresError::Other(format!(
            "the server has version {server} and its pg_dump is not here (found: {})\nhint: install its client \
             tools (apt-get install postgresql-client-{server}), or name their folder: ?tools=FOLDER",
            names(sets)
        ))
    })
}

/// The tools that read archives 1.`minor` and suit a server of version `server`.
///
/// # Errors
/// There are none.
pub fn for_restore(sets: &[Toolset], minor: u8, server: u32) -> Result<&Toolset, PostgresError> {
    let oldest = oldest_reader(minor);
    let suits =
        |set: &&Toolset| set.major >= oldest && (set.major <= server || set.major < SETS_TRANSACTION_TIMEOUT);
    // The server's own; else the nearest older; else the nearest newer.
    let rank = |set: &&Toolset| match set.major <= server {
        true => server - set.major,
        false => 1000 + set.major - server,
    };
    sets.iter().filter(suits).min_by_key(rank).ok_or_else(|| {
        let why = if oldest > server && oldest >= SETS_TRANSACTION_TIMEOUT {
            format!(
                "the archive was written by pg_dump {oldest} or newer, and no pg_restore that reads it (version 1.\
                 {minor}) works with a server of version {server}\nhint: restore into a server of version {oldest} \
                 or newer"
            )
        } else {
            let best = server.max(oldest);
            format!(
                "no pg_restore here reads the archive (version 1.{minor}) and suits the server of version {server} \
                 (found: {})\nhint: install them (apt-get install postgresql-client-{best}), or name their folder: \
                 ?tools=FOLDER",
                names(sets)
            )
        };
        PostgresError::Other(why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(majors: &[u32]) -> Vec<Toolset> {
        let set = |major: &u32| Toolset { folder: "/x".into(), major: *major, version: major.to_string() };
        majors.iter().map(set).collect()
    }

    #[test]
    fn a_server_is_dumped_by_its_own_tools_or_the_next_newer() {
        let found = |majors: &[u32], server| for_dump(&sets(majors), server).ok().map(|set| set.major);
        assert_eq!(found(&[18, 15, 16], 15), Some(15));
        assert_eq!(found(&[18, 16], 15), Some(16));
        assert_eq!(found(&[15], 18), None);
        assert_eq!(found(&[], 15), None);
    }

    #[test]
    fn an_archive_is_restored_by_tools_that_suit_both_ends() {
        let found = |majors: &[u32], minor, server| {
            for_restore(&sets(majors), minor, server).ok().map(|set| set.major)
        };
        assert_eq!(found(&[15, 16, 18], 14, 15), Some(15));
        assert_eq!(found(&[15, 16, 18], 14, 18), Some(18));
        assert_eq!(found(&[15], 14, 18), Some(15));
        assert_eq!(found(&[16, 18], 14, 15), Some(16));
        assert_eq!(found(&[18], 14, 15), None);
        assert_eq!(found(&[15, 16, 18], 16, 15), None);
        assert_eq!(found(&[15, 16], 16, 18), None);
        assert_eq!(found(&[15, 16, 18], 15, 15), Some(16));
    }

    #[test]
    fn versions_are_read_off_what_tools_say() {
        assert_eq!(version("pg_dump (PostgreSQL) 18.4\n").unwrap(), (18, "18.4".into()));
        assert_eq!(version("pg_dump (PostgreSQL) 19beta1").unwrap().0, 19);
        assert!(version("command not found").is_none());
    }
}
