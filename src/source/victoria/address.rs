//! `victoria://user@host:port?options`: what to reach, and how. Pure; options are parsed strictly.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::secret::Secret;
use crate::base::url::{Reader, Url, UrlError, encode, read};

const DEFAULT_PORT: u16 = 8428;
const OPTIONS: [(&str, Reader<Address>); 5] = [
    ("no-progress", |found, given| given.span().map(|span| found.no_progress = span)),
    ("password-file", |found, given| given.into().map(|path| found.password_file = Some(path))),
    ("prefix", |found, given| given.text().map(|text| found.prefix = format!("/{}", text.trim_matches('/')))),
    ("storage", |found, given| given.into().map(|path| found.storage = Some(path))),
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
    /// Before every path, as `-http.pathPrefix` says.
    pub prefix: String,
    pub has_tls: bool,
    /// The server's folder, seen from here.
    pub storage: Option<PathBuf>,
    pub no_progress: Duration,
}

fn bad(text: impl Into<String>) -> UrlError {
    UrlError::new(text)
}

impl Address {
    /// Takes an address apart, without its scheme.
    ///
    /// # Errors
    /// It names no host, or has an option that is none.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text)?;
        if url.host.is_empty() {
            return Err(bad("the address names no host\nhint: victoria://HOST:8428"));
        }
        if !url.path.is_empty() {
            return Err(bad(
                "the address ends behind the host\nhint: ?prefix=/PATH for a server below a path",
            ));
        }
        let mut found = Self {
            user: url.user,
            password: url.password,
            password_file: None,
            host: url.host,
            port: url.port.unwrap_or(DEFAULT_PORT),
            prefix: String::new(),
            has_tls: false,
            storage: None,
            no_progress: Duration::from_secs(10 * 60),
        };
        read("victoria://", &OPTIONS, url.query, &mut found)?;
        Ok(found)
    }

    fn place(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { encode(&self.host, "") };
        format!("{host}:{}{}", self.port, self.prefix)
    }

    /// Where requests go.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.has_tls { "https" } else { "http" }, self.place())
    }

    /// The address without its secrets: a job's name, and what messages show.
    pub fn shown(&self) -> String {
        let at = if self.user.is_empty() { String::new() } else { format!("{}@", encode(&self.user, "")) };
        format!("victoria://{at}{}", self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_with_a_way_out() {
        let said = |text: &str| match Address::parse(text) {
            Ok(address) => address.url(),
            Err(error) => error.to_string(),
        };
        for (given, part) in [
            ("h", "http://h:8428"),
            ("u:p@[::1]:1?tls=on&prefix=/a/", "https://[::1]:1/a"),
            ("?storage=/x", "names no host"),
            ("h/db", "ends behind the host"),
            ("h?storge=/x", "storage= is the nearest"),
            ("h?tls=yes", "write on"),
            ("h?no-progress=0", "such as 90s"),
        ] {
            assert!(said(given).contains(part), "{given}: {}", said(given));
        }
    }
}
