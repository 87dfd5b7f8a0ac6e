//! The database beside: made, dressed in what belongs to a database as a whole, and renamed into place.
//!
//! What could go wrong between the steps, and what a rerun finds:
//! 1. killed before the rename: the database beside carries our mark; it is dropped and made again.
//! 2. killed after the old one was closed to new sessions: the mark says so; it is opened again first.
//! 3. the rename itself is one transaction: both names change, or none.

use super::super::facts::Properties;
use super::super::session::{Session, ident, literal};
use super::super::vacant::Contents;
use super::{PostgresError, PostgresTarget, There};
use crate::source::capture::SourceError;

/// The comment that makes a database ours.
const MARK: &str = "lifeboat: a restore under way, or broken off; it is not used and may be dropped";
/// The same, once the database whose name it takes was closed.
const MARK_CLOSED: &str =
    "lifeboat: a restore whose rename broke off; run it again, and open the old database";
/// Longest name PostgreSQL keeps, in bytes.
const NAME_BYTES: usize = 63;

/// `name` and `suffix` within what PostgreSQL keeps of a name; a cut name is told apart by a hash.
fn with_suffix(name: &str, suffix: &str) -> String {
    let room = NAME_BYTES - suffix.len();
    if name.len() <= room {
        return format!("{name}{suffix}");
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let mut end = room - 9;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{}{suffix}", &name[..end], &hash[..8])
}

/// Where a database is until it is proven.
pub fn beside_name(name: &str) -> String {
    with_suffix(name, "_lifeboat_new")
}

/// The SQL that makes it: empty, with the encoding and locale of the captured one.
pub fn create(name: &str, properties: &Properties, major: u32, has_tablespace: bool) -> String {
    let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", ident(name));
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            sql.push_str(&format!(" {key} {}", literal(value)));
        }
    };
    add("ENCODING", &properties.encoding);
    add("LC_COLLATE", &properties.collate);
    add("LC_CTYPE", &properties.ctype);
    let locale = properties.locale.as_deref().unwrap_or_default();
    match properties.provider.as_str() {
        "i" if major >= 15 => {
            add("LOCALE_PROVIDER", "icu");
            add("ICU_LOCALE", locale);
            if major >= 16 {
                add("ICU_RULES", properties.icu_rules.as_deref().unwrap_or_default());
            }
        }
        "b" if major >= 17 => {
            add("LOCALE_PROVIDER", "builtin");
            add("BUILTIN_LOCALE", locale);
        }
        _ => {}
    }
    // The default one is not named: that takes a right of its own.
    if has_tablespace && !matches!(properties.tablespace.as_str(), "" | "pg_default") {
        sql.push_str(&format!(" TABLESPACE {}", ident(&properties.tablespace)));
    }
    sql
}

/// Makes it known as ours.
pub fn mark(session: &mut dyn Session, database: &str) -> Result<(), SourceError> {
    let sql = format!("COMMENT ON DATABASE {} IS {}", ident(database), literal(MARK));
    session.query("mark the new database", &sql).map(drop)
}

fn end_sessions(session: &mut dyn Session, database: &str) -> Result<(), SourceError> {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = {} AND pid <> pg_backend_pid()",
        literal(database)
    );
    session.query("end the sessions of the database", &sql).map(drop)
}

fn drop_database(session: &mut dyn Session, database: &str) -> Result<(), SourceError> {
    end_sessions(session, database)?;
    // A session takes a moment to end, and the drop waits five seconds for it.
    session
        .query("drop the database beside", &format!("DROP DATABASE IF EXISTS {}", ident(database)))
        .map(drop)
}

/// Elements of a list setting such as `"$user", public`.
fn elements(list: &str) -> Vec<String> {
    let mut elements = vec![String::new()];
    let (mut quoted, mut characters) = (false, list.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                elements.last_mut().into_iter().for_each(|last| last.push('"'));
            }
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(String::new()),
            ' ' if !quoted => {}
            character => elements.last_mut().into_iter().for_each(|last| last.push(character)),
        }
    }
    elements
}

