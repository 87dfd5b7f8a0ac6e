//! What comes after the rows, while the rows are read back: indexes are built beside the proof, both only read tables.
//!
//! `ALTER TABLE … ADD PRIMARY KEY` would lock the proof out of its table for as long as the index takes. For large
//! tables the index is therefore built first, as a plain unique one, and becomes the key's once the table is proven;
//! the outcome is the same object under the same name. All else that follows rows changes none, and comes last.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::super::archive::{Archive, Entry};
use super::super::error;
use super::super::session::Session;
use super::PostgresTarget;
use super::feed::{drain, list_file};
use super::read_back::ReadBack;
use crate::base::process::{Process, ProcessOptions};
use crate::source::capture::SourceError;

/// A table is large from here on; below, building its key first gains nothing.
const LARGE_BYTES: u64 = 32 << 20;
/// Most tables read back at once.
const READERS: usize = 4;

/// A primary or unique key of a large table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    entry: u64,
    table: String,
    name: String,
    /// `PRIMARY KEY` or `UNIQUE`
    kind: &'static str,
    columns: String,
}

impl Key {
    /// Reads the definition of a constraint; `None` for all but the plainest.
    fn of(entry: &Entry) -> Option<Self> {
        if entry.kind != b"CONSTRAINT" || entry.has_tablespace {
            return None;
        }
        let sql = std::str::from_utf8(&entry.sql).ok()?.trim_end();
        let (table, rest) = sql.strip_prefix("ALTER TABLE ONLY ")?.split_once("\n    ADD CONSTRAINT ")?;
        let (name, rest) = rest.split_once(' ')?;
        let (kind, rest) = match rest.strip_prefix("PRIMARY KEY (") {
            Some(rest) => ("PRIMARY KEY", rest),
            None => ("UNIQUE", rest.strip_prefix("UNIQUE (")?),
        };
        let columns = rest.strip_suffix(");")?;
        let plain = |text: &str, also: &str| {
            let is_plain =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || also.contains(c);
            !text.is_empty() && text.chars().all(is_plain)
        };
        let is_plain = plain(table, ".") && plain(name, "") && plain(columns, ", ");
        let (table, name, columns) = (table.to_owned(), name.to_owned(), columns.to_owned());
        is_plain.then_some(Self { entry: entry.id, table, name, kind, columns })
    }

    fn index(&self) -> String {
        let Self { table, name, columns, .. } = self;
        format!("CREATE UNIQUE INDEX {name} ON ONLY {table} USING btree ({columns})")
    }

    fn constraint(&self) -> String {
        let Self { table, name, kind, .. } = self;
        format!("ALTER TABLE ONLY {table} ADD CONSTRAINT {name} {kind} USING INDEX {name}")
    }
}

impl PostgresTarget {
    /// Everything after the rows of one database. `toc`: a file that begins with the archive's table of contents.
    pub(super) fn build(
        &mut self,
        place: usize,
        archive: &Archive,
        toc: &Path,
    ) -> Result<ReadBack, SourceError> {
        let plan = &self.plans[place];
        let (facts, left_out) = (&plan.facts, &plan.left_out);
        let large = |key: &Key| facts.tables.get(&key.table).is_some_and(|table| table.bytes >= LARGE_BYTES);
        let wanted = |entry: &&Entry| !left_out.contains(&entry.id);
        let entries: Vec<&Entry> = archive.entries().iter().filter(wanted).collect();
        let keys: Vec<Key> = entries.iter().filter_map(|entry| Key::of(entry)).filter(large).collect();
        let indexes: HashSet<u64> =
            entries.iter().filter(|entry| entry.kind == b"INDEX").map(|entry| entry.id).collect();
        let early: HashSet<u64> = indexes.iter().copied().chain(keys.iter().map(|key| key.entry)).collect();

        let tables = facts.tables.iter().filter(|(_, facts)| !left_out.contains(&facts.id)).collect();
        let copies: HashMap<u64, &[u8]> =
            entries.iter().map(|entry| (entry.id, entry.copy.as_slice())).collect();
        let work = self.reading(place, tables, &copies)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let readers = cores.clamp(1, READERS).min(work.parts());
        let encoding = archive.encoding().unwrap_or_else(|| "UTF8".into());
        let this = &*self;
        let (built, keyed, read) = std::thread::scope(|scope| {
            let indexes = &indexes;
            let built = scope.spawn(move || match indexes.is_empty() {
                true => Ok(()),
                false => this.restore_part(place, archive, toc, &|entry| indexes.contains(&entry.id)),
            });
            let keys = &keys;
            let keyed = scope.spawn(move || this.build_indexes(place, keys));
            let (work, copies, encoding) = (&work, &copies, &*encoding);
            let reading = move || this.read_back(place, encoding, copies, work);
            let read: Vec<_> = (0..readers).map(|_| scope.spawn(reading)).collect();
            let read: Vec<_> = read.into_iter().map(join).collect();
            (join(built), join(keyed), read)
        });
        // What a table holds explains an index that could not be built on it.
        read.into_iter().collect::<Result<(), _>>()?;
        let found = work.finish();
        if !found.differences.is_empty() {
            return Ok(found);
        }
        keyed?;
        built?;
        let mut session = self.session_beside(place)?;
        for key in &keys {
            session.query(&format!("make {} the key of {}", key.name, key.table), &key.constraint())?;
        }
        drop(session);
        self.restore_part(place, archive, toc, &|entry| !early.contains(&entry.id))?;
        Ok(found)
    }

