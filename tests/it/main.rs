//! All integration tests, one binary: one file per topic, real services, no mocks.

mod bench;
mod cli;
mod command;
mod copy;
mod damage;
mod files;
mod files_target;
mod fuzz_replay;
mod golden;
mod hostile;
mod key_cli;
mod keys;
mod plain;
mod reading;
mod restore;
mod services;
mod store;
mod verify;
