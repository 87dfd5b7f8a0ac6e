//! The head of a custom archive: what made it, and the table of its entries.
//!
//! Numbers are a sign byte and a little-endian magnitude of the width the head names; text is a number of bytes and
//! the bytes, in the encoding of the database. Layout as PostgreSQL's `pg_backup_archiver.c` reads it, versions 1.12
//! to 1.16.

use super::ArchiveError;

pub const MAGIC: &[u8] = b"PGDMP";
/// Oldest archive: PostgreSQL 9.0 writes it.
const OLDEST: u8 = 12;
/// Newest archive known.
const NEWEST: u8 = 16;
const CUSTOM: u8 = 1;
/// Most bytes of one text in the table; a longer function body would not fit into the memory promised.
const TEXT_LIMIT: u64 = 64 << 20;
/// Most entries.
const ENTRY_LIMIT: u64 = 20_000_000;
/// Most entries one depends on.
const DEPENDENCY_LIMIT: usize = 1_000_000;
/// Longest SQL of a constraint that is kept.
const CONSTRAINT_BYTES: usize = 1024;
/// The only state of data in an archive that says "none".
const NO_DATA: u8 = 3;

/// What made an archive, and of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Second number of the version: 14 of 1.14.
    pub minor: u8,
    pub int_bytes: usize,
    pub offset_bytes: usize,
    pub compressed: bool,
    pub database: Vec<u8>,
    /// Version of the server that was dumped.
    pub server: Vec<u8>,
    /// Version of the program that dumped.
    pub tool: Vec<u8>,
    pub entries: u64,
}

/// One line of the table of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub id: u64,
    /// The object's row in the catalogue; 0 when it has none.
    pub oid: u64,
    /// Its name.
    pub tag: Vec<u8>,
    /// `TABLE DATA`, `SEQUENCE SET` and so on.
    pub kind: Vec<u8>,
    pub schema: Vec<u8>,
    pub owner: Vec<u8>,
    /// The COPY command, of table data only.
    pub copy: Vec<u8>,
    /// The SQL, of entries that are a setting, a number or a short constraint; others' is not kept.
    pub sql: Vec<u8>,
    /// It has a tablespace of its own.
    pub has_tablespace: bool,
    /// A block of data belongs to it.
    pub has_data: bool,
    /// Where in the archive the offset of its data stands.
    pub offset_at: u64,
}

/// Reads a buffer that may end too soon; then there is `None`.
pub struct Cursor<'b> {
    bytes: &'b [u8],
    pub at: usize,
    int_bytes: usize,
}

type Read<T> = Result<Option<T>, ArchiveError>;

/// Leaves the function when the buffer ended.
macro_rules! more {
    ($read:expr) => {
        match $read? {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

/// A number as written: magnitude `bytes`, negative unless `sign` is 0.
pub fn number(sign: u8, bytes: &[u8]) -> Option<i64> {
    let wide = bytes.iter().rev().try_fold(0_u64, |wide, byte| {
        if wide >> 56 != 0 { None } else { Some(wide << 8 | u64::from(*byte)) }
    })?;
    let magnitude = i64::try_from(wide).ok()?;
    Some(if sign == 0 { magnitude } else { -magnitude })
}

impl<'b> Cursor<'b> {
    pub fn new(bytes: &'b [u8], int_bytes: usize) -> Self {
        Self { bytes, at: 0, int_bytes }
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1).map(|byte| byte[0]))
    }

    fn int(&mut self) -> Read<i64> {
        let Some(bytes) = self.take(1 + self.int_bytes) else { return Ok(None) };
        number(bytes[0], &bytes[1..]).map(Some).ok_or(ArchiveError::Invalid("a number too large"))
    }

    /// Text; absent text reads as empty.
    fn text(&mut self) -> Read<&'b [u8]> {
        Ok(Some(more!(self.optional_text()).unwrap_or_default()))
    }

    fn optional_text(&mut self) -> Read<Option<&'b [u8]>> {
        let length = more!(self.int());
        let Ok(length) = u64::try_from(length) else { return Ok(Some(None)) };
        if length > TEXT_LIMIT {
            return Err(ArchiveError::Invalid("a text too long"));
        }
        Ok(self.take(length as usize).map(Some))
    }
}

