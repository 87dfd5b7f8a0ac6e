//! Certificates and keys among files: what each says, and which belong together.
//!
//! PEM, DER and Traefik's `acme.json` are read. A certificate's key is the one in the same file, else the one of the
//! same name (`x.crt`, `x.key`; `fullchain.pem`, `privkey.pem`). What cannot be read as either is none.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// A longer file holds other things than certificates.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// Files looked at.
const FILES: usize = 100_000;

/// What one file, or one entry of it, holds.
#[derive(Debug)]
pub struct Holder {
    /// Below the folder; with the entry's name where a file holds several.
    pub name: String,
    pub folder: PathBuf,
    /// Its name without the ending.
    pub stem: String,
    /// Permissions of the file.
    pub mode: u32,
    pub certificates: Vec<CertificateDer<'static>>,
    pub keys: Vec<PrivateKeyDer<'static>>,
}

/// A certificate of a server or client, the first of its file; what follows it there is its chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub file: String,
    pub subject: String,
    /// Whom it is for: names and addresses.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    pub key: Option<Key>,
}

/// The key beside a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub file: String,
    /// `None`: of a kind that cannot be judged here.
    pub fits: Option<bool>,
    /// Permissions of its file.
    pub mode: u32,
}

/// Everything in a folder and below. A link is followed as long as it stays there.
///
/// # Errors
/// A folder or file cannot be read.
pub fn find(root: &Path) -> Result<Vec<Holder>, String> {
    find_up_to(root, FILES)
}

/// The same among so many files.
///
/// # Errors
/// There are more, or a folder or file cannot be read.
pub fn find_up_to(root: &Path, files: usize) -> Result<Vec<Holder>, String> {
    let failed = |path: &Path, error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let root = root.canonicalize().map_err(|error| failed(root, error))?;
    let (mut holders, mut waiting, mut seen) = (Vec::new(), vec![root.clone()], 0);
    while let Some(folder) = waiting.pop() {
        let mut names = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
            let entry = entry.map_err(|error| failed(&folder, error))?;
            names.insert(entry.file_name(), entry.file_type().map_err(|error| failed(&entry.path(), error))?);
        }
        for (name, kind) in names {
            seen += 1;
            if seen > files {
                return Err(format!(
                    "{} holds more than {files} files: name the folder itself",
                    root.display()
                ));
            }
            let path = folder.join(name);
            if kind.is_dir() {
                waiting.push(path);
                continue;
            }
            let Some(real) = path.canonicalize().ok().filter(|real| real.starts_with(&root)) else {
                continue;
            };
            let metadata = std::fs::metadata(&real).map_err(|error| failed(&path, error))?;
            if metadata.is_file() && metadata.len() <= FILE_LIMIT_BYTES {
                let bytes = std::fs::read(&real).map_err(|error| failed(&path, error))?;
                read(&path, &root, metadata.mode() & 0o7777, &bytes, &mut holders);
            }
        }
    }
    holders.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(holders)
}

fn read(path: &Path, root: &Path, mode: u32, bytes: &[u8], holders: &mut Vec<Holder>) {
    let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let ending = text(path.extension()).to_ascii_lowercase();
    let folder = path.parent().unwrap_or(root).to_owned();
    let (certificates, keys) = (Vec::new(), Vec::new());
    let mut holder = Holder { name, folder, stem: text(path.file_stem()), mode, certificates, keys };
    if memchr::memmem::find(bytes, b"-----BEGIN ").is_some() {
        read_pem(bytes, &mut holder);
    } else if matches!(ending.as_str(), "der" | "cer" | "crt") && X509Certificate::from_der(bytes).is_ok() {
        holder.certificates.push(CertificateDer::from(bytes.to_vec()));
    } else if ending == "json" && memchr::memmem::find(bytes, b"\"Certificates\"").is_some() {
        return read_acme(bytes, &holder, holders);
    }
    if !(holder.certificates.is_empty() && holder.keys.is_empty()) {
        holders.push(holder);
    }
}

fn read_pem(bytes: &[u8], holder: &mut Holder) {
    holder.certificates.extend(CertificateDer::pem_slice_iter(bytes).filter_map(Result::ok));
    holder.keys.extend(PrivateKeyDer::pem_slice_iter(bytes).filter_map(Result::ok));
}

