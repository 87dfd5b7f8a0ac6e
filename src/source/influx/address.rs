//! `influxdb://user@host:port/database?options`: what to reach, and how. Pure; options are parsed strictly.

use std::path::PathBuf;

use crate::base::secret::Secret;
use crate::base::url::{Url, decode, encode, nearest};

/// An address that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(pub String);

const DEFAULT_PORT: u16 = 8086;
const BACKUP_PORT: u16 = 8088;
const OPTIONS: [&str; 3] = ["backup", "password-file", "tls"];

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

fn bad(text: impl Into<String>) -> AddressError {
    AddressError(text.into())
}

impl Address {
    /// Takes an address apart, without its scheme.
    ///
    /// # Errors
    /// It names no host or database, or has an option that is none.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
        let database = decode(&url.path).map_err(|error| bad(error.to_string()))?;
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
        for (key, value) in url.query {
            if value.is_empty() {
                return Err(bad(format!("{key}= has no value")));
            }
            match key.as_str() {
                "backup" if value.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
                    found.backup = value;
                }
                "backup" => return Err(bad(format!("backup={value}: write HOST:PORT"))),
                "password-file" => found.password_file = Some(value.into()),
                "tls" if value == "on" => found.has_tls = true,
                "tls" => return Err(bad(format!("tls={value}: write on, or leave it out"))),
                key => {
                    let meant = nearest(key, &OPTIONS).unwrap_or_default();
                    let text = format!("{key:?} is no option of influxdb://\nhint: {meant}= is the nearest");
                    return Err(bad(text));
                }
            }
        }
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
