//! Storage: one conformance suite for every kind of store, then what is particular to each.

mod conformance;
mod hostile;
mod local;
mod services;
