//! What may overwrite production: the configuration file says what that is, and asks for its word.
//!
//! Invariant: where the file names an `environment`, no service that its jobs back up is restored into without that
//! word, typed or given as a flag or variable; `--yes` is not it.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};

use super::{CliError, Context, Exit};
use crate::config::file::File;

/// The server of a service's address, or the whole of one that names none: by whatever user or database it is
/// written, what is there is production's.
pub fn server_of(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = match scheme {
        "postgres" | "postgresql" => "5432",
        "redis" | "rediss" => "6379",
        "mariadb" | "mysql" => "3306",
        _ => "",
    };
    let (host, port) = match host.rsplit_once(':') {
        // Colons within brackets are the address's own.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (host, port),
    };
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let host = match host.as_str() {
        "" | "localhost" | "127.0.0.1" | "::1" => "localhost",
        host => host,
    };
    format!("{host}:{port}")
}

/// The servers that the file's jobs back up.
pub fn live(file: &File) -> BTreeSet<String> {
    file.job.values().flat_map(|job| job.source.all()).map(server_of).collect()
}

/// Errors unless whoever runs this says the environment's word. `what`: `this restores db into production`.
pub fn agree(
    word: &str,
    given: Option<&String>,
    what: &str,
    instead: &str,
    context: &Context,
) -> Result<(), CliError> {
    let given = given.or(context.settings.confirm.as_ref());
    if given.is_some_and(|given| given == word) {
        return Ok(());
    }
    if given.is_some() || !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let hint = format!("--confirm {word} says that you mean it; {instead}");
        return Err(CliError::usage(what).hint(hint));
    }
    let _ = write!(std::io::stderr(), "{what}. Type {word} to go on: ");
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(_) if answer.trim() == word => Ok(()),
        _ => Err(CliError::new(Exit::Failed, "not agreed to: nothing was changed")),
    }
}

/// Asks before a single service is restored into, if it is production's.
pub fn agree_for_service(address: &str, given: Option<&String>, context: &Context) -> Result<(), CliError> {
    if !context.has_file() {
        return Ok(());
    }
    let found = match context.file() {
        Ok(found) => found,
        // In an emergency a mistake in a file must not keep anybody from restoring.
        Err(error) => {
            let why = error.causes.join(": ");
            context.warn(format_args!("whether {} is production is not known: {why}", shown(address)));
            return Ok(());
        }
    };
    let Some(word) = &found.file.environment else { return Ok(()) };
    if !live(&found.file).contains(&server_of(address)) {
        return Ok(());
    }
    let what = format!("this restores into {}, which is {word}", shown(address));
    agree(word, given, &what, "another address restores elsewhere", context)
}

fn shown(address: &str) -> String {
    crate::app::services::shown(address)
}

#[cfg(test)]
mod tests {
    use super::server_of;

    #[test]
    fn a_server_is_known_by_whatever_user_and_database() {
        for address in ["postgres://db.example/shop", "postgres://admin@db.example:5432/other?x=1"] {
            assert_eq!(server_of(address), "db.example:5432");
        }
        for address in [
            "postgres:///shop",
            "postgres://127.0.0.1/a",
            "postgres://u@[::1]:5432/b",
            "postgres://LOCALHOST/c",
        ] {
            assert_eq!(server_of(address), "localhost:5432");
        }
        assert_eq!(server_of("redis://[FD00::2]"), "fd00::2:6379");
        assert_ne!(server_of("redis://db.example"), server_of("postgres://db.example/a"));
        assert_eq!(server_of("sqlite:/var/app.db"), "sqlite:/var/app.db");
    }
}
