//! Level 2: repository addresses. One grammar (`docs/storage.md` has the table), no secrets, no I/O.
//!
//! Invariant: what [`Location`] prints parses back to the same location and holds no secret.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{StoreError, StoreErrorKind};

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    Local {
        path: PathBuf,
    },
    Memory {
        name: String,
    },
    S3 {
        bucket: String,
        /// Without slashes at its ends; may be empty. The same for every `prefix` below.
        prefix: String,
        /// `https://host` or `http://host`; `None` is Amazon.
        endpoint: Option<String>,
        region: Option<String>,
        /// `https://bucket.host` instead of `https://host/bucket`.
        virtual_host: bool,
    },
    Sftp {
        user: Option<String>,
        host: String,
        port: Option<u16>,
        /// `/absolute`, or relative to the folder the login starts in; empty = that folder.
        path: String,
    },
    Webdav {
        tls: bool,
        user: Option<String>,
        /// Host and, if given, port.
        authority: String,
        prefix: String,
    },
    B2 {
        bucket: String,
        bucket_id: String,
        prefix: String,
    },
}

impl Location {
    /// A folder on this machine, whatever its name looks like.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self::Local { path: path.into() }
    }
}

/// An address that makes no sense. `shown` must hold nothing secret: an address is echoed only up to its scheme.
fn refuse<T>(shown: &str, cause: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::new(StoreErrorKind::Config, "open", shown, super::ADDRESS, cause.into()))
}

const SCHEMES: &str = "known: a path, file:, memory:, s3://, sftp://, webdav://, webdavs://, b2://";

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        if text.is_empty() {
            return refuse("", "it is empty\nhint: an empty variable, perhaps?");
        }
        if text.contains('\0') {
            return refuse("", "it contains a zero byte");
        }
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            _ => return Ok(Self::local(text)),
        };
        match scheme {
            "file" => file(rest),
            "memory" => Ok(Self::Memory { name: rest.trim_start_matches('/').to_owned() }),
            "s3" => s3(Url::parse(scheme, rest)?),
            "sftp" => sftp(Url::parse(scheme, rest)?),
            "webdav" | "webdavs" => webdav(scheme == "webdavs", Url::parse(scheme, rest)?),
            "b2" => b2(Url::parse(scheme, rest)?),
            "http" | "https" => refuse(scheme, "hint: write webdav:// (http) or webdavs:// (https)"),
            _ if rest.starts_with("//") => refuse(scheme, format!("unknown scheme; {SCHEMES}")),
            _ => Ok(Self::local(text)),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-'))
}

/// `file:/a`, `file:///a` and `file:a`; the path is taken as it stands, without percent-decoding.
fn file(rest: &str) -> Result<Location, StoreError> {
    let path = match rest.strip_prefix("//") {
        Some(after) if after.starts_with('/') => after,
        Some(_) => return refuse("file", "hint: three slashes: file:///absolute/path"),
        None => rest,
    };
    if path.is_empty() { refuse("file", "the path is missing") } else { Ok(Location::local(path)) }
}

/// `//[user@]host[:port]/path?key=value&…`, split but not judged.
struct Url<'a> {
    scheme: &'a str,
    user: Option<String>,
    authority: &'a str,
    /// As written, with its leading slash if any.
    path: &'a str,
    query: Vec<(&'a str, String)>,
}

impl<'a> Url<'a> {
    fn parse(scheme: &'a str, rest: &'a str) -> Result<Self, StoreError> {
        let Some(rest) = rest.strip_prefix("//") else {
            return refuse(scheme, format!("hint: write {scheme}://…"));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            let cause = "a password in an address ends up in process lists and logs\n\
                 hint: leave it out and give it by environment variable or configuration file";
            return refuse(scheme, cause);
        }
        if authority.is_empty() {
            return refuse(scheme, "the host or bucket is missing");
        }
        if !authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:[]".contains(&b)) {
            return refuse(scheme, "the host or bucket has a character that does not belong there");
        }
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return refuse(scheme, "an option after '?' is written key=value");
            };
            pairs.push((key, decode(scheme, value)?));
        }
        let user = user.map(|user| decode(scheme, user)).transpose()?;
        Ok(Self { scheme, user, authority, path, query: pairs })
    }

    fn no_user(&self) -> Result<(), StoreError> {
        if self.user.is_none() {
            Ok(())
        } else {
            refuse(self.scheme, "this scheme takes no user in the address")
        }
    }

    /// Takes one option out, so that [`Self::finish`] finds what nobody asked for.
    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.query.iter().position(|(k, _)| *k == key)?;
        Some(self.query.remove(at).1)
    }

    fn finish(self, allowed: &str) -> Result<(), StoreError> {
        match self.query.first() {
            None => Ok(()),
            // Only the key is shown: the value may be a secret put in the wrong place.
            Some((key, _)) => refuse(self.scheme, format!("unknown option {key:?}; allowed: {allowed}")),
        }
    }

    /// The path as a prefix: decoded, without slashes at its ends, no empty or dotted parts.
    fn prefix(&self) -> Result<String, StoreError> {
        let decoded = decode(self.scheme, self.path)?;
        let prefix = decoded.trim_matches('/');
        if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse(self.scheme, "the path may not contain '//', '.' or '..'");
        }
        Ok(prefix.to_owned())
    }
}

