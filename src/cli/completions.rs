//! `completions`: a script for the user's shell.

use clap_complete::Shell;

use super::{CliError, Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    // Made in memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "lifeboat", &mut script);
    let mut out = context.out();
    out.bytes(&script)?;
    out.finish()?;
    Ok(Exit::Ok)
}
