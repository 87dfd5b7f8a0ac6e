//! Level 2: where bytes come from and where they go back to. One file or folder per engine, capture and
//! restore side by side. Knows nothing of chunks being cut, keys or repositories.
//!
//! What every source keeps: nothing is dropped silently (a thing that could not be read is a value the caller
//! gets), and `consistent_at` is never later than the instant the data is true for.

pub mod capture;
pub mod certs;
pub mod command;
pub mod difference;
pub mod docker;
pub mod files;
pub mod git;
pub mod hook;
pub mod influx;
pub mod kubernetes;
pub mod mariadb;
pub mod postgres;
pub mod redis;
pub mod sqlite;
pub mod stdin;
pub mod target;
pub mod terraform;
pub mod victoria;
