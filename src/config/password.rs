//! Where the password or key comes from, and how it is read. Asking a person is left to the terminal's level.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::{ConfigError, Environment, Found, Origin, Overrides};
use crate::base::secret::Secret;
use crate::format::keyring::Key;
use crate::seal::slot::Unlock;

/// No password or key file is longer.
const SECRET_LIMIT_BYTES: u64 = 64 << 10;

/// What opens the repository, not yet read.
#[derive(Clone)]
pub enum PasswordSource {
    Value(Secret),
    File(PathBuf),
    /// Run by `sh -c`; the password is what it prints.
    Command(String),
    KeyFile(PathBuf),
    /// Nothing was said: a person may be asked.
    Ask,
}

/// Something to open the repository with.
pub type Password = Unlock;

/// Everything that may give a password, of which at most one does on each level of precedence.
fn candidates(
    overrides: &Overrides,
    environment: &Environment,
) -> Result<[Vec<Found<PasswordSource>>; 2], ConfigError> {
    let flag = |value: Option<PasswordSource>, name| value.map(|value| Found::flag(value, name));
    let variable = |value: Option<PasswordSource>, name| value.map(|value| Found::variable(value, name));
    let flags = [
        flag(overrides.password_file.clone().map(PasswordSource::File), "--password-file"),
        flag(overrides.password_command.clone().map(PasswordSource::Command), "--password-command"),
        flag(overrides.key_file.clone().map(PasswordSource::KeyFile), "--key-file"),
    ];
    let value = environment.bytes("LIFEBOAT_PASSWORD").map(Secret::from_bytes);
    let command = environment.text("LIFEBOAT_PASSWORD_COMMAND")?;
    let path = |name| environment.path(name);
    let variables = [
        variable(value.map(PasswordSource::Value), "LIFEBOAT_PASSWORD"),
        variable(path("LIFEBOAT_PASSWORD_FILE").map(PasswordSource::File), "LIFEBOAT_PASSWORD_FILE"),
        variable(command.map(PasswordSource::Command), "LIFEBOAT_PASSWORD_COMMAND"),
        variable(path("LIFEBOAT_KEY_FILE").map(PasswordSource::KeyFile), "LIFEBOAT_KEY_FILE"),
    ];
    Ok([flags.into_iter().flatten().collect(), variables.into_iter().flatten().collect()])
}

/// The one source that counts. Two of the same precedence are an error: which was meant is not guessed.
pub(super) fn find(
    overrides: &Overrides,
    environment: &Environment,
) -> Result<Found<PasswordSource>, ConfigError> {
    for mut found in candidates(overrides, environment)? {
        if found.len() > 1 {
            return Err(ConfigError::TwoPasswords { given: found[0].origin, other: found[1].origin });
        }
        if let Some(found) = found.pop() {
            return Ok(found);
        }
    }
    Ok(Found { value: PasswordSource::Ask, origin: Origin::Default })
}

impl Found<PasswordSource> {
    /// Reads it. `None`: nothing was said.
    pub fn read(&self) -> Result<Option<Password>, ConfigError> {
        let secret = match &self.value {
            PasswordSource::Ask => return Ok(None),
            PasswordSource::KeyFile(path) => return Ok(Some(Unlock::KeyFile(read_key_file(path)?))),
            PasswordSource::Value(secret) => secret.clone(),
            PasswordSource::File(path) => Secret::from_line(read_secret("password file", path)?.to_vec()),
            PasswordSource::Command(command) => run(command, self.origin)?,
        };
        if secret.is_empty() {
            return Err(ConfigError::EmptyPassword { what: "password", origin: self.origin });
        }
        Ok(Some(Unlock::Passphrase(Zeroizing::new(secret.expose().to_vec()))))
    }
}

fn read_secret(what: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    use std::io::Read;
    let unreadable = |cause| ConfigError::Unreadable { what, path: path.to_owned(), cause };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!("the {what} {} can be read by others: chmod 600 it", path.display());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_LIMIT_BYTES as usize + 1));
    file.take(SECRET_LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > SECRET_LIMIT_BYTES {
        return Err(unreadable(std::io::Error::other("it is longer than any password")));
    }
    Ok(bytes)
}

/// The content of a key file: 32 bytes as they are, or as 64 hex digits.
pub fn read_key_file(path: &Path) -> Result<Key, ConfigError> {
    let bytes = read_secret("key file", path)?;
    if let Ok(key) = <[u8; 32]>::try_from(bytes.as_slice()) {
        return Ok(Key(key));
    }
    let mut key = Key([0; 32]);
    let text = std::str::from_utf8(bytes.trim_ascii()).unwrap_or("");
    let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits {
        return Err(ConfigError::NotAKeyFile { path: path.to_owned() });
    }
    for (at, byte) in key.0.iter_mut().enumerate() {
        *byte =
            u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("all 64 were checked to be hex digits");
    }
    Ok(key)
}

fn run(command: &str, origin: Origin) -> Result<Secret, ConfigError> {
    let failed = |cause: String| ConfigError::PasswordCommand { origin, cause };
    let shell = std::ffi::OsStr::from_bytes(b"/bin/sh");
    // It may ask a person, so it keeps our stdin and stderr.
    let mut child = Command::new(shell);
    for name in super::SECRET_VARIABLES {
        child.env_remove(name);
    }
    let child = child.arg("-c").arg(command).stderr(Stdio::inherit()).output();
    let output = child.map_err(|error| failed(error.to_string()))?;
    let stdout = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    if stdout.len() as u64 > SECRET_LIMIT_BYTES {
        return Err(failed("it printed more than any password".into()));
    }
    Ok(Secret::from_line(stdout.to_vec()))
}
