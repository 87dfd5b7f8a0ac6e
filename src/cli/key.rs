//! `key`: who may open and write, and since when.

use super::new_secret::NewSecretArgs;
use super::text::{iso_time, local_time, shown, table};
use super::{CliError, Context, Exit};
use crate::format::entry::Timestamp;
use crate::format::id::KeyId;
use crate::repo::Repository;
use crate::repo::keys::{self, KeyInfo, KeyList, NewSlot};
use crate::seal::slot::Cost;

/// Hex digits shown of an id.
const SHORT_CHARS: usize = 8;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum NewRole {
    /// Everything; a further password or key file for the same key
    Owner,
    /// Adds and deduplicates, and can read nothing back
    Writer,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List keys with their role, slots and last use
    List,
    /// Add a key, with a new password or key file
    Add {
        #[arg(long, value_enum)]
        role: NewRole,
        /// What to call it [default: this machine's name]
        #[arg(long, value_name = "NAME", value_parser = super::text::name)]
        label: Option<String>,
        /// Deduplicate together with this key or domain, which then trust each other
        #[arg(long, value_name = "KEY|DOMAIN")]
        share_with: Option<String>,
        #[command(flatten)]
        secret: NewSecretArgs,
    },
    /// Remove a slot: a password or key file opens nothing any more. Does not end the key
    Remove {
        /// Its label, or its id from `key list`
        slot: String,
    },
    /// Change this key's password or key file
    Passwd {
        #[command(flatten)]
        secret: NewSecretArgs,
    },
    /// Seal with new keys from now on
    Rotate,
    /// End a key: what it signs from now on is not believed
    Revoke {
        /// Its id, the start of it, or its label
        key: String,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if let What::Passwd { secret } = args.what {
        return passwd(secret, context).await;
    }
    let repo = context.open().await?;
    match args.what {
        What::List => list(&keys::list(&repo).await?, context)?,
        What::Add { role, label, share_with, secret } => {
            if role == NewRole::Owner && share_with.is_some() {
                return Err(CliError::usage("--share-with is for writers: the owner reads every domain"));
            }
            repo.require_owner("add keys")?;
            let label = label.unwrap_or_else(|| context.settings.hostname.clone());
            let unlock = secret.read(&format!("new password for {label}: "))?;
            let new = NewSlot { label, unlock: &unlock, cost: Cost::default() };
            let added = match role {
                NewRole::Owner => keys::add_owner(&repo, &new).await?,
                NewRole::Writer => keys::add_writer(&repo, &new, share_with.as_deref()).await?,
            };
            let text = format!(
                "added {} key {} (domain {}), slot {}",
                added.role, added.key, added.domain, added.slot
            );
            answer(context, &added, &text)?;
        }
        What::Remove { slot } => {
            // Before the question: what is not there needs no consent.
            keys::find_slot(&repo, &slot).await?;
            context.confirm(&format!("remove the slot {slot}"))?;
            let changed = keys::remove(&repo, &slot, &context.password()?).await?;
            let text = format!(
                "removed slot {}; the key itself stays: see `key revoke`",
                changed.removed.join(", ")
            );
            answer(context, &changed, &text)?;
        }
        What::Rotate => {
            let rotated = keys::rotate(&repo).await?;
            let text = format!("new keys in {} domains; make a new recovery kit", rotated.epochs.len());
            answer(context, &rotated, &text)?;
        }
        What::Revoke { key } => revoke(&repo, &key, context).await?,
        What::Passwd { .. } => {}
    }
    Ok(Exit::Ok)
}

fn answer(context: &Context, value: &impl serde::Serialize, text: &str) -> Result<(), CliError> {
    if context.json { context.json(value) } else { context.tell(text) }
}

async fn passwd(secret: NewSecretArgs, context: &Context) -> Result<Exit, CliError> {
    let old = context.password()?;
    let location = context.location()?;
    let repo = crate::app::open_repository(&context.settings, location, &old).await?;
    let new = secret.read(&format!("new password for {location}: "))?;
    let changed = keys::passwd(&repo, &old, &new, Cost::default()).await?;
    answer(context, &changed, "changed; the old one opens nothing any more")?;
    Ok(Exit::Ok)
}

async fn revoke(repo: &Repository, named: &str, context: &Context) -> Result<(), CliError> {
    let list = keys::list(repo).await?;
    let key = find(&list, named)?;
    context.confirm(&format!("revoke the {} key {} ({})", key.role, key.key, key.label))?;
    let revoked = keys::revoke(repo, &key.key).await?;
    let jobs = revoked.jobs.iter().map(|(job, sequence)| {
        format!("\n  {} up to its snapshot number {sequence} stays", shown(job.as_bytes()))
    });
    let text = format!(
        "revoked {} ({}){}\nEnd its storage credential too: whoever has the key still knows the ids of domain {} and \
         can fill the storage.\nMake a new recovery kit.",
        revoked.key,
        shown(revoked.label.as_bytes()),
        jobs.collect::<String>(),
        revoked.domain
    );
    answer(context, &revoked, &text)
}

/// The one key that a label or the start of an id names.
fn find<'l>(list: &'l KeyList, named: &str) -> Result<&'l KeyInfo, CliError> {
    let exact = KeyId::from_hex(named);
    let fits = |key: &&KeyInfo| match exact {
        Some(id) => key.key == id,
        None => key.label == named || (named.len() >= 4 && key.key.hex().starts_with(named)),
    };
    let found: Vec<&KeyInfo> = list.keys.iter().filter(fits).collect();
    match found.as_slice() {
        [key] => Ok(key),
        [] => {
            Err(CliError::usage(format!("no key is called {named:?}")).hint("`lifeboat key list` shows them"))
        }
        _ => Err(CliError::usage(format!("{named:?} names several keys")).hint("give the id")),
    }
}

fn list(list: &KeyList, context: &Context) -> Result<(), CliError> {
    if context.json {
        return context.json(list);
    }
    let head = ["key", "role", "label", "domain", "created", "last snapshot", "snapshots", "opened by"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let at = |seconds: i64| local_time(Timestamp { seconds, nanoseconds: 0 });
    for key in &list.keys {
        let slots = key.slots.iter().map(|slot| {
            let id: String = slot.id.chars().take(SHORT_CHARS).collect();
            format!("{} {id} ({})", slot.kind, shown(slot.label.as_bytes()))
        });
        let opened = slots.collect::<Vec<_>>().join(", ");
        rows.push(vec![
            format!("{}{}", key.key, if key.in_use { " *" } else { "" }),
            format!("{}{}", key.role, if key.revoked { ", revoked" } else { "" }),
            shown(key.label.as_bytes()),
            key.domain.to_string(),
            at(key.created_seconds),
            key.last_snapshot_seconds.map_or("-".to_owned(), at),
            key.snapshots.to_string(),
            if opened.is_empty() { "nothing".to_owned() } else { opened },
        ]);
    }
    context.print(table(&rows, &[3, 6]))?;
    for slot in &list.stray_slots {
        let created = iso_time(Timestamp { seconds: slot.created_seconds, nanoseconds: 0 });
        context.warn(format_args!("slot {} of {created} is of no key on the roster: remove it", slot.id));
    }
    for (slot, why) in &list.damaged_slots {
        context.warn(format_args!("slot {slot} cannot be read: {why}"));
    }
    Ok(())
}
