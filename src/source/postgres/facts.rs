//! What a snapshot knows of the databases in it: what a restore is proven against, and what it puts around the
//! data that the archive itself does not carry under another name.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::PostgresError;
use super::archive::{Archive, BlockContent};
use super::inventory::Inventory;
use super::rows::RowSum;
use super::session::Session;
use crate::source::capture::SourceError;

/// Most bytes of facts: a snapshot keeps a little more.
const LIMIT_BYTES: usize = 14 << 20;

/// The key in a snapshot's facts.
pub const KEY: &str = "postgres";

/// Everything, under `KEY`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    pub server_version: String,
    pub server_major: u32,
    /// Who the server is: the same for its standbys, and nobody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The pg_dump that read it.
    pub tool: String,
    /// It is newer than the server, for want of the server's own.
    pub tool_is_newer: bool,
    pub standby: bool,
    /// The server's clock less ours.
    pub clock_skew_seconds: f64,
    pub databases: BTreeMap<String, DatabaseFacts>,
    pub globals: Option<GlobalFacts>,
}

/// One database.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseFacts {
    /// Path of its archive in the snapshot.
    pub part: String,
    /// The server's time of the snapshot, or of the last replayed transaction.
    pub at: String,
    pub lsn: Option<String>,
    /// Minor version of the archive: 14 of 1.14.
    pub archive_minor: u8,
    pub properties: Properties,
    pub size_bytes: u64,
    /// Name to version.
    pub extensions: BTreeMap<String, String>,
    pub tables: BTreeMap<String, TableFacts>,
    pub large_objects: TableFacts,
    /// Name to last value and whether it was used.
    pub sequences: BTreeMap<String, (i64, bool)>,
    /// Materialized views and whether they are filled.
    pub views: BTreeMap<String, bool>,
    /// What the filled ones held.
    pub view_rows: BTreeMap<String, TableFacts>,
    /// What a restore cannot be held against, and why.
    pub not_assertable: BTreeMap<String, String>,
    /// `None`: only a part of the database was captured.
    pub inventory: Option<Inventory>,
}

/// Rows of a table, from the archive as it streamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableFacts {
    /// Its entry in the archive.
    pub id: u64,
    pub rows: u64,
    /// Of the rows as text.
    pub bytes: u64,
    /// Sum of the rows' hashes, in hexadecimal.
    pub hash: String,
}

impl TableFacts {
    pub fn new(id: u64, sum: RowSum) -> Self {
        Self { id, rows: sum.rows, bytes: sum.size_bytes, hash: format!("{:032x}", sum.hash) }
    }
}

/// What belongs to a database as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    pub owner: String,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `c`, `i` or `b`, as the catalogue has it.
    pub provider: String,
    pub locale: Option<String>,
    pub icu_rules: Option<String>,
    pub collation_version: Option<String>,
    pub tablespace: String,
    /// `lc_monetary`, which the text of money depends on.
    pub monetary: String,
    pub connection_limit: i64,
    pub comment: Option<String>,
    /// `None`: the default rights. Each: to whom (nobody: PUBLIC), what, with the right to pass it on.
    pub rights: Option<Vec<(Option<String>, String, bool)>>,
    /// Role, if for one only, and `name=value`.
    pub settings: Vec<(Option<String>, Vec<String>)>,
}

/// What belongs to the whole server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GlobalFacts {
    pub part: String,
    pub roles: Vec<String>,
    pub tablespaces: Vec<String>,
    /// Without them roles come back without passwords.
    pub has_passwords: bool,
}

const PROPERTIES: &str = "SELECT json_build_object('row', to_json(d),
    'encoding', pg_encoding_to_char(d.encoding), 'owner', pg_get_userbyid(d.datdba),
    'tablespace', (SELECT spcname FROM pg_tablespace t WHERE t.oid = d.dattablespace),
    'comment', shobj_description(d.oid, 'pg_database'), 'size', pg_database_size(d.oid),
    'rights', (SELECT json_agg(json_build_array(CASE WHEN grantee = 0 THEN NULL ELSE pg_get_userbyid(grantee) END,
        privilege_type, is_grantable)) FROM aclexplode(d.datacl)),
    'monetary', current_setting('lc_monetary'),
    'settings', (SELECT json_agg(json_build_array(CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole) END,
        setconfig) ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid),
    'extensions', (SELECT json_object_agg(extname, extversion) FROM pg_extension))
    FROM pg_database d WHERE datname = current_database()";

