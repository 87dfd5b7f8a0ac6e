//! `dump`: a file of a snapshot to stdout, or a folder as a tar stream.

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::filter::FilterArgs;
use super::paths::{open_to_read, select};
use super::text::count;
use super::{CliError, Context, Exit};
use crate::engine::EngineError;
use crate::engine::dump::{DumpOptions, dump};
use crate::repo::snapshots::Filter;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// latest, an id, JOB@latest…, and :PATH of a file or folder
    #[arg(value_name = "SNAP[:PATH]")]
    what: OsString,
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    snapshots: FilterArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(CliError::usage("stdout is a terminal").hint("redirect it, or write to a file with -o"));
    }
    let repo = open_to_read(context).await?;
    let selected = select(context, &repo, &args.what, &Filter::from(args.snapshots)).await?;
    // Not the standard stdout: what leaves here is large already, a buffer would only copy it.
    let mut to = match &args.output {
        Some(path) => File::create(path)
            .map_err(|error| CliError::new(Exit::Failed, format!("create {}: {error}", path.display())))?,
        None => std::io::stdout().as_fd().try_clone_to_owned().map(File::from).map_err(CliError::stdout)?,
    };
    let (counters, display) = context.progress();
    let result = dump(&repo, &selected, &DumpOptions::default(), &mut to, counters, &context.cancel).await;
    drop(display);
    match result {
        Ok(dumped) => {
            if dumped.left_out > 0 {
                context.note(format_args!(
                    "{} sockets are left out: tar has no such thing",
                    count(dumped.left_out)
                ));
            }
            Ok(Exit::Ok)
        }
        // Whoever reads has seen enough.
        Err(EngineError::Local { cause, .. })
            if args.output.is_none() && cause.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            Err(CliError::stdout(cause))
        }
        Err(error) => Err(error.into()),
    }
}
