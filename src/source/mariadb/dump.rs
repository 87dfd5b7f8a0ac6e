//! What `mariadb-dump` and `mysqldump` write, followed while it passes: tables, their rows counted and hashed, and
//! what is no table.
//!
//! The text is taken apart only as far as needed: rows are the parentheses of an `INSERT`, told from those within
//! strings; what stands between two lines `DELIMITER` is taken whole. A table's hash is the sum, modulo 2^128, of
//! the first 16 bytes of each row's BLAKE3, so that rows have no order; it is against accidents, not against
//! somebody who writes rows to fool it.
//!
//! What is no table (views, triggers, routines, events, and the settings around them) can be kept back: it is put
//! up only once the tables are proven and in their place.

mod words;

use std::collections::BTreeMap;

use memchr::memchr2;
use serde::{Deserialize, Serialize};

pub use words::subject;
use words::{contains, engine, malformed, name, of_current, replaced, without_counter};

/// Most bytes of one statement that is no row: a routine, say.
const STATEMENT_LIMIT: usize = 64 << 20;
/// Most bytes kept back in all.
const HELD_LIMIT: usize = 256 << 20;
/// Bytes that tell statements apart.
const HEAD: usize = 12;
/// The last line of a dump that ended well.
const TRAILER: &[u8] = b"-- Dump completed";
/// The first line of newer dumps: a comment to us, and to older clients a mistake.
const SANDBOX: &[u8] = b"/*M!999999\\-";

/// A dump that is not what the tools write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    #[error("the dump has no end: its last line is not there")]
    NoEnd,
    #[error("a statement of the dump is larger than {} bytes", STATEMENT_LIMIT)]
    TooLarge,
    #[error("views, routines, triggers and events take more than {} bytes", HELD_LIMIT)]
    TooMuchHeld,
    #[error("the dump is not as expected near {0:?}")]
    Malformed(String),
}

/// A table as it stood in the dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub rows: u64,
    /// Bytes of the rows as SQL, their parentheses included.
    pub size_bytes: u64,
    /// 32 hexadecimal digits.
    pub hash: String,
    /// Of its definition, 32 hexadecimal digits.
    pub definition: String,
    pub engine: String,
}

/// How many there are of what is no table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    pub views: u64,
    pub triggers: u64,
    pub routines: u64,
    pub events: u64,
    pub sequences: u64,
}

/// What a held statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Session variables around the others.
    Setting,
    View,
    Trigger,
    Routine,
    Event,
}

/// A statement kept back, as a client takes it.
#[derive(Clone, Debug)]
pub struct Held {
    pub kind: Kind,
    pub text: Vec<u8>,
}

/// A table under way.
#[derive(Clone, Debug, Default)]
struct Sum {
    rows: u64,
    size_bytes: u64,
    sum: u128,
    definition: u128,
    engine: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of a line, outside any statement.
    Line,
    Comment,
    Block,
    /// In a statement, within these quotes perhaps.
    Statement {
        quote: Option<u8>,
        escaped: bool,
    },
    /// Before the rows of an `INSERT`.
    Header {
        in_name: bool,
    },
    /// In its rows.
    Rows {
        depth: u32,
        in_text: bool,
        escaped: bool,
    },
}

/// See the module. Feed it a dump in any pieces.
pub struct Dump {
    hold: bool,
    /// Databases of sequences that columns take their defaults from: as written, and as wanted.
    rename: Option<(Vec<u8>, Vec<u8>)>,
    state: State,
    text: Vec<u8>,
    /// The table of the `INSERT` under way.
    table: String,
    current: Sum,
    row: Option<blake3::Hasher>,
    tables: BTreeMap<String, Sum>,
    objects: Objects,
    held: Vec<Held>,
    held_bytes: usize,
    is_whole: bool,
}

/// What was in a whole dump.
#[derive(Debug)]
pub struct Followed {
    pub tables: BTreeMap<String, Table>,
    pub objects: Objects,
    pub held: Vec<Held>,
}

fn short(hash: &blake3::Hash) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(first)
}

impl Dump {
    /// `hold`: keep back what is no table.
    pub fn new(hold: bool) -> Self {
        Self {
            hold,
            rename: None,
            state: State::Line,
            text: Vec::new(),
            table: String::new(),
            current: Sum::default(),
            row: None,
            tables: BTreeMap::new(),
            objects: Objects::default(),
            held: Vec::new(),
            held_bytes: 0,
            is_whole: false,
        }
    }

    /// Sequences of database `from` that columns take their defaults from are named as of `to`.
    #[must_use]
    pub fn renaming(mut self, from: &str, to: &str) -> Self {
        let call = |name: &str| format!("nextval({}.", super::session::ident(name)).into_bytes();
        self.rename = (from != to).then(|| (call(from), call(to)));
        self
    }

