//! `verify`: is everything there, whole, and made by who may make it?

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::text::{count, plural, table};
use super::{CliError, Context, Exit};
use crate::app;
use crate::base::byte_size;
use crate::engine::verify::keyless::verify_keyless;
use crate::engine::verify::outcome::{Cost, State, VerifyOutcome};
use crate::engine::verify::subset::Subset;
use crate::engine::verify::{VerifyOptions, verify};
use crate::repo::Repository;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read every pack: hashes, decrypts and decompresses all data
    #[arg(long)]
    read_data: bool,
    /// Read part of the packs: `5%` or `2GiB` at random, `2/7` the second of seven parts
    #[arg(long, value_name = "PART", conflicts_with = "read_data", value_parser = subset)]
    read_data_subset: Option<Subset>,
    /// Without a password: only that every object's bytes are the ones it was stored with
    #[arg(long)]
    keyless: bool,
}

fn subset(text: &str) -> Result<Subset, String> {
    Subset::parse(text).ok_or_else(|| "write a share (5%), a part (2/7) or a size (2GiB)".to_owned())
}

#[derive(Serialize)]
struct Answer<'a> {
    /// `ok`, `damaged`, `newer`.
    result: &'static str,
    #[serde(flatten)]
    outcome: &'a VerifyOutcome,
    /// What to do about it.
    advice: Vec<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let read_data = if args.read_data { Some(Subset::All) } else { args.read_data_subset };
    let outcome = if args.keyless {
        let store = app::open_store(&context.settings, context.location()?)?;
        let (progress, _display) = context.progress();
        let world = app::world();
        verify_keyless(store, read_data, world.random.as_ref(), progress, &context.cancel).await?
    } else {
        let repo = context.open_to_verify().await?;
        let (progress, _display) = context.progress();
        let options = VerifyOptions { read_data, scratch: Some(scratch(&repo)), ..VerifyOptions::default() };
        verify(&repo, &options, progress, &context.cancel).await?
    };
    let (exit, result) = judge(&outcome);
    if context.json {
        context.json(&Answer { result, outcome: &outcome, advice: advice(&outcome) })?;
    } else {
        let text = text(&outcome, context.verbose > 0);
        if exit == Exit::Ok { context.tell(text)? } else { context.print(text)? }
    }
    Ok(exit)
}

/// Where a large temporary file may lie.
pub(super) fn scratch(repo: &Repository) -> PathBuf {
    repo.local.folder().unwrap_or(Path::new("/var/tmp")).to_path_buf()
}

/// Damage outranks a newer format, which is no damage but was not judged either.
pub(super) fn judge(outcome: &VerifyOutcome) -> (Exit, &'static str) {
    if outcome.is_damaged() {
        (Exit::Damage, "damaged")
    } else if outcome.newer > 0 {
        (Exit::Failed, "newer")
    } else {
        (Exit::Ok, "ok")
    }
}

/// What is wrong, a line each.
pub(super) fn findings(outcome: &VerifyOutcome) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in &outcome.findings {
        let state = match finding.state {
            State::Damaged => "damaged",
            State::Incomplete => "incomplete",
            State::Newer => "newer",
        };
        lines.push(format!("{state}: {} {}", finding.object, finding.what));
    }
    let shown = outcome.findings.len() as u64;
    let all = outcome.damaged + outcome.incomplete + outcome.newer;
    if all > shown {
        lines.push(format!("… and {} more findings", count(all - shown)));
    }
    lines
}

/// What to do next, by what is damaged.
pub(super) fn advice(outcome: &VerifyOutcome) -> Vec<String> {
    let damaged = |folders: &[&str]| {
        let mut found = outcome.findings.iter().filter(|finding| finding.state == State::Damaged);
        found.any(|finding| {
            folders.iter().any(|folder| finding.object.split_once('/').is_some_and(|(of, _)| of == *folder))
        })
    };
    let mut lines = Vec::new();
    if damaged(&["data", "meta"]) {
        lines.push(
            "next: `lifeboat repair packs` makes damaged packs whole from parity, or saves what is sound in them (with \
             --from REPLICA also what is lost here)"
                .to_owned(),
        );
    }
    if !outcome.costs.is_empty() {
        lines.push("next: a new backup of the same content then stores again what is lost, and heals these snapshots".to_owned());
    }
    if damaged(&["config", "roster", "keyring", "slots"]) {
        lines.push("next: `lifeboat --kit FILE repair keys` puts back what a recovery kit holds".to_owned());
    }
    if damaged(&["parity"]) {
        lines.push("next: `lifeboat parity --check` makes damaged parity anew".to_owned());
    }
    if damaged(&["index"]) {
        lines.push("next: `lifeboat repair index` makes the index anew".to_owned());
    }
    lines
}

fn text(outcome: &VerifyOutcome, verbose: bool) -> String {
    let mut lines = findings(outcome);
    lines.extend(costs(&outcome.costs));
    lines.extend(advice(outcome));
    if verbose {
        lines.extend(outcome.notes.iter().map(|note| format!("note: {note}")));
    }
    lines.extend(outcome.not_tested.iter().map(|what| format!("not tested: {what}")));
    let checked = &outcome.checked;
    let mut rows = Vec::new();
    for (name, number) in [
        ("snapshots", checked.snapshots),
        ("small objects", checked.objects),
        ("packs", checked.packs),
        ("parity objects", checked.parity),
        ("folder pages", checked.pages),
        ("references", checked.references),
        ("packs read", checked.packs_read),
        ("blocks opened", checked.blocks_read),
        ("chunks hashed", checked.chunks_read),
    ] {
        if number > 0 {
            rows.push(vec![name.to_owned(), count(number)]);
        }
    }
    if checked.bytes_read > 0 {
        rows.push(vec!["data read".to_owned(), byte_size::human(checked.bytes_read).to_string()]);
    }
    lines.push(table(&rows, &[1]).trim_end().to_owned());
    lines.push(match judge(outcome).0 {
        Exit::Damage => format!("{} objects are damaged or missing", count(outcome.damaged)),
        Exit::Failed => "parts were written by a newer lifeboat and could not be judged".to_owned(),
        _ => "no damage found in what was tested".to_owned(),
    });
    lines.join("\n")
}

/// What is lost, per snapshot.
pub(super) fn costs(costs: &[Cost]) -> Vec<String> {
    let mut lines = Vec::new();
    for cost in costs {
        let short: String = cost.snapshot.chars().take(super::snapshots::SHORT_ID_CHARS).collect();
        let state = if cost.confirmed { "" } else { " (never confirmed)" };
        let mut what = vec![];
        if cost.files > 0 {
            what.push(plural(cost.files, "file"));
        }
        if cost.unlisted > 0 {
            what.push(format!("{} entries that cannot be listed", count(cost.unlisted)));
        }
        lines.push(format!("lost in snapshot {short} of {}{state}: {}", cost.job, what.join(" and ")));
        lines.extend(cost.paths.iter().map(|path| format!("  {}", super::text::shown(path.as_bytes()))));
        let hidden = cost.files - cost.paths.len() as u64;
        if hidden > 0 {
            lines.push(format!("  … and {} more", count(hidden)));
        }
    }
    lines
}
