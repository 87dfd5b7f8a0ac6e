//! All integration tests, one binary: one file per topic, real services, no mocks.

mod bench;
mod cli;
mod command;
mod copy;
mod cuts;
mod damage;
mod drill;
mod files;
mod files_target;
mod fuzz_replay;
mod golden;
mod heal;
mod heal_keys;
mod hostile;
mod key_cli;
mod keys;
mod model;
mod plain;
mod reading;
mod restore;
mod runbook;
mod services;
mod small;
mod sources;
mod store;
mod verify;