    /// Takes some bytes; what is not kept back is appended to `out`.
    ///
    /// # Errors
    /// The text is not a dump's.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DumpError> {
        while !bytes.is_empty() {
            let used = match self.state {
                State::Line => self.line(bytes, out)?,
                State::Comment => self.comment(bytes, out),
                State::Block => self.block(bytes)?,
                State::Statement { quote, escaped } => self.statement(bytes, quote, escaped, out)?,
                State::Header { in_name } => self.header(bytes, in_name, out)?,
                State::Rows { .. } => {
                    let used = self.rows(bytes)?;
                    out.extend_from_slice(&bytes[..used]);
                    used
                }
            };
            if self.text.len() > STATEMENT_LIMIT {
                return Err(DumpError::TooLarge);
            }
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Everything came.
    ///
    /// # Errors
    /// It did not.
    pub fn finish(self) -> Result<Followed, DumpError> {
        let whole =
            self.is_whole && self.text.is_empty() && matches!(self.state, State::Line | State::Comment);
        if !whole {
            return Err(DumpError::NoEnd);
        }
        let table = |sum: Sum| Table {
            rows: sum.rows,
            size_bytes: sum.size_bytes,
            hash: format!("{:032x}", sum.sum),
            definition: format!("{:032x}", sum.definition),
            engine: sum.engine,
        };
        let tables = self.tables.into_iter().map(|(name, sum)| (name, table(sum))).collect();
        Ok(Followed { tables, objects: self.objects, held: self.held })
    }

    /// Collects the first bytes of a line until they tell what it is.
    fn line(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, DumpError> {
        let mut used = 0;
        while used < bytes.len() {
            let byte = bytes[used];
            used += 1;
            if self.text.is_empty() && byte.is_ascii_whitespace() {
                out.push(byte);
                continue;
            }
            self.text.push(byte);
            if byte != b'\n' && self.text.len() < HEAD {
                continue;
            }
            let text = std::mem::take(&mut self.text);
            if text.starts_with(b"--") || text.starts_with(SANDBOX) {
                self.state = State::Comment;
                self.comment(&text, out);
            } else if text.starts_with(b"DELIMITER ") {
                self.state = State::Block;
                self.block(&text)?;
            } else if text == b"INSERT INTO " {
                self.state = State::Header { in_name: false };
                self.text = text;
            } else {
                // Short statements may end within these bytes.
                self.state = State::Statement { quote: None, escaped: false };
                let mut rest = text.as_slice();
                while let State::Statement { quote, escaped } = self.state
                    && !rest.is_empty()
                {
                    let used = self.statement(rest, quote, escaped, out)?;
                    rest = &rest[used..];
                }
                if !rest.is_empty() {
                    self.line(rest, out)?;
                }
            }
            return Ok(used);
        }
        Ok(used)
    }

    fn comment(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        self.text.extend_from_slice(&bytes[..end.unwrap_or(bytes.len()).min(256)]);
        if self.text.starts_with(TRAILER) {
            self.is_whole = true;
        }
        let Some(end) = end else {
            // The trailer may come without a newline; of long comments only the beginning matters.
            self.text.truncate(256);
            if self.is_whole {
                self.text.clear();
            }
            return bytes.len();
        };
        self.text.clear();
        // Comments are not for the server.
        out.push(b'\n');
        self.state = State::Line;
        end + 1
    }

    /// From one line `DELIMITER ;;` to the line `DELIMITER ;`.
    fn block(&mut self, bytes: &[u8]) -> Result<usize, DumpError> {
        let mut used = 0;
        while let Some(at) = memchr::memchr(b'\n', &bytes[used..]) {
            self.text.extend_from_slice(&bytes[used..=used + at]);
            used += at + 1;
            if self.text.ends_with(b"\nDELIMITER ;\n") {
                let text = std::mem::take(&mut self.text);
                let kind = if contains(&text, b"/*!50106 EVENT ") || contains(&text, b"*/ /*!50106 EVENT") {
                    self.objects.events += 1;
                    Kind::Event
                } else if contains(&text, b"/*!50003 CREATE*/") {
                    self.objects.triggers += 1;
                    Kind::Trigger
                } else {
                    self.objects.routines += 1;
                    Kind::Routine
                };
                self.hold(kind, text)?;
                self.state = State::Line;
                return Ok(used);
            }
            if self.text.len() > STATEMENT_LIMIT {
                return Err(DumpError::TooLarge);
            }
        }
        self.text.extend_from_slice(&bytes[used..]);
        Ok(bytes.len())
    }

    fn statement(
        &mut self,
        bytes: &[u8],
        mut quote: Option<u8>,
        mut escaped: bool,
        out: &mut Vec<u8>,
    ) -> Result<usize, DumpError> {
        for (at, byte) in bytes.iter().enumerate() {
            match (quote, *byte) {
                _ if escaped => escaped = false,
                (Some(b'\'' | b'"'), b'\\') => escaped = true,
                (Some(open), byte) if byte == open => quote = None,
                (Some(_), _) => {}
                (None, byte @ (b'\'' | b'"' | b'`')) => quote = Some(byte),
                (None, b';') => {
                    self.text.extend_from_slice(&bytes[..=at]);
                    self.state = State::Line;
                    self.end_statement(out)?;
                    return Ok(at + 1);
                }
                _ => {}
            }
        }
        self.text.extend_from_slice(bytes);
        self.state = State::Statement { quote, escaped };
        Ok(bytes.len())
    }

    fn end_statement(&mut self, out: &mut Vec<u8>) -> Result<(), DumpError> {
        let mut text = std::mem::take(&mut self.text);
        if let Some((from, to)) = self.rename.as_ref().filter(|_| text.starts_with(b"CREATE TABLE ")) {
            text = replaced(&text, from, to);
        }
        let starts = |with: &str| text.starts_with(with.as_bytes());
        if starts("CREATE TABLE ") {
            let name = name(&text[b"CREATE TABLE ".len()..]).ok_or_else(|| malformed(&text))?;
            let sum = self.tables.entry(name).or_default();
            sum.definition = short(&blake3::hash(&without_counter(&text)));
            sum.engine = engine(&text);
        } else if starts("CREATE SEQUENCE ") {
            self.objects.sequences += 1;
        } else if starts("USE ") || starts("CREATE DATABASE") || starts("DROP DATABASE") {
            // Dumps of one database name none, and what is restored must not leave the one it is for.
            return Err(malformed(&text));
        }
        if starts("/*!50001 ") {
            // Each view comes twice: a stand-in, then, in three comments, as it is.
            self.objects.views += u64::from(contains(&text, b"\n/*!50001 VIEW "));
            return self.hold(Kind::View, text);
        }
        if starts("/*!50003 ") || starts("/*!50106 ") {
            return self.hold(Kind::Setting, text);
        }
        if starts("ALTER DATABASE ") {
            return self.hold(Kind::Setting, of_current(&text)?);
        }
        out.extend_from_slice(&text);
        Ok(())
    }

    fn hold(&mut self, kind: Kind, mut text: Vec<u8>) -> Result<(), DumpError> {
        if !self.hold {
            return Ok(());
        }
        text.push(b'\n');
        self.held_bytes += text.len();
        if self.held_bytes > HELD_LIMIT {
            return Err(DumpError::TooMuchHeld);
        }
        self.held.push(Held { kind, text });
        Ok(())
    }

    fn header(&mut self, bytes: &[u8], mut in_name: bool, out: &mut Vec<u8>) -> Result<usize, DumpError> {
        for (at, byte) in bytes.iter().enumerate() {
            self.text.push(*byte);
            if *byte == b'`' {
                in_name = !in_name;
            } else if !in_name && *byte == b'S' && self.text.ends_with(b" VALUES") {
                self.table = name(&self.text[HEAD..]).ok_or_else(|| malformed(&self.text))?;
                self.current = self.tables.remove(&self.table).unwrap_or_default();
                out.append(&mut self.text);
                self.state = State::Rows { depth: 0, in_text: false, escaped: false };
                return Ok(at + 1);
            } else if !in_name && *byte == b';' {
                return Err(malformed(&self.text));
            }
        }
        self.state = State::Header { in_name };
        Ok(bytes.len())
    }

    fn rows(&mut self, bytes: &[u8]) -> Result<usize, DumpError> {
        let State::Rows { mut depth, mut in_text, mut escaped } = self.state else { return Ok(0) };
        let mut at = 0;
        // Where the part of a row that is in these bytes begins.
        let mut start = 0;
        while at < bytes.len() {
            if escaped {
                escaped = false;
                at += 1;
                continue;
            }
            if in_text {
                let Some(found) = memchr2(b'\'', b'\\', &bytes[at..]) else {
                    break;
                };
                at += found;
                if bytes[at] == b'\\' {
                    escaped = true
                } else {
                    in_text = false
                }
                at += 1;
                continue;
            }
            match bytes[at] {
                b'\'' => in_text = true,
                b'(' => {
                    if depth == 0 {
                        start = at;
                    }
                    depth += 1;
                }
                b')' if depth == 0 => return Err(malformed(&bytes[at..])),
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        self.end_row(&bytes[start..=at]);
                    }
                }
                b';' if depth == 0 => {
                    self.tables.insert(std::mem::take(&mut self.table), std::mem::take(&mut self.current));
                    self.state = State::Line;
                    return Ok(at + 1);
                }
                _ => {}
            }
            at += 1;
        }
        if depth > 0 {
            self.keep(&bytes[start..]);
        }
        self.state = State::Rows { depth, in_text, escaped };
        Ok(bytes.len())
    }

    fn keep(&mut self, part: &[u8]) {
        self.row.get_or_insert_with(blake3::Hasher::new).update(part);
        self.current.size_bytes += part.len() as u64;
    }

    fn end_row(&mut self, part: &[u8]) {
        let hash = match self.row.take() {
            Some(mut hasher) => short(&hasher.update(part).finalize()),
            None => short(&blake3::hash(part)),
        };
        let sum = &mut self.current;
        sum.rows += 1;
        sum.size_bytes += part.len() as u64;
        sum.sum = sum.sum.wrapping_add(hash);
    }
}

#[cfg(test)]
mod tests;