impl Head {
    /// Reads the head; `None` while bytes are missing. Returns its length, too.
    pub fn read(bytes: &[u8]) -> Read<(Self, usize)> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(ArchiveError::Invalid("something that is no archive"));
        }
        let mut cursor = Cursor::new(bytes, 4);
        if cursor.take(MAGIC.len()).is_none() {
            return Ok(None);
        }
        let Some(&[major, minor, _revision, int_bytes, offset_bytes, format]) = cursor.take(6) else {
            return Ok(None);
        };
        if major != 1 || !(OLDEST..=NEWEST).contains(&minor) {
            return Err(ArchiveError::Version { major, minor });
        }
        if format != CUSTOM || !(4..=8).contains(&int_bytes) || !(4..=8).contains(&offset_bytes) {
            return Err(ArchiveError::Invalid("another format than custom"));
        }
        cursor.int_bytes = int_bytes.into();
        let compressed = if minor >= 15 { more!(cursor.byte()) != 0 } else { more!(cursor.int()) != 0 };
        for _ in 0..7 {
            more!(cursor.int());
        }
        let mut head = Self {
            minor,
            int_bytes: int_bytes.into(),
            offset_bytes: offset_bytes.into(),
            compressed,
            ..Self::default()
        };
        head.database = more!(cursor.text()).to_vec();
        head.server = more!(cursor.text()).to_vec();
        head.tool = more!(cursor.text()).to_vec();
        head.entries = u64::try_from(more!(cursor.int())).unwrap_or(u64::MAX);
        if head.entries > ENTRY_LIMIT {
            return Err(ArchiveError::Invalid("an impossible number of entries"));
        }
        Ok(Some((head, cursor.at)))
    }
}

impl Entry {
    /// Reads one entry that begins at `position` of the archive; `None` while bytes are missing.
    pub fn read(bytes: &[u8], head: &Head, position: u64) -> Read<(Self, usize)> {
        let mut cursor = Cursor::new(bytes, head.int_bytes);
        let id = more!(cursor.int());
        let _had_dumper = more!(cursor.int());
        let _catalogue = more!(cursor.text());
        let oid = more!(cursor.text());
        let tag = more!(cursor.text());
        let kind = more!(cursor.text());
        let _section = more!(cursor.int());
        let sql = more!(cursor.text());
        let _drop = more!(cursor.text());
        let copy = more!(cursor.text());
        let schema = more!(cursor.text());
        let tablespace = more!(cursor.text());
        if head.minor >= 14 {
            let _access_method = more!(cursor.text());
        }
        if head.minor >= 16 {
            let _relation_kind = more!(cursor.int());
        }
        let owner = more!(cursor.text());
        let _with_oids = more!(cursor.text());
        let mut dependencies = 0;
        while more!(cursor.optional_text()).is_some() {
            dependencies += 1;
            if dependencies > DEPENDENCY_LIMIT {
                return Err(ArchiveError::Invalid("an entry with too many dependencies"));
            }
        }
        let offset_at = position + cursor.at as u64;
        let state = more!(cursor.byte());
        if cursor.take(head.offset_bytes).is_none() {
            return Ok(None);
        }
        if !(1..=NO_DATA).contains(&state) {
            return Err(ArchiveError::Invalid("an entry whose data is in no known state"));
        }
        let kept = match kind {
            b"SEQUENCE SET" | b"ENCODING" | b"STDSTRINGS" | b"SEARCHPATH" => true,
            b"CONSTRAINT" => sql.len() <= CONSTRAINT_BYTES,
            _ => false,
        };
        let entry = Self {
            id: u64::try_from(id).map_err(|_| ArchiveError::Invalid("a negative entry"))?,
            oid: std::str::from_utf8(oid).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
            tag: tag.to_vec(),
            kind: kind.to_vec(),
            schema: schema.to_vec(),
            owner: owner.to_vec(),
            copy: copy.to_vec(),
            sql: if kept { sql.to_vec() } else { Vec::new() },
            has_tablespace: !tablespace.is_empty(),
            has_data: state != NO_DATA,
            offset_at,
        };
        Ok(Some((entry, cursor.at)))
    }
}