/// Reads [`Properties`], the size and the extensions of the database a session is in.
pub fn read_properties(session: &mut dyn Session) -> Result<DatabaseFacts, SourceError> {
    let said = session.json("read the database's properties", PROPERTIES)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let row = &said["row"];
    // `daticulocale` became `datlocale` in 17.
    let locale = text(&row["datlocale"]).or_else(|| text(&row["daticulocale"]));
    let part = |key: &str| said.get(key).cloned().filter(|value| !value.is_null());
    let rights = part("rights").and_then(|value| serde_json::from_value(value).ok());
    let properties = Properties {
        owner: text(&said["owner"]).unwrap_or_default(),
        encoding: text(&said["encoding"]).unwrap_or_default(),
        collate: text(&row["datcollate"]).unwrap_or_default(),
        ctype: text(&row["datctype"]).unwrap_or_default(),
        provider: text(&row["datlocprovider"]).unwrap_or_else(|| "c".into()),
        locale,
        icu_rules: text(&row["daticurules"]),
        collation_version: text(&row["datcollversion"]),
        tablespace: text(&said["tablespace"]).unwrap_or_default(),
        monetary: text(&said["monetary"]).unwrap_or_default(),
        connection_limit: row["datconnlimit"].as_i64().unwrap_or(-1),
        comment: text(&said["comment"]),
        // Rights that were all revoked are an empty list; no list is the default.
        rights: if row["datacl"].is_null() { None } else { Some(rights.unwrap_or_default()) },
        settings: part("settings").and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default(),
    };
    let extensions = part("extensions").and_then(|value| serde_json::from_value(value).ok());
    Ok(DatabaseFacts {
        properties,
        size_bytes: said["size"].as_u64().unwrap_or_default(),
        extensions: extensions.unwrap_or_default(),
        ..DatabaseFacts::default()
    })
}

/// Why nothing is known of a materialized view's rows.
const UNREAD: &str = "materialized view, whose rows were not read";

/// A relation as the catalogue has it.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Quoted where it must be, with its schema.
    pub name: String,
    pub kind: char,
    pub is_filled: bool,
    pub is_unlogged: bool,
    pub is_of_extension: bool,
}

/// Relations by number, and their names in the database's own encoding.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    by_oid: HashMap<u64, Relation>,
    by_name: HashMap<(Vec<u8>, Vec<u8>), u64>,
}

const RELATIONS: &str = "SELECT c.oid, c.relkind, c.relispopulated, c.relpersistence,
    EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e'),
    encode(convert_to(n.nspname::text, getdatabaseencoding()), 'hex'),
    encode(convert_to(c.relname::text, getdatabaseencoding()), 'hex'),
    CASE WHEN getdatabaseencoding() <> 'SQL_ASCII' THEN quote_ident(n.nspname) || '.' || quote_ident(c.relname) END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'f', 'S', 'p') AND n.nspname NOT LIKE 'pg\\_%' ESCAPE '\\'
    AND n.nspname <> 'information_schema'";

/// Bytes of pairs of hexadecimal digits.
pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

impl Relations {
    /// Lists the relations of the database a session is in, as of its snapshot.
    pub fn read(session: &mut dyn Session) -> Result<Self, SourceError> {
        let mut found = Self::default();
        for row in session.query("list the tables", RELATIONS)? {
            let cell = |column: usize| row.get(column).cloned().flatten().unwrap_or_default();
            let (schema, name) = (unhex(&cell(5)), unhex(&cell(6)));
            let shown = match cell(7) {
                // Without an encoding bytes may be anything.
                shown if shown.is_empty() => {
                    format!("{}.{}", schema.escape_ascii(), name.escape_ascii())
                }
                shown => shown,
            };
            let oid = cell(0).parse().unwrap_or_default();
            let relation = Relation {
                name: shown,
                kind: cell(1).chars().next().unwrap_or('?'),
                is_filled: cell(2) == "t",
                is_unlogged: cell(3) == "u",
                is_of_extension: cell(4) == "t",
            };
            found.by_oid.insert(oid, relation);
            found.by_name.insert((schema, name), oid);
        }
        Ok(found)
    }
}

impl Relations {
    /// The materialized views that hold something.
    pub fn filled_views(&self) -> Vec<String> {
        let all = self.by_oid.values();
        let filled = all.filter(|view| view.kind == 'm' && view.is_filled && !view.is_of_extension);
        filled.map(|view| view.name.clone()).collect()
    }
}

impl DatabaseFacts {
    /// Adds what was read of materialized views; to be called before [`Self::take_archive`].
    pub fn take_views(&mut self, read: Vec<super::views::Read>) {
        for (name, rows) in read {
            match rows {
                Ok(rows) => drop(self.view_rows.insert(name, rows)),
                Err(why) => {
                    drop(
                        self.not_assertable
                            .insert(name, format!("materialized view that could not be read: {why}")),
                    );
                }
            }
        }
    }