/// Traefik's store: resolvers with certificates, both halves as PEM in base 64.
fn read_acme(bytes: &[u8], file: &Holder, holders: &mut Vec<Holder>) {
    let Ok(serde_json::Value::Object(resolvers)) = serde_json::from_slice(bytes) else { return };
    for resolver in resolvers.values() {
        for entry in resolver["Certificates"].as_array().into_iter().flatten() {
            let domain = entry["domain"]["main"].as_str().unwrap_or("a domain without a name");
            let mut holder = Holder {
                name: format!("{}: {domain}", file.name),
                folder: file.folder.clone(),
                stem: format!("{}: {domain}", file.stem),
                mode: file.mode,
                certificates: Vec::new(),
                keys: Vec::new(),
            };
            for half in ["certificate", "key"] {
                let text = entry[half].as_str().unwrap_or_default();
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                read_pem(&decoded.unwrap_or_default(), &mut holder);
            }
            holders.push(holder);
        }
    }
}

/// The certificates that somebody has to renew: those of authorities do not count.
pub fn certificates(holders: &[Holder]) -> Vec<Certificate> {
    let of = |holder: &Holder| {
        let der = holder.certificates.first()?;
        let (_, parsed) = X509Certificate::from_der(der.as_ref()).ok()?;
        if parsed.is_ca() {
            return None;
        }
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.iter().filter_map(name_of).collect());
        let common = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Some(Certificate {
            file: holder.name.clone(),
            subject: common.map_or_else(|| parsed.subject().to_string(), str::to_owned),
            names: names.unwrap_or_default(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            fingerprint: hex(ring::digest::digest(&ring::digest::SHA256, der.as_ref()).as_ref()),
            key: key_of(holder, holders, &parsed),
        })
    };
    holders.iter().filter_map(of).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Where the key of a file's certificate is: in the same file, else in one that is named like it.
pub fn key_holder<'h>(holder: &'h Holder, holders: &'h [Holder]) -> Option<&'h Holder> {
    let beside = |other: &&Holder| {
        let is_only_key = other.certificates.is_empty() && !other.keys.is_empty();
        other.folder == holder.folder && is_only_key && is_pair(&holder.stem, &other.stem)
    };
    if holder.keys.is_empty() { holders.iter().find(beside) } else { Some(holder) }
}

fn key_of(holder: &Holder, holders: &[Holder], certificate: &X509Certificate<'_>) -> Option<Key> {
    let at = key_holder(holder, holders)?;
    let judged: Vec<Option<bool>> = at.keys.iter().map(|key| belongs(key, certificate)).collect();
    let fits = match judged.contains(&Some(true)) {
        true => Some(true),
        false if judged.contains(&None) => None,
        false => Some(false),
    };
    Some(Key { file: at.name.clone(), fits, mode: at.mode })
}

/// Whether a key's file is named as the key of a certificate's file.
pub fn is_pair(certificate: &str, key: &str) -> bool {
    let number = |text: &str| text.trim_start_matches(|letter: char| letter.is_ascii_alphabetic()).to_owned();
    let letters = |text: &str| text.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_owned();
    // Certbot's, in its archive with a number each.
    let certbot = matches!(letters(certificate).as_str(), "cert" | "fullchain") && letters(key) == "privkey";
    if certbot {
        return number(certificate) == number(key);
    }
    let plain = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["-fullchain", "-chain", "-cert", "-key", ".cert", ".key", "_cert", "_key"]
            .iter()
            .find_map(|ending| text.strip_suffix(ending))
            .unwrap_or(&text)
            .to_owned()
    };
    certificate == key || plain(certificate) == plain(key)
}

/// Whether a key is the certificate's; `None` when its kind is not known here.
pub fn belongs(key: &PrivateKeyDer<'_>, certificate: &X509Certificate<'_>) -> Option<bool> {
    let key = rustls::crypto::ring::sign::any_supported_type(key).ok()?;
    Some(certificate.public_key().raw == key.public_key()?.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_name() {
        for (certificate, key) in [
            ("site", "site"),
            ("fullchain", "privkey"),
            ("cert", "privkey"),
            ("fullchain7", "privkey7"),
            ("server-cert", "server-key"),
            ("server", "server-key"),
            ("tls", "tls"),
        ] {
            assert!(is_pair(certificate, key), "{certificate} {key}");
        }
        assert!(!is_pair("chain", "privkey"));
        assert!(!is_pair("fullchain7", "privkey6"));
        assert!(!is_pair("a", "b"));
    }

    #[test]
    fn rubbish_is_no_certificate_and_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.crt"), b"nothing").unwrap();
        std::fs::write(folder.path().join("b.pem"), b"-----BEGIN CERTIFICATE-----\n%%%\n").unwrap();
        std::fs::write(folder.path().join("c.json"), b"{\"x\": {\"Certificates\": [{\"key\": 3}]}}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("d.pem")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("e.pem")).unwrap();
        let holders = find(folder.path()).unwrap();
        assert_eq!(certificates(&holders), []);
    }
}