fn s3(mut url: Url<'_>) -> Result<Location, StoreError> {
    url.no_user()?;
    let bucket = url.authority.to_owned();
    if bucket.contains(':') {
        return refuse(
            "s3",
            "hint: the server goes into an option: s3://bucket/prefix?endpoint=http://host:port",
        );
    }
    let prefix = url.prefix()?;
    let endpoint = match url.take("endpoint") {
        Some(text) => Some(endpoint(&text)?),
        None => None,
    };
    let region = url.take("region");
    let virtual_host = match url.take("style").as_deref() {
        None | Some("path") => false,
        Some("virtual") => true,
        Some(_) => return refuse("s3", "style is path or virtual"),
    };
    url.finish("endpoint, region, style")?;
    Ok(Location::S3 { bucket, prefix, endpoint, region, virtual_host })
}

fn endpoint(text: &str) -> Result<String, StoreError> {
    let (scheme, host) = text.split_once("://").unwrap_or(("https", text));
    let host = host.trim_end_matches('/');
    if !matches!(scheme, "http" | "https") {
        return refuse("s3", "the endpoint begins with https:// or http://");
    }
    if host.contains('@') {
        return refuse("s3", "a user or password in the endpoint\nhint: keys come from the environment");
    }
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:[]/".contains(&b)) {
        return refuse("s3", "the endpoint is not a host");
    }
    Ok(format!("{scheme}://{host}"))
}

fn host_and_port(url: &Url<'_>) -> Result<(String, Option<u16>), StoreError> {
    let authority = url.authority;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port.parse::<u16>() {
            Ok(port) if port > 0 => (host, Some(port)),
            _ => return refuse(url.scheme, "the port is not a number from 1 to 65535"),
        },
        _ => (authority, None),
    };
    // A host that starts with a dash would become an option of ssh.
    if host.is_empty() || host.starts_with('-') {
        return refuse(url.scheme, "the host is missing or starts with '-'");
    }
    Ok((host.to_owned(), port))
}

fn sftp(url: Url<'_>) -> Result<Location, StoreError> {
    let (host, port) = host_and_port(&url)?;
    if url.user.as_deref().is_some_and(|user| user.is_empty() || user.starts_with('-')) {
        return refuse("sftp", "the user is empty or starts with '-'");
    }
    let decoded = decode("sftp", url.path)?;
    let (absolute, path) = if let Some(path) = decoded.strip_prefix("/./") {
        (false, path)
    } else if let Some(path) = decoded.strip_prefix("//") {
        (true, path)
    } else if matches!(decoded.as_str(), "" | "/" | "/.") {
        (false, "")
    } else {
        let cause = "hint: write sftp://host/./path (below the login folder) or sftp://host//path (absolute)";
        return refuse("sftp", cause);
    };
    let path = path.trim_matches('/');
    if !path.is_empty() && path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse("sftp", "the path may not contain '//', '.' or '..'");
    }
    let path = if absolute { format!("/{path}") } else { path.to_owned() };
    let user = url.user.clone();
    url.finish("none")?;
    Ok(Location::Sftp { user, host, port, path })
}

fn webdav(tls: bool, url: Url<'_>) -> Result<Location, StoreError> {
    host_and_port(&url)?;
    let (user, authority, prefix) = (url.user.clone(), url.authority.to_owned(), url.prefix()?);
    url.finish("none")?;
    Ok(Location::Webdav { tls, user, authority, prefix })
}

fn b2(mut url: Url<'_>) -> Result<Location, StoreError> {
    url.no_user()?;
    let (bucket, prefix) = (url.authority.to_owned(), url.prefix()?);
    let Some(bucket_id) = url.take("bucket_id") else {
        let cause = "the bucket's id is missing\nhint: b2://bucket/prefix?bucket_id=…, or better B2's S3 side: \
             s3://bucket/prefix?endpoint=s3.<region>.backblazeb2.com&region=<region>";
        return refuse("b2", cause);
    };
    url.finish("bucket_id")?;
    Ok(Location::B2 { bucket, bucket_id, prefix })
}

