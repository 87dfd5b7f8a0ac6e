//! InfluxDB 2.x: buckets through the server's HTTP API for backups, one part a shard, given back the same way.
//!
//! ```text
//! address → version → metadata → count points → shards → parts
//! parts → bucket beside → shards → count points again → renamed
//! ```
//!
//! Written from the published protocol ([contract], and what its public client and server make of it), **never run
//! against a real server**: every capture and restore says so.
//!
//! Invariants: what is counted is bounded by the instant before the first shard, so that points that arrive meanwhile
//! make a restore larger, never smaller; a bucket is shown under its name only when it is proven; a token is in no URL,
//! no message and no child.
//!
//! [contract]: https://github.com/influxdata/openapi

mod address;
mod archive;
mod bucket;
mod capture;
mod counts;
mod multipart;
mod server;
mod spool;
mod target;

pub use address::Address;
pub use capture::Influx2Capture;
pub use target::Influx2Target;

use crate::base::http::HttpError;
use crate::source::capture::SourceError;

/// The key in a manifest's facts.
const KEY: &str = "influx2";

/// What everybody is told.
const LABEL: &str = "InfluxDB 2.x is supported as its protocol is published: this was tested against exchanges written from \
                     that, never against a real server; restore into another bucket and look, before you rely on it";

/// A bucket that cannot be captured or given back. Texts may end in a line `hint: …`.
#[derive(Debug, thiserror::Error)]
pub enum Influx2Error {
    #[error("{0}{hint}", hint = explain(.0))]
    Said(String),
    #[error("cannot {operation}: {cause}")]
    Local { operation: &'static str, cause: std::io::Error },
}

impl From<Influx2Error> for SourceError {
    fn from(error: Influx2Error) -> Self {
        Self::Service(Box::new(error))
    }
}

fn explain(said: &str) -> &'static str {
    const TOKEN: &str = "\nhint: backups and restores take an operator token, which is more than all access to one organization: in \
                         INFLUX_TOKEN or by ?token-file=FILE; `influx auth list` shows what a token may do";
    const ENDED: &str = "\nhint: the server ended, or something on the way broke off: its log says why";
    const EXPLAINED: [(&str, &str); 10] = [
        ("\nhint: ", ""),
        ("status 401", TOKEN),
        ("status 403", TOKEN),
        ("Connection refused", "\nhint: is the server up, and is the port right? 8086 is its usual one"),
        ("nothing came for", "\nhint: ?no-progress=1h waits longer"),
        ("unexpected EOF", ENDED),
        ("end of file before", ENDED),
        ("Connection reset", ENDED),
        ("connection closed before", ENDED),
        ("breaks off", ENDED),
    ];
    EXPLAINED.iter().find(|(part, _)| said.contains(part)).map_or("", |(_, hint)| hint)
}

fn said(text: impl Into<String>) -> SourceError {
    Influx2Error::Said(text.into()).into()
}

fn refused<T>(why: impl Into<String>) -> Result<T, SourceError> {
    Err(SourceError::Refused(why.into()))
}

/// The message in an error as a server writes it, `{"code":…,"message":…}`, at the end of these bytes.
fn said_in(bytes: &[u8]) -> Option<String> {
    let at = memchr::memmem::rfind(bytes, b"{\"code\"")?;
    let document: serde_json::Value = serde_json::from_slice(bytes[at..].trim_ascii()).ok()?;
    document["message"].as_str().map(|text| text.chars().take(300).collect())
}

/// A failed request, with the server's message instead of its JSON.
fn http_error(error: HttpError) -> SourceError {
    match error {
        HttpError::Cancelled(cancelled) => cancelled.into(),
        error => {
            let text = error.to_string();
            let plain = said_in(text.as_bytes()).zip(text.find("{\"code\""));
            match plain {
                Some((message, at)) => said(format!("{}{message}", &text[..at])),
                None => said(text),
            }
        }
    }
}
