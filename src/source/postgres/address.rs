//! `postgres://user@host:port/database?options`: what to reach, what of it to capture, and how.
//!
//! Pure. Options are parsed strictly: a misspelt one is an error, never ignored. A password is accepted, and shown
//! nowhere.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::secret::Secret;
use crate::base::socket::Socket;
use crate::base::url::{Reader, Url, UrlError, decode, encode, read};

const DEFAULT_PORT: u16 = 5432;
const SSL_MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Prefer),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];
/// Every option there is.
const OPTIONS: [(&str, Reader<Address>); 21] = [
    ("all", |found, _| {
        found.databases = Databases::All;
        Ok(())
    }),
    ("connect-timeout", |found, given| given.span().map(|span| found.server.connect_timeout = span)),
    ("exclude-schema", |found, given| given.text().map(|text| found.selection.exclude_schemas.push(text))),
    ("exclude-table", |found, given| given.text().map(|text| found.selection.exclude_tables.push(text))),
    ("exclude-table-data", |found, given| {
        given.text().map(|text| found.selection.exclude_table_data.push(text))
    }),
    ("host", |found, given| given.text().map(|text| found.server.host = text)),
    ("lock-timeout", |found, given| given.span().map(|span| found.lock_timeout = span)),
    ("maintenance-db", |found, given| given.text().map(|text| found.server.maintenance = text)),
    ("max-transaction", |found, given| given.span().map(|span| found.max_transaction = span)),
    ("no-progress", |found, given| given.span().map(|span| found.no_progress = span)),
    ("password-file", |found, given| given.into().map(|path| found.server.password_file = Some(path))),
    ("port", |found, given| {
        let text = given.text()?;
        found.server.port = text.parse().map_err(|_| bad(format!("{text:?} is no port")))?;
        Ok(())
    }),
    ("role", |found, given| given.text().map(|text| found.role = Some(text))),
    ("schema", |found, given| given.text().map(|text| found.selection.schemas.push(text))),
    ("sslcert", |found, given| given.into().map(|path| found.server.ssl_certificate = Some(path))),
    ("sslkey", |found, given| given.into().map(|path| found.server.ssl_key = Some(path))),
    ("sslmode", |found, given| {
        let write = "disable, prefer, require, verify-ca or verify-full";
        given.word(&SSL_MODES, write).map(|mode| found.server.ssl_mode = mode)
    }),
    ("sslrootcert", |found, given| given.into().map(|path| found.server.ssl_root = Some(path))),
    ("table", |found, given| given.text().map(|text| found.selection.tables.push(text))),
    ("tools", |found, given| given.into().map(|path| found.tools = Some(path))),
    ("user", |found, given| given.text().map(|text| found.server.user = text)),
];

/// Which databases are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    /// All that allow connections, templates left out.
    All,
    Named(Vec<String>),
}

/// How the connection is protected; the names are libpq's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// What of a database is captured; patterns are pg_dump's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub schemas: Vec<String>,
    pub exclude_schemas: Vec<String>,
    pub tables: Vec<String>,
    pub exclude_tables: Vec<String>,
    pub exclude_table_data: Vec<String>,
}

/// Where a server is and how to come in.
#[derive(Clone)]
pub struct Server {
    /// A name, an address, or the folder of a unix socket; empty: the system's usual socket folders.
    pub host: String,
    /// The way there, if it is none by network; `host` is what people call it then.
    pub through: Option<Socket>,
    pub port: u16,
    /// Empty: whoever runs this.
    pub user: String,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    pub ssl_mode: SslMode,
    pub ssl_root: Option<PathBuf>,
    pub ssl_certificate: Option<PathBuf>,
    pub ssl_key: Option<PathBuf>,
    pub connect_timeout: Duration,
    /// The database for what belongs to the whole server.
    pub maintenance: String,
}

/// An address, taken apart.
#[derive(Clone)]
pub struct Address {
    pub server: Server,
    pub databases: Databases,
    pub selection: Selection,
    pub lock_timeout: Duration,
    /// A longer capture of one database is worth a warning: VACUUM and migrations wait behind it.
    pub max_transaction: Duration,
    pub no_progress: Duration,
    /// Folder of the client tools to use.
    pub tools: Option<PathBuf>,
    /// What a restore becomes before it makes anything.
    pub role: Option<String>,
}

/// Whether the address is one of PostgreSQL's; what follows its scheme.
pub fn strip_scheme(address: &str) -> Option<&str> {
    address.strip_prefix("postgres://").or_else(|| address.strip_prefix("postgresql://"))
}

fn bad(text: impl Into<String>) -> UrlError {
    UrlError::new(text)
}

