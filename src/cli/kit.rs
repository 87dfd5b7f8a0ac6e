//! `kit`: the recovery kit as a text file.

use std::path::PathBuf;

use super::{CliError, Context, Exit};
use crate::engine;
use crate::repo::kit::Kit;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write the kit to a new file: print it, and keep it where the backups are not
    Export {
        file: PathBuf,
        /// Further address to put into it, of a replica (may be repeated)
        #[arg(long = "replica", value_name = "PATH|URL")]
        replicas: Vec<String>,
    },
    /// Check a kit and say what is in it
    Show { file: PathBuf },
}

fn tell(kit: &Kit, context: &Context) -> Result<(), CliError> {
    let objects: Vec<&String> = kit.objects.keys().collect();
    if context.json {
        return context.json(&serde_json::json!({
            "repository_id": kit.repo.hex(),
            "made_at": kit.made,
            "addresses": kit.addresses,
            "objects": objects,
        }));
    }
    let addresses = kit.addresses.join("\n    or ");
    let names = objects.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let (repo, made) = (kit.repo, &kit.made);
    context.print(format_args!(
        "recovery kit of repository {repo}\n    at {addresses}\n  made {made}\n  holds {names}"
    ))
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.what {
        What::Show { file } => tell(&engine::kit::load(&file)?, context)?,
        What::Export { file, replicas } => {
            let repo = context.open().await?;
            let kit = engine::kit::export(&repo, &file, &replicas).await?;
            if context.json || !context.quiet {
                tell(&kit, context)?;
            }
            if !context.json {
                context.note(
                    "the owner's password is not in it; make a new kit after every `key add`, `key rotate` and \
                     `key revoke`",
                );
            }
        }
    }
    Ok(Exit::Ok)
}
