//! What a user needs to be allowed, and how to say so when it is not.

use super::RedisError;
use super::address::{Address, Mode};
use super::wire::Login;

const STREAM: &str = "+psync +replconf +info +time +config|get +acl|list";
const SCAN: &str = "~* +@read +select +function|dump +info +time +config|get +acl|list";
const BGSAVE: &str = "+bgsave +info +time +config|get +acl|list";

/// The line that gives a user what capturing takes.
pub fn line(user: Option<&str>, mode: Mode) -> String {
    let rights = match mode {
        Mode::Auto | Mode::Stream => STREAM,
        Mode::Scan => SCAN,
        Mode::Bgsave => BGSAVE,
    };
    format!("ACL SETUSER {} {rights}", user.unwrap_or("default"))
}

/// Adds the way out to a refusal.
pub fn explain(error: RedisError, address: &Address) -> RedisError {
    explain_mode(error, address.mode, &Login::of(address))
}

/// As [`explain`].
pub fn explain_mode(error: RedisError, mode: Mode, login: &Login) -> RedisError {
    let RedisError::Said { server, command, mut said } = error else { return error };
    if said.starts_with("NOPERM") {
        said.push_str(&format!("\nhint: this gives the right: {}", line(login.user.as_deref(), mode)));
    } else if said.starts_with("NOAUTH") {
        said.push_str(
            "\nhint: name a user and password: redis://USER@HOST, and password-file= or REDISCLI_AUTH",
        );
    } else if said.starts_with("NOMASTERLINK") {
        said.push_str("\nhint: this replica has lost its master; back up the master, or wait for the link");
    }
    RedisError::Said { server, command, said }
}
