//! Level 1: decisions. Pure: facts, rules and now go in, a printable plan comes out; nothing is read or changed.
//!
//! A plan is the dry run. Whoever applies it does what it says and nothing else.

pub mod continuity;
pub mod objective;
pub mod period;
pub mod retention;
pub mod schedule;
