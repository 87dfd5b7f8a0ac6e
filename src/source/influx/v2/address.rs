//! `influxdb2://host:port/bucket?options`: what to reach, and how. Pure; options are parsed strictly.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::url::{Reader, Url, UrlError, decode, encode, read};

const DEFAULT_PORT: u16 = 8086;
const OPTIONS: [(&str, Reader<Address>); 7] = [
    ("count", |found, given| {
        given.word(&[("off", false)], "off, or leave it out").map(|is_on| found.counts = is_on)
    }),
    ("no-progress", |found, given| given.span().map(|span| found.no_progress = span)),
    ("org", |found, given| given.text().map(|text| found.org = Some(text))),
    ("retention", |found, given| {
        given.word(&[("off", false)], "off, or leave it out").map(|is_on| found.keeps_retention = is_on)
    }),
    ("tls", |found, given| given.word(&[("on", true)], "on, or leave it out").map(|on| found.has_tls = on)),
    ("token", |_, _| {
        Err(bad(
            "a token in an address is seen by others\nhint: give it in INFLUX_TOKEN or by ?token-file=FILE",
        ))
    }),
    ("token-file", |found, given| given.into().map(|path| found.token_file = Some(path))),
];

/// An address, taken apart. It holds no secret.
#[derive(Clone, Debug)]
pub struct Address {
    pub host: String,
    pub port: u16,
    /// `None`: every one there is.
    pub bucket: Option<String>,
    /// The organization the bucket is in, or goes to.
    pub org: Option<String>,
    pub token_file: Option<PathBuf>,
    pub has_tls: bool,
    /// Whether points are counted.
    pub counts: bool,
    /// Whether a restored bucket gets the retention it had.
    pub keeps_retention: bool,
    pub no_progress: Duration,
}

fn bad(text: impl Into<String>) -> UrlError {
    UrlError::new(text)
}

impl Address {
    /// Takes an address apart, without its scheme.
    ///
    /// # Errors
    /// It names no host, or a user, or has an option that is none.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text)?;
        let bucket = decode(&url.path)?;
        if url.host.is_empty() {
            return Err(bad("the address names no host\nhint: influxdb2://HOST:8086/BUCKET"));
        }
        if !url.user.is_empty() || url.password.is_some() {
            return Err(bad(
                "InfluxDB 2.x takes a token instead of a user\nhint: in INFLUX_TOKEN, or by ?token-file=FILE",
            ));
        }
        if url.path.contains(['/', ',']) {
            return Err(bad(
                "one bucket is named, or all by *; a / or , in its name is written %2F or %2C, and an organization is given by \
                 ?org=NAME",
            ));
        }
        let bucket = (url.path != "*" && !bucket.is_empty()).then_some(bucket);
        let mut found = Self {
            host: if url.host.contains(':') { format!("[{}]", url.host) } else { encode(&url.host, "") },
            port: url.port.unwrap_or(DEFAULT_PORT),
            bucket,
            org: None,
            token_file: None,
            has_tls: false,
            counts: true,
            keeps_retention: true,
            no_progress: Duration::from_secs(10 * 60),
        };
        read("influxdb2://", &OPTIONS, url.query, &mut found)?;
        Ok(found)
    }

    /// Where requests go.
    pub fn url(&self) -> String {
        format!("{}://{}:{}", if self.has_tls { "https" } else { "http" }, self.host, self.port)
    }

    /// What a job of this address is called, and what messages show.
    pub fn shown(&self) -> String {
        let bucket = self.bucket.as_ref().map_or_else(|| "*".into(), |bucket| encode(bucket, ""));
        // A bucket's name means nothing without it.
        let org = self.org.as_ref().map(|org| format!("?org={}", encode(org, ""))).unwrap_or_default();
        format!("influxdb2://{}:{}/{bucket}{org}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_or_refused_with_a_way_out() {
        let said = |text: &str| match Address::parse(text) {
            Ok(address) => format!("{} {}", address.shown(), address.url()),
            Err(error) => error.to_string(),
        };
        for (given, part) in [
            ("h/a%2Fb", "influxdb2://h:8086/a%2Fb http://h:8086"),
            ("[::1]:1/b?tls=on&org=my%20org", "influxdb2://[::1]:1/b?org=my%20org https://[::1]:1"),
            ("h", "influxdb2://h:8086/* "),
            ("h/*?token-file=/t", "influxdb2://h:8086/* "),
            ("h/%2A", "influxdb2://h:8086/%2A "),
            ("", "names no host"),
            ("u@h/b", "hint: in INFLUX_TOKEN"),
            (":secret@h/b", "takes a token"),
            ("h/org/b", "?org=NAME"),
            ("h/b?token=secret", "hint: give it in INFLUX_TOKEN"),
            ("h/b?tokenfile=x", "token-file= is the nearest"),
            ("h/b?count=no", "write off"),
        ] {
            assert!(said(given).contains(part), "{given}: {}", said(given));
            assert!(!said(given).contains("secret"), "{given}");
        }
    }
}
