//! Whether a database holds nothing of anybody's: as `initdb` or `CREATE DATABASE` made it, and nobody is in it.
//!
//! A database that is vacant may give way to a restored one without being asked for. So whatever is in doubt counts
//! as something: rights and settings that somebody gave, and a catalogue that may not be read.

use std::time::Duration;

use super::session::Session;
use crate::source::capture::SourceError;

/// A session that ended a moment ago may still be listed.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// What is in a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Objects that did not come with it.
    pub objects: u64,
    /// Rights and settings of the database and its schema `public` that somebody gave.
    pub rights: u64,
    /// Sessions of others.
    pub sessions: u64,
}

/// Objects from number 16384 on are made by people; those of sessions (`pg_temp_…`, `pg_toast_…`) are nobody's. In
/// single-user mode people make some with lower numbers, too: such are known by a schema that is not the server's own.
const SQL: &str = "
    WITH spaces AS (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg\\_t%' ESCAPE '\\'),
    made AS (
        SELECT oid FROM pg_class WHERE relnamespace NOT IN (SELECT oid FROM spaces)
        UNION ALL SELECT oid FROM pg_proc
        UNION ALL SELECT oid FROM pg_type WHERE typnamespace NOT IN (SELECT oid FROM spaces) AND typrelid = 0
            AND typelem = 0
        UNION ALL SELECT oid FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_t%' ESCAPE '\\'
        UNION ALL SELECT oid FROM pg_collation WHERE collnamespace <> 'pg_catalog'::regnamespace
        UNION ALL SELECT oid FROM pg_extension UNION ALL SELECT oid FROM pg_operator UNION ALL SELECT oid FROM pg_cast
        UNION ALL SELECT oid FROM pg_opclass UNION ALL SELECT oid FROM pg_opfamily
        UNION ALL SELECT oid FROM pg_conversion UNION ALL SELECT oid FROM pg_language
        UNION ALL SELECT oid FROM pg_foreign_data_wrapper UNION ALL SELECT oid FROM pg_foreign_server
        UNION ALL SELECT oid FROM pg_event_trigger UNION ALL SELECT oid FROM pg_publication
        UNION ALL SELECT oid FROM pg_default_acl UNION ALL SELECT oid FROM pg_ts_config
        UNION ALL SELECT oid FROM pg_ts_dict UNION ALL SELECT oid FROM pg_ts_parser
        UNION ALL SELECT oid FROM pg_ts_template UNION ALL SELECT oid FROM pg_am UNION ALL SELECT oid FROM pg_transform),
    low AS (
        SELECT relnamespace AS space FROM pg_class WHERE oid < 16384
        UNION ALL SELECT pronamespace FROM pg_proc WHERE oid < 16384
        UNION ALL SELECT typnamespace FROM pg_type WHERE oid < 16384)
    SELECT (SELECT count(*) FROM made WHERE oid >= 16384) + (SELECT count(*) FROM pg_largeobject_metadata)
        + (SELECT count(*) FROM low JOIN pg_namespace n ON n.oid = low.space
           WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_t%' ESCAPE '\\')
        + (SELECT count(*) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
           WHERE datname = current_database()),
        (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
           WHERE datname = current_database())
        + (SELECT count(*) FROM pg_database WHERE datname = current_database() AND datacl IS NOT NULL)
        + (SELECT count(*) FROM pg_namespace n WHERE n.nspname = 'public' AND n.nspacl::text IS DISTINCT FROM
           (SELECT initprivs::text FROM pg_init_privs
            WHERE classoid = 'pg_namespace'::regclass AND objoid = n.oid AND objsubid = 0)),
        (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
         AND coalesce(backend_type, 'client backend') = 'client backend')";

impl Contents {
    /// Whether nothing would be lost with it.
    pub fn is_nothing(&self) -> bool {
        self.objects == 0 && self.rights == 0
    }

    /// Of the database a session is in; waits two seconds for sessions that are ending.
    ///
    /// # Errors
    /// The server's, or the run was cancelled.
    pub fn read(session: &mut dyn Session) -> Result<Self, SourceError> {
        let mut tried = 0;
        loop {
            let row = session.query("look what is in the database", SQL)?.pop().unwrap_or_default();
            let number = |column: usize| {
                row.get(column).cloned().flatten().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
            };
            let found = Self { objects: number(0), rights: number(1), sessions: number(2) };
            tried += 1;
            if found.objects > 0 || found.sessions == 0 || tried == TRIES {
                return Ok(found);
            }
            std::thread::sleep(PAUSE);
        }
    }
}
