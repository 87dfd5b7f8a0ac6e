//! `job accept`: what is gone from a job is meant to be gone.

use super::{CliError, Context, Exit};
use crate::app::acceptances::{self, Acceptance};
use crate::repo::snapshots::Filter;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Let the next run succeed although something of the last one is gone or empty
    Accept(Accept),
}

#[derive(Debug, clap::Args)]
struct Accept {
    /// The job, as `snapshots` shows it
    #[arg(value_name = "JOB")]
    job: String,
    /// Why it is meant; kept in the next snapshot
    #[arg(long, value_name = "TEXT", value_parser = super::text::name)]
    reason: String,
    /// Machine the job is filed under [default: this machine's name]
    #[arg(long, value_name = "NAME", value_parser = super::text::name)]
    host: Option<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let Action::Accept(Accept { job, reason, host }) = args.action;
    let host = host.unwrap_or_else(|| context.settings.hostname.clone());
    let repo = context.open().await?;
    let list = context.until_cancelled(async { Ok(repo.snapshots().await?) }).await?;
    let filter = Filter { jobs: vec![job.clone()], hosts: vec![host.clone()], ..Filter::default() };
    if list.matching(&filter).next().is_none() {
        let mut jobs: Vec<&str> = list.snapshots.iter().map(|found| found.summary.job.as_str()).collect();
        jobs.sort_unstable();
        jobs.dedup();
        let hint = match jobs.is_empty() {
            true => "there is no snapshot yet".into(),
            false => format!("there are {}", jobs.join(", ")),
        };
        return Err(CliError::usage(format!("no snapshot of job {job:?} on {host}")).hint(hint));
    }
    let at = repo.world.clock.now().as_second();
    let user = context.settings.user.clone();
    let acceptance = Acceptance { job, host, reason, user, at };
    acceptances::remember(&context.settings, &repo.access.repo, &acceptance)?;
    if context.json {
        context.json(&acceptance)?;
    } else if !context.quiet {
        let Acceptance { job, host, .. } = &acceptance;
        context.print(format_args!(
            "the next run of {job} on {host} may be without what is gone; its snapshot will say why"
        ))?;
    }
    Ok(Exit::Ok)
}
