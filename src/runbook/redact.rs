//! Secrets out of what is shown and kept: known values wherever they stand, and what looks like one.

use crate::base::secret::Secret;
use crate::base::url::encode;

/// What stands where a secret was.
pub const MASK: &str = "[redacted]";
/// Shorter values would blank out ordinary words.
const LEAST_BYTES: usize = 4;

/// Knows secrets; does not print.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that one inside another leaves no rest.
    secrets: Vec<Secret>,
}

impl Redactor {
    /// Of these values, their lines and their forms in an address.
    pub fn new(values: impl IntoIterator<Item = Secret>) -> Self {
        let mut secrets: Vec<Secret> = Vec::new();
        let mut add = |bytes: &[u8]| {
            let is_known = secrets.iter().any(|known| known.expose() == bytes);
            if bytes.len() >= LEAST_BYTES && !is_known {
                secrets.push(Secret::from_bytes(bytes.to_vec()));
            }
        };
        for value in values {
            let bytes = value.expose();
            add(bytes);
            for line in bytes.split(|byte| *byte == b'\n') {
                add(line.trim_ascii());
            }
            if let Ok(text) = std::str::from_utf8(bytes) {
                add(encode(text, "").as_bytes());
            }
        }
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Self { secrets }
    }

    /// Text without them.
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if let Ok(secret) = std::str::from_utf8(secret.expose())
                && text.contains(secret)
            {
                text = text.replace(secret, MASK);
            }
        }
        without_logins(&text)
    }
}

/// `scheme://user:password@host` → `scheme://user:[redacted]@host`.
fn without_logins(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>".contains(c)).unwrap_or(after.len());
        let (authority, behind) = after.split_at(end);
        match authority.rsplit_once('@').and_then(|(login, host)| Some((login.split_once(':')?.0, host))) {
            Some((user, host)) => clean.push_str(&format!("{user}:{MASK}@{host}")),
            None => clean.push_str(authority),
        }
        rest = behind;
    }
    clean.push_str(rest);
    clean
}

/// Why a line looks as if a secret stood in it; `None` if it does not.
pub(super) fn looks_secret(line: &str) -> Option<&'static str> {
    if without_logins(line) != line && !line.contains(MASK) {
        let is_variable = |rest: &str| {
            rest.rsplit_once('@')
                .and_then(|(login, _)| login.split_once(':'))
                .is_some_and(|(_, word)| word.starts_with('$') || word.starts_with('<'))
        };
        let all =
            line.split("://").skip(1).map(|rest| rest.split(['/', ' ', '"']).next().unwrap_or_default());
        let mut logins = all.filter(|authority| authority.contains('@') && authority.contains(':'));
        if logins.any(|authority| !is_variable(authority)) {
            return Some("an address with a password");
        }
    }
    if line.contains("-----BEGIN ") && line.contains("PRIVATE KEY") {
        return Some("a private key");
    }
    let words = || line.split(|c: char| !(c.is_ascii_alphanumeric() || "_-./+".contains(c)));
    for word in words() {
        let long =
            |prefix: &str, least: usize| word.starts_with(prefix) && word.len() >= prefix.len() + least;
        let is_token = ["ghp_", "gho_", "glpat-", "xoxb-", "xoxp-", "sk_live_", "hvs.", "npm_", "dop_v1_"]
            .iter()
            .any(|prefix| long(prefix, 10));
        let is_aws = word.len() == 20 && (word.starts_with("AKIA") || word.starts_with("ASIA"));
        if is_token || is_aws {
            return Some("a token");
        }
    }
    assigned(line)
}

/// `PASSWORD=hunter2`, `--password hunter2`: a name that says secret with a value that is no variable.
fn assigned(line: &str) -> Option<&'static str> {
    const NAMES: [&str; 6] = ["password", "passwd", "passphrase", "secret", "token", "apikey"];
    // Names of files, commands and ids are no secrets.
    const HARMLESS: [&str; 6] = ["_file", "-file", "_command", "-command", "_id", "_path"];
    for (at, _) in line.match_indices('=') {
        let name = line[..at].rsplit(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c))).next();
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let says_secret = NAMES.iter().any(|word| name.ends_with(word));
        if !says_secret || HARMLESS.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let value = line[at + 1..].trim_start_matches(['"', '\'']);
        let is_literal = value.starts_with(|c: char| c.is_ascii_alphanumeric());
        if is_literal {
            return Some("a password or token that is written out");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let redactor = Redactor::new(
            ["hunter22", "pass word/1", "abc", "two\nlines here"].map(|s| Secret::from_text(s.into())),
        );
        let table = [
            ("x hunter22y hunter22", "x [redacted]y [redacted]"),
            ("pass%20word%2F1", "[redacted]"),
            ("abc", "abc"),
            ("lines here", "[redacted]"),
            (
                "redis://default:qwer@h:1/ postgres://u@h s3://b",
                "redis://default:[redacted]@h:1/ postgres://u@h s3://b",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(redactor.clean(text), expected);
        }
    }

    #[test]
    fn what_looks_secret_is_told_from_references() {
        for line in [
            "export LIFEBOAT_PASSWORD=hunter2",
            "psql postgres://app:hunter2@db/shop",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "AWS_ACCESS_KEY_ID=AKIAABCDEFGHIJKLMNOP",
            "curl -H 'Authorization: Bearer ghp_abcdefghijklmnop'",
            "mysql --password=\"x1\"",
        ] {
            assert!(looks_secret(line).is_some(), "{line}");
        }
        for line in [
            "export LIFEBOAT_PASSWORD_FILE=/root/pw",
            "PGPASSWORD=$DB_PASSWORD psql",
            "PGPASSWORD=\"$(cat pw)\"",
            "sftp://user@host:23/./copy",
            "redis://default:$REDIS_PASSWORD@host",
            "password = { file = \"/etc/pw\" }",
            "`ghp_` begins a token",
        ] {
            assert!(looks_secret(line).is_none(), "{line}");
        }
    }
}