    /// A session in the database beside, set up as for the capture.
    pub(super) fn session_beside(&self, place: usize) -> Result<Box<dyn Session>, SourceError> {
        let mut session = self.reach.session(&self.plans[place].beside)?;
        self.set_up(session.as_mut())?;
        Ok(session)
    }

    fn build_indexes(&self, place: usize, keys: &[Key]) -> Result<(), SourceError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut session = self.session_beside(place)?;
        session.query("set up the session", "SET default_tablespace = ''; SET search_path = ''")?;
        for key in keys {
            session.query(&format!("build index {}", key.name), &key.index())?;
        }
        Ok(())
    }

    /// Runs `pg_restore` for what comes after the data, as far as `wanted` wants it.
    fn restore_part(
        &self,
        place: usize,
        archive: &Archive,
        toc: &Path,
        wanted: &dyn Fn(&Entry) -> bool,
    ) -> Result<(), SourceError> {
        let plan = &self.plans[place];
        let subject = format!("restore database {:?}", plan.name);
        let failed = |cause| error::tool(subject.clone(), cause);
        let list = list_file(archive, &|entry| wanted(entry) && !plan.left_out.contains(&entry.id))?;
        let mut command = self.command(place)?;
        command.arg("--section=post-data").arg("--use-list").arg(list.path());
        if self.flags.jobs > 1 {
            command.arg(format!("--jobs={}", self.flags.jobs));
        }
        command.arg(toc);
        // Building an index says nothing for hours.
        let options = ProcessOptions { no_progress: None, ..ProcessOptions::default() };
        let mut process = Process::start(command, options, &self.world.cancel).map_err(failed)?;
        drain(&mut process, &mut [0; 4096]).map_err(failed)?;
        process.finish().map_err(failed)?;
        Ok(())
    }
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, SourceError>>) -> Result<T, SourceError> {
    let panicked = "a thread of the restore panicked: this is a bug";
    thread.join().unwrap_or_else(|_| Err(super::PostgresError::Other(panicked.into()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(sql: &str) -> Option<Key> {
        Key::of(&Entry { kind: b"CONSTRAINT".to_vec(), sql: sql.into(), ..Entry::default() })
    }

    #[test]
    fn a_plain_key_becomes_an_index_and_a_constraint_of_its_name() {
        let found =
            key("ALTER TABLE ONLY public.orders\n    ADD CONSTRAINT orders_pkey PRIMARY KEY (id, line);\n")
                .unwrap();
        assert_eq!(
            found.index(),
            "CREATE UNIQUE INDEX orders_pkey ON ONLY public.orders USING btree (id, line)"
        );
        assert_eq!(
            found.constraint(),
            "ALTER TABLE ONLY public.orders ADD CONSTRAINT orders_pkey PRIMARY KEY USING INDEX orders_pkey"
        );
        assert_eq!(key("ALTER TABLE ONLY a.b\n    ADD CONSTRAINT c UNIQUE (d);").unwrap().kind, "UNIQUE");
    }

    #[test]
    fn whatever_is_not_plain_is_left_to_pg_restore() {
        for sql in [
            "ALTER TABLE ONLY a.b\n    ADD CONSTRAINT c PRIMARY KEY (d) INCLUDE (e);",
            "ALTER TABLE ONLY a.b\n    ADD CONSTRAINT c PRIMARY KEY (d) DEFERRABLE;",
            "ALTER TABLE ONLY a.b\n    ADD CONSTRAINT c UNIQUE NULLS NOT DISTINCT (d);",
            "ALTER TABLE ONLY a.\"B\"\n    ADD CONSTRAINT c PRIMARY KEY (d);",
            "ALTER TABLE ONLY a.b\n    ADD CONSTRAINT c PRIMARY KEY (d WITHOUT OVERLAPS);",
            "ALTER TABLE ONLY a.b\n    ADD CONSTRAINT c EXCLUDE USING gist (d WITH =);",
            "ALTER TABLE ONLY a.b\n    ADD CONSTRAINT c PRIMARY KEY (d);\n\nALTER TABLE a.b CLUSTER ON c;",
            "",
        ] {
            assert_eq!(key(sql), None, "{sql}");
        }
        let mut entry = Entry { kind: b"CONSTRAINT".to_vec(), ..Entry::default() };
        entry.sql = b"ALTER TABLE ONLY a.b\n    ADD CONSTRAINT c PRIMARY KEY (d);".to_vec();
        assert!(Key::of(&entry).is_some());
        entry.has_tablespace = true;
        assert_eq!(Key::of(&entry), None);
    }
}
