//! `dump`: a file of a snapshot to stdout, or a folder as a tar stream.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::filter::FilterArgs;
use super::paths::{open_to_read, select};
use super::text::count;
use super::{CliError, Context, Exit, every};
use crate::engine::EngineError;
use crate::engine::dump::{DumpOptions, dump_all};
use crate::repo::snapshots::Filter;

/// What a new file's mode is, less the umask.
const NEW_MODE: u32 = 0o666;

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

/// The file of `-o`. It appears under its name when it is whole, and what was there stays until then. A device or pipe
/// is written to as it is.
enum Output {
    Beside(NamedTempFile, PathBuf),
    Device(File),
}

impl Output {
    fn create(path: &Path) -> std::io::Result<Self> {
        // Through a link its target is written, as a shell would.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let existing = path.metadata().ok();
        if existing.as_ref().is_some_and(|existing| !existing.is_file()) {
            return Ok(Self::Device(File::options().write(true).open(path)?));
        }
        let mode = existing.map_or(NEW_MODE, |existing| existing.permissions().mode() & 0o777);
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".lifeboat-dump-").permissions(Permissions::from_mode(mode));
        Ok(Self::Beside(builder.tempfile_in(folder)?, path))
    }

    fn file(&self) -> std::io::Result<File> {
        match self {
            Self::Beside(file, _) => file.as_file().try_clone(),
            Self::Device(file) => file.try_clone(),
        }
    }

    /// All was written well.
    fn keep(self) -> std::io::Result<()> {
        match self {
            Self::Beside(file, path) => {
                file.as_file().sync_all()?;
                file.persist(path).map(drop).map_err(|error| error.error)
            }
            Self::Device(_) => Ok(()),
        }
    }
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
            let output = Output::create(path).map_err(|error| cannot("create", path, &error))?;
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
                context.note(format_args!(
                    "{} sockets are left out: tar has no such thing",
                    count(dumped.left_out)
                ));
            }
            Ok(exit)
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
