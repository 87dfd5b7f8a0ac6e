//! Evidence on its way into the repository: a drill's place on this machine while it runs, its place in the chain when it
//! ended, and what earlier runs left that nobody filed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ed25519_dalek::SigningKey;

use super::super::kit::address_of;
use super::super::{CliError, Context, Exit};
use crate::app::drills;
use crate::app::runbooks::Surroundings;
use crate::base::cancel::Cancel;
use crate::base::secret::Secret;
use crate::drill::evidence::{Evidence, SignedEvidence};
use crate::drill::history::{self, Kept};
use crate::drill::redact::redact;
use crate::drill::underway::{Record, UnderWay, left};
use crate::drill::{DrillError, Verdict};
use crate::engine::backup::BackupOptions;
use crate::repo::Repository;
use crate::runbook::redact::Redactor;
use crate::seal::block::Compression;
use crate::seal::slot::Unlock;

const UNPLACED: &str = "this run is not kept (--json FILE writes it); `lifeboat verify --read-data` says what is \
                        damaged, and under another name the drill begins a history of its own";
const LATER: &str =
    "the next drill command on this machine keeps it; --no-keep leaves it out of the repository";

/// Where a drill's evidence is kept, the same however the address was written; empty: nowhere.
fn home(context: &Context) -> Result<String, CliError> {
    match &context.settings.repository {
        Some(found) => address_of(&found.value),
        None => Ok(String::new()),
    }
}

/// Takes the drill's place on this machine. From now on it is one that was begun.
///
/// # Errors
/// Another run of it is under way.
pub fn begin(evidence: Evidence, keeps: bool, context: &Context) -> Result<UnderWay, CliError> {
    let repository = home(context)?;
    let now = jiff::Timestamp::now().to_string();
    let evidence = Evidence { started_at: now, repository: repository.clone(), ..evidence };
    let folder = drills::folder(&context.settings)?;
    Ok(UnderWay::begin(&folder, Record::new(repository, keeps, evidence))?)
}

/// Whether a drill has done anything yet that an error would hide.
#[derive(Clone, Default)]
pub struct Started(Arc<AtomicBool>);

impl Started {
    pub fn set(&self, has_started: bool) {
        self.0.store(has_started, Ordering::Relaxed);
    }

    /// How a drill ended that has no evidence.
    pub fn ended<'e>(&self, error: &'e CliError) -> Ended<'e> {
        if self.0.load(Ordering::Relaxed) { Ended::Broken(error) } else { Ended::Refused(error) }
    }
}

