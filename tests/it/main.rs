//! All integration tests, one binary: one file per topic, real services, no mocks.

mod command;
mod files;
mod files_target;
mod services;
mod store;
