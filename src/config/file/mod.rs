//! `lifeboat.toml`: repositories, jobs, objectives and drills under their names.
//!
//! Everything in it is obeyed or refused: a key that is not known is an error that names the line and the nearest
//! one that is. Secrets stand in it by reference only. A file that others may write is refused, because its jobs
//! and checks run as us.

mod check;
mod doubts;
mod line;
mod meaning;
mod model;
mod redact;
mod schema;
mod starter;

use std::path::{Path, PathBuf};

pub use check::{Check, DrillStep, named as named_check, shell};
pub use meaning::not_a_drill;
pub use model::{
    Component, Drill, DrillComponent, Duty, Fault, File, Job, Machine, OneOrMany, Repository,
    SecretReference, time,
};

pub use redact::LEFT_OUT;
pub use schema::schema;
pub use starter::{Around, Project, starter};

use super::{Environment, Origin, PasswordSource};
use crate::base::own_file::{self, OwnFileError, Trust};

/// A larger file is none of ours.
const LIMIT_BYTES: u64 = 1 << 20;
const NAME: &str = "lifeboat.toml";

/// A configuration file that cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("there is no configuration file\nhint: --config FILE, or one of {}", .looked.join(", "))]
    None { looked: Vec<String> },
    #[error(transparent)]
    File(#[from] OwnFileError),
    #[error("{}:{line}: {message}{}", path.display(), hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Syntax { path: PathBuf, line: usize, message: String, hint: Option<String> },
    #[error("{}{}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Meaning { path: PathBuf, line: Option<usize>, message: String },
}

/// A file that was read and makes sense.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    pub path: PathBuf,
    pub file: File,
    /// Who this machine is in it.
    pub machine: String,
}

/// Where a file is looked for, in order. Never in the working directory: somebody else may own that.
fn places(environment: &Environment) -> Vec<PathBuf> {
    let mut places = Vec::new();
    if !environment.is_root {
        let own = environment.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let own = own.or_else(|| environment.home().map(|home| home.join(".config")));
        places.extend(own.map(|folder| folder.join("lifeboat").join(NAME)));
    }
    places.push(Path::new("/etc/lifeboat").join(NAME));
    places
}

/// Where a new file is kept: the first place it is looked for in.
pub fn default_place(environment: &Environment) -> Option<PathBuf> {
    places(environment).into_iter().next()
}

/// Finds and reads the file: the one named by a flag or `LIFEBOAT_CONFIG`, else the first there is.
///
/// # Errors
/// There is none ([`FileError::None`]), or it cannot be obeyed.
pub fn load(named: Option<&Path>, environment: &Environment) -> Result<ConfigFile, FileError> {
    let named = named.map(Path::to_owned).or_else(|| environment.path("LIFEBOAT_CONFIG"));
    let places = places(environment);
    let Some(path) = named.as_ref().or_else(|| places.iter().find(|path| path.exists())) else {
        let looked = places.iter().map(|path| path.display().to_string()).collect();
        return Err(FileError::None { looked });
    };
    let mut found = read(path)?;
    found.machine = environment.machine();
    found.file.settle(&found.machine);
    Ok(found)
}

fn read(path: &Path) -> Result<ConfigFile, FileError> {
    let text = own_file::read(path, LIMIT_BYTES, Trust::Own)?;
    let parsed = parse(path, &text)?;
    match redact::left_out(&text) {
        None => Ok(parsed),
        Some((line, message)) => Err(FileError::Meaning { path: path.to_owned(), line, message }),
    }
}

/// Reads the text of a file.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(path: &Path, text: &str) -> Result<ConfigFile, FileError> {
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        let message = error.message().to_owned();
        FileError::Syntax { path: path.to_owned(), line, hint: nearest(&message), message }
    })?;
    file.check().map_err(|message| {
        let line = line::of(text, &message);
        FileError::Meaning { path: path.to_owned(), line, message }
    })?;
    Ok(ConfigFile { path: path.to_owned(), file, machine: String::new() })
}

/// ``unknown field `scedule`, expected one of `schedule`, …`` → `schedule`; values of a closed list likewise.
fn nearest(message: &str) -> Option<String> {
    let known =
        message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?;
    let mut quoted = known.split('`').skip(1).step_by(2);
    let given = quoted.next()?;
    let best = quoted.map(|name| (strsim::jaro_winkler(given, name), name));
    let (likeness, name) = best.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness > 0.7).then(|| format!("did you mean {name}?"))
}