/// How a drill ended.
#[allow(clippy::large_enum_variant, reason = "there is one value a drill")]
pub enum Ended<'e> {
    /// With evidence; it is told here if it is to be kept later.
    Told(Option<Evidence>),
    /// Nothing was started: there is nothing to tell, unless somebody interrupted it.
    Refused(&'e CliError),
    /// Something was, and the error is all that is known of it.
    Broken(&'e CliError),
}

/// What is left to tell of a drill that ended so.
pub fn close(under_way: UnderWay, ended: Ended<'_>, context: &Context) {
    let closed = match ended {
        Ended::Told(None) => under_way.end(),
        Ended::Told(Some(later)) => under_way.leave(later),
        // Whatever it stumbled over, the interruption was the reason.
        Ended::Refused(error) | Ended::Broken(error)
            if error.exit == Exit::Interrupted
                || (error.exit == Exit::Failed && context.cancel.is_cancelled()) =>
        {
            under_way.interrupted()
        }
        Ended::Refused(_) => under_way.end(),
        Ended::Broken(error) => {
            let reason = Some(error.causes.join(": "));
            let begun = under_way.record().evidence.clone();
            let mut evidence = Evidence { verdict: Verdict::CouldNotRun, reason, ..begun };
            redact(&mut evidence, &redactor(context, None));
            under_way.leave(evidence)
        }
    };
    if let Err(error) = closed {
        context.warn(error);
    }
}

/// A record that is signed.
pub struct Filed {
    pub signed: SignedEvidence,
    /// The runs before it.
    pub before: Vec<Evidence>,
    pub kept: Result<(), CliError>,
    /// For the next command to keep, because this one could not.
    pub later: Option<Evidence>,
}

/// Puts evidence into its chain behind what others left there, signs and keeps it.
///
/// # Errors
/// It cannot be signed.
pub async fn file(
    mut evidence: Evidence,
    repo: Option<&Repository>,
    under_way: &UnderWay,
    key: &SigningKey,
    context: &Context,
) -> Result<Filed, CliError> {
    let Record { keeps, evidence: begun, .. } = under_way.record();
    // It tells a run that is filed from one that is left behind: see `history::is_kept`.
    evidence.started_at.clone_from(&begun.started_at);
    redact(&mut evidence, &redactor(context, None));
    if let Some(repo) = repo {
        settle(repo, context).await;
    }
    let found = evidence.clone();
    let (before, unplaced) = match place(&mut evidence, repo).await {
        Ok(before) => (before, None),
        // Two records with one number would be two histories: one that cannot follow the last is not kept.
        Err(error) => {
            history::unplaced(&mut evidence, &error);
            (Vec::new(), Some(error))
        }
    };
    let signed = evidence.sign(key)?;
    let before = before.into_iter().map(|kept| kept.signed.evidence).collect();
    let is_broken = matches!(unplaced, Some(DrillError::Chain { .. }));
    // Kept first: a report that cannot be written, or a reader that went away, must not cost the evidence.
    let kept = match (unplaced, repo) {
        (Some(error), _) => {
            let hint = if is_broken || !*keeps { UNPLACED } else { LATER };
            Err(CliError::new(Exit::Failed, error.to_string()).hint(hint))
        }
        (None, Some(repo)) if *keeps => {
            // What to do about a drill's evidence says more than what to do about a store.
            let kept = keep(repo, &signed, context).await;
            kept.map_err(|error| CliError { hint: Some(LATER.into()), ..error }.within("keep its evidence"))
        }
        _ => Ok(()),
    };
    let later = (*keeps && !is_broken && (kept.is_err() || repo.is_none())).then_some(found);
    Ok(Filed { signed, before, kept, later })
}

async fn place(evidence: &mut Evidence, repo: Option<&Repository>) -> Result<Vec<Kept>, DrillError> {
    let Some(repo) = repo else { return Ok(Vec::new()) };
    // Looking back is no part of a recovery.
    let before = history::before(repo, &evidence.name, &Cancel::new()).await?;
    history::place(evidence, &before)?;
    Ok(before)
}

/// Files what runs of this repository left on this machine. What cannot be filed is told, and left to the next.
pub async fn settle(repo: &Repository, context: &Context) {
    let found = home(context).and_then(|home| Ok(left(&drills::folder(&context.settings)?, &home)?));
    for left in found.unwrap_or_else(|error| {
        context.warn(error.causes.join(": "));
        Vec::new()
    }) {
        let mut evidence = left.record.evidence.clone();
        let told = format!(
            "drill {} of {}: {}",
            evidence.name,
            evidence.started_at.get(..19).unwrap_or_default().replace('T', " "),
            evidence.reason.as_deref().unwrap_or(evidence.verdict.words())
        );
        if !left.record.keeps {
            context.warn(format_args!("{told}; nothing of it is kept, as it was asked"));
        } else {
            let filing = async {
                if history::is_kept(repo, &evidence).await? {
                    return Ok(false);
                }
                let key = drills::signing_key(&context.settings)?;
                place(&mut evidence, Some(repo)).await?;
                keep(repo, &evidence.sign(&key)?, context).await?;
                Ok::<_, CliError>(true)
            };
            match filing.await {
                // Its process was killed after it was kept, before that was written down.
                Ok(false) => {}
                Ok(true) if left.record.evidence.verdict == Verdict::Interrupted => {
                    context.warn(format_args!("{told}; it is kept as a failed one"))
                }
                Ok(true) => context.note(format_args!("{told}; it is kept now")),
                Err(error) => {
                    context.warn(format_args!("{told}; it cannot be kept: {}", error.causes.join(": ")));
                    continue;
                }
            }
        }
        if let Err(error) = left.filed() {
            context.warn(error);
        }
    }
}

/// Keeps evidence in the repository it speaks of.
async fn keep(repo: &Repository, signed: &SignedEvidence, context: &Context) -> Result<(), CliError> {
    let settings = &context.settings;
    let options = BackupOptions {
        job: String::new(),
        host: settings.hostname.clone(),
        user: settings.user.clone(),
        tags: vec!["drill".into()],
        compression: Compression::Zstd(repo.config.compression_level),
        profile: None,
        time: None,
        dry_run: false,
        force: false,
        threads: 1,
        accepted: None,
    };
    history::keep(repo, signed, options).await?;
    Ok(())
}

/// What must not stand in evidence: secrets of the environment, and what opened the repository.
pub fn redactor(context: &Context, unlock: Option<&Unlock>) -> Redactor {
    let typed = unlock.and_then(|unlock| match unlock {
        Unlock::Passphrase(typed) => Some(Secret::from_bytes(typed.to_vec())),
        Unlock::KeyFile(_) => None,
    });
    Surroundings::of_process().redactor(&context.settings, typed)
}
