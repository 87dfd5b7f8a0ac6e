//! The restore itself: components that do not need each other side by side, the others after what they need.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::backup::service::surroundings;
use super::super::restore::{Args, exit_of, warn_all};
use super::super::text::{count, iso_time, span};
use super::super::{CliError, Context, Exit};
use super::{Part, Stack, To};
use crate::app::services;
use crate::base::byte_size;
use crate::base::order::{Ended, side_by_side};
use crate::base::progress::Counters;
use crate::engine::restore::outcome::Problems;
use crate::engine::restore::restore;
use crate::engine::restore::service::{to_service, waiting};

/// Components restored at once at most: each has threads and connections of its own.
const WIDTH: usize = 4;

/// What a component's restore came to.
struct Back {
    exit: Exit,
    bytes: u64,
    proven: Vec<String>,
    warnings: Vec<String>,
    not_done: Vec<String>,
    /// Paths of files that are not as they should be, by what is wrong.
    problems: Vec<(&'static str, Problems)>,
    error: Option<CliError>,
}

impl Back {
    fn failed(error: CliError) -> Self {
        Self {
            exit: error.exit,
            bytes: 0,
            proven: Vec::new(),
            warnings: Vec::new(),
            not_done: Vec::new(),
            problems: Vec::new(),
            error: Some(error),
        }
    }

    /// Whether only an emptied service takes it.
    fn wants_flush(&self) -> bool {
        let hint = self.error.as_ref().and_then(|error| error.hint.as_ref());
        hint.is_some_and(|hint| hint.contains("--flush-first"))
    }

