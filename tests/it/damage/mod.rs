//! A small repository is damaged in every way that storage or an attacker could: verify must find it, name it and
//! say what it costs, and reading must never give back other bytes than went in.

pub mod build;
mod every_byte;
mod objects;
mod repair;
mod roles;
