//! What came back against what was captured: rows as [`super::read_back`] found them; sequences, large objects, views.

use super::super::error::PostgresError;
use super::super::facts::TableFacts;
use super::super::session::{Session, literal};
use super::super::views;
use super::PostgresTarget;
use super::read_back::ReadBack;
use crate::base::byte_size::plural;
use crate::source::capture::SourceError;

/// Differences named in an error.
const SHOWN: usize = 5;
/// Names or sequences asked for at once.
const AT_ONCE: usize = 200;

impl PostgresTarget {
    /// Compares the database beside with the facts of the captured one.
    pub(super) fn prove(&mut self, place: usize) -> Result<(), SourceError> {
        let mut session = self.session_beside(place)?;
        let session = session.as_mut();
        session.query("analyze the tables", "ANALYZE")?;
        let Some(ReadBack { rows, mut differences }) = self.plans[place].read_back.take() else {
            return Err(
                PostgresError::Differs(format!("nothing came for {:?}", self.plans[place].name)).into()
            );
        };
        let plan = &self.plans[place];
        let name = &plan.name;
        let mut proven = vec![format!(
            "{name}: rows and row hashes of {} tables ({rows} rows) are those of the snapshot",
            plan.facts.tables.len()
        )];
        let sequences = prove_sequences(session, plan, &mut differences)?;
        if sequences > 0 {
            proven.push(format!("{name}: {sequences} sequences are where they were, or further"));
        }
        if let Some(line) = prove_objects(session, &plan.facts.large_objects, &mut differences)? {
            proven.push(format!("{name}: {line}"));
        }
        prove_views(session, plan, &mut differences)?;
        let mut stale = Vec::new();
        if differences.is_empty() {
            let compared = views::compare(session, &plan.facts)?;
            if compared.equal > 0 {
                proven.push(format!(
                    "{name}: {}, computed anew, {} what was captured ({})",
                    plural(compared.equal, "materialized view"),
                    if compared.equal == 1 { "holds" } else { "hold" },
                    plural(compared.rows, "row")
                ));
            }
            let unknown =
                compared.unknown.iter().filter(|view| !plan.facts.not_assertable.contains_key(*view));
            proven.extend(unknown.map(|view| {
                format!(
                    "{name}: not provable: {view}: materialized view, of whose rows the snapshot says nothing"
                )
            }));
            stale.extend(compared.others.into_iter().map(|other| format!("{name}: {other}")));
        }
        let mut reasons: Vec<(&String, &String)> = plan.facts.not_assertable.iter().collect();
        reasons.sort_by_key(|(_, why)| *why);
        for (table, why) in reasons.iter().take(SHOWN) {
            proven.push(format!("{name}: not provable: {table}: {why}"));
        }
        if reasons.len() > SHOWN {
            proven.push(format!("{name}: not provable: {} more", reasons.len() - SHOWN));
        }
        if !differences.is_empty() {
            let (count, shown) = (differences.len(), differences[..differences.len().min(SHOWN)].join("; "));
            return Err(PostgresError::Differs(format!("{count} differences in {name:?}: {shown}")).into());
        }
        self.proven.extend(proven);
        self.warnings.extend(stale);
        Ok(())
    }
}

fn prove_sequences(
    session: &mut dyn Session,
    plan: &super::Plan,
    differences: &mut Vec<String>,
) -> Result<usize, SourceError> {
    let sequences: Vec<_> = plan.facts.sequences.iter().collect();
    let mut checked = 0;
    for some in sequences.chunks(AT_ONCE) {
        let one = |(name, _): &(&String, &(i64, bool))| {
            format!(
                "SELECT last_value, is_called, (SELECT seqincrement FROM pg_sequence WHERE seqrelid = {}::regclass)
                 FROM {name}",
                literal(name)
            )
        };
        let sql = some.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ");
        let rows = session.query("read the sequences", &sql)?;
        for ((name, (value, _)), row) in some.iter().zip(rows) {
            let number =
                |column: usize| row.get(column).cloned().flatten().and_then(|text| text.parse::<i64>().ok());
            let (found, step) = (number(0).unwrap_or_default(), number(2).unwrap_or(1));
            checked += 1;
            // Sequences are outside transactions: they may be further than the snapshot, never less far.
            if if step < 0 { found > *value } else { found < *value } {
                differences.push(format!("sequence {name} is at {found}, was at {value}"));
            }
        }
    }
    Ok(checked)
}

