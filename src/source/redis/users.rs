//! A snapshot's users on a server: those it does not have are made, those it has are left alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::RedisError;
use super::wire::{Reply, Wire};

/// Where it is told what came of it.
pub struct Told<'t> {
    pub proven: &'t mut Vec<String>,
    pub warnings: &'t mut Vec<String>,
    pub not_done: &'t mut Vec<String>,
}

/// Makes what is missing and says what differs; the names of those made go to `made_users`.
///
/// # Errors
/// The server is lost.
pub fn restore(
    wire: &mut Wire,
    users: &[String],
    made_users: &Mutex<Vec<String>>,
    told: &mut Told<'_>,
) -> Result<(), RedisError> {
    let named: BTreeMap<&str, &str> =
        users.iter().filter_map(|line| Some((name(line)?, line.as_str()))).collect();
    if named.is_empty() {
        return Ok(());
    }
    let found: Vec<String> = match wire.ask(&["ACL", "LIST"]) {
        Ok(reply) => reply.items().iter().map(Reply::text).collect(),
        Err(RedisError::Said { said, .. }) => {
            told.not_done.push(format!("users were not restored: {said}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let found: BTreeMap<&str, &str> =
        found.iter().filter_map(|line| Some((name(line)?, line.as_str()))).collect();
    let mut made = 0;
    for (user, line) in named {
        match found.get(user) {
            Some(same) if *same == line => {}
            Some(_) => told
                .warnings
                .push(format!("user {user} is left as the target has it, not as it was captured")),
            None => {
                let rules = line.split(' ').skip(2);
                let words: Vec<&str> = ["ACL", "SETUSER", user].into_iter().chain(rules).collect();
                match wire.ask(&words) {
                    Ok(_) => {
                        made += 1;
                        made_users.lock().unwrap_or_else(PoisonError::into_inner).push(user.to_owned());
                    }
                    Err(RedisError::Said { said, .. }) => {
                        told.not_done.push(format!("user {user} was not restored: {said}"));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    if made > 0 {
        told.proven.push(format!("{made} users made"));
        told.warnings
            .push("the users that were made live in memory: ACL SAVE or CONFIG REWRITE keeps them".into());
    }
    Ok(())
}

/// `bob` of `user bob on …`.
fn name(line: &str) -> Option<&str> {
    line.strip_prefix("user ")?.split(' ').next()
}
