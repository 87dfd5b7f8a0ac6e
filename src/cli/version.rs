//! `version`: what this build is.

use super::{CliError, Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, context: &Context) -> Result<Exit, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    let format = crate::format::header::VERSION;
    let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    if context.json {
        let answer = serde_json::json!({ "version": version, "format": format, "platform": platform });
        context.json(&answer)?;
    } else {
        context.print(format_args!("lifeboat {version} ({platform}), repository format {format}"))?;
    }
    Ok(Exit::Ok)
}