fn decode(scheme: &str, text: &str) -> Result<String, StoreError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.filter(|d| !d.starts_with('+')).and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(byte) => bytes.push(byte),
            None => {
                return refuse(
                    scheme,
                    "'%' is not followed by two hex digits (write %25 for the sign itself)",
                );
            }
        }
        rest = &after[2..];
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text),
        _ => refuse(scheme, "the address decodes to control characters or invalid UTF-8"),
    }
}

/// Percent-encodes what would change the meaning of an address; `decode` undoes it.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/:[]".contains(&byte) {
                write!(f, "{}", byte as char)?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user_at = |user: &Option<String>| match user {
            Some(user) => format!("{}@", Encoded(user)),
            None => String::new(),
        };
        match self {
            // A path that would be read as an address is given its scheme.
            Self::Local { path } if matches!(path.to_str().map(str::parse), Some(Ok(Self::Local { path: p })) if p == *path) =>
            {
                write!(f, "{}", path.display())
            }
            Self::Local { path } => write!(f, "file:{}", path.display()),
            Self::Memory { name } => write!(f, "memory:{name}"),
            Self::S3 { bucket, prefix, endpoint, region, virtual_host } => {
                write!(f, "s3://{bucket}/{}", Encoded(prefix))?;
                let options = [
                    ("endpoint", endpoint.as_deref()),
                    ("region", region.as_deref()),
                    ("style", virtual_host.then_some("virtual")),
                ];
                let given = options.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)));
                for (at, (key, value)) in given.enumerate() {
                    write!(f, "{}{key}={}", if at == 0 { '?' } else { '&' }, Encoded(value))?;
                }
                Ok(())
            }
            Self::Sftp { user, host, port, path } => {
                write!(f, "sftp://{}{host}", user_at(user))?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                write!(f, "{}{}", if path.starts_with('/') { "/" } else { "/./" }, Encoded(path))
            }
            Self::Webdav { tls, user, authority, prefix } => {
                let scheme = if *tls { "webdavs" } else { "webdav" };
                write!(f, "{scheme}://{}{authority}/{}", user_at(user), Encoded(prefix))
            }
            Self::B2 { bucket, bucket_id, prefix } => {
                write!(f, "b2://{bucket}/{}?bucket_id={}", Encoded(prefix), Encoded(bucket_id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_parse() {
        for text in [
            "/srv/backup",
            "relative/path",
            "a:b",
            "memory:one",
            "s3://bucket/",
            "s3://bucket/a/b?endpoint=http://127.0.0.1:9000&region=eu&style=virtual",
            "sftp://u1-sub1@box.example:23/./backups/db%201",
            "sftp://host//srv/backup",
            "webdav://127.0.0.1:8080/dav/x",
            "webdavs://me%40home@cloud.example/remote.php/dav",
            "b2://bucket/p?bucket_id=4a48fe8875c6214145260818",
        ] {
            let location: Location =
                text.parse().unwrap_or_else(|e: StoreError| panic!("{text}: {}", e.cause));
            assert_eq!(location.to_string(), text);
            assert_eq!(location.to_string().parse::<Location>().unwrap(), location);
        }
        let odd = Location::local("file:x");
        assert_eq!(odd.to_string(), "file:file:x");
        assert_eq!("file:///a%20b".parse::<Location>().unwrap(), Location::local("/a%20b"));
    }

    #[test]
    fn senseless_addresses_are_refused_without_echoing_secrets() {
        for text in [
            "",
            "file:",
            "file://host/x",
            "s3:bucket",
            "s3://",
            "s3://127.0.0.1:9000/bucket",
            "s3://b/p?secret_access_key=hunter2",
            "s3://b/p?endpoint=https://k:hunter2@host",
            "s3://key:hunter2@bucket/p",
            "s3://b/../c",
            "sftp://user:hunter2@host/./x",
            "sftp://host/x",
            "sftp://host:0/./x",
            "sftp://-oProxyCommand=hunter2/./x",
            "sftp://host/./a/../b",
            "sftp://host//a/%2e%2e/b",
            "webdav://u:hunter2@h/x",
            "https://u:hunter2@h/x",
            "ftp://u:hunter2@h/x",
            "b2://bucket/p",
            "s3://b/%zz",
            "s3://b/%+1",
            "s3://b/%00",
            "a\0b",
        ] {
            let error = text.parse::<Location>().expect_err(text);
            assert_eq!(error.kind, StoreErrorKind::Config, "{text}");
            let shown = format!("{error} {} {error:?}", error.cause);
            assert!(!shown.contains("hunter2"), "{text}: {shown}");
        }
    }
}
