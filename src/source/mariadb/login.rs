//! Who comes in, and how children learn it: by an option file of mode 0600, never by an argument.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::address::{Server, Tls};
use super::tools::Flavour;
use super::{MariaError, World};
use crate::base::secret::Secret;

/// Most bytes of a password or option file.
const FILE_LIMIT: u64 = 1 << 20;
/// Sections of an option file that say who a client is.
const SECTIONS: [&str; 3] = ["client", "client-server", "client-mariadb"];

fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    if fs::metadata(path)?.len() > FILE_LIMIT {
        return Err(std::io::Error::other("it is too large for a file of passwords"));
    }
    fs::read(path).map(Zeroizing::new)
}

/// The server with its user and password filled in: the address's own, of the file it names, of the variable, or
/// of the option file.
///
/// # Errors
/// The file the address names cannot be read.
pub fn complete(server: &Server, world: &World) -> Result<Server, MariaError> {
    let mut server = server.clone();
    let (user, password) = match &world.options {
        // As the client: a file that is not there says nothing.
        Some(path) => read(path).map(|bytes| in_options(&bytes)).unwrap_or_default(),
        None => (None, None),
    };
    if let Some(path) = &server.password_file {
        let bytes = read(path).map_err(|error| {
            MariaError::Other(format!("cannot read password-file {}: {error}", path.display()))
        })?;
        server.password = Some(Secret::from_line(bytes.to_vec()));
    }
    // A password there is that of the user there.
    let is_theirs = user.as_ref().is_none_or(|user| server.user.is_empty() || server.user == *user);
    server.password = server.password.or_else(|| world.password.clone()).or(password.filter(|_| is_theirs));
    if server.user.is_empty() {
        server.user = user.unwrap_or_else(|| world.user.clone());
    }
    Ok(server)
}

/// User and password in the sections for clients.
fn in_options(bytes: &[u8]) -> (Option<String>, Option<Secret>) {
    let (mut user, mut password, mut is_ours) = (None, None, false);
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if let Some(name) = line.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
            is_ours = SECTIONS.iter().any(|section| section.as_bytes() == name);
            continue;
        }
        let Some(at) = line.iter().position(|byte| *byte == b'=').filter(|_| is_ours) else { continue };
        let value = unquoted(line[at + 1..].trim_ascii());
        match line[..at].trim_ascii() {
            b"user" => user = String::from_utf8(value.to_vec()).ok(),
            b"password" => password = Some(Secret::from_bytes(value.to_vec())),
            _ => {}
        }
    }
    (user, password)
}

/// A value without its quotes and escapes.
fn unquoted(value: &[u8]) -> Zeroizing<Vec<u8>> {
    let inner = match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        value => value,
    };
    let mut out = Zeroizing::new(Vec::with_capacity(inner.len()));
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b's') => out.push(b' '),
            Some(byte @ (b'\\' | b'"' | b'\'')) => out.push(*byte),
            Some(byte) => out.extend([b'\\', *byte]),
            None => out.push(b'\\'),
        }
    }
    out
}

/// `key="value"`, whatever is in the value.
fn line(text: &mut Zeroizing<Vec<u8>>, key: &str, value: &[u8]) {
    text.extend_from_slice(key.as_bytes());
    text.extend_from_slice(b"=\"");
    for byte in value {
        match byte {
            b'\\' | b'"' => text.extend([b'\\', *byte]),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            byte => text.push(*byte),
        }
    }
    text.extend_from_slice(b"\"\n");
}

/// The only option file that children read; it goes when this does.
pub struct OptionFile {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl OptionFile {
    /// Writes the file below the spool folder.
    ///
    /// # Errors
    /// No room, no right.
    pub fn write(server: &Server, flavour: Flavour, spool: &Path) -> Result<Self, MariaError> {
        let local = |operation| move |cause| MariaError::Local { operation, cause };
        // The folder is of mode 0700.
        let folder = tempfile::Builder::new().prefix("lifeboat-mariadb-").tempdir_in(spool);
        let folder = folder.map_err(local("make a folder for the option file"))?;
        let path = folder.path().join("options.cnf");
        let text = options(server, flavour);
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(&text)).map_err(local("write the option file"))?;
        Ok(Self { _folder: folder, path })
    }
}

fn options(server: &Server, flavour: Flavour) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(4096));
    text.extend_from_slice(b"[client]\n");
    line(&mut text, "user", server.user.as_bytes());
    if let Some(password) = &server.password {
        line(&mut text, "password", password.expose());
    }
    let path = |path: &Path| path.to_string_lossy().into_owned();
    if server.is_local() {
        line(&mut text, "protocol", b"socket");
        if let Some(socket) = &server.socket {
            line(&mut text, "socket", path(socket).as_bytes());
        }
    } else {
        line(&mut text, "protocol", b"tcp");
        line(&mut text, "host", server.host.as_bytes());
        line(&mut text, "port", server.port.to_string().as_bytes());
    }
    for (key, file) in
        [("ssl-ca", &server.tls_ca), ("ssl-cert", &server.tls_certificate), ("ssl-key", &server.tls_key)]
    {
        if let Some(file) = file {
            line(&mut text, key, path(file).as_bytes());
        }
    }
    let how: &[u8] = match (flavour, server.tls) {
        (_, Tls::Usual) => b"",
        (Flavour::MariaDb, Tls::Off) => b"skip-ssl\n",
        (Flavour::MariaDb, Tls::Require) => b"ssl\n",
        (Flavour::MariaDb, Tls::Verify) => b"ssl\nssl-verify-server-cert\n",
        (Flavour::MySql, Tls::Off) => b"ssl-mode=DISABLED\n",
        (Flavour::MySql, Tls::Require) => b"ssl-mode=REQUIRED\n",
        (Flavour::MySql, Tls::Verify) => b"ssl-mode=VERIFY_IDENTITY\n",
    };
    text.extend_from_slice(how);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_for_clients_say_who_and_no_others() {
        let file = b"[mysqld]\npassword=no\n[client]\n# c\nuser = shop\npassword=\"a\\\\b\\\"c#d\"\n[mysqldump]\nuser=x\n";
        let (user, password) = in_options(file);
        assert_eq!(user.as_deref(), Some("shop"));
        assert_eq!(password.unwrap().expose(), b"a\\b\"c#d");
        assert!(in_options(b"[client]\nuser").0.is_none());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let odd = b"a\"b'c\\n#;\n \\";
        let mut text = Zeroizing::new(b"[client]\n".to_vec());
        line(&mut text, "password", odd);
        assert_eq!(in_options(&text).1.unwrap().expose(), odd);
    }
}
