//! What every verb that reads snapshots stands on: [`select`] finds the snapshot and the path that were meant,
//! [`walk`] goes through a tree, [`fetch`] brings blocks and opens them on threads, [`locate`] says which block
//! holds a chunk, [`filter`] decides which paths are wanted, [`left_out`] says what a backup never looked at.

pub mod fetch;
pub mod filter;
pub mod left_out;
pub mod locate;
pub mod select;
pub mod stream;
pub mod walk;
