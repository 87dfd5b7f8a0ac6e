//! Which InfluxDB answers at an address: each of its three majors is backed up in a way of its own, or in none.
//!
//! Asked before anything else, and without a password: a message that names the right address helps more than what the
//! wrong major says to questions it does not know.

use serde_json::Value;

use crate::base::http::{Http, HttpError};

/// What a server says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// As the server writes it, without a `v` before it; empty when it does not say.
    pub text: String,
    /// Major and minor, where they can be read.
    pub numbers: Option<(u32, u32)>,
    /// The service that InfluxData runs, which has no version.
    pub is_cloud: bool,
}

impl Version {
    fn parse(text: &str, build: &str) -> Self {
        // Longer ones are no versions, and are shown.
        let text: String = text.trim().trim_start_matches('v').chars().take(60).collect();
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        let numbers = match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            (Some(Ok(major)), _) => Some((major, 0)),
            _ => None,
        };
        Self { text, numbers, is_cloud: build.to_ascii_lowercase().contains("cloud") }
    }

    /// The first number.
    pub fn major(&self) -> Option<u32> {
        self.numbers.map(|(major, _)| major)
    }

    /// What is said of a server of version 3, which nothing here reads.
    pub fn refusal_of_3(&self, place: &str) -> String {
        format!(
            "InfluxDB {} answers at {place}, and version 3 is not supported: it keeps its data as files in an object store or a \
             folder\nhint: back up that folder or bucket with the server stopped",
            self.text
        )
    }
}

/// Asks a server for its version; an empty one where it does not say.
///
/// # Errors
/// Nobody answers.
pub fn ask(http: &Http) -> Result<Version, HttpError> {
    let what = "ask for the version";
    let seen = http.look(what, "/ping")?;
    let build = seen.header("x-influxdb-build").unwrap_or_default().to_owned();
    if let Some(text) = seen.header("x-influxdb-version") {
        return Ok(Version::parse(text, &build));
    }
    let body = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let said = |document: &Value| document["version"].as_str().map(|text| Version::parse(text, &build));
    if let Some(version) = body(&seen.body).as_ref().and_then(said) {
        return Ok(version);
    }
    // Something between us may have taken the headers away.
    let health = http.look(what, "/health")?;
    let version = body(&health.body).filter(|document| document["name"] == "influxdb");
    Ok(version.as_ref().and_then(said).unwrap_or_else(|| Version::parse("", &build)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_write_them() {
        for (text, numbers) in [
            ("v2.7.10", Some((2, 7))),
            ("1.6.7~rc0", Some((1, 6))),
            ("2.0", Some((2, 0))),
            ("3", Some((3, 0))),
            ("dev", None),
            ("", None),
            ("99999999999.1", None),
        ] {
            assert_eq!(Version::parse(text, "OSS").numbers, numbers, "{text}");
        }
        assert!(Version::parse("", "Cloud2").is_cloud);
        assert_eq!(Version::parse(&"9".repeat(4000), "").text.len(), 60);
    }
}
