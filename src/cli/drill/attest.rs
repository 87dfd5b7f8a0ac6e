//! `drill attest`: offline, with a file and a public key.

use std::path::PathBuf;

use super::super::{CliError, Context, Exit};
use crate::drill::evidence::SignedEvidence;
use crate::drill::report::short_time;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The evidence, as `drill show RUN --json FILE` wrote it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The signer's public key: 64 hex digits, or a file that holds them
    #[arg(long, value_name = "KEY")]
    pubkey: String,
}

pub fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let read = |path: &std::path::Path| {
        let read = std::fs::read(path);
        read.map_err(|error| CliError::usage(format!("cannot read {}: {error}", path.display())))
    };
    let key = match args.pubkey.len() == 64 && args.pubkey.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => args.pubkey.clone(),
        false => String::from_utf8_lossy(&read(args.pubkey.as_ref())?).trim().to_owned(),
    };
    let file = args.file.display().to_string();
    let signed =
        SignedEvidence::parse(&read(&args.file)?).map_err(|error| CliError::from(error).within(&file))?;
    // Evidence that was changed is damage, whatever the drill said.
    signed.attest(&key).map_err(|error| CliError::from_chain(Exit::Damage, &error).within(&file))?;
    let evidence = &signed.evidence;
    if context.json {
        context.json(&serde_json::json!({
            "attested": true, "drill": evidence.name, "number": evidence.number, "verdict": evidence.verdict,
        }))?;
    } else {
        context.print(format_args!(
            "{file}: {} #{} of {} on {} is what was signed: {}",
            evidence.name,
            evidence.number,
            short_time(&evidence.started_at),
            evidence.machine.host,
            evidence.verdict.words()
        ))?;
    }
    Ok(Exit::Ok)
}
