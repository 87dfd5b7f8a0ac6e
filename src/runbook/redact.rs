//! Secrets out of what is shown and kept: known values wherever they stand, and what looks like one.

use crate::base::secret::Secret;
use crate::base::url::encode;

/// What stands where a secret was.
pub const MASK: &str = "[redacted]";
/// Shorter values would blank out ordinary words.
const LEAST_BYTES: usize = 4;
/// Longer ones are no ordinary words.
const WORD_BYTES: usize = 12;

/// Knows secrets; does not print.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that one inside another leaves no rest.
    secrets: Vec<Secret>,
}

impl Redactor {
    /// The same, and these too.
    pub fn with(&self, further: impl IntoIterator<Item = Secret>) -> Self {
        Self::new(self.secrets.iter().cloned().chain(further))
    }

    /// Without those that are ordinary words, for text of our own: it may hold the word by chance, and a mask in its
    /// place would tell everybody what the secret is. What others say is cleaned of all of them.
    pub fn without_words(&self) -> Self {
        let is_word = |secret: &&Secret| {
            secret.expose().len() <= WORD_BYTES && secret.expose().iter().all(u8::is_ascii_alphabetic)
        };
        Self { secrets: self.secrets.iter().filter(|secret| !is_word(secret)).cloned().collect() }
    }

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
        without_tokens(&without_assigned(&without_logins(&text)))
    }
}

/// Ends of names whose value is a secret.
const SECRET_NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "access_key",
    "secret_key",
    "private_key",
    "application_key",
];

fn says_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|word| name.ends_with(word))
}

/// `password=hunter2`, `"token": "x"`, `--passphrase x`, and `password: x` where a line begins so: with the value
/// masked, whatever it is, unless it only refers to one.
fn without_assigned(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut kept = 0;
    for (at, sign) in text.match_indices(['=', ':', ' ']) {
        if at < kept {
            continue;
        }
        let before = &text[..at];
        let (unquoted, is_quoted) = match before.strip_suffix(['"', '\'']) {
            Some(unquoted) => (unquoted, true),
            None => (before, false),
        };
        let begin = unquoted.rfind(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
        let begin =
            begin.map_or(0, |begin| begin + unquoted[begin..].chars().next().map_or(1, char::len_utf8));
        let name = &unquoted[begin..];
        let line = unquoted[..begin].rsplit('\n').next().unwrap_or_default();
        let assigns = match sign {
            "=" => true,
            ":" => is_quoted || line.trim_matches([' ', '\t', '-']).is_empty(),
            _ => name.starts_with("--") && !is_quoted,
        };
        if !assigns || !says_secret(name) {
            continue;
        }
        let after = &text[at + 1..];
        let value = if sign == "=" { after } else { after.trim_start_matches(' ') };
        let quote = value.chars().next().filter(|first| "\"'".contains(*first));
        let value = &value[quote.map_or(0, char::len_utf8)..];
        let end = match quote {
            Some(quote) => value.find(quote),
            None => value.find(|c: char| c.is_whitespace() || ",;&\"'`<>()[]{}|".contains(c)),
        };
        let end = end.unwrap_or(value.len());
        if end == 0 || value.starts_with(['$', '<', '{', '-']) {
            continue;
        }
        let begin = text.len() - value.len();
        clean.push_str(&text[kept..begin]);
        clean.push_str(MASK);
        kept = begin + end;
    }
    clean.push_str(&text[kept..]);
    clean
}

/// What begins as the tokens of well-known services do.
fn without_tokens(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(is_of_word) {
        let (before, word) = rest.split_at(begin);
        let end = word.find(|c| !is_of_word(c)).unwrap_or(word.len());
        clean.push_str(before);
        clean.push_str(if is_token(&word[..end]) { MASK } else { &word[..end] });
        rest = &word[end..];
    }
    clean.push_str(rest);
    clean
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-./+".contains(c)
}

fn is_token(word: &str) -> bool {
    let long = |prefix: &&str| word.starts_with(*prefix) && word.len() >= prefix.len() + 10;
    let known = ["ghp_", "gho_", "glpat-", "xoxb-", "xoxp-", "sk_live_", "hvs.", "npm_", "dop_v1_"];
    let is_aws = word.len() == 20 && (word.starts_with("AKIA") || word.starts_with("ASIA"));
    is_aws || known.iter().any(long)
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
    if line.split(|c| !is_of_word(c)).any(is_token) {
        return Some("a token");
    }
    assigned(line)
}

/// `PASSWORD=hunter2`, `--password hunter2`: a name that says secret with a value that is no variable.
fn assigned(line: &str) -> Option<&'static str> {
    for (at, _) in line.match_indices('=') {
        let name = line[..at].rsplit(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c))).next();
        if !says_secret(name.unwrap_or_default()) {
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
        let more = redactor.with([Secret::from_text("another".into())]);
        assert_eq!(more.clean("another hunter22"), "[redacted] [redacted]");
        assert_eq!(more.without_words().clean("another hunter22"), "another [redacted]");
    }

    #[test]
    fn what_looks_like_a_secret_is_masked_although_nobody_said_it() {
        let table = [
            ("db password=s3cr3t, port=3", "db password=[redacted], port=3"),
            ("{\"token\": \"s3 x\", \"n\": 1}", "{\"token\": \"[redacted]\", \"n\": 1}"),
            ("'API-KEY'='q'", "'API-KEY'='[redacted]'"),
            ("a\n - password: s3cr3t\nb", "a\n - password: [redacted]\nb"),
            ("mysql --password s3cr3t -e x", "mysql --password [redacted] -e x"),
            ("PGPASSWORD=s3cr3t psql", "PGPASSWORD=[redacted] psql"),
            ("got ghp_abcdefghijklmnop.", "got [redacted]"),
        ];
        for (text, expected) in table {
            let clean = Redactor::default().clean(text);
            assert_eq!(clean, expected);
            assert_eq!(Redactor::default().clean(&clean), clean, "once is enough");
        }
        for text in [
            "PGPASSWORD=$DB_PASSWORD psql",
            "unexpected token: end of input",
            "--password <FILE> is missing",
            "--password-file /etc/pw",
            "select token = 'x', 1 from t where a::text = ':' and b=1",
            "übung=1 ñ: x",
        ] {
            assert_eq!(Redactor::default().clean(text), text);
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
