//! Addresses in the form of URLs: `scheme://user:password@host:port/path?key=value`, taken apart strictly.
//!
//! Pure. Every part is percent-decoded after it was cut out, so that a decoded byte never becomes a separator.

use super::secret::Secret;

/// An address that cannot be taken apart. Never shows the address: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

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
    fn the_nearest_word_is_found() {
        assert_eq!(nearest("shcema", &["table", "schema", "lock-timeout"]), Some("schema"));
        assert_eq!(nearest("x", &[]), None);
    }
}
