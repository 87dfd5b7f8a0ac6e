//! A service's capture: started off the runtime, because engines wait for their servers.

use crate::app::services::{self, OpenCapture, Surroundings};
use crate::cli::{CliError, Context, Exit};
use crate::format::entry::Timestamp;
use crate::repo::Repository;

/// What engines need of this run.
pub fn surroundings(context: &Context, repo: &Repository) -> Surroundings {
    surroundings_at(context, repo.world.now())
}

/// The same before a repository is opened.
pub fn surroundings_at(context: &Context, now: Timestamp) -> Surroundings {
    Surroundings {
        cancel: context.cancel.clone(),
        now,
        spool: std::env::temp_dir(),
        runtime: tokio::runtime::Handle::current(),
        user: context.settings.user.clone(),
        settings: context.settings.services.clone(),
        state: context.settings.state.value.clone(),
    }
}

/// A password in an address is one on a command line or in a file that many may read.
pub fn refuse_password(address: &str) -> Result<(), CliError> {
    if !services::holds_password(address) {
        return Ok(());
    }
    let shown = services::shown(address);
    Err(CliError::usage(format!("the address of {shown} holds a password, and others can read it there"))
        .hint("give it by ?password-file=FILE, or in PGPASSWORD, PGPASSFILE, MYSQL_PWD, INFLUX_PASSWORD or REDISCLI_AUTH; a token by \
               ?token-file=FILE or in INFLUX_TOKEN"))
}

/// Starts the capture of the service at `address`.
pub async fn open(address: String, context: &Context, repo: &Repository) -> Result<OpenCapture, CliError> {
    refuse_password(&address)?;
    let around = surroundings(context, repo);
    let opened = tokio::task::spawn_blocking(move || services::capture(&address, &around)).await;
    opened
        .map_err(|_| CliError::new(Exit::Failed, "the capture panicked: this is a bug"))?
        .map_err(Into::into)
}
