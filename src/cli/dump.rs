//! `dump`: a file of a snapshot to stdout, or a folder as a tar stream.

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::filter::FilterArgs;
use super::paths::{open_to_read, select};
use super::text::plural;
use super::{CliError, Context, Exit, every};
use crate::base::whole_file::{self, WholeFile};
use crate::engine::EngineError;
use crate::engine::dump::{DumpOptions, dump_all};
use crate::repo::snapshots::Filter;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// latest, an id, JOB@latest…, and :PATH of a file or folder; '*@latest' for the files of every job
    #[arg(value_name = "SNAP[:PATH]")]
    what: OsString,
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    snapshots: FilterArgs,
}

fn cannot(operation: &str, path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(Exit::Failed, format!("cannot {operation} {}: {error}", path.display()))
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(CliError::usage("stdout is a terminal").hint("redirect it, or write to a file with -o"));
    }
    let repo = open_to_read(context).await?;
    let filter = Filter::from(args.snapshots);
    let (selected, exit) = match every::is_every(&args.what) {
        true => {
            let every = every::select(context, &repo, &args.what, &filter).await?;
            (every.files, every.exit)
        }
        false => (vec![select(context, &repo, &args.what, &filter).await?], Exit::Ok),
    };
    // Not the standard stdout: what leaves here is large already, a buffer would only copy it.
    let (mut to, output) = match &args.output {
        Some(path) => {
            let output = WholeFile::create(path, whole_file::ORDINARY)
                .map_err(|error| cannot("create", path, &error))?;
            (output.file().map_err(|error| cannot("create", path, &error))?, Some((output, path)))
        }
        None => {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned().map(File::from);
            (stdout.map_err(CliError::stdout)?, None)
        }
    };
    let (counters, display) = context.progress();
    let result =
        dump_all(&repo, &selected, &DumpOptions::default(), &mut to, counters, &context.cancel).await;
    drop(display);
    // On an error what was written goes away with `output`.
    match result {
        Ok(dumped) => {
            if let Some((output, path)) = output {
                output.keep().map_err(|error| cannot("write", path, &error))?;
            }
            if dumped.left_out > 0 {
                let sockets = plural(dumped.left_out, "socket");
                context.note(format_args!("left out: {sockets}, since tar has no such thing"));
            }
            Ok(exit)
        }
        // Whoever reads has seen enough.
        Err(EngineError::Local { cause, .. })
            if args.output.is_none() && cause.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            Err(CliError::stdout(cause))
        }
        Err(EngineError::Local { operation: "write to", cause, .. }) => match &args.output {
            Some(path) => Err(cannot("write", path, &cause)),
            None => Err(CliError::stdout(cause)),
        },
        Err(error) => Err(error.into()),
    }
}
