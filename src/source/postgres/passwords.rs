//! Where a password comes from and how children get it: by a file of mode 0600, never by an argument.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::PostgresError;
use super::address::Server;
use crate::base::secret::Secret;

/// Most bytes of a password file.
const FILE_LIMIT: u64 = 1 << 20;

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_LIMIT {
        return Err(std::io::Error::other("it is too large for a file of passwords"));
    }
    fs::read(path)
}

/// The password: the address's own, of the file it names, of `variable`, or of `pgpass`.
///
/// # Errors
/// The file the address names cannot be read.
pub fn find(
    server: &Server,
    variable: Option<&Secret>,
    pgpass: Option<&Path>,
) -> Result<Option<Secret>, PostgresError> {
    if let Some(password) = &server.password {
        return Ok(Some(password.clone()));
    }
    if let Some(path) = &server.password_file {
        let bytes = read(path).map_err(|error| {
            PostgresError::Other(format!("cannot read password-file {}: {error}", path.display()))
        })?;
        return Ok(Some(Secret::from_line(bytes)));
    }
    if let Some(password) = variable {
        return Ok(Some(password.clone()));
    }
    // As libpq: a file that is not there, or not ours, says nothing.
    let bytes = pgpass.and_then(|path| read(path).ok()).map(Zeroizing::new);
    Ok(bytes.and_then(|bytes| in_pgpass(&bytes, server)))
}

/// The first line that fits; any database will do, for several are connected to.
fn in_pgpass(bytes: &[u8], server: &Server) -> Option<Secret> {
    let host =
        if server.host.is_empty() || server.host.starts_with('/') { "localhost" } else { &server.host };
    let port = server.port.to_string();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#")) {
        let fields = fields(line);
        let [of_host, of_port, _database, user, password] = fields.as_slice() else { continue };
        let fits = |field: &[u8], value: &str| field == b"*" || field == value.as_bytes();
        let same_host = fits(of_host, host) || fits(of_host, &server.host);
        if same_host && fits(of_port, &port) && fits(user, &server.user) {
            return Some(Secret::from_bytes(password.to_vec()));
        }
    }
    None
}

/// Splits at colons; a backslash takes the next byte as it is.
fn fields(line: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut fields = vec![Zeroizing::new(Vec::new())];
    let mut bytes = line.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b':' && fields.len() < 5 {
            fields.push(Zeroizing::new(Vec::new()));
            continue;
        }
        let byte = if *byte == b'\\' { bytes.next() } else { Some(byte) };
        fields.last_mut().into_iter().for_each(|field| field.extend(byte));
    }
    fields
}

/// The file that children are pointed to; it goes when this does.
pub struct PassFile {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl PassFile {
    /// Writes the file below `folder`. Without a password it is empty, so that children ask no other.
    ///
    /// # Errors
    /// No room, no right.
    pub fn write(password: Option<&Secret>, folder: &Path) -> Result<Self, PostgresError> {
        let local = |operation| move |cause| PostgresError::Local { operation, cause };
        // The folder is of mode 0700.
        let folder = tempfile::Builder::new().prefix("lifeboat-postgres-").tempdir_in(folder);
        let folder = folder.map_err(local("make a folder for the password file"))?;
        let path = folder.path().join("pgpass");
        let mut line = Zeroizing::new(Vec::new());
        if let Some(password) = password {
            line.extend_from_slice(b"*:*:*:*:");
            for byte in password.expose() {
                if matches!(byte, b':' | b'\\') {
                    line.push(b'\\');
                }
                line.push(*byte);
            }
            line.push(b'\n');
        }
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(&line)).map_err(local("write the password file"))?;
        Ok(Self { _folder: folder, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::postgres::address::Address;

    #[test]
    fn a_pgpass_line_is_found_by_host_port_and_user() {
        let server = |address: &str| Address::parse(address).unwrap().server;
        let file = b"# db:5432:*:u:no\ndb:5433:*:u:other\ndb:*:shop:u:p\\:w\\\\\r\nlocalhost:*:*:*:local\n";
        let found = |address: &str| in_pgpass(file, &server(address)).map(|secret| secret.expose().to_vec());
        assert_eq!(found("postgres://u@db/shop").unwrap(), b"p:w\\");
        assert_eq!(found("postgres://u@db:5433/x").unwrap(), b"other");
        assert_eq!(found("postgres:///x?host=/run").unwrap(), b"local");
        assert!(found("postgres://v@db/x").is_none());
    }

    #[test]
    fn what_is_written_is_read_back() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let password = Secret::from_text("a:b\\c".into());
        let file = PassFile::write(Some(&password), folder.path()).unwrap();
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        let server = Address::parse("postgres://u@h/d").unwrap().server;
        assert!(find(&server, None, Some(&file.path)).unwrap().is_some_and(|found| found == password));
        let path = file.path.clone();
        drop(file);
        assert!(!path.exists());
    }
}
