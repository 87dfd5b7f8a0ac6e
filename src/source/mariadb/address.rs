//! `mariadb://user@host:port/database?options`: what to reach, what of it to capture, and how.
//!
//! Pure. Options are parsed strictly: a misspelt one is an error, never ignored. A password is accepted, and shown
//! nowhere.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::secret::Secret;
use crate::base::socket::Socket;
use crate::base::url::{Reader, Url, UrlError, decode, encode, read};

const DEFAULT_PORT: u16 = 3306;
const TLS: [(&str, Tls); 3] = [("off", Tls::Off), ("require", Tls::Require), ("verify", Tls::Verify)];
/// Every option there is.
const OPTIONS: [(&str, Reader<Address>); 10] = [
    ("connect-timeout", |found, given| given.span().map(|span| found.server.connect_timeout = span)),
    ("exclude-table", |found, given| given.text().map(|text| found.exclude_tables.push(text))),
    ("no-progress", |found, given| given.span().map(|span| found.no_progress = span)),
    ("password-file", |found, given| given.into().map(|path| found.server.password_file = Some(path))),
    ("socket", |found, given| given.into().map(|path| found.server.socket = Some(path))),
    ("ssl", |found, given| given.word(&TLS, "off, require or verify").map(|tls| found.server.tls = tls)),
    ("ssl-ca", |found, given| given.into().map(|path| found.server.tls_ca = Some(path))),
    ("ssl-cert", |found, given| given.into().map(|path| found.server.tls_certificate = Some(path))),
    ("ssl-key", |found, given| given.into().map(|path| found.server.tls_key = Some(path))),
    ("tools", |found, given| given.into().map(|path| found.tools = Some(path))),
];

/// Which databases are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    /// All but the server's own.
    All,
    Named(Vec<String>),
}

/// How the connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// What the client does by itself.
    #[default]
    Usual,
    Off,
    Require,
    /// The certificate must be right and name the host.
    Verify,
}

/// Where a server is and how to come in.
#[derive(Clone)]
pub struct Server {
    /// Empty: this machine, through its socket.
    pub host: String,
    pub port: u16,
    /// Whether the address names a port, which `localhost` needs to be no socket.
    pub has_port: bool,
    pub socket: Option<PathBuf>,
    /// The way there, if it is none by network; it has the `socket`, and `host` is what people call it.
    pub through: Option<Socket>,
    /// Empty: whoever runs this.
    pub user: String,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    pub tls: Tls,
    pub tls_ca: Option<PathBuf>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub connect_timeout: Duration,
}

/// An address, taken apart.
#[derive(Clone)]
pub struct Address {
    pub server: Server,
    pub databases: Databases,
    /// `table` in every database, or `database.table`.
    pub exclude_tables: Vec<String>,
    pub no_progress: Duration,
    /// Folder of the client tools to use.
    pub tools: Option<PathBuf>,
}

/// What follows the scheme, if it is one of ours.
pub fn strip_scheme(address: &str) -> Option<&str> {
    address.strip_prefix("mariadb://").or_else(|| address.strip_prefix("mysql://"))
}

fn bad(text: impl Into<String>) -> UrlError {
    UrlError::new(text)
}

fn names(path: &str) -> Result<Databases, UrlError> {
    if path == "*" {
        return Ok(Databases::All);
    }
    if path.contains('/') {
        return Err(bad("a / in a database's name is written %2F"));
    }
    let mut names = Vec::new();
    for name in path.split(',').filter(|name| !name.is_empty()) {
        let name = decode(name)?;
        if name.contains('\0') {
            return Err(bad("a database's name holds no NUL"));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(bad("the address names no database\nhint: mariadb://user@host/NAME, or /* for all"));
    }
    Ok(Databases::Named(names))
}

impl Address {
    /// Takes an address apart.
    ///
    /// # Errors
    /// It is not ours, names no database, or has an option that is none.
    pub fn parse(address: &str) -> Result<Self, UrlError> {
        let text = strip_scheme(address).ok_or_else(|| bad("the address does not begin mariadb://"))?;
        let url = Url::parse(text)?;
        let server = Server {
            host: url.host,
            port: url.port.unwrap_or(DEFAULT_PORT),
            has_port: url.port.is_some(),
            socket: None,
            through: None,
            user: url.user,
            password: url.password,
            password_file: None,
            tls: Tls::default(),
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            connect_timeout: Duration::from_secs(15),
        };
        let mut found = Self {
            server,
            databases: names(&url.path)?,
            exclude_tables: Vec::new(),
            no_progress: Duration::from_secs(30 * 60),
            tools: None,
        };
        read("mariadb://", &OPTIONS, url.query, &mut found)?;
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
        let mut options: Vec<_> =
            self.exclude_tables.iter().map(|table| format!("exclude-table={}", encode(table, ""))).collect();
        // Two servers of one machine are told apart by it.
        let socket = self.server.socket.iter().map(|path| encode(&path.to_string_lossy(), "/"));
        options.extend(socket.map(|path| format!("socket={path}")));
        let query = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
        format!("{}{names}{query}", self.server.shown())
    }
}

impl Server {
    /// `mariadb://user@host:port/`
    pub fn shown(&self) -> String {
        let at = if self.user.is_empty() { String::new() } else { format!("{}@", encode(&self.user, "")) };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { encode(&self.host, "") };
        let port = match self.has_port && (self.port != DEFAULT_PORT || self.host == "localhost") {
            true => format!(":{}", self.port),
            false => String::new(),
        };
        format!("mariadb://{at}{host}{port}/")
    }

    /// Whether it is reached through a socket of this machine.
    pub fn is_local(&self) -> bool {
        self.socket.is_some() || self.host.is_empty() || (self.host == "localhost" && !self.has_port)
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
            ("mysql://u:pw@h/db", "mariadb://u@h/db"),
            ("mariadb://u@h:3307/b,a,b?tools=/x", "mariadb://u@h:3307/b,a"),
            ("mariadb://u@h/*", "mariadb://u@h/*"),
            ("mariadb:///a%2Cb?socket=/run/s%20.sock", "mariadb:///a%2Cb?socket=/run/s%20.sock"),
            ("mariadb://[::1]:3306/d?exclude-table=a%26b", "mariadb://[::1]/d?exclude-table=a%26b"),
            ("mariadb://localhost:3306/d", "mariadb://localhost:3306/d"),
        ] {
            assert_eq!(shown(given), expected);
            assert_eq!(shown(expected), expected);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_way_out() {
        for (given, part) in [
            ("mariadb://u@h/", "names no database"),
            ("mariadb://u@h/a/b", "%2F"),
            ("mariadb://h/d?sokcet=x", "socket= is the nearest"),
            ("mariadb://h/d?no-progress=soon", "such as 90s"),
            ("mariadb://h/d?ssl=on", "verify"),
            ("mariadb://h/d?socket=", "no value"),
        ] {
            assert!(shown(given).contains(part), "{given}: {}", shown(given));
        }
    }
}
