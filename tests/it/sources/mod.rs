//! Services captured and given back by the real binary, each from and into a real server.
//!
//! Every engine passes [`conformance`], then what is particular to it in a file of its own.

mod certs;
mod conformance;
pub mod docker;
mod git;
mod hook;
mod influx;
mod influx2;
mod kubernetes;
mod mariadb;
mod postgres;
mod redis;
mod sqlite;
mod terraform;
mod under_way;
mod victoria;
