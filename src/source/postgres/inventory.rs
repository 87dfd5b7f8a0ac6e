//! What a database has besides its rows: how many objects of each kind, what is not valid, who may do how much.
//!
//! Read at the capture, in its snapshot, and again where it was restored: counts by kind and by role are short
//! however large the database is, and say what is missing. What extensions and the system brought is not counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::session::Session;
use crate::source::capture::SourceError;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// `indexes`, `constraints` and so on, and how many.
    pub objects: BTreeMap<String, u64>,
    /// Constraints that were never checked, and indexes that are not used.
    pub not_valid: Vec<String>,
    /// Role, right, and on how many objects it was granted, their owners' own rights apart.
    pub grants: BTreeMap<String, BTreeMap<String, u64>>,
}

const SQL: &str = "WITH space AS (SELECT oid FROM pg_namespace
        WHERE nspname NOT LIKE 'pg\\_%' ESCAPE '\\' AND nspname <> 'information_schema'),
    brought AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
    relation AS (SELECT c.oid, c.relkind, c.relowner, c.relacl FROM pg_class c
        WHERE c.relnamespace IN (SELECT oid FROM space) AND NOT EXISTS
            (SELECT FROM brought WHERE classid = 'pg_class'::regclass AND objid = c.oid)),
    routine AS (SELECT p.oid, p.proowner, p.proacl FROM pg_proc p
        WHERE p.pronamespace IN (SELECT oid FROM space) AND NOT EXISTS
            (SELECT FROM brought WHERE classid = 'pg_proc'::regclass AND objid = p.oid)),
    granted AS (SELECT relowner AS owner, relacl AS acl FROM relation
        UNION ALL SELECT r.relowner, a.attacl FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid
        UNION ALL SELECT proowner, proacl FROM routine
        UNION ALL SELECT n.nspowner, n.nspacl FROM pg_namespace n WHERE n.oid IN (SELECT oid FROM space)),
    counted AS (SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS role,
            lower(a.privilege_type) AS allowed, count(*) AS number
        FROM granted g, aclexplode(g.acl) a WHERE a.grantee <> g.owner GROUP BY 1, 2),
    named AS (SELECT CASE relkind WHEN 'v' THEN 'views' WHEN 'm' THEN 'materialized views' WHEN 'S' THEN 'sequences'
                WHEN 'f' THEN 'foreign tables' ELSE 'tables' END AS kind FROM relation
            WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL SELECT 'indexes' FROM pg_index i JOIN relation r ON r.oid = i.indrelid
        UNION ALL SELECT 'constraints' FROM pg_constraint k JOIN relation r ON r.oid = k.conrelid
        UNION ALL SELECT 'triggers' FROM pg_trigger t JOIN relation r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
        UNION ALL SELECT 'policies' FROM pg_policy p JOIN relation r ON r.oid = p.polrelid
        UNION ALL SELECT 'functions' FROM routine)
    SELECT json_build_object(
        'objects', (SELECT json_object_agg(kind, number) FROM
            (SELECT kind, count(*) AS number FROM named GROUP BY kind) o),
        'not_valid', (SELECT json_agg(name ORDER BY name) FROM
            (SELECT format('constraint %s of %s', k.conname, r.oid::regclass) AS name
                FROM pg_constraint k JOIN relation r ON r.oid = k.conrelid WHERE NOT k.convalidated
            UNION ALL SELECT format('index %s', i.indexrelid::regclass)
                FROM pg_index i JOIN relation r ON r.oid = i.indrelid
                WHERE NOT i.indisvalid AND r.relkind <> 'p') v),
        'grants', (SELECT json_object_agg(role, rights) FROM
            (SELECT role, json_object_agg(allowed, number) AS rights FROM counted GROUP BY role) g))";

impl Inventory {
    /// Of the database a session is in.
    ///
    /// # Errors
    /// The server's.
    pub fn read(session: &mut dyn Session) -> Result<Self, SourceError> {
        let said = session.json("take stock of the database", SQL)?;
        fn part<T: serde::de::DeserializeOwned + Default>(said: &serde_json::Value, key: &str) -> T {
            serde_json::from_value(said[key].clone()).unwrap_or_default()
        }
        Ok(Self {
            objects: part(&said, "objects"),
            not_valid: part(&said, "not_valid"),
            grants: part(&said, "grants"),
        })
    }
}
