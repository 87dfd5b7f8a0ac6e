//! Parity objects: which packs have some, and whether it is what was stored. Nothing is read from them, so damage here
//! costs no file; it is damage all the same, found before it is needed.

use std::collections::HashSet;

use super::super::EngineError;
use super::super::parity::{by_pack, judge};
use super::outcome::Report;
use super::packs::Stock;
use crate::base::cancel::Cancel;
use crate::format::header::ObjectKind;
use crate::format::id::ObjectHash;
use crate::format::parity::parse_object_name;
use crate::repo::Repository;

/// Checks names against packs, and reads the parity of `read`.
pub(super) async fn check(
    repo: &Repository,
    stock: &Stock,
    read: &HashSet<ObjectHash>,
    report: &mut Report,
    cancel: &Cancel,
) -> Result<(), EngineError> {
    let listed = repo.store.list(ObjectKind::Parity.folder()).await?;
    if listed.is_empty() {
        return Ok(());
    }
    for stranger in listed.iter().filter(|one| parse_object_name(&one.name).is_none()) {
        report.note(format!("{} is no object of this repository", stranger.name));
    }
    let parity = by_pack(listed);
    report.checked.parity = parity.values().map(|of| of.len() as u64).sum();
    let covered = stock.packs.keys().filter(|hash| parity.contains_key(hash)).count();
    if covered < stock.packs.len() {
        report.note(format!(
            "{covered} of {} packs have parity: `lifeboat parity` makes it",
            stock.packs.len()
        ));
    }
    for one in parity.iter().filter(|(pack, _)| read.contains(pack)).flat_map(|(_, of)| of) {
        cancel.check()?;
        report.checked.bytes_read += one.size_bytes;
        if let Some(why) = judge(repo.store.as_ref(), &one.name).await? {
            report.damaged(&one.name, why);
        }
    }
    Ok(())
}
