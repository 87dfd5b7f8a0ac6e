//! Everything that can be known before a byte is fetched; and the empty database beside, because only making it
//! shows that it can be made.

use std::collections::HashSet;
use std::sync::Mutex;

use super::super::address::Databases;
use super::super::capture::{self, GLOBALS};
use super::super::session::Session;
use super::super::vacant::Contents;
use super::super::{PostgresError, tools};
use super::{Plan, PostgresTarget, ServerSide, There};
use crate::source::capture::SourceError;
use crate::source::target::StoredPart;

fn refused<T>(why: impl Into<String>) -> Result<T, SourceError> {
    Err(SourceError::Refused(why.into()))
}

impl PostgresTarget {
    /// Checks everything and makes the databases beside. Returns the parts wanted, roles first.
    pub(super) fn look(&mut self, parts: &[StoredPart]) -> Result<Vec<usize>, SourceError> {
        let mut wanted: Vec<usize> = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            if part.path == format!("/{GLOBALS}") {
                self.globals = Some(part.path.clone());
                wanted.insert(0, place);
            }
            let found = self.facts.databases.iter().find(|(_, facts)| facts.part == part.path);
            if let Some((from, facts)) = found {
                let plan = Plan {
                    from: from.clone(),
                    facts: facts.clone(),
                    name: String::new(),
                    beside: String::new(),
                    size_bytes: part.size_bytes,
                    there: There::Nothing,
                    is_made: false,
                    is_left: false,
                    read_back: None,
                    guard: None,
                    left_out: Vec::new(),
                };
                self.plans.push(plan);
                wanted.push(place);
            }
        }
        self.name_plans()?;
        let kept: HashSet<&str> = self.plans.iter().map(|plan| plan.facts.part.as_str()).collect();
        wanted.retain(|place| {
            kept.contains(parts[*place].path.as_str()) || self.globals.as_ref() == Some(&parts[*place].path)
        });
        // Nobody may be in a database that is renamed, we included.
        if self.plans.iter().any(|plan| plan.name == self.address.server.maintenance) {
            self.address.server.maintenance = "template1".into();
        }
        self.look_at_script()?;
        let mut session = self.maintenance()?;
        self.look_at_server(session.as_mut())?;
        self.look_at_extensions(session.as_mut())?;
        self.look_at_names(session.as_mut())?;
        self.look_at_room(session.as_mut())?;
        for place in 0..self.plans.len() {
            self.make_beside(place, session.as_mut())?;
        }
        Ok(wanted)
    }

    /// SQL that cannot be read is known before hours have passed.
    fn look_at_script(&mut self) -> Result<(), SourceError> {
        if let Some(path) = &self.flags.after_sql {
            let script = std::fs::read_to_string(path).map_err(|cause| {
                SourceError::Refused(format!("cannot read --after-sql {}: {cause}", path.display()))
            })?;
            self.script = Some(script);
        }
        Ok(())
    }

    /// Which database gets which name.
    fn name_plans(&mut self) -> Result<(), SourceError> {
        let held: Vec<_> = self.plans.iter().map(|plan| plan.from.clone()).collect();
        match (&self.address.databases, self.plans.as_mut_slice()) {
            (_, []) => return refused("the snapshot holds no database at that path"),
            (Databases::Named(names), [plan]) if names.len() == 1 => plan.name.clone_from(&names[0]),
            (Databases::All, plans) => plans.iter_mut().for_each(|plan| plan.name.clone_from(&plan.from)),
            (Databases::Named(names), _) => {
                if let Some(name) = names.iter().find(|name| !held.contains(name)) {
                    return refused(format!(
                        "the snapshot holds several databases ({}), and {name:?} is none of them\nhint: choose one \
                         with SNAP:{}, or end the address in /* to restore each under its own name",
                        held.join(", "),
                        self.plans[0].facts.part,
                    ));
                }
                let names = names.clone();
                self.plans.retain(|plan| names.contains(&plan.from));
                self.plans.iter_mut().for_each(|plan| plan.name.clone_from(&plan.from));
            }
        }
        for plan in &mut self.plans {
            plan.beside = super::place::beside_name(&plan.name);
        }
        Ok(())
    }

    fn look_at_server(&mut self, session: &mut dyn Session) -> Result<(), SourceError> {
        let (major, version) = capture::major(session)?;
        let sql = "SELECT pg_is_in_recovery(), rolsuper, rolcreatedb, current_user FROM pg_roles
                   WHERE rolname = current_user";
        let row = session.query("look what this user may do", sql)?.pop().unwrap_or_default();
        let yes = |column: usize| row.get(column).cloned().flatten().as_deref() == Some("t");
        let user = row.get(3).cloned().flatten().unwrap_or_default();
        let place = self.reach.shown();
        if yes(0) {
            return refused(format!(
                "{place} is a standby: it takes nothing\nhint: restore into its primary"
            ));
        }
        if !yes(1) && !yes(2) {
            return refused(format!(
                "user {user:?} may not make databases at {place}\nhint: ALTER ROLE {user} CREATEDB, or use another \
                 user"
            ));
        }
        let minor = self.plans.iter().map(|plan| plan.facts.archive_minor).max().unwrap_or_default();
        let tools = tools::for_restore(&self.reach.toolsets(), minor, major)
            .map_err(|error| SourceError::Refused(error.to_string()))?
            .clone();
        if self.facts.server_major > major {
            self.warnings.push(format!(
                "the snapshot is of a server of version {}, this one has {version}: what only the newer one knows \
                 will fail",
                self.facts.server_version
            ));
        }
        self.server = Some(ServerSide { major, is_superuser: yes(1), tools, guarded_extensions: Vec::new() });
        Ok(())
    }

    fn look_at_extensions(&mut self, session: &mut dyn Session) -> Result<(), SourceError> {
        // Trust came with 13; before, only a superuser made extensions.
        let server = self.server()?;
        let (is_superuser, trusted) =
            (server.is_superuser, if server.major >= 13 { "bool_or(trusted)" } else { "false" });
        let sql = format!(
            "SELECT name, bool_or(superuser) AND NOT {trusted} FROM pg_available_extension_versions GROUP BY name"
        );
        let mut available = HashSet::new();
        let mut guarded = Vec::new();
        for row in session.query("list the extensions", &sql)? {
            let name = row.first().cloned().flatten().unwrap_or_default();
            if row.get(1).cloned().flatten().as_deref() == Some("t") && !is_superuser {
                guarded.push(name.clone());
            }
            available.insert(name);
        }
        for plan in &self.plans {
            let missing: Vec<_> =
                plan.facts.extensions.keys().filter(|name| !available.contains(*name)).cloned().collect();
            if !missing.is_empty() {
                let (names, place) = (missing.join(", "), self.reach.shown());
                return refused(format!(
                    "database {:?} needs extensions that {place} does not have: {names}\nhint: install their \
                     packages on that server",
                    plan.from
                ));
            }
        }
        if let Some(server) = &mut self.server {
            server.guarded_extensions = guarded;
        }
        Ok(())
    }

    /// What is there under the names to take, and what an earlier run left behind.
    fn look_at_names(&mut self, session: &mut dyn Session) -> Result<(), SourceError> {
        let sql = "SELECT datname FROM pg_database";
        let rows = session.query("list the databases", sql)?;
        let there: HashSet<String> = rows.into_iter().filter_map(|row| row.into_iter().next()?).collect();
        for place in 0..self.plans.len() {
            let (name, beside) = (self.plans[place].name.clone(), self.plans[place].beside.clone());
            let is_there = there.contains(&name);
            if there.contains(&beside) {
                self.undo_earlier(session, &name, &beside, is_there)?;
                self.plans[place].is_left = self.only_looks;
            }
            if is_there && name == self.address.server.maintenance {
                return refused(format!(
                    "database {name:?} is the one this connects to for the whole server, so it cannot be renamed\n\
                     hint: name another to connect to: ?maintenance-db=NAME, or restore under another name"
                ));
            }
            if is_there {
                self.plans[place].there = self.look_inside(&name)?;
            }
        }
        Ok(())
    }

    /// Whether the database that has the name already may give way.
    fn look_inside(&mut self, name: &str) -> Result<There, SourceError> {
        let force = self.flags.force;
        // One that nobody may enter is not known to be empty.
        let contents = self.reach.session(name).and_then(|mut session| Contents::read(session.as_mut()));
        self.world.cancel.check()?;
        let is_nothing = contents.as_ref().is_ok_and(Contents::is_nothing);
        let place = self.reach.shown();
        match contents {
            Ok(Contents { sessions: 1.., .. }) if is_nothing && !force => refused(format!(
                "database {name:?} at {place} is empty, but somebody is in it\nhint: --force ends their sessions"
            )),
            _ if is_nothing => {
                self.met.warnings.push(format!("database {name:?} is there and empty: it gives way"));
                Ok(There::Vacant)
            }
            _ if !force => refused(format!(
                "database {name:?} exists at {place}\nhint: --force restores beside it, proves, and then renames both; \
                 the old one is kept"
            )),
            _ => {
                let kept = self.kept_name(name);
                self.met.replaced.push(format!("database {name:?}, which is kept as {kept:?}"));
                Ok(There::Database)
            }
        }
    }

    /// Room, where it can be known: the server is this machine, or the archive is spooled here.
    fn look_at_room(&mut self, session: &mut dyn Session) -> Result<(), SourceError> {
        if self.flags.jobs > 1 {
            let largest = self.plans.iter().map(|plan| plan.size_bytes).max().unwrap_or_default();
            if let Some(free) = free_bytes(&self.world.spool).filter(|free| *free < largest) {
                return refused(format!(
                    "{} has {free} bytes free, and --jobs spools an archive of {largest} bytes there\nhint: TMPDIR \
                     names another folder; without --jobs nothing is spooled",
                    self.world.spool.display()
                ));
            }
        }
        if !self.reach.is_this_machine() {
            return Ok(());
        }
        // Not everybody may know where the data lies.
        let sql = "SELECT setting FROM pg_settings WHERE name = 'data_directory'";
        let Some(folder) = session.value("ask where the data lies", sql)? else { return Ok(()) };
        let needed: u64 = self.plans.iter().map(|plan| plan.facts.size_bytes).sum();
        match free_bytes(std::path::Path::new(&folder)) {
            Some(free) if free < needed => refused(format!(
                "the server's disk ({folder}) has {free} bytes free, and the databases took {needed} bytes\nhint: make \
                 room; a database that is replaced is kept beside the new one until you drop it"
            )),
            _ => Ok(()),
        }
    }

    fn make_beside(&mut self, place: usize, session: &mut dyn Session) -> Result<(), SourceError> {
        if self.plans[place].is_left {
            return Ok(());
        }
        let major = self.server()?.major;
        let plan = &self.plans[place];
        let rows = session.query("list the tablespaces", "SELECT spcname FROM pg_tablespace")?;
        let tablespace = &plan.facts.properties.tablespace;
        let has_tablespace = rows.iter().any(|row| row.first() == Some(&Some(tablespace.clone())));
        if !tablespace.is_empty() && !has_tablespace {
            self.warnings.push(format!(
                "database {:?} comes into the default tablespace: there is no tablespace {tablespace:?} here",
                plan.name
            ));
        }
        let sql = super::place::create(&plan.beside, &plan.facts.properties, major, has_tablespace);
        let made = session.query(&format!("make database {:?}", plan.beside), &sql);
        if let Err(error) = made {
            let text = error.to_string();
            if text.contains("locale") || text.contains("LC_C") {
                let hint =
                    "the locale is not on that server: install it there (locale-gen) and restart the server";
                return Err(PostgresError::Other(format!("{text}\nhint: {hint}")).into());
            }
            return Err(error);
        }
        self.plans[place].is_made = true;
        let beside = self.plans[place].beside.clone();
        super::place::mark(session, &beside)?;
        self.plans[place].guard = Some(Mutex::new(self.reach.session(&beside)?));
        Ok(())
    }
}

/// Free bytes where `path` is, for whoever asks; `None` when that cannot be known.
fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let said = rustix::fs::statvfs(path).ok()?;
    said.f_bavail.checked_mul(said.f_frsize)
}