/// Settings whose value is a list of names.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// The SQL for one `name=value` of a database, for one role perhaps.
fn setting(database: &str, role: Option<&str>, pair: &str) -> Option<String> {
    let (name, value) = pair.split_once('=')?;
    let value = match LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        true => elements(value).iter().map(|element| literal(element)).collect::<Vec<_>>().join(", "),
        false => literal(value),
    };
    // A custom setting is two names with a dot between.
    let name = name.split('.').map(ident).collect::<Vec<_>>().join(".");
    let database = ident(database);
    Some(match role {
        Some(role) => format!("ALTER ROLE {} IN DATABASE {database} SET {name} TO {value}", ident(role)),
        None => format!("ALTER DATABASE {database} SET {name} TO {value}"),
    })
}

/// The SQL that gives a database its rights, owner and settings; each may fail alone.
fn dressing(database: &str, properties: &Properties, with_owner: bool) -> Vec<String> {
    let name = ident(database);
    let mut sql = Vec::new();
    if with_owner && !properties.owner.is_empty() {
        sql.push(format!("ALTER DATABASE {name} OWNER TO {}", ident(&properties.owner)));
    }
    if let Some(rights) = properties.rights.as_ref().filter(|_| with_owner) {
        sql.push(format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"));
        sql.push(format!("REVOKE ALL ON DATABASE {name} FROM {}", ident(&properties.owner)));
        for (role, right, passes_on) in rights {
            // The words of the catalogue, and nothing else, go unquoted.
            let right = match right.as_str() {
                "CREATE" => "CREATE",
                "CONNECT" => "CONNECT",
                _ => "TEMPORARY",
            };
            let to = role.as_deref().map_or_else(|| "PUBLIC".to_owned(), ident);
            let more = if *passes_on { " WITH GRANT OPTION" } else { "" };
            sql.push(format!("GRANT {right} ON DATABASE {name} TO {to}{more}"));
        }
    }
    for (role, pairs) in &properties.settings {
        sql.extend(pairs.iter().filter_map(|pair| setting(database, role.as_deref(), pair)));
    }
    sql
}

impl PostgresTarget {
    /// A database beside exists already: ours, broken off, and undone; or not ours, and refused.
    pub(super) fn undo_earlier(
        &mut self,
        session: &mut dyn Session,
        name: &str,
        beside: &str,
        is_there: bool,
    ) -> Result<(), SourceError> {
        let sql = format!(
            "SELECT shobj_description(oid, 'pg_database'),
             (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid)
             FROM pg_database d WHERE datname = {}",
            literal(beside)
        );
        let row = session.query("look at what an earlier restore left", &sql)?.pop().unwrap_or_default();
        let cell = |column: usize| row.get(column).cloned().flatten().unwrap_or_default();
        if cell(0) != MARK && cell(0) != MARK_CLOSED {
            return Err(SourceError::Refused(format!(
                "database {beside:?} exists and is not ours\nhint: the restore needs that name: rename or drop it"
            )));
        }
        if cell(1) != "0" {
            return Err(SourceError::Refused(format!(
                "another restore into {name:?} seems to be under way: somebody is in {beside:?}\nhint: wait for it, or \
                 end it"
            )));
        }
        if self.only_looks {
            self.warnings
                .push(format!("an earlier restore into {name:?} broke off; the next one drops what it left"));
            return Ok(());
        }
        if cell(0) == MARK_CLOSED && is_there {
            let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", ident(name));
            session.query("open the old database again", &sql)?;
        }
        drop_database(session, beside)?;
        self.warnings.push(format!("an earlier restore into {name:?} broke off; what it left was dropped"));
        Ok(())
    }

    /// Owner, rights and settings, under the name it has for now: they follow the rename.
    pub(super) fn dress(&mut self, place: usize) -> Result<(), SourceError> {
        let mut session = self.maintenance()?;
        let with_owner = self.server()?.is_superuser;
        let plan = &self.plans[place];
        for sql in dressing(&plan.beside, &plan.facts.properties, with_owner) {
            if let Err(error) = session.query("set up the database", &sql) {
                self.world.cancel.check()?;
                let shown = sql.replace(&ident(&plan.beside), &ident(&plan.name));
                self.not_done.push(format!("{shown}: {error}"));
            }
        }
        Ok(())
    }

    /// The name that the database which is `name` now gets.
    pub(super) fn kept_name(&self, name: &str) -> String {
        let at = jiff::Timestamp::from_second(self.world.now.seconds);
        let stamp = at.map(|at| at.strftime("%Y%m%dT%H%M%S").to_string()).unwrap_or_default();
        with_suffix(name, &format!("_before_{stamp}"))
    }

    /// Takes the name: the old one, if any, keeps its data under another.
    pub(super) fn place(&mut self, place: usize) -> Result<(), SourceError> {
        if self.plans[place].there == There::Vacant && !self.flags.force {
            self.still_vacant(place)?;
        }
        let mut session = self.maintenance()?;
        self.plans[place].guard = None;
        let plan = &self.plans[place];
        let (name, beside) = (ident(&plan.name), ident(&plan.beside));
        let properties = &plan.facts.properties;
        let comment = properties.comment.as_deref().map_or_else(|| "NULL".into(), literal);
        let limit = properties.connection_limit.max(-1);
        let mut sql = String::from("BEGIN;");
        let mut old = None;
        if plan.there != There::Nothing {
            let kept = self.kept_name(&plan.name);
            sql.push_str(&format!("ALTER DATABASE {name} RENAME TO {};", ident(&kept)));
            sql.push_str(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true;", ident(&kept)));
            old = Some(kept);
        }
        sql.push_str(&format!("ALTER DATABASE {beside} RENAME TO {name};"));
        sql.push_str(&format!("COMMENT ON DATABASE {name} IS {comment};"));
        sql.push_str(&format!("ALTER DATABASE {name} CONNECTION LIMIT {limit};COMMIT"));
        end_sessions(session.as_mut(), &plan.beside)?;
        let mut renamed = Ok(());
        if old.is_some() {
            let marked = literal(MARK_CLOSED);
            let close = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
            session.query("mark the new database", &format!("COMMENT ON DATABASE {beside} IS {marked}"))?;
            // The server may have done it even where no answer came.
            renamed = session.query("close the old database", &close).map(drop);
        }
        if renamed.is_ok() {
            renamed = rename(session.as_mut(), &plan.name, &plan.beside, &sql, old.is_some());
        }
        if let Err(error) = renamed {
            // It may hold locks of a transaction that broke off.
            drop(session);
            return Err(if old.is_some() { self.reopen(place, error) } else { error });
        }
        if let Some(old) = old {
            let was_vacant = plan.there == There::Vacant;
            if !(was_vacant && self.drop_vacant(session.as_mut(), &old)) {
                self.proven.push(format!(
                    "the database that was {:?} is kept as {old:?}; drop it when you need it no more",
                    self.plans[place].name
                ));
            }
        }
        self.plans[place].is_made = false;
        Ok(())
    }

    /// A database that was empty at first is not replaced if somebody filled it meanwhile, or works in it: sessions
    /// are ended only for who asked for that.
    fn still_vacant(&self, place: usize) -> Result<(), SourceError> {
        let name = &self.plans[place].name;
        let mut session = self.reach.session(name)?;
        let contents = Contents::read(session.as_mut())?;
        if !contents.is_nothing() {
            return Err(SourceError::Refused(format!(
                "database {name:?} was empty, and somebody has put something into it meanwhile\nhint: --force keeps it \
                 under another name"
            )));
        }
        if contents.sessions > 0 {
            return Err(SourceError::Refused(format!(
                "database {name:?} is empty, but somebody has come into it meanwhile\nhint: --force ends their sessions"
            )));
        }
        Ok(())
    }

    /// Drops the old database if there is still nothing in it; whether it did.
    fn drop_vacant(&self, session: &mut dyn Session, old: &str) -> bool {
        let contents = self.reach.session(old).and_then(|mut session| Contents::read(session.as_mut()));
        // Whoever is in it now keeps it.
        let drop = format!("DROP DATABASE {}", ident(old));
        contents.is_ok_and(|contents| contents.is_nothing())
            && session.query("drop the empty database", &drop).is_ok()
    }

    /// A session for putting things right, also in a cancelled run.
    fn farewell(&self) -> Result<Box<dyn Session>, SourceError> {
        let mut session = self.reach.farewell(&self.address.server.maintenance)?;
        if let Some(role) = &self.address.role {
            let _ = session.query("become the role", &format!("SET ROLE {}", ident(role)));
        }
        Ok(session)
    }

    /// Opens the old database after a rename that failed with `error`. Where that fails too, the database beside
    /// stays: its mark is what a rerun knows it by.
    fn reopen(&mut self, place: usize, error: SourceError) -> SourceError {
        let plan = &mut self.plans[place];
        let name = plan.name.clone();
        let open = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", ident(&name));
        let was_made = std::mem::take(&mut plan.is_made);
        let opened =
            self.farewell().and_then(|mut session| session.query("open the old database again", &open));
        let Err(other) = opened else {
            self.plans[place].is_made = was_made;
            return error;
        };
        let first = |error: &SourceError| error.to_string().lines().next().unwrap_or_default().to_owned();
        let text = format!(
            "database {name:?} may be closed to new sessions: its rename broke off ({}), and it could not be opened \
             again ({})\nhint: run the restore again, or open it: {open}",
            first(&error),
            first(&other)
        );
        PostgresError::Other(text).into()
    }

    /// Drops what was made beside and never took its name. Says nothing: it runs when something else failed.
    pub(super) fn clear_away(&mut self) {
        self.plans.iter_mut().for_each(|plan| plan.guard = None);
        let left: Vec<_> = self.plans.iter().filter(|plan| plan.is_made).map(|plan| &plan.beside).collect();
        if left.is_empty() {
            return;
        }
        let Ok(mut session) = self.farewell() else { return };
        for beside in left {
            if let Err(error) = drop_database(session.as_mut(), beside) {
                tracing::warn!("{error}");
            }
        }
    }
}

/// Ends who is in either database and renames; somebody may come in between, so it is tried more than once.
fn rename(
    session: &mut dyn Session,
    name: &str,
    beside: &str,
    sql: &str,
    with_old: bool,
) -> Result<(), SourceError> {
    const TRIES: u32 = 10;
    let mut tried = 0;
    loop {
        end_sessions(session, beside)?;
        if with_old {
            end_sessions(session, name)?;
        }
        tried += 1;
        match session.query("rename the databases", sql) {
            Ok(_) => return Ok(()),
            Err(SourceError::Service(error)) if tried < TRIES && is_in_use(error.as_ref()) => {
                let _ = session.query("take the rename back", "ROLLBACK");
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_in_use(error: &(dyn std::error::Error + 'static)) -> bool {
    let code = match error.downcast_ref() {
        Some(PostgresError::Query { code, .. }) => code.as_deref(),
        _ => None,
    };
    code == Some("55006")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_suffixes_fit_and_stay_apart() {
        assert_eq!(beside_name("shop"), "shop_lifeboat_new");
        let (a, b) = ("é".repeat(31), format!("{}e", "é".repeat(30)));
        assert!(beside_name(&a).len() <= NAME_BYTES);
        assert_ne!(beside_name(&a), beside_name(&b));
    }

    #[test]
    fn list_settings_keep_their_elements() {
        let sql = setting("d", None, "search_path=\"$user\", \"a, \"\"b\", public").unwrap();
        assert_eq!(sql, "ALTER DATABASE \"d\" SET \"search_path\" TO '$user', 'a, \"b', 'public'");
        let sql = setting("d", Some("r"), "app.name=it's").unwrap();
        assert_eq!(sql, "ALTER ROLE \"r\" IN DATABASE \"d\" SET \"app\".\"name\" TO 'it''s'");
    }
}
