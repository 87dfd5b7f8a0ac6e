//! `redis://user:password@host:port/?mode=stream`: which server, and how it is to be read.
//!
//! What is secret in it is taken out when it is read, so nothing made from an [`Address`] can show it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::secret::Secret;
use crate::base::socket::Socket;
use crate::base::url::{decode, nearest};
use crate::source::capture::SourceError;

const PORT: u16 = 6379;
const OPTIONS: [&str; 4] = ["mode", "ca", "password-file", "timeout"];
/// How long a server may say nothing.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How a server is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As a replica, else by `SCAN`.
    #[default]
    Auto,
    Stream,
    Scan,
    /// `BGSAVE`, then the file it wrote.
    Bgsave,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Stream => "stream",
            Self::Scan => "scan",
            Self::Bgsave => "bgsave",
        }
    }
}

/// A server, and how it is to be read.
#[derive(Clone)]
pub struct Address {
    pub is_tls: bool,
    pub host: String,
    /// The way there, if it is none by network; `host` is what people call it then.
    pub through: Option<Socket>,
    pub port: u16,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub mode: Mode,
    /// Certificates to trust instead of the system's, PEM.
    pub ca: Option<PathBuf>,
    /// How long the server may say nothing.
    pub timeout: Duration,
}

fn refused(why: impl Into<String>) -> SourceError {
    SourceError::Refused(why.into())
}

impl Address {
    /// Reads an address that begins with `redis://` or `rediss://`. `environment`: the password when the address
    /// names none (`REDISCLI_AUTH`).
    ///
    /// # Errors
    /// It makes no sense, names an option there is not, or a password file that cannot be read.
    pub fn parse(text: &str, environment: Option<&Secret>) -> Result<Self, SourceError> {
        let (is_tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(refused("a server's address begins with redis:// or rediss://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (credentials, place) =
            rest.rsplit_once('@').map_or((None, rest), |(left, right)| (Some(left), right));
        let (place, path) = place.split_once('/').unwrap_or((place, ""));
        if !path.is_empty() {
            let why =
                "a server is captured whole, with all its databases\nhint: leave out what follows the port";
            return Err(refused(why));
        }
        let (host, port) = host_and_port(place)?;
        let (mut user, mut password) = (None, None);
        if let Some(credentials) = credentials {
            let (name, word) = credentials.split_once(':').unwrap_or((credentials, ""));
            user = Some(decoded(name)?).filter(|name| !name.is_empty());
            password = Some(decoded(word)?).filter(|word| !word.is_empty()).map(Secret::from_text);
        }
        let mut address = Self {
            is_tls,
            host,
            through: None,
            port,
            user,
            password,
            mode: Mode::Auto,
            ca: None,
            timeout: TIMEOUT,
        };
        for (key, value) in options(query)? {
            address.set(&key, &value)?;
        }
        if address.password.is_none() {
            address.password = environment.cloned();
        }
        Ok(address)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), SourceError> {
        match key {
            "mode" => {
                let modes = [Mode::Auto, Mode::Stream, Mode::Scan, Mode::Bgsave];
                let mode = modes.into_iter().find(|mode| mode.name() == value);
                self.mode =
                    mode.ok_or_else(|| refused(format!("mode={value}: write auto, stream, scan or bgsave")))?;
            }
            "ca" if self.is_tls => self.ca = Some(value.into()),
            "ca" => return Err(refused("ca= is for rediss://")),
            "password-file" => {
                let bytes = std::fs::read(Path::new(value))
                    .map_err(|cause| refused(format!("cannot read the password file {value}: {cause}")))?;
                self.password = Some(Secret::from_line(bytes));
            }
            "timeout" => {
                let seconds =
                    value.strip_suffix('s').unwrap_or(value).parse().ok().filter(|seconds| *seconds > 0);
                let seconds =
                    seconds.ok_or_else(|| refused(format!("timeout={value}: write seconds, as 120s")))?;
                self.timeout = Duration::from_secs(seconds);
            }
            other => return Err(unknown(other, &OPTIONS)),
        }
        Ok(())
    }

    /// `redis://host:port`: its name, without secrets and options.
    pub fn name(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("redis{}://{host}:{}", if self.is_tls { "s" } else { "" }, self.port)
    }
}

fn host_and_port(place: &str) -> Result<(String, u16), SourceError> {
    let bad = || refused(format!("{place:?} is no host and port"));
    let (host, port) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']').ok_or_else(bad)?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")).ok_or_else(bad)?)
        }
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let port = if port.is_empty() { PORT } else { port.parse().map_err(|_| bad())? };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    if host.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err(bad());
    }
    Ok((host.to_owned(), port))
}

/// The pairs of a query, each key once.
pub fn options(query: &str) -> Result<Vec<(String, String)>, SourceError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| refused(format!("option {pair:?} has no value")))?;
        let (key, value) = (decoded(key)?, decoded(value)?);
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(refused(format!("option {key} is given twice")));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// The refusal of an option there is not, with the nearest there is.
pub fn unknown(key: &str, options: &[&str]) -> SourceError {
    let nearest = nearest(key, options).unwrap_or_default();
    refused(format!("there is no option {key:?}\nhint: did you mean {nearest}?"))
}

/// Percent escapes undone.
fn decoded(text: &str) -> Result<String, SourceError> {
    decode(text).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Address {
        Address::parse(text, None).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refusal(text: &str) -> String {
        Address::parse(text, None).err().unwrap_or_else(|| panic!("{text} was taken")).to_string()
    }

    #[test]
    fn an_address_is_read_and_its_name_shows_no_secret() {
        let table = [
            ("redis://", "redis://127.0.0.1:6379"),
            ("redis://cache", "redis://cache:6379"),
            ("redis://bob:p%40ss@cache:7000/?mode=scan", "redis://cache:7000"),
            ("rediss://:s3cret@[::1]:7", "rediss://[::1]:7"),
        ];
        for (text, name) in table {
            assert_eq!(parse(text).name(), name);
        }
        let address = parse("redis://bob:p%40s:s@cache:7000/?mode=scan&timeout=5s");
        assert_eq!((address.user.as_deref(), address.mode), (Some("bob"), Mode::Scan));
        assert_eq!(address.password.unwrap().expose(), b"p@s:s");
        assert_eq!(address.timeout, Duration::from_secs(5));
    }

    #[test]
    fn the_environments_password_is_the_last_resort() {
        let given = Secret::from_text("env".into());
        let password = |text| Address::parse(text, Some(&given)).unwrap().password.unwrap().expose().to_vec();
        assert_eq!(password("redis://h"), b"env");
        assert_eq!(password("redis://:own@h"), b"own");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_nearest_word() {
        assert!(refusal("redis://h?mod=scan").contains("did you mean mode?"));
        assert!(refusal("redis://h?mode=fast").contains("auto, stream, scan or bgsave"));
        assert!(refusal("redis://h/3").contains("all its databases"));
        assert!(refusal("redis://h?ca=x").contains("rediss"));
        assert!(refusal("redis://h?mode=scan&mode=scan").contains("twice"));
        assert!(refusal("redis://h:port").contains("host and port"));
        assert!(refusal("redis://h?password-file=/nowhere/at/all").contains("/nowhere/at/all"));
    }
}
