//! Rows as they lie in the restored tables. Every table is read once, with COPY, by several sessions at a time; a large one
//! is read in parts, so that no core waits at the end for the last of it.
//!
//! The same bytes are hashed as at the capture: COPY's text of the same columns in the same encoding and settings. A
//! table's hash is a sum over its rows, so parts add up to it in any order.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::super::facts::TableFacts;
use super::super::rows::{RowSum, Rows};
use super::super::session::{Session, literal};
use super::PostgresTarget;
use crate::source::capture::SourceError;

/// Names asked for at once.
const AT_ONCE: usize = 200;
/// Bytes of a table read at a time, as it lies on the server's disk.
const PART_BYTES: u64 = 64 << 20;
/// From this version on, a part is read without reading what comes before it.
const PARTS_SINCE: u32 = 14;

/// What reading every table back found.
#[derive(Default)]
pub(super) struct ReadBack {
    pub rows: u64,
    pub differences: Vec<String>,
}

/// A table, or some of its pages.
struct Part {
    table: usize,
    /// The first page, and the first that is not read any more; `None`: all of the table.
    pages: Option<(u64, Option<u64>)>,
}

/// What has been read of one table.
#[derive(Default)]
struct Found {
    sum: RowSum,
    difference: Option<String>,
}

/// The tables of one database, shared by the sessions that read them.
pub(super) struct Reading<'t> {
    tables: Vec<(&'t String, &'t TableFacts)>,
    /// The largest table's last.
    parts: Mutex<Vec<Part>>,
    found: Mutex<Vec<Found>>,
}

impl<'t> Reading<'t> {
    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn next(&self) -> Option<Part> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn note(&self, table: usize, result: Result<RowSum, String>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(sum) => found[table].sum.add(sum),
            Err(difference) => found[table].difference = Some(difference),
        }
    }

    /// What all parts together say, once none is left.
    pub fn finish(self) -> ReadBack {
        let mut back = ReadBack::default();
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        for ((name, expected), found) in self.tables.into_iter().zip(found) {
            let sum = TableFacts::new(expected.id, found.sum);
            if let Some(difference) = found.difference {
                back.differences.push(difference);
            } else if sum == *expected {
                back.rows += sum.rows;
            } else if sum.rows != expected.rows {
                back.differences.push(format!("{name} has {} rows, had {}", sum.rows, expected.rows));
            } else {
                back.differences.push(format!("{name} has {} rows as before, but others", expected.rows));
            }
        }
        back
    }
}