impl SecretReference {
    /// Where the secret is, not yet read.
    ///
    /// # Errors
    /// A variable or credential that is not there.
    pub fn source(&self, environment: &Environment) -> Result<PasswordSource, String> {
        match self {
            Self::File(path) => Ok(PasswordSource::File(path.clone())),
            Self::Command(command) => Ok(PasswordSource::Command(command.clone())),
            Self::KeyFile(path) => Ok(PasswordSource::KeyFile(path.clone())),
            Self::Env(name) => {
                let found = environment.bytes(name);
                let found = found.ok_or_else(|| format!("the variable {name} is not set"))?;
                Ok(PasswordSource::Value(crate::base::secret::Secret::from_bytes(found)))
            }
            Self::Credential(name) => {
                let folder = environment.path("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or_else(|| {
                    format!("credential {name:?}: systemd gives none here (CREDENTIALS_DIRECTORY is not set)")
                })?;
                Ok(PasswordSource::File(folder.join(name)))
            }
        }
    }
}

/// How messages name what came from the file.
pub const ORIGIN: Origin = Origin::Variable("the configuration file");

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(Path::new("c.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn five_lines_are_enough() {
        let text = "[repository.main]\nurl = \"/srv/lifeboat\"\npassword = { file = \"/etc/pw\" }\n\
                    [job.etc]\nsource = \"/etc\"\n";
        let file = parse(Path::new("c.toml"), text).unwrap().file;
        assert_eq!(file.repository_of(&file.job["etc"]).unwrap().0, "main");
        assert_eq!(file.job["etc"].source.all(), ["/etc"]);
    }

    #[test]
    fn a_typo_names_the_line_and_the_nearest_key() {
        let text = "[repository.main]\nurl = \"/r\"\n[job.db]\nsource = \"/a\"\nscedule = \"0 2 * * *\"\n";
        let said = error(text);
        assert!(said.starts_with("c.toml:5: unknown field `scedule`"), "{said}");
        assert!(said.ends_with("hint: did you mean schedule?"), "{said}");
        assert!(error("[repository.main]\nurl = 3\n").starts_with("c.toml:2: "));
        let said = error("[repositry.main]\nurl = \"/r\"\n");
        assert!(said.starts_with("c.toml:1: ") && said.ends_with("hint: did you mean repository?"), "{said}");
        let said = error("[machine.a]\nduties = [\"bakup\"]\n");
        assert!(said.starts_with("c.toml:2: ") && said.ends_with("hint: did you mean backup?"), "{said}");
        let said = error("[repository.main]\nurl = \"/r\"\npassword = { fil = \"x\" }\n");
        assert!(said.starts_with("c.toml:3: ") && said.ends_with("hint: did you mean file?"), "{said}");
        let said = error("[repository.main]\nurl = \"/r\"\n[job.a]\nsource = 3\n");
        assert!(
            said.starts_with("c.toml:4: ") && said.contains("an address or path, or a list of paths"),
            "{said}"
        );
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        let main = "[repository.main]\nurl = \"/r\"\n";
        let said = error(&format!("{main}[job.a]\nsource = \"/a\"\nrepository = \"other\"\n"));
        assert!(said.contains("job a: there is no repository \"other\""), "{said}");
        let said = error("[job.a]\nsource = \"/a\"\n");
        assert!(said.contains("job a: no repository is defined"), "{said}");
        let two = "[repository.a]\nurl = \"/r\"\n[repository.b]\nurl = \"/s\"\n[job.a]\nsource = \"/a\"\n";
        assert!(error(two).contains("which repository"), "{}", error(two));
        let said = error(&format!("{main}[job.a]\nsource = [\"/a\", \"sqlite:/b\"]\n[job.b]\nsource = []\n"));
        assert!(said.contains("job b: there is nothing to back up"), "{said}");
        let said = error(&format!("{main}[job.a]\nsource = \"/a\"\nschedule = \"61 * * * *\"\n"));
        assert!(said.contains("job a: schedule"), "{said}");
        let said = error(&format!("{main}[stack.s]\napp = {{ rto = \"1h\", needs = [\"db\"] }}\n"));
        assert!(said.contains("stack s: app needs db"), "{said}");
        let said = error(&format!("{main}[drill.d]\nrestore = \"x@latest\"\nrto = \"soon\"\n"));
        assert!(said.contains("drill d: rto"), "{said}");
    }
}