/// Large objects: how many, and their content where this user may read all of it.
fn prove_objects(
    session: &mut dyn Session,
    expected: &TableFacts,
    differences: &mut Vec<String>,
) -> Result<Option<String>, SourceError> {
    let sql = "SELECT count(*) FROM pg_largeobject_metadata";
    let found: u64 =
        session.value("count the large objects", sql)?.and_then(|text| text.parse().ok()).unwrap_or_default();
    if found != expected.rows {
        differences.push(format!("{found} large objects, were {}", expected.rows));
        return Ok(None);
    }
    if found == 0 {
        return Ok(None);
    }
    let sql = "SELECT has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')";
    if session.value("look what this user may read", sql)?.as_deref() != Some("t") {
        return Ok(Some(format!("{found} large objects are there; their content was not compared")));
    }
    // A piece at a time, so that neither end holds an object whole.
    let sql = "COPY (SELECT m.oid, encode(lo_get(m.oid, piece << 20, 1 << 20), 'hex')
        FROM pg_largeobject_metadata m,
        LATERAL (SELECT coalesce(max(pageno), 0)::bigint AS last FROM pg_largeobject WHERE loid = m.oid) pages,
        generate_series(0, (last * 2048) >> 20) piece ORDER BY m.oid, piece) TO STDOUT";
    let mut objects = Objects::default();
    let mut open = Vec::new();
    session.copy_out("read the large objects back", sql, &mut |bytes| {
        open.extend_from_slice(bytes);
        while let Some(end) = memchr::memchr(b'\n', &open) {
            objects.row(&open[..end]);
            open.drain(..=end);
        }
    })?;
    let found = TableFacts::new(expected.id, objects.finish());
    if found != *expected {
        differences
            .push(format!("large objects have {} bytes, had {}, or others", found.bytes, expected.bytes));
    }
    Ok(Some(format!("{} large objects are those of the snapshot, byte for byte", found.rows)))
}

/// Large objects as they come back, piece by piece in order.
#[derive(Default)]
struct Objects {
    sum: super::super::rows::RowSum,
    open: Option<(i64, blake3::Hasher)>,
}

impl Objects {
    fn row(&mut self, row: &[u8]) {
        let mut parts = row.splitn(2, |byte| *byte == b'\t');
        let text = |part: Option<&[u8]>| String::from_utf8_lossy(part.unwrap_or_default()).into_owned();
        let (oid, hex) = (text(parts.next()).parse::<i64>().unwrap_or_default(), text(parts.next()));
        if self.open.as_ref().is_none_or(|(open, _)| *open != oid) {
            self.close();
            let mut hasher = blake3::Hasher::new();
            hasher.update(&oid.to_le_bytes());
            self.open = Some((oid, hasher));
        }
        let bytes = super::super::facts::unhex(&hex);
        self.sum.size_bytes += bytes.len() as u64;
        if let Some((_, hasher)) = &mut self.open {
            hasher.update(&bytes);
        }
    }

    fn close(&mut self) {
        let Some((_, hasher)) = self.open.take() else { return };
        self.sum.rows += 1;
        self.sum.hash = self.sum.hash.wrapping_add(super::super::rows::short(&hasher.finalize()));
    }

    fn finish(mut self) -> super::super::rows::RowSum {
        self.close();
        self.sum
    }
}

fn prove_views(
    session: &mut dyn Session,
    plan: &super::Plan,
    differences: &mut Vec<String>,
) -> Result<(), SourceError> {
    let views: Vec<_> = plan.facts.views.iter().collect();
    for some in views.chunks(AT_ONCE) {
        let one = |(name, _): &(&String, &bool)| {
            format!("SELECT relispopulated FROM pg_class WHERE oid = {}::regclass", literal(name))
        };
        let sql = some.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ");
        let rows = session.query("look at the materialized views", &sql)?;
        for ((name, filled), row) in some.iter().zip(rows) {
            let found = row.first().cloned().flatten().as_deref() == Some("t");
            if found != **filled {
                let (is, was) = if found { ("filled", "not") } else { ("not filled", "filled") };
                differences.push(format!("materialized view {name} is {is}, was {was}"));
            }
        }
    }
    Ok(())
}
