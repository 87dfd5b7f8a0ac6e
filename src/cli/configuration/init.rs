//! `config init`: a first configuration file, from what is found here. Asks nothing and overwrites nothing.

use std::path::{Path, PathBuf};

use super::super::kit::address_of;
use super::super::text::shown;
use super::super::{CliError, Context, Exit};
use crate::base::whole_file;
use crate::config::file::{Around, Project, default_place, starter};
use crate::config::{Environment, Origin};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// New file [default: that of --config or LIFEBOAT_CONFIG, else where verbs look for it: /etc/lifeboat/lifeboat.toml
    /// as root, else in ~/.config/lifeboat]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Names that Compose looks for.
const COMPOSE: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// Folders whose folders are looked into for Compose projects, besides the working directory.
const SHELVES: [&str; 2] = ["/opt", "/srv"];
/// A longer file is no Compose file that anybody wrote.
const COMPOSE_LIMIT_BYTES: u64 = 1 << 20;

pub fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let environment = Environment::of_process();
    let named = context.config_flag().map(Path::to_owned);
    let of_environment = environment.path("LIFEBOAT_CONFIG");
    // Whether verbs find it without being told anything more.
    let default = of_environment.clone().or_else(|| default_place(&environment));
    let file = match (args.file.as_ref().or(named.as_ref()), &default) {
        (Some(file), _) => std::path::absolute(file).unwrap_or_else(|_| file.clone()),
        (None, Some(place)) => std::path::absolute(place).unwrap_or_else(|_| place.clone()),
        (None, None) => {
            return Err(CliError::usage("there is no home folder to keep it in").hint("name the FILE"));
        }
    };
    let around = around(&file, &environment, context)?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let failed = |operation: &str, path: &Path, error: std::io::Error| {
        CliError::new(Exit::Failed, format!("{operation} {}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| failed("make", folder, error))?;
    // Others who may write it could have their jobs run as us, whatever the umask.
    let made = whole_file::make_new(&file, 0o644, starter(&around).as_bytes());
    made.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let why = format!("{} exists: it is never overwritten", file.display());
            CliError::new(Exit::Conflict, why).hint("`lifeboat config check` reads it; or name another FILE")
        }
        _ => failed("write", &file, error),
    })?;
    tell(&file, &around, default.as_deref() == Some(&file), context)?;
    Ok(Exit::Ok)
}

fn around(file: &Path, environment: &Environment, context: &Context) -> Result<Around, CliError> {
    let home = environment.home();
    let job = match (environment.is_root, &home) {
        (false, Some(home)) => ("home".to_owned(), home.clone()),
        _ => ("etc".to_owned(), PathBuf::from("/etc")),
    };
    let said = context.settings.repository.as_ref();
    let said = said.filter(|found| matches!(found.origin, Origin::Flag(_)) || found.origin == ENVIRONMENT);
    let repository = match (said, &home) {
        (Some(found), _) => address_of(&found.value)?,
        (None, Some(home)) if !environment.is_root => home.join("lifeboat").display().to_string(),
        (None, _) => "/srv/lifeboat".into(),
    };
    let password = file.with_file_name("password");
    let mut folders: Vec<PathBuf> = std::env::current_dir().into_iter().collect();
    for shelf in SHELVES {
        let entries = std::fs::read_dir(shelf).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path()));
    }
    folders.sort();
    folders.dedup();
    // Two folders of one name would be one job.
    let mut names = std::collections::BTreeSet::new();
    let found = folders.into_iter().filter_map(project);
    let projects = found.filter(|project| names.insert(project.name.clone())).collect();
    Ok(Around { repository, password, job, projects })
}

const ENVIRONMENT: Origin = Origin::Variable("LIFEBOAT_REPOSITORY");

fn project(folder: PathBuf) -> Option<Project> {
    let file = COMPOSE.iter().map(|name| folder.join(name)).find(|path| path.is_file())?;
    if file.metadata().ok()?.len() > COMPOSE_LIMIT_BYTES {
        return None;
    }
    let found = Project::read(folder, &std::fs::read_to_string(file).ok()?);
    (!found.name.is_empty()).then_some(found)
}

fn tell(file: &Path, around: &Around, is_default: bool, context: &Context) -> Result<(), CliError> {
    let projects: Vec<&str> = around.projects.iter().map(|project| project.name.as_str()).collect();
    if context.json {
        return context.json(&serde_json::json!({
            "path": file, "repository": around.repository, "password_file": around.password, "projects": projects,
        }));
    }
    let mut lines = vec![format!("wrote {}", shown(file.as_os_str().as_encoded_bytes()))];
    if !projects.is_empty() {
        lines.push(format!("  with the Compose projects {}", projects.join(", ")));
    }
    lines.push("\nLook through it, then:".into());
    if !is_default {
        lines.push(format!("  export LIFEBOAT_CONFIG={}", word(&file.to_string_lossy())));
    }
    if !around.password.exists() {
        let password = word(&around.password.to_string_lossy());
        lines.push(format!(
            "  (umask 077; head -c 24 /dev/urandom | base64 > {password})   # keep a copy elsewhere"
        ));
    }
    for next in ["config check", "init", "run --all", "drill run --all", "kit export kit.html"] {
        lines.push(format!("  lifeboat {next}"));
    }
    context.tell(lines.join("\n"))
}

/// As a shell takes it.
fn word(text: &str) -> String {
    match text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
