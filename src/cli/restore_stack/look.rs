//! What is at the places that a stack goes to: looked at before anything is fetched.

use super::super::restore::Args;
use super::super::restore_service::{is_full, meet};
use super::super::text::count;
use super::super::{CliError, Context, Exit};
use super::{Part, Stack, To};
use crate::engine::restore::plan;
use crate::engine::restore::service::Looked;

/// What a component meets.
pub enum There {
    Folder {
        bytes: u64,
        new_files: u64,
        existing_files: u64,
        differing_files: u64,
    },
    /// Nothing that would be lost.
    Free {
        bytes: u64,
    },
    /// Something that `--force` says may be replaced.
    Replaced {
        bytes: u64,
        replaced: Vec<String>,
    },
    /// Something that stays beside what comes.
    Joined {
        bytes: u64,
        kept: Vec<String>,
    },
    /// It cannot be looked at yet: what it needs is restored first.
    Later {
        why: String,
    },
    Refused(CliError),
}

impl There {
    pub fn refusal(&self) -> Option<&CliError> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }

    /// Whether somebody must agree before it is written to.
    pub fn overwrites(&self) -> bool {
        matches!(self, Self::Replaced { .. } | Self::Joined { .. })
            || matches!(self, Self::Folder { existing_files, .. } if *existing_files > 0)
    }

    pub fn bytes(&self, part: &Part<'_>) -> u64 {
        match self {
            Self::Folder { bytes, .. }
            | Self::Free { bytes }
            | Self::Replaced { bytes, .. }
            | Self::Joined { bytes, .. } => *bytes,
            Self::Later { .. } | Self::Refused(_) => part.selected.snapshot.summary.statistics.total_bytes,
        }
    }

    /// What becomes of what is there, one line each.
    pub fn details(&self) -> Vec<String> {
        match self {
            Self::Replaced { replaced, .. } => {
                replaced.iter().map(|what| format!("replaced: {what}")).collect()
            }
            Self::Joined { kept, .. } => kept.iter().map(|what| format!("stays: {what}")).collect(),
            _ => Vec::new(),
        }
    }

    pub fn words(&self) -> String {
        match self {
            Self::Folder { existing_files: 0, .. } => "nothing of it".into(),
            Self::Folder { existing_files, differing_files, new_files, .. } => format!(
                "{} of {} files, {} differ",
                count(*existing_files),
                count(existing_files + new_files),
                count(*differing_files)
            ),
            Self::Free { .. } => "nothing".into(),
            Self::Replaced { .. } => "data, to be replaced".into(),
            Self::Joined { .. } => "data, which stays".into(),
            Self::Later { why } => format!("not known yet: {why}"),
            Self::Refused(_) => "refused, see below".into(),
        }
    }
}

/// Looks at every place.
pub async fn all(stack: &Stack<'_>, args: &Args, context: &Context) -> Result<Vec<There>, CliError> {
    let mut found = Vec::new();
    for part in &stack.parts {
        context.cancel.check()?;
        let there = match &part.to {
            To::Folder(_) => folder(part, args, context).await,
            To::Service(address) => service(part, address, args, context).await,
        };
        let waits = stack.needs.get(&part.name).is_some_and(|needs| {
            needs.iter().any(|needed| stack.parts.iter().any(|part| part.name == *needed))
        });
        found.push(match there {
            Ok(there) => there,
            Err(error) if error.exit == Exit::Interrupted => return Err(error),
            // Its service may be what another component brings.
            Err(error) if waits && !is_full(&error) => {
                There::Later { why: error.causes.join(": ").lines().next().unwrap_or_default().to_owned() }
            }
            Err(error) => There::Refused(error),
        });
    }
    Ok(found)
}

async fn folder(part: &Part<'_>, args: &Args, context: &Context) -> Result<There, CliError> {
    let To::Folder(target) = &part.to else { return Ok(There::Free { bytes: 0 }) };
    let options = args.options_for(target)?;
    let (counters, display) = context.progress();
    let made = plan(part.repo, &part.selected, &options, counters.as_ref(), &context.cancel).await;
    drop(display);
    let made = made?;
    Ok(There::Folder {
        bytes: made.bytes,
        new_files: made.new_files,
        existing_files: made.existing_files,
        differing_files: made.differing_files,
    })
}

async fn service(part: &Part<'_>, address: &str, args: &Args, context: &Context) -> Result<There, CliError> {
    let flags = args.service.flags();
    let (Looked { bytes, .. }, met) = meet(address, &flags, part.repo, &part.selected, context).await?;
    Ok(match (met.replaced.is_empty(), met.kept.is_empty()) {
        (true, true) => There::Free { bytes },
        (true, false) => There::Joined { bytes, kept: met.kept },
        (false, _) => There::Replaced { bytes, replaced: met.replaced },
    })
}
