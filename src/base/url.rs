//! Addresses in the form of URLs: `scheme://user:password@host:port/path?key=value`, taken apart strictly.
//!
//! What engines let people say behind the `?` stands in a table of each ([`read`]): the names there are, and what each of
//! them sets, in one place.
//!
//! Pure. Every part is percent-decoded after it was cut out, so that a decoded byte never becomes a separator.

use std::time::Duration;

use super::secret::Secret;

/// An address that cannot be taken apart. Never shows the address: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

impl UrlError {
    /// `text` shows no secret, and may end in a line `hint: …`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The parts. What is missing is empty or `None`.
#[derive(Clone, Default)]
pub struct Url {
    pub user: String,
    pub password: Option<Secret>,
    pub host: String,
    pub port: Option<u16>,
    /// After the first `/` behind the host, not decoded: what separates in it is its reader's business.
    pub path: String,
    pub query: Vec<(String, String)>,
}

impl Url {
    /// Takes apart what follows `scheme://`.
    ///
    /// # Errors
    /// A bad escape or port; a fragment.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.contains('#') {
            return Err(UrlError("a # in an address is written %23".into()));
        }
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(Secret::from_text(decode(password)?))),
            None => (login, None),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port),
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':').unwrap_or(port) {
            "" => None,
            port => Some(port.parse().map_err(|_| UrlError(format!("{port:?} is no port")))?),
        };
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(key)?, decode(value)?));
        }
        let (user, host) = (decode(user)?, decode(host)?);
        Ok(Self { user, password, host, port, path: path.into(), query: pairs })
    }
}

/// Decodes `%41`.
///
/// # Errors
/// A `%` without two hexadecimal digits, or bytes that are no UTF-8.
pub fn decode(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| UrlError("a % in an address is written %25".into()))?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| UrlError("an address is not UTF-8 once decoded".into()))
}

/// The reverse: everything but letters, digits and `-._~` escaped, and what `also` names left as it is.
pub fn encode(text: &str, also: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_alphanumeric() || "-._~".contains(character) || also.contains(character) {
            encoded.push(character);
        } else {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// The candidate that most resembles `text`.
pub fn nearest<'a>(text: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates.iter().copied().min_by_key(|candidate| strsim::levenshtein(text, candidate))
}

/// What follows a scheme that names a path: the path, decoded, and the options.
///
/// # Errors
/// A bad escape.
pub fn path_and_options(text: &str) -> Result<(String, Vec<(String, String)>), UrlError> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    Ok((decode(path)?, Url::parse(&format!("?{query}"))?.query))
}

/// An option as it was given, decoded.
pub struct Given {
    key: String,
    value: String,
}

/// Reads one option into what an address is taken apart into.
pub type Reader<T> = fn(&mut T, Given) -> Result<(), UrlError>;

impl Given {
    /// What was given is wrong: `KEY=VALUE: write …`.
    pub fn wrong(&self, write: &str) -> UrlError {
        UrlError(format!("{}={}: write {write}", self.key, self.value))
    }

    /// # Errors
    /// There is no value.
    pub fn text(self) -> Result<String, UrlError> {
        if self.value.is_empty() {
            Err(UrlError(format!("{}= has no value", self.key)))
        } else {
            Ok(self.value)
        }
    }

    /// The text as whatever is made of text: a path, perhaps there.
    ///
    /// # Errors
    /// There is no value.
    pub fn into<T: From<String>>(self) -> Result<T, UrlError> {
        self.text().map(T::from)
    }

    /// `90`, `90s`, `10m`, `2h`; what fits the settings of servers, which count milliseconds in 31 bits.
    ///
    /// # Errors
    /// It is no such time, or none at all.
    pub fn span(self) -> Result<Duration, UrlError> {
        const MOST_SECONDS: u64 = 2_000_000;
        let digits = self.value.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.value.len());
        let (number, unit) = self.value.split_at(digits);
        let seconds = match unit {
            "" | "s" => Some(1_u64),
            "m" | "min" => Some(60),
            "h" => Some(3600),
            _ => None,
        };
        let seconds = seconds.zip(number.parse::<u64>().ok()).and_then(|(unit, n)| unit.checked_mul(n));
        let seconds = seconds.filter(|seconds| (1..=MOST_SECONDS).contains(seconds));
        match seconds {
            Some(seconds) => Ok(Duration::from_secs(seconds)),
            None if self.value.is_empty() => self.text().map(|_| Duration::ZERO),
            None => Err(self.wrong("a time such as 90s, 10m or 2h")),
        }
    }

    /// What one of several words stands for. `write` names them in an error.
    ///
    /// # Errors
    /// It is none of them.
    pub fn word<T: Copy>(self, words: &[(&str, T)], write: &str) -> Result<T, UrlError> {
        let found = words.iter().find(|(word, _)| *word == self.value);
        match found {
            Some((_, meant)) => Ok(*meant),
            None if self.value.is_empty() => Err(UrlError(format!("{}= has no value", self.key))),
            None => Err(self.wrong(write)),
        }
    }
}

