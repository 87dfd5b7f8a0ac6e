//! The repair verbs: what can be put right from what is there is put right, and what cannot is named.
//!
//! [`index`] makes the index anew from the packs' own directories. [`packs`] makes damaged packs
//! whole from their parity; of others it saves what is sound and condemns them, so that a backup of the same content
//! stores again what is lost. [`keys`] puts config, roster, keyring and slots back from a recovery kit.
//!
//! Invariant: nothing sound is taken away before its copy is stored and indexed; every step may be the last one, and
//! the same command run again goes on from there.

pub mod index;
pub mod keys;
mod lost;
pub mod packs;
mod parity;

pub use index::{IndexOutcome, IndexPlan, apply_index, plan_index};
pub use keys::{KeysOutcome, KeysPlan, apply_keys, plan_keys};
pub use packs::{BadPack, PacksOptions, PacksOutcome, PacksPlan, apply_packs, heal_packs, plan_packs};
pub use parity::Healable;