    /// Adds what the archive holds, entry by entry, under the names of the relations.
    pub fn take_archive(&mut self, archive: &Archive, relations: &Relations) -> Result<(), PostgresError> {
        self.archive_minor = archive.head().map_or(0, |head| head.minor);
        let mut objects = RowSum::default();
        let mut with_data = Vec::new();
        for entry in archive.entries() {
            let content = archive.block(entry.id).map(|block| block.content);
            let lossy = || {
                let (schema, tag) = (&entry.schema, &entry.tag);
                format!("{}.{}", String::from_utf8_lossy(schema), String::from_utf8_lossy(tag))
            };
            let relation = relations.by_oid.get(&entry.oid);
            match (entry.kind.as_slice(), content) {
                (b"TABLE DATA", Some(BlockContent::Table(sum))) => {
                    let name = relation.map_or_else(lossy, |relation| relation.name.clone());
                    with_data.push(entry.oid);
                    self.tables.insert(name, TableFacts::new(entry.id, sum));
                }
                (_, Some(BlockContent::Objects(sum))) => {
                    objects.rows += sum.rows;
                    objects.size_bytes += sum.size_bytes;
                    objects.hash = objects.hash.wrapping_add(sum.hash);
                }
                (b"MATERIALIZED VIEW", _) => {
                    if let Some(Relation { name, is_filled, .. }) = relation {
                        self.views.insert(name.clone(), *is_filled);
                    }
                }
                (b"SEQUENCE SET", _) => {
                    let key = (entry.schema.clone(), entry.tag.clone());
                    let relation = relations.by_name.get(&key).and_then(|oid| relations.by_oid.get(oid));
                    let name = relation.map_or_else(lossy, |relation| relation.name.clone());
                    let value = sequence_value(&entry.sql).ok_or_else(|| {
                        PostgresError::Other(format!("the archive sets sequence {name} in an unknown way"))
                    })?;
                    self.sequences.insert(name, value);
                }
                _ => {}
            }
        }
        self.large_objects = TableFacts::new(0, objects);
        for (oid, relation) in &relations.by_oid {
            let name = relation.name.clone();
            let why = match relation.kind {
                'f' => "foreign table: its rows are elsewhere and were not read",
                'm' if relation.is_filled && !self.view_rows.contains_key(&name) => {
                    if self.views.contains_key(&name) {
                        self.not_assertable.entry(name).or_insert_with(|| UNREAD.into());
                    }
                    continue;
                }
                'r' if with_data.contains(oid) => continue,
                'r' if relation.is_of_extension => "belongs to an extension, which makes it anew",
                'r' if relation.is_unlogged => "unlogged: a standby has no data of it",
                'r' => "left out of the capture",
                _ => continue,
            };
            self.not_assertable.insert(name, why.into());
        }
        Ok(())
    }
}

/// `SELECT pg_catalog.setval('public.s', 42, true);`
fn sequence_value(sql: &[u8]) -> Option<(i64, bool)> {
    let end = sql.iter().rposition(|byte| *byte == b'\'')?;
    let rest = std::str::from_utf8(&sql[end + 1..]).ok()?;
    let mut parts = rest.trim_start_matches([',', ' ']).split([',', ')']).map(str::trim);
    let value = parts.next()?.parse().ok()?;
    Some((value, parts.next()? == "true"))
}

impl Facts {
    /// From a snapshot's facts.
    pub fn of(facts: &Map<String, Value>) -> Option<Self> {
        serde_json::from_value(facts.get(KEY)?.clone()).ok()
    }

    /// Into a snapshot's facts. What would not fit is left out, the largest databases' tables first, and named.
    pub fn into_map(mut self, warnings: &mut Vec<String>) -> Map<String, Value> {
        loop {
            let value = serde_json::to_value(&self).unwrap_or_default();
            let largest = self.databases.iter_mut().max_by_key(|(_, facts)| facts.tables.len());
            match largest {
                Some((name, facts)) if value.to_string().len() > LIMIT_BYTES && !facts.tables.is_empty() => {
                    facts.tables.clear();
                    facts.not_assertable.clear();
                    facts.not_assertable.insert("all tables".into(), "too many to keep their counts".into());
                    warnings
                        .push(format!("database {name:?} has too many tables: their counts are not kept"));
                }
                _ => return Map::from_iter([(KEY.to_owned(), value)]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequences_value_is_read_behind_any_name() {
        let read = |sql: &str| sequence_value(sql.as_bytes());
        assert_eq!(read("SELECT pg_catalog.setval('public.s', 42, true);\n"), Some((42, true)));
        assert_eq!(read("SELECT pg_catalog.setval('\"a, 1, false)''\"', -7, false);"), Some((-7, false)));
        assert_eq!(read("SELECT 1"), None);
    }

    #[test]
    fn facts_survive_the_snapshot() {
        let mut facts = Facts { server_major: 15, ..Facts::default() };
        let table = TableFacts::new(9, RowSum { rows: 1, size_bytes: 2, hash: u128::MAX });
        let tables = BTreeMap::from([("public.t".to_owned(), table)]);
        let database = DatabaseFacts { tables, ..DatabaseFacts::default() };
        facts.databases.insert("d".into(), database);
        let back = Facts::of(&facts.clone().into_map(&mut Vec::new())).unwrap();
        assert_eq!(back.databases["d"].tables, facts.databases["d"].tables);
        assert!(Facts::of(&Map::new()).is_none());

        let long = "n".repeat(60);
        let tables = (0..200_000).map(|number| (format!("{long}{number}"), TableFacts::default())).collect();
        let database = DatabaseFacts { tables, ..DatabaseFacts::default() };
        facts.databases.insert("many".into(), database);
        let mut warnings = Vec::new();
        let back = Facts::of(&facts.into_map(&mut warnings)).unwrap();
        assert_eq!((back.databases["many"].tables.len(), back.databases["d"].tables.len()), (0, 1));
        assert!(warnings[0].contains("many"), "{warnings:?}");
    }
}
