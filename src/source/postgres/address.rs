//! `postgres://user@host:port/database?options`: what to reach, what of it to capture, and how.
//!
//! Pure. Options are parsed strictly: a misspelt one is an error, never ignored. A password is accepted, and shown
//! nowhere.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::secret::Secret;
use crate::base::url::{Url, decode, encode, nearest};

/// An address that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(pub String);

const DEFAULT_PORT: u16 = 5432;
/// Every option there is.
const OPTIONS: [&str; 21] = [
    "all",
    "connect-timeout",
    "exclude-schema",
    "exclude-table",
    "exclude-table-data",
    "host",
    "lock-timeout",
    "maintenance-db",
    "max-transaction",
    "no-progress",
    "password-file",
    "port",
    "role",
    "schema",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "table",
    "tools",
    "user",
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

fn bad(text: impl Into<String>) -> AddressError {
    AddressError(text.into())
}

fn span(key: &str, value: &str) -> Result<Duration, AddressError> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let seconds = match unit {
        "" | "s" => Some(1_u64),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let seconds = seconds.zip(number.parse::<u64>().ok()).and_then(|(unit, n)| unit.checked_mul(n));
    // What fits the server's own settings, which count milliseconds in 31 bits.
    let seconds = seconds.filter(|seconds| (1..=2_000_000).contains(seconds));
    let text = || bad(format!("{key}={value}: write a time such as 90s, 10m or 2h"));
    seconds.map(Duration::from_secs).ok_or_else(text)
}

fn one(databases: &str) -> Result<Databases, AddressError> {
    if databases == "*" {
        return Ok(Databases::All);
    }
    let mut names = Vec::new();
    for name in databases.split(',').filter(|name| !name.is_empty()) {
        let name = decode(name).map_err(|error| bad(error.to_string()))?;
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
    pub fn parse(address: &str) -> Result<Self, AddressError> {
        let text = strip_scheme(address).ok_or_else(|| bad("the address does not begin postgres://"))?;
        let url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
        if url.path.contains('/') {
            return Err(bad("a / in a database's name is written %2F"));
        }
        let server = Server {
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
        for (key, value) in url.query {
            found.option(&key, value)?;
        }
        if found.databases == Databases::Named(Vec::new()) {
            return Err(bad("the address names no database\nhint: postgres://user@host/NAME, or /* for all"));
        }
        Ok(found)
    }

    fn option(&mut self, key: &str, value: String) -> Result<(), AddressError> {
        let server = &mut self.server;
        if value.is_empty() && key != "all" {
            return Err(bad(format!("{key}= has no value")));
        }
        match key {
            "all" => self.databases = Databases::All,
            "connect-timeout" => server.connect_timeout = span(key, &value)?,
            "exclude-schema" => self.selection.exclude_schemas.push(value),
            "exclude-table" => self.selection.exclude_tables.push(value),
            "exclude-table-data" => self.selection.exclude_table_data.push(value),
            "host" => server.host = value,
            "lock-timeout" => self.lock_timeout = span(key, &value)?,
            "maintenance-db" => server.maintenance = value,
            "max-transaction" => self.max_transaction = span(key, &value)?,
            "no-progress" => self.no_progress = span(key, &value)?,
            "password-file" => server.password_file = Some(value.into()),
            "port" => server.port = value.parse().map_err(|_| bad(format!("{value:?} is no port")))?,
            "role" => self.role = Some(value),
            "schema" => self.selection.schemas.push(value),
            "sslcert" => server.ssl_certificate = Some(value.into()),
            "sslkey" => server.ssl_key = Some(value.into()),
            "sslmode" => {
                server.ssl_mode = match value.as_str() {
                    "disable" => SslMode::Disable,
                    "prefer" | "allow" => SslMode::Prefer,
                    "require" => SslMode::Require,
                    "verify-ca" => SslMode::VerifyCa,
                    "verify-full" => SslMode::VerifyFull,
                    _ => {
                        let modes = "disable, prefer, require, verify-ca or verify-full";
                        return Err(bad(format!("sslmode={value}: write {modes}")));
                    }
                }
            }
            "sslrootcert" => server.ssl_root = Some(value.into()),
            "table" => self.selection.tables.push(value),
            "tools" => self.tools = Some(value.into()),
            "user" => server.user = value,
            _ => {
                let meant = nearest(key, &OPTIONS).unwrap_or_default();
                return Err(bad(format!(
                    "{key:?} is no option of postgres://\nhint: {meant}= is the nearest"
                )));
            }
        }
        Ok(())
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
