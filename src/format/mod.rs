//! Level 1: what is on storage. Bytes ↔ types, pure: no I/O, no async, no keys. One file describes one object.
//!
//! Everything read here may be hostile: lengths and counts are bounded before anything is allocated, and
//! a value has exactly one encoding (a decoder refuses any other), so hashes and signatures are over one text.

pub mod codec;
pub mod entry;
pub mod header;
pub mod id;
pub mod keyring;
pub mod manifest;
pub mod pack;
pub mod page;
pub mod parity;
pub mod parsers;
pub mod signed;

pub use codec::{Decoder, Encoder, FormatError};