fn one(databases: &str) -> Result<Databases, UrlError> {
    if databases == "*" {
        return Ok(Databases::All);
    }
    let mut names = Vec::new();
    for name in databases.split(',').filter(|name| !name.is_empty()) {
        let name = decode(name)?;
        if name.contains('\0') {
            return Err(bad("a database's name holds no NUL"));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(Databases::Named(names))
}

impl Address {
    /// Takes an address apart.
    ///
    /// # Errors
    /// It is not PostgreSQL's, names no database, or has an option that is none.
    pub fn parse(address: &str) -> Result<Self, UrlError> {
        let text = strip_scheme(address).ok_or_else(|| bad("the address does not begin postgres://"))?;
        let url = Url::parse(text)?;
        if url.path.contains('/') {
            return Err(bad("a / in a database's name is written %2F"));
        }
        let server = Server {
            through: None,
            host: url.host,
            port: url.port.unwrap_or(DEFAULT_PORT),
            user: url.user,
            password: url.password,
            password_file: None,
            ssl_mode: SslMode::default(),
            ssl_root: None,
            ssl_certificate: None,
            ssl_key: None,
            connect_timeout: Duration::from_secs(15),
            maintenance: "postgres".into(),
        };
        let mut found = Self {
            server,
            databases: one(&url.path)?,
            selection: Selection::default(),
            lock_timeout: Duration::from_secs(60),
            max_transaction: Duration::from_secs(2 * 3600),
            no_progress: Duration::from_secs(30 * 60),
            tools: None,
            role: None,
        };
        read("postgres://", &OPTIONS, url.query, &mut found)?;
        if found.databases == Databases::Named(Vec::new()) {
            return Err(bad("the address names no database\nhint: postgres://user@host/NAME, or /* for all"));
        }
        Ok(found)
    }

    /// The address without its secrets and without what only says how to get there: a job's name, and what
    /// messages show.
    pub fn shown(&self) -> String {
        let names = match &self.databases {
            Databases::All => "*".to_owned(),
            Databases::Named(names) => {
                let names: Vec<_> = names.iter().map(|name| encode(name, "")).collect();
                names.join(",")
            }
        };
        let Selection { schemas, exclude_schemas, tables, exclude_tables, exclude_table_data } =
            &self.selection;
        let mut query = Vec::new();
        for (key, values) in [
            ("schema", schemas),
            ("exclude-schema", exclude_schemas),
            ("table", tables),
            ("exclude-table", exclude_tables),
            ("exclude-table-data", exclude_table_data),
        ] {
            query.extend(values.iter().map(|value| format!("{key}={}", encode(value, "*."))));
        }
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        format!("{}{names}{query}", self.server.shown())
    }
}

impl Server {
    /// `postgres://user@host:port/`
    pub fn shown(&self) -> String {
        let at = if self.user.is_empty() { String::new() } else { format!("{}@", encode(&self.user, "")) };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { encode(&self.host, "") };
        let port = if self.port == DEFAULT_PORT { String::new() } else { format!(":{}", self.port) };
        format!("postgres://{at}{host}{port}/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &str) -> String {
        match Address::parse(address) {
            Ok(address) => address.shown(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_address_is_shown_without_its_secrets_and_reads_as_itself() {
        for (given, expected) in [
            ("postgres://u:pw@h/db", "postgres://u@h/db"),
            ("postgresql://u@h:5433/b,a,b?tools=/x", "postgres://u@h:5433/b,a"),
            ("postgres://u@h/*", "postgres://u@h/*"),
            ("postgres://u@h?all&lock-timeout=5m", "postgres://u@h/*"),
            ("postgres:///a%2Cb?host=/run/pg&port=6000", "postgres://%2Frun%2Fpg:6000/a%2Cb"),
            (
                "postgres://[::1]/d?schema=s*&exclude-table=a%26b",
                "postgres://[::1]/d?schema=s*&exclude-table=a%26b",
            ),
        ] {
            assert_eq!(shown(given), expected);
            assert_eq!(shown(expected), expected);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_way_out() {
        for (given, part) in [
            ("postgres://u@h/", "names no database"),
            ("postgres://u@h/a/b", "%2F"),
            ("postgres://h/d?shcema=x", "schema= is the nearest"),
            ("postgres://h/d?lock-timeout=soon", "such as 90s"),
            ("postgres://h/d?lock-timeout=99999h", "such as 90s"),
            ("postgres://h/d?sslmode=on", "verify-full"),
            ("postgres://h/d?schema=", "no value"),
        ] {
            assert!(shown(given).contains(part), "{given}: {}", shown(given));
        }
    }
}
