//! `influxdb://user@host:port/database?options`: what to reach, and how. Pure; options are parsed strictly.

use std::path::PathBuf;

use crate::base::secret::Secret;
use crate::base::url::{Reader, Url, UrlError, decode, encode, read};

const DEFAULT_PORT: u16 = 8086;
const BACKUP_PORT: u16 = 8088;
const OPTIONS: [(&str, Reader<Address>); 3] = [
    ("backup", |found, given| {
        let wrong = given.wrong("HOST:PORT");
        let text = given.text()?;
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        port.map(|_| found.backup = text).ok_or(wrong)
    }),
    ("password-file", |found, given| given.into().map(|path| found.password_file = Some(path))),
    ("tls", |found, given| given.word(&[("on", true)], "on, or leave it out").map(|on| found.has_tls = on)),
];

/// An address, taken apart.
#[derive(Clone)]
pub struct Address {
    pub user: String,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    pub host: String,
    pub port: u16,
    pub database: String,
    /// Where the server takes backups and restores: `host:port`.
    pub backup: String,
    pub has_tls: bool,
}

fn bad(text: impl Into<String>) -> UrlError {
    UrlError::new(text)
}

impl Address {
    /// Takes an address apart, without its scheme.
    ///
    /// # Errors
    /// It names no host or database, or has an option that is none.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text)?;
        let database = decode(&url.path)?;
        if url.host.is_empty() || database.is_empty() {
            return Err(bad("the address names no host or no database\nhint: influxdb://HOST:8086/DATABASE"));
        }
        if url.path.contains(['/', ',', '*']) {
            return Err(bad("one database is captured at a time; a / in its name is written %2F"));
        }
        let bracketed = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
        let mut found = Self {
            user: url.user,
            password: url.password,
            password_file: None,
            host: bracketed.clone(),
            port: url.port.unwrap_or(DEFAULT_PORT),
            database,
            backup: format!("{bracketed}:{BACKUP_PORT}"),
            has_tls: false,
        };
        read("influxdb://", &OPTIONS, url.query, &mut found)?;
        Ok(found)
    }

    /// Where queries go.
    pub fn url(&self) -> String {
        format!("{}://{}:{}", if self.has_tls { "https" } else { "http" }, self.host, self.port)
    }

    /// The address without its secrets: a job's name, and what messages show.
    pub fn shown(&self) -> String {
        let at = if self.user.is_empty() { String::new() } else { format!("{}@", encode(&self.user, "")) };
        format!("influxdb://{at}{}:{}/{}", self.host, self.port, encode(&self.database, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets_or_refused_with_a_way_out() {
        let said = |text: &str| match Address::parse(text) {
            Ok(address) => format!("{} {}", address.shown(), address.backup),
            Err(error) => error.to_string(),
        };
        for (given, part) in [
            ("u:p@h/a%2Fb", "influxdb://u@h:8086/a%2Fb h:8088"),
            ("[::1]:1/d?backup=x:2", "influxdb://[::1]:1/d x:2"),
            ("h", "names no host or no database"),
            ("h/a,b", "one database"),
            ("h/d?bakup=x:1", "backup= is the nearest"),
            ("h/d?backup=x", "HOST:PORT"),
        ] {
            assert!(said(given).contains(part), "{given}: {}", said(given));
        }
    }
}