impl PostgresTarget {
    /// Plans the reading of `tables`. `copies`: COPY commands by entry.
    pub(super) fn reading<'t>(
        &self,
        place: usize,
        mut tables: Vec<(&'t String, &'t TableFacts)>,
        copies: &HashMap<u64, &[u8]>,
    ) -> Result<Reading<'t>, SourceError> {
        // The largest first, so that nobody waits for one at the end.
        tables.sort_by_key(|(_, facts)| facts.bytes);
        let in_parts = self.server()?.major >= PARTS_SINCE;
        let large = |facts: &TableFacts| in_parts && facts.bytes >= 2 * PART_BYTES;
        let mut session = match tables.iter().any(|(_, facts)| large(facts)) {
            true => Some(self.session_beside(place)?),
            false => None,
        };
        let mut parts = Vec::new();
        for (table, (name, facts)) in tables.iter().enumerate() {
            let is_split = |facts: &TableFacts| {
                let copy = copies.get(&facts.id).copied().unwrap_or_default();
                large(facts) && can_be_split(copy)
            };
            // How large it is says only how to share the work: one that the server does not tell is read as a whole.
            let pages = match session.as_mut().filter(|_| is_split(facts)) {
                Some(session) => match pages(session.as_mut(), name) {
                    Err(cancelled @ SourceError::Cancelled(_)) => return Err(cancelled),
                    pages => pages.unwrap_or_default(),
                },
                None => Vec::new(),
            };
            if pages.is_empty() {
                parts.push(Part { table, pages: None });
            }
            parts.extend(pages.into_iter().map(|pages| Part { table, pages: Some(pages) }));
        }
        let found = tables.iter().map(|_| Found::default()).collect();
        Ok(Reading { tables, parts: Mutex::new(parts), found: Mutex::new(found) })
    }

    /// Reads parts until there are no more. `copies`: COPY commands by entry.
    pub(super) fn read_back(
        &self,
        place: usize,
        encoding: &str,
        copies: &HashMap<u64, &[u8]>,
        reading: &Reading<'_>,
    ) -> Result<(), SourceError> {
        let mut session = self.session_beside(place)?;
        let session = session.as_mut();
        let monetary = literal(&self.plans[place].facts.properties.monetary);
        // A locale that is not here leaves money as this server writes it; it differs only if there is any.
        let _ = session.query("set the locale of money", &format!("SET lc_monetary = {monetary}"));
        let in_its_own = format!("SET client_encoding = {}", literal(encoding));
        let is_foreign = encoding != "UTF8";
        while let Some(part) = reading.next() {
            let (name, expected) = reading.tables[part.table];
            let copy = copies.get(&expected.id).copied().unwrap_or_default();
            let statement = decode(session, encoding, &[copy])?.pop().unwrap_or_default();
            let Some(sql) = copy_out(&statement, part.pages, encoding == "SQL_ASCII") else {
                let said = format!("{name}: the archive does not say how to read it");
                reading.note(part.table, Err(said));
                continue;
            };
            if is_foreign {
                session.query("set the encoding", &in_its_own)?;
            }
            let mut rows = Rows::default();
            session.copy_out(&format!("read {name} back"), &sql, &mut |bytes| rows.push(bytes))?;
            if is_foreign {
                session.query("set the encoding", "SET client_encoding = 'UTF8'")?;
            }
            reading.note(part.table, rows.finish().ok_or_else(|| format!("{name}: its last row has no end")));
        }
        Ok(())
    }
}

/// The pages of a large table, in parts; none where the server does not say how many there are.
fn pages(session: &mut dyn Session, table: &str) -> Result<Vec<(u64, Option<u64>)>, SourceError> {
    let sql = format!(
        "SELECT pg_relation_size({0}::regclass) / current_setting('block_size')::bigint,
         {PART_BYTES} / current_setting('block_size')::bigint",
        literal(table)
    );
    let row = session.query(&format!("ask how large {table} is"), &sql)?.pop().unwrap_or_default();
    let number = |column: usize| row.get(column).cloned().flatten()?.parse::<u64>().ok();
    let (Some(all), Some(step @ 1..)) = (number(0), number(1)) else { return Ok(Vec::new()) };
    let mut parts: Vec<_> =
        (0..all.max(1)).step_by(step as usize).map(|from| (from, Some(from + step))).collect();
    if let Some(last) = parts.last_mut() {
        // Whatever the size was, nothing is left out.
        last.1 = None;
    }
    Ok(parts)
}

/// Text of an archive in the database's encoding, decoded by the server unless it is UTF-8 already.
fn decode(session: &mut dyn Session, encoding: &str, texts: &[&[u8]]) -> Result<Vec<String>, SourceError> {
    let plain =
        texts.iter().map(|text| std::str::from_utf8(text).map(str::to_owned)).collect::<Result<_, _>>();
    match plain {
        Ok(plain) if matches!(encoding, "UTF8" | "SQL_ASCII") || texts.iter().all(|text| text.is_ascii()) => {
            return Ok(plain);
        }
        // Names that are no text in any encoding: what cannot be asked for cannot be compared.
        Err(_) if encoding == "SQL_ASCII" => {
            return Ok(texts
                .iter()
                .map(|text| String::from_utf8(text.to_vec()).unwrap_or_default())
                .collect());
        }
        _ => {}
    }
    let mut decoded = Vec::with_capacity(texts.len());
    for some in texts.chunks(AT_ONCE) {
        let one = |text: &&[u8]| {
            let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("convert_from(decode('{hex}', 'hex'), {})", literal(encoding))
        };
        let values: Vec<_> = some.iter().map(one).collect();
        let sql = format!("SELECT unnest(ARRAY[{}])", values.join(", "));
        let rows = session.query("decode names", &sql)?;
        decoded.extend(rows.into_iter().map(|row| row.into_iter().next().flatten().unwrap_or_default()));
    }
    Ok(decoded)
}