    /// Whether what needs it may begin: its data is there.
    fn is_there(&self) -> bool {
        matches!(self.exit, Exit::Ok | Exit::Partial)
    }
}

/// Restores everything, and says what came of it and how to go on.
pub fn run(stack: &Stack<'_>, args: &Args, context: &Context) -> Result<Exit, CliError> {
    let (counters, display) = context.progress();
    let runtime = tokio::runtime::Handle::current();
    let one = |name: &str| {
        let Some(part) = stack.parts.iter().find(|part| part.name == name) else {
            return Back::failed(CliError::new(Exit::Failed, "an unknown component: this is a bug"));
        };
        let restored = runtime.block_on(restore_part(part, args, &counters, context));
        restored.unwrap_or_else(Back::failed)
    };
    let ended = waiting(|| side_by_side(&stack.needs, WIDTH, &context.cancel, one, Back::is_there));
    drop(display);

    let (mut exits, mut rows, mut left) = (Vec::new(), Vec::new(), BTreeSet::new());
    for part in &stack.parts {
        let Some(ended) = ended.get(&part.name) else { continue };
        match ended {
            Ended::Ran { value, began, ended } => {
                exits.push(value.exit);
                if !value.is_there() {
                    left.insert(part.name.clone());
                }
                tell(part, value, *ended - *began, context)?;
                rows.push(row(part, value, *began, *ended));
            }
            Ended::Left { because } => {
                exits.push(if because.is_some() { Exit::Failed } else { Exit::Interrupted });
                left.insert(part.name.clone());
                let why = match because {
                    Some(needed) => format!("not begun: it needs {needed}"),
                    None => "not begun: interrupted".to_owned(),
                };
                if !context.json {
                    context.warn(format_args!("{}: {why}", part.name));
                }
                rows.push(json!({ "component": part.name, "state": "left", "because": because }));
            }
        }
    }
    let exit = Exit::worst_of(exits);
    // The same again would fail the same way.
    let full: Vec<&str> = ended
        .iter()
        .filter(|(_, ended)| matches!(ended, Ended::Ran { value, .. } if value.wants_flush()))
        .map(|(name, _)| name.as_str())
        .collect();
    let next = (!left.is_empty()).then(|| go_on(stack, &left, args, !full.is_empty(), context.yes));
    if context.json {
        context.json(&json!({
            "stack": stack.name, "at": iso_time(stack.at),
            "skew_seconds": stack.skew().map(|skew| skew.as_secs_f64()),
            "components": rows, "left": left, "next": next,
        }))?;
        return Ok(exit);
    }
    match next {
        Some(next) => {
            let names: Vec<&str> = left.iter().map(String::as_str).collect();
            context.warn(format_args!("not restored: {}", names.join(", ")));
            context.warn(format_args!("mend what is named above, then go on with: {next}"));
            if !full.is_empty() {
                context.warn(format_args!(
                    "--flush-first in it empties {} first; without it, what is there and in the snapshot too is in the way",
                    full.join(", ")
                ));
            }
        }
        None => {
            let longest = ended.values().filter_map(|ended| match ended {
                Ended::Ran { ended, .. } => Some(*ended),
                Ended::Left { .. } => None,
            });
            let all = longest.max().unwrap_or_default();
            context.tell(format_args!("stack {} is back, after {}", stack.name, span(all)))?;
            for (name, why) in &stack.without {
                context.note(format_args!("{name}: {why}"));
            }
        }
    }
    Ok(exit)
}

async fn restore_part(
    part: &Part<'_>,
    args: &Args,
    counters: &Arc<Counters>,
    context: &Context,
) -> Result<Back, CliError> {
    match &part.to {
        To::Folder(folder) => {
            let options = args.options_for(folder)?;
            let cancel = &context.cancel;
            let outcome =
                restore(part.repo, &part.selected, &options, None, counters.clone(), cancel).await?;
            let proven = vec![format!(
                "{} files, {}{}",
                count(outcome.files),
                byte_size::human(outcome.bytes),
                if options.verify { "; read back and found right" } else { "" }
            )];
            Ok(Back {
                exit: exit_of(&outcome),
                bytes: outcome.bytes,
                proven,
                warnings: Vec::new(),
                not_done: Vec::new(),
                problems: vec![
                    ("not restored, stored data is damaged", outcome.damaged),
                    ("not restored", outcome.failed),
                    ("restored without all attributes", outcome.attributes),
                ],
                error: None,
            })
        }
        To::Service(address) => {
            let (owned, flags) = (address.clone(), args.service.flags());
            let around = surroundings(context, part.repo);
            let opened = tokio::task::spawn_blocking(move || services::target(&owned, flags, &around)).await;
            let target =
                opened.map_err(|_| CliError::new(Exit::Failed, "the target panicked: this is a bug"))??;
            let given =
                to_service(part.repo, &part.selected, target, counters.clone(), &context.cancel).await?;
            let returned = given.returned;
            Ok(Back {
                exit: if returned.not_done.is_empty() { Exit::Ok } else { Exit::Partial },
                bytes: given.bytes,
                proven: returned.proven,
                warnings: returned.warnings,
                not_done: returned.not_done,
                problems: Vec::new(),
                error: None,
            })
        }
    }
}

fn tell(part: &Part<'_>, back: &Back, took: Duration, context: &Context) -> Result<(), CliError> {
    if let Some(error) = &back.error {
        let named = CliError { exit: error.exit, causes: error.causes.clone(), hint: error.hint.clone() };
        named.report(&format!("restore {}", part.name), context.json);
        return Ok(());
    }
    if context.json {
        return Ok(());
    }
    context.tell(format_args!(
        "{}: {} into {} in {}",
        part.name,
        byte_size::human(back.bytes),
        part.to.shown(),
        span(took)
    ))?;
    for line in &back.proven {
        context.tell(format_args!("  proven  {line}"))?;
    }
    for (what, problems) in &back.problems {
        warn_all(context, &format!("{}: {what}", part.name), problems);
    }
    for warning in &back.warnings {
        context.warn(format_args!("{}: {warning}", part.name));
    }
    for what in &back.not_done {
        context.warn(format_args!("{}: not done: {what}", part.name));
    }
    Ok(())
}

fn row(part: &Part<'_>, back: &Back, began: Duration, ended: Duration) -> serde_json::Value {
    let problems: u64 = back.problems.iter().map(|(_, problems)| problems.count).sum();
    json!({
        "component": part.name,
        "state": if back.is_there() { "restored" } else { "failed" },
        "snapshot": part.selected.snapshot.id.hex(),
        "consistent_at": iso_time(part.selected.snapshot.summary.consistent),
        "to": part.to.shown(), "bytes": back.bytes,
        "began_seconds": began.as_secs_f64(), "ended_seconds": ended.as_secs_f64(),
        "proven": back.proven, "warnings": back.warnings, "not_done": back.not_done,
        "problems": problems, "error": back.error.as_ref().map(|error| error.causes.join(": ")),
        "exit_code": back.exit.code(),
    })
}

/// The command that goes on, with the same set: components that others of the list need stand for those.
/// `flush`: a service has to be emptied first.
fn go_on(stack: &Stack<'_>, left: &BTreeSet<String>, args: &Args, flush: bool, yes: bool) -> String {
    let waits = |name: &&String| stack.needs.get(*name).is_some_and(|needs| !needs.is_disjoint(left));
    let first: Vec<&str> = left.iter().filter(|name| !waits(name)).map(String::as_str).collect();
    let quote = |word: &str| match word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./,=:@".contains(c)) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let mut words: Vec<String> = ["lifeboat", "restore", "--stack", &stack.name, "--at"].map(quote).to_vec();
    words.push(iso_time(stack.at));
    words.extend(["--from".to_owned(), quote(&first.join(","))]);
    words.extend(args.stack.again().iter().map(|word| quote(word)));
    words.extend(args.snapshots.again().iter().map(|word| quote(word)));
    words.extend(args.service.again(flush).iter().map(|word| quote(word)));
    words.extend(args.confirm.iter().flat_map(|word| ["--confirm".to_owned(), quote(word)]));
    words.extend(yes.then(|| "--yes".to_owned()));
    words.join(" ")
}
