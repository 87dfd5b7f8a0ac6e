//! Lifeboat: a backup and disaster-recovery engine.
//!
//! The folder names are the way the data goes, and restore walks it backwards:
//!
//! ```text
//! source → chunk → seal → pack → store
//! ```
//!
//! One rule holds the house up, and `tests/architecture.rs` enforces it:
//! **a folder imports only folders of a lower level; siblings do not know each other.**
//!
//! | level | folders | what lives there |
//! |---|---|---|
//! | 0 | `base` | no domain words: clock, cancel, progress, secret, byte sizes, processes |
//! | 1 | `format`, `policy` | what is on storage (bytes ↔ types); decisions (facts, rules, now) → plan. Pure |
//! | 2 | `source`, `chunk`, `seal`, `store` | where bytes come from, how they are cut, sealed and kept |
//! | 3 | `pack` | chunks gathered into sealed blocks and packs; the index map |
//! | 4 | `repo` | an opened repository: keys, snapshots, trees, the protocol's objects, the local cache |
//! | 5 | `engine` | one verb per file or folder |
//! | 6 | `runbook` | executable Markdown: parse, check, run, transcript |
//! | 7 | `drill` | rehearse a recovery: sandbox, checks, measures, evidence |
//! | 8 | `config` | environment and files → each module's own options |
//! | 9 | `app` | the composition root |
//! | 10 | `cli` | arguments, human and JSON output, exit codes |

pub mod app;
pub mod base;
pub mod chunk;
pub mod cli;
pub mod config;
pub mod drill;
pub mod engine;
pub mod format;
pub mod pack;
pub mod policy;
pub mod repo;
pub mod runbook;
pub mod seal;
pub mod source;
pub mod store;
