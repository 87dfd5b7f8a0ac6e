//! Roles and tablespaces given back: what exists is left as it is, and said.

use std::collections::HashSet;
use std::io::Read;
use std::sync::PoisonError;

use super::super::error::PostgresError;
use super::super::globals::{self, About};
use super::super::session::Session;
use super::PostgresTarget;
use crate::source::capture::SourceError;

/// Most bytes of the script.
const SCRIPT_LIMIT: u64 = 256 << 20;

fn names(session: &mut dyn Session, what: &str, sql: &str) -> Result<HashSet<String>, SourceError> {
    let rows = session.query(what, sql)?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next()?).collect())
}

impl PostgresTarget {
    /// Runs the script of roles and tablespaces, statement by statement.
    pub(super) fn put_globals(&mut self, content: &mut dyn Read) -> Result<(), SourceError> {
        let mut script = Vec::new();
        let read = content.take(SCRIPT_LIMIT).read_to_end(&mut script);
        read.map_err(|cause| PostgresError::Local { operation: "read the roles", cause })?;
        let script = globals::parse(&script);
        let mut session = self.maintenance()?;
        let session = session.as_mut();
        let roles = names(session, "list the roles", "SELECT rolname FROM pg_roles")?;
        let spaces = names(session, "list the tablespaces", "SELECT spcname FROM pg_tablespace")?;
        let ours = session.value("ask who this is", "SELECT current_user")?.unwrap_or_default();
        let replace = self.flags.replace_roles;
        let has_passwords = self.facts.globals.as_ref().is_some_and(|globals| globals.has_passwords);
        // Nobody locks himself out.
        let may_replace = |role: &String| replace && *role != ours;
        let is_kept = |role: &String| roles.contains(role) && *role != ours;
        let mut kept: Vec<String> = script.roles().into_iter().filter(is_kept).collect();
        for statement in &script.0 {
            let reset;
            let mut sql = &statement.sql;
            let wanted = match &statement.about {
                About::MakeRole(role) if roles.contains(role) && may_replace(role) => {
                    // The script says only what is not as it is by default.
                    let password = if has_passwords { " PASSWORD NULL" } else { "" };
                    let role = super::super::ident(role);
                    reset = format!(
                        "ALTER ROLE {role} CONNECTION LIMIT -1 VALID UNTIL 'infinity'{password};
                         ALTER ROLE {role} RESET ALL"
                    );
                    sql = &reset;
                    true
                }
                About::MakeRole(role) => !roles.contains(role),
                About::Role(role) => may_replace(role) || !roles.contains(role),
                About::Membership { member, .. } => may_replace(member) || !roles.contains(member),
                About::MakeTablespace(space) | About::Tablespace(space) => !spaces.contains(space),
                About::Session => !statement.sql.contains("default_transaction_read_only"),
                About::Other => true,
            };
            if !wanted {
                continue;
            }
            let done = session.query("restore the roles", sql);
            if done.is_ok() {
                let mut made = self.flags.made.lock().unwrap_or_else(PoisonError::into_inner);
                match &statement.about {
                    About::MakeRole(role) if !roles.contains(role) => made.roles.push(role.clone()),
                    About::MakeTablespace(space) => made.tablespaces.push(space.clone()),
                    _ => {}
                }
            }
            if let Err(error) = done {
                self.world.cancel.check()?;
                let about = match &statement.about {
                    // The statement itself may hold a password.
                    About::MakeRole(role) | About::Role(role) => format!("role {role:?}"),
                    About::MakeTablespace(space) | About::Tablespace(space) => {
                        format!("tablespace {space:?}")
                    }
                    About::Membership { role, member } => format!("{member:?} as a member of {role:?}"),
                    _ => "a statement about the server".into(),
                };
                match &statement.about {
                    // Everything goes into the default one then, which is said too.
                    About::MakeTablespace(_) | About::Tablespace(_) => {
                        self.warnings.push(format!("{about} is not here: {error}"));
                    }
                    _ => self.not_done.push(format!("{about}: {error}")),
                }
            }
        }
        if !kept.is_empty() && !replace {
            kept.sort();
            let list = kept.join(", ");
            self.warnings.push(format!(
                "roles that exist were left as they are (--replace-roles gives them the snapshot's rights and \
                 passwords): {list}"
            ));
        }
        if self.facts.globals.as_ref().is_some_and(|globals| !globals.has_passwords) {
            self.warnings.push("the snapshot has no passwords of roles: set them anew".into());
        }
        Ok(())
    }

    /// Whether a tablespace of the snapshot is not there, so that everything goes into the default one.
    pub(super) fn without_tablespaces(&self) -> bool {
        let Some(globals) = &self.facts.globals else { return false };
        if globals.tablespaces.is_empty() {
            return false;
        }
        let there = self.maintenance().and_then(|mut session| {
            names(session.as_mut(), "list the tablespaces", "SELECT spcname FROM pg_tablespace")
        });
        there.map_or(true, |there| !globals.tablespaces.iter().all(|space| there.contains(space)))
    }
}
