//! Keys of an opened repository: who they are, and how they are added, changed and ended.
//!
//! Config, keyring and roster are write-once and numbered; a change puts the next number. The order of every
//! change is keyring, roster, slot: a crash in between leaves keys that nobody uses, never a slot that opens
//! nothing or a member without its share.

pub mod list;
pub mod members;
pub mod numbered;
pub mod slots;

pub use list::{KeyInfo, KeyList, SlotRow, list};
pub use members::{Added, Revoked, Rotated, add_owner, add_writer, revoke, rotate};
pub use slots::{Changed, find_slot, passwd, remove};

use crate::seal::slot::{Cost, Unlock};

/// A slot to be made.
#[derive(Clone)]
pub struct NewSlot<'a> {
    pub label: String,
    pub unlock: &'a Unlock,
    /// Only for a passphrase.
    pub cost: Cost,
}
