//! How a drill ends: its evidence is kept first, then written where it was asked for, then told. What cannot be kept or
//! written is said with the verdict, and whichever is worse is the exit code.

use super::super::text::shown;
use super::super::{CliError, Context, Exit};
use super::args::Args;
use super::exit;
use super::filing::{Ended, Filed, close, file};
use super::text::with_result;
use super::write::{append, pretty, write};
use crate::drill::evidence::{Evidence, SignedEvidence};
use crate::drill::report::{html::html, junit::junit, markdown::markdown};
use crate::drill::underway::UnderWay;
use crate::repo::Repository;

/// A drill that came to its end, however it went.
pub struct Rehearsed<'r> {
    pub evidence: Evidence,
    /// Keeps the evidence; `None`: it is out of reach.
    pub repo: Option<&'r Repository>,
    pub key: ed25519_dalek::SigningKey,
}

/// What became of a drill's evidence.
pub struct Keeping {
    pub kept: Result<(), CliError>,
    /// A later command keeps it.
    pub is_later: bool,
}

/// Puts the evidence into its chain, keeps it, writes it where it was asked for, and tells it.
pub async fn finish(
    rehearsed: Rehearsed<'_>,
    under_way: UnderWay,
    args: &Args,
    context: &Context,
) -> Result<Exit, CliError> {
    let Rehearsed { evidence, repo, key } = rehearsed;
    let Filed { signed, before, kept, later } = file(evidence, repo, &under_way, &key, context).await?;
    let keeping = Keeping { kept, is_later: later.is_some() };
    close(under_way, Ended::Told(later), context);
    let written = write_all(args, &signed, &before);
    Ok(tell(&signed, keeping, written, context))
}

/// Writes the evidence where it was asked for.
pub fn write_all(args: &Args, signed: &SignedEvidence, before: &[Evidence]) -> Result<(), CliError> {
    let evidence = &signed.evidence;
    if let Some(path) = args.json_file() {
        write(path, &pretty(signed)?)?;
    }
    if let Some(path) = &args.junit {
        write(path, &junit(evidence)?)?;
    }
    if let Some(path) = &args.markdown {
        append(path, &markdown(evidence))?;
    }
    if let Some(path) = &args.html {
        write(path, &html(evidence, before))?;
    }
    Ok(())
}

/// Tells a drill, and what of it could not be kept or written. Returns the worst of it all.
pub fn tell(
    signed: &SignedEvidence,
    keeping: Keeping,
    written: Result<(), CliError>,
    context: &Context,
) -> Exit {
    let evidence = &signed.evidence;
    let Keeping { kept, is_later } = keeping;
    let problems: Vec<CliError> =
        [kept.as_ref().err(), written.as_ref().err()].into_iter().flatten().cloned().collect();
    let exits = problems.iter().map(|error| error.exit).chain([exit(evidence.verdict)]);
    let code = Exit::worst_of(exits);
    let told = match (context.json, context.quiet && evidence.verdict.is_passed()) {
        (true, _) => context.json(signed),
        (false, true) => Ok(()),
        (false, false) => {
            let (name, number) = (shown(evidence.name.as_bytes()), evidence.number);
            let (result, next) = match (&kept, is_later) {
                (Err(_), _) => (", NOT KEPT", "its evidence could not be kept".to_owned()),
                (Ok(()), true) => {
                    let why = "its evidence is kept by the next drill command that reaches the repository";
                    (", not kept yet", why.to_owned())
                }
                (Ok(()), false) => ("", format!("lifeboat drill show {name}#{number} --html FILE")),
            };
            let text = with_result(evidence, result);
            context.print(format!("{text}\n→ {next} · exit {}", code.code()))
        }
    };
    for error in problems {
        error.report(&format!("drill {}", shown(evidence.name.as_bytes())), context.json);
    }
    // Whoever closed the pipe had seen enough, and still wants to know how the drill went.
    match told {
        Ok(()) => code,
        Err(error) => Exit::worst_of([error.report("drill", context.json), code]),
    }
}