/// Reads all options of an address that begins with `scheme` into `found`, each as its row of `options` says.
///
/// # Errors
/// One is none of them, has no value, or one that makes no sense.
pub fn read<T>(
    scheme: &str,
    options: &[(&'static str, Reader<T>)],
    query: Vec<(String, String)>,
    found: &mut T,
) -> Result<(), UrlError> {
    for (key, value) in query {
        let Some((_, reader)) = options.iter().find(|(name, _)| *name == key) else {
            let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
            let meant = nearest(&key, &names).unwrap_or_default();
            return Err(UrlError(format!("{key:?} is no option of {scheme}\nhint: {meant}= is the nearest")));
        };
        reader(found, Given { key, value })?;
    }
    Ok(())
}

/// What is said of an option that is none of `options`, with a hint.
pub fn no_option(key: &str, options: &[&str]) -> String {
    let hint = match nearest(key, options) {
        Some(near) if strsim::levenshtein(key, near) <= 3 => format!("did you mean {near}?"),
        _ if options.is_empty() => "there are no options here".to_owned(),
        _ => format!("there are {}", options.join(", ")),
    };
    format!("there is no option {key:?}\nhint: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_decoded_after_they_are_cut_out() {
        let url = Url::parse("a%40b:p%3Aw%2F@[::1]:5433/x%2Cy,z?sch%65ma=a%26b&all").unwrap();
        assert_eq!((url.user.as_str(), url.host.as_str(), url.port), ("a@b", "::1", Some(5433)));
        assert_eq!(url.password.unwrap().expose(), b"p:w/");
        assert_eq!(url.path, "x%2Cy,z");
        assert_eq!(url.query, [("schema".into(), "a&b".into()), ("all".into(), String::new())]);
        let url = Url::parse("%2Frun%2Fpg/db").unwrap();
        assert_eq!((url.host.as_str(), url.path.as_str(), url.port), ("/run/pg", "db", None));
        assert!(Url::parse("host:http/db").is_err());
        assert!(Url::parse("host/%4").is_ok());
        assert!(Url::parse("ho%4/").is_err());
        assert!(Url::parse("host/a#b").is_err());
    }

    #[test]
    fn what_is_encoded_decodes() {
        let odd = "a b/ü\n%\"'";
        assert_eq!(decode(&encode(odd, "")).unwrap(), odd);
        assert_eq!(encode("a/b", "/"), "a/b");
    }

    #[test]
    fn options_are_read_by_their_table() {
        #[derive(Default)]
        struct Found {
            wait: Duration,
            mode: u8,
            names: Vec<String>,
        }
        const OPTIONS: [(&str, Reader<Found>); 3] = [
            ("mode", |found, given| {
                given.word(&[("a", 1), ("b", 2)], "a or b").map(|mode| found.mode = mode)
            }),
            ("name", |found, given| given.into().map(|name| found.names.push(name))),
            ("wait", |found, given| given.span().map(|wait| found.wait = wait)),
        ];
        let given = |text: &str| {
            let mut found = Found::default();
            let query = Url::parse(&format!("?{text}")).unwrap().query;
            super::read("x://", &OPTIONS, query, &mut found).map(|()| found)
        };
        let found =
            given("name=a&wait=2h&mode=b&name=c").map_err(|error| error.to_string()).unwrap_or_default();
        assert_eq!((found.wait.as_secs(), found.mode, found.names), (7200, 2, vec!["a".into(), "c".into()]));
        for (text, expected) in [
            ("nmae=a", "\"nmae\" is no option of x://\nhint: name= is the nearest"),
            ("name=", "name= has no value"),
            ("wait=", "wait= has no value"),
            ("mode", "mode= has no value"),
            ("wait=soon", "wait=soon: write a time such as 90s, 10m or 2h"),
            ("wait=99999999999999h", "wait=99999999999999h: write a time such as 90s, 10m or 2h"),
            ("mode=c", "mode=c: write a or b"),
        ] {
            assert_eq!(given(text).map_err(|error| error.to_string()).err().as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_nearest_word_is_found() {
        assert_eq!(nearest("shcema", &["table", "schema", "lock-timeout"]), Some("schema"));
        assert_eq!(nearest("x", &[]), None);
    }
}