/// `COPY t (a) FROM stdin;` the other way round, in letters that are the same in every encoding.
fn copy_out(statement: &str, pages: Option<(u64, Option<u64>)>, as_it_is: bool) -> Option<String> {
    let table = statement.trim().strip_suffix(';')?.trim_end().strip_suffix("FROM stdin")?;
    let table = if as_it_is { table.to_owned() } else { escape_names(table) };
    let Some((from, below)) = pages else { return Some(format!("{table} TO STDOUT")) };
    let (name, columns) = split(table.trim().strip_prefix("COPY ")?)?;
    let below = below.map(|below| format!(" AND ctid < '({below},0)'::tid")).unwrap_or_default();
    Some(format!("COPY (SELECT {columns} FROM ONLY {name} WHERE ctid >= '({from},0)'::tid{below}) TO STDOUT"))
}

/// Whether some pages of its table can be asked for: not where no column is named.
fn can_be_split(copy: &[u8]) -> bool {
    // What quotes and parentheses are is the same in all encodings of a server.
    copy_out(&String::from_utf8_lossy(copy), Some((0, None)), true).is_some()
}

/// `t (a, b)` into name and columns.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = text.find(|character| {
        quoted ^= character == '"';
        character == '(' && !quoted
    })?;
    let (name, columns) = text.split_at(at);
    Some((name.trim_end(), columns.strip_prefix('(')?.trim_end().strip_suffix(')')?))
}

/// Quoted names that are not plain ASCII, written with escapes.
pub fn escape_names(sql: &str) -> String {
    if sql.is_ascii() {
        return sql.to_owned();
    }
    let mut out = String::with_capacity(sql.len() * 2);
    let mut characters = sql.chars().peekable();
    let mut inside = false;
    while let Some(character) = characters.next() {
        match character {
            '"' if !inside => {
                inside = true;
                out.push_str("U&\"");
            }
            '"' if characters.peek() == Some(&'"') => {
                characters.next();
                out.push_str("\"\"");
            }
            '"' => {
                inside = false;
                out.push('"');
            }
            '\\' if inside => out.push_str("\\\\"),
            character if character.is_ascii() => out.push(character),
            character => out.push_str(&format!("\\+{:06x}", u32::from(character))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_command_is_turned_round_in_ascii() {
        let turned = |sql: &str| copy_out(sql, None, false);
        assert_eq!(turned("COPY public.t (a, b) FROM stdin;\n").unwrap(), "COPY public.t (a, b)  TO STDOUT");
        assert_eq!(
            turned("COPY public.\"é\"\"\\x\" (\"FROM stdin;\", b) FROM stdin;\n").unwrap(),
            "COPY public.U&\"\\+0000e9\"\"\\\\x\" (U&\"FROM stdin;\", b)  TO STDOUT"
        );
        assert_eq!(
            copy_out("COPY public.\"é\" FROM stdin;", None, true).unwrap(),
            "COPY public.\"é\"  TO STDOUT"
        );
        assert_eq!(turned(""), None);
    }

    #[test]
    fn a_part_of_a_table_is_asked_for_by_its_pages() {
        let part = |sql: &str, pages| copy_out(sql, Some(pages), false);
        assert_eq!(
            part("COPY public.t (a, b) FROM stdin;\n", (8, Some(16))).unwrap(),
            "COPY (SELECT a, b FROM ONLY public.t WHERE ctid >= '(8,0)'::tid AND ctid < '(16,0)'::tid) TO STDOUT"
        );
        assert_eq!(
            part("COPY s.\"t (x)\" (\"a(\"\")\", b) FROM stdin;", (0, None)).unwrap(),
            "COPY (SELECT \"a(\"\")\", b FROM ONLY s.\"t (x)\" WHERE ctid >= '(0,0)'::tid) TO STDOUT"
        );
        assert_eq!(part("COPY public.t  FROM stdin;", (0, None)), None);
        assert!(can_be_split(b"COPY public.\"t\xe9(\" (\"\xe9\", b) FROM stdin;\n"));
        assert!(!can_be_split(b"COPY public.t  FROM stdin;\n") && !can_be_split(b""));
    }
}
