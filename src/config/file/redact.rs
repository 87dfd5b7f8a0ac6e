//! The configuration file for a recovery kit: what it says, without anything that may be secret.
//!
//! Comments go (nobody knows what is in them), commands and what they are given go, and passwords inside addresses.
//! References to secrets stay: where a secret is kept is what whoever recovers has to know.

use toml::{Table, Value};

use super::ConfigFile;
use crate::base::own_file::OwnFileError;

/// What stands in the place of a secret.
pub const LEFT_OUT: &str = "(left out)";
/// Parts of a key's name by which its value is a secret, whatever it is.
const SECRET: [&str; 6] = ["secret", "token", "passphrase", "api-key", "apikey", "credential-value"];

impl ConfigFile {
    /// The file's text without comments and secrets, always the same for the same meaning.
    ///
    /// # Errors
    /// It cannot be read again.
    pub fn redacted(&self) -> Result<String, super::FileError> {
        let unreadable = |cause| OwnFileError::Unreadable { path: self.path.clone(), cause };
        let text = std::fs::read_to_string(&self.path).map_err(unreadable)?;
        Ok(redact(&text).map_err(|cause| unreadable(std::io::Error::other(cause)))?)
    }
}

fn redact(text: &str) -> Result<String, String> {
    let mut table: Table = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    clear(&mut table);
    toml::to_string(&table).map_err(|error| error.to_string())
}

/// What a file from a kit still lacks: the first such line, if it is to be told, and all of them in words.
pub(super) fn left_out(text: &str) -> Option<(Option<usize>, String)> {
    let mut keys = Vec::new();
    gather(&Value::Table(toml::from_str(text).ok()?), "", &mut keys);
    let mut places: Vec<(Option<usize>, &String)> = Vec::new();
    for key in &keys {
        let last = key
            .rsplit('.')
            .next()
            .unwrap_or(key)
            .trim_end_matches(|c: char| c == ']' || c == '[' || c.is_ascii_digit());
        let is_free = |line: usize| places.iter().all(|(taken, _)| *taken != Some(line));
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let found = lines.find(|(at, line)| {
            let code = line.trim_start();
            !code.starts_with('#') && code.contains(LEFT_OUT) && code.contains(last) && is_free(*at)
        });
        places.push((found.map(|(at, _)| at), key));
    }
    places.sort();
    let (line, first) = places.first()?;
    let others = places.iter().skip(1).map(|(line, key)| match line {
        Some(line) => format!("{key} in line {line}"),
        None => (*key).clone(),
    });
    let others: Vec<String> = others.collect();
    let more = if others.is_empty() { String::new() } else { format!("; so are {}", others.join(", ")) };
    let hint = "this file comes from a recovery kit, which holds no secrets and no commands: write there what it was, or \
                remove the key, then `lifeboat config check`";
    Some((*line, format!("{first} is {LEFT_OUT:?}{more}\nhint: {hint}")))
}

/// The keys whose values were left out, as paths.
fn gather(value: &Value, path: &str, keys: &mut Vec<String>) {
    match value {
        Value::String(text) if text.contains(LEFT_OUT) => keys.push(path.to_owned()),
        Value::Array(all) => {
            for (at, one) in all.iter().enumerate() {
                gather(one, &format!("{path}[{at}]"), keys);
            }
        }
        Value::Table(table) => {
            for (key, one) in table {
                gather(one, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, keys);
            }
        }
        _ => {}
    }
}

fn clear(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        let name = key.to_ascii_lowercase().replace('_', "-");
        let is_secret = name == "command" || SECRET.iter().any(|secret| name.contains(secret));
        match value {
            // The password itself, as nobody is meant to write it.
            Value::String(text) if is_secret || is_password(&name) => *text = LEFT_OUT.into(),
            // Of a runbook, which may ask for secrets; and SQL or commands, which may hold some.
            Value::Table(set) if name == "set" => {
                set.iter_mut().for_each(|(_, value)| *value = Value::String(LEFT_OUT.into()));
            }
            Value::Array(steps) if name == "steps" => {
                steps.iter_mut().for_each(|step| *step = Value::String(LEFT_OUT.into()));
            }
            _ if is_secret => *value = Value::String(LEFT_OUT.into()),
            value => within(value),
        }
    }
}

fn is_password(name: &str) -> bool {
    (name.contains("password") || name.contains("passwd")) && !name.ends_with("-file")
}

fn within(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_password(text),
        Value::Array(all) => all.iter_mut().for_each(within),
        Value::Table(table) => clear(table),
        _ => {}
    }
}

/// `scheme://user:password@host/…?token=…` without what is secret in it.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}@{host}"),
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    let path = match path.split_once('?') {
        Some((path, query)) => {
            let kept = |pair: &str| {
                let (key, _) = pair.split_once('=').unwrap_or((pair, ""));
                let key = key.to_ascii_lowercase();
                let is_file = key.ends_with("-file");
                let is_secret =
                    ["password", "secret", "token", "key"].iter().any(|secret| key.contains(secret));
                if is_secret && !is_file { format!("{key}={LEFT_OUT}") } else { pair.to_owned() }
            };
            format!("{path}?{}", query.split('&').map(kept).collect::<Vec<_>>().join("&"))
        }
        None => path.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_things_are_stays_and_what_is_secret_goes() {
        let text = r#"
# the old password was hunter2
[repository.main]
url = "sftp://u1@box:23/./lifeboat"
password = { command = "pass hunter2" }
options = { ssh-key = "/etc/key", access-token = "hunter2" }
[repository.second]
url = "s3://b/p?endpoint=https://e"
password = { file = "/etc/lifeboat/password" }
[job.db]
source = ["postgres://app:hunter2@db/shop?password=hunter2&password-file=/etc/pg"]
[drill.weekly]
restore = "db@latest"
checks = [{ sql = "select 1" }, { command = "curl -H 'Authorization: hunter2'" }]
"#;
        let said = redact(text).unwrap();
        assert!(!said.contains("hunter2"), "{said}");
        for kept in [
            "sftp://u1@box:23/./lifeboat",
            "/etc/key",
            "/etc/lifeboat/password",
            "postgres://app@db/shop",
            "password-file=/etc/pg",
            "select 1",
            "s3://b/p?endpoint=https://e",
        ] {
            assert!(said.contains(kept), "{kept}: {said}");
        }
        assert_eq!(redact(&said).unwrap(), said, "twice is once");
        assert_eq!(redact(&text.replace("# the old", "# another")).unwrap(), said);
    }
}
