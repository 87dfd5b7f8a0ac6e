//! Certificates among restored files: valid for long enough, and each with the key that belongs to it.
//!
//! A certificate counts if it is of a server, has a key, or stands in a file with one that does; collections of authorities that are
//! trusted are not ours to renew. Its key is the one in the same file, else the one of the same name (`x.crt`,
//! `x.key`; `fullchain.pem`, `privkey.pem`). PEM, DER and Traefik's `acme.json` are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Answer, Broken, Restored, counted};
use crate::source::difference::Difference;

/// A longer file holds other things than certificates.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// Certbot keeps what it replaced in the first, beside the second.
const OLD_ONES: (&str, &str) = ("archive", "live");
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// What one file, or one entry of it, holds.
struct Holder {
    /// Below the restored folder; with the entry's name where a file holds several.
    name: String,
    folder: PathBuf,
    stem: String,
    certificates: Vec<CertificateDer<'static>>,
    keys: Vec<PrivateKeyDer<'static>>,
}

pub fn check(days_left: u32, restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    let root = restored.sandbox.path().ok_or("the sandbox holds no files")?;
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    let mut holders = Vec::new();
    walk(&root, &root, &mut holders)?;
    Ok(judge(&holders, days_left, restored.now.as_second()))
}

fn judge(holders: &[Holder], days_left: u32, now: i64) -> Answer {
    let (mut differences, mut valid, mut matching, mut first_end) = (Vec::new(), 0, 0, i64::MAX);
    for holder in holders {
        let keys = keys_of(holder, holders);
        // One that signs itself may call itself an authority; its key says what it is for.
        let own = holder.certificates.iter().find(|certificate| is_of_server(certificate));
        let Some(own) = own.or(holder.certificates.first().filter(|_| keys.is_some())) else { continue };
        for certificate in &holder.certificates {
            match end_of(certificate, &holder.name, days_left, now) {
                Ok(end) => {
                    valid += 1;
                    first_end = first_end.min(end);
                }
                Err(difference) => differences.push(difference),
            }
        }
        let Some(keys) = keys else { continue };
        if keys.keys.iter().any(|key| belongs(key, own)) {
            matching += 1;
        } else {
            let wanted = format!("the key of {}", holder.name);
            differences.push(Difference::new(keys.name.clone(), wanted, "a key that does not match"));
        }
    }
    if valid == 0 && differences.is_empty() {
        return Answer::wrong("the restored folder", "at least one certificate of a server", "none");
    }
    let left = (first_end - now) / DAY_SECONDS;
    let valid = counted(valid, "certificate", "certificates");
    let keys = match matching {
        0 => "no key beside them".to_owned(),
        1 => "1 key matches".to_owned(),
        keys => format!("{keys} keys match"),
    };
    Answer::of(differences, format!("{valid} valid, the first to end in {left} d; {keys}"))
}

fn parsed<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    X509Certificate::from_der(certificate.as_ref()).ok().map(|(_, parsed)| parsed)
}

fn is_of_server(certificate: &CertificateDer<'static>) -> bool {
    // What cannot be read is no authority anybody could trust.
    parsed(certificate).is_none_or(|parsed| !parsed.is_ca())
}

/// When a certificate ends, or why that is too early.
fn end_of(certificate: &CertificateDer<'_>, name: &str, days_left: u32, now: i64) -> Result<i64, Difference> {
    let Some(parsed) = parsed(certificate) else {
        return Err(Difference::new(name, "a certificate", "something that cannot be read as one"));
    };
    let subject = match parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()) {
        Some(common) => format!("{name} ({common})"),
        None => name.to_owned(),
    };
    let (begin, end) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let wanted = match days_left {
        0 => "valid".to_owned(),
        days => format!("valid for {days} d more"),
    };
    let found = match end - now {
        _ if now < begin => format!("not valid before {}", day(begin)),
        left if left < 0 => format!("expired on {}", day(end)),
        left if left < i64::from(days_left) * DAY_SECONDS => {
            format!("valid for {} d more, until {}", left / DAY_SECONDS, day(end))
        }
        _ => return Ok(end),
    };
    Err(Difference::new(subject, wanted, found))
}

fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "an unknown day".into(), |time| time.strftime("%F").to_string())
}

/// Where the key of a file's certificate is: in the same file, else in one that is named like it.
fn keys_of<'h>(holder: &'h Holder, holders: &'h [Holder]) -> Option<&'h Holder> {
    if !holder.keys.is_empty() {
        return Some(holder);
    }
    holders.iter().find(|other| {
        other.folder == holder.folder && other.certificates.is_empty() && is_pair(&holder.stem, &other.stem)
    })
}

/// Whether a key's file is named as the key of a certificate's file.
fn is_pair(certificate: &str, key: &str) -> bool {
    let certbot = matches!(certificate, "cert" | "fullchain") && key == "privkey";
    let plain = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["-fullchain", "-chain", "-cert", "-key", ".cert", ".key", "_cert", "_key"]
            .iter()
            .find_map(|ending| text.strip_suffix(ending))
            .unwrap_or(&text)
            .to_owned()
    };
    certbot || certificate == key || plain(certificate) == plain(key)
}

fn belongs(key: &PrivateKeyDer<'_>, certificate: &CertificateDer<'_>) -> bool {
    let Ok(key) = rustls::crypto::ring::sign::any_supported_type(key) else { return false };
    let (Some(public), Some(parsed)) = (key.public_key(), parsed(certificate)) else { return false };
    parsed.public_key().raw == public.as_ref()
}

/// Collects what stands below `folder`; links are followed as long as they stay below `root`.
fn walk(folder: &Path, root: &Path, holders: &mut Vec<Holder>) -> Result<(), Broken> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    let mut names = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        names.insert(entry.file_name(), entry.file_type().map_err(failed)?);
    }
    let keeps_old_ones = names.contains_key(std::ffi::OsStr::new(OLD_ONES.1));
    for (name, kind) in &names {
        let path = folder.join(name);
        if kind.is_dir() {
            if !(keeps_old_ones && name == OLD_ONES.0) {
                walk(&path, root, holders)?;
            }
            continue;
        }
        let real = path.canonicalize().ok().filter(|real| real.starts_with(root));
        let length = real.as_ref().and_then(|real| std::fs::metadata(real).ok());
        let (Some(real), Some(length)) = (real, length) else { continue };
        if length.is_file() && length.len() <= FILE_LIMIT_BYTES {
            let bytes =
                std::fs::read(&real).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            read(&path, root, &bytes, holders);
        }
    }
    Ok(())
}

fn read(path: &Path, root: &Path, bytes: &[u8], holders: &mut Vec<Holder>) {
    let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let ending = text(path.extension()).to_ascii_lowercase();
    let folder = path.parent().unwrap_or(root).to_owned();
    let mut holder =
        Holder { name, folder, stem: text(path.file_stem()), certificates: Vec::new(), keys: Vec::new() };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_name() {
        for (certificate, key) in [
            ("site", "site"),
            ("fullchain", "privkey"),
            ("cert", "privkey"),
            ("server-cert", "server-key"),
            ("server", "server-key"),
            ("tls", "tls"),
        ] {
            assert!(is_pair(certificate, key), "{certificate} {key}");
        }
        assert!(!is_pair("chain", "privkey"));
        assert!(!is_pair("a", "b"));
    }

    #[test]
    fn rubbish_is_no_certificate_and_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.crt"), b"nothing").unwrap();
        std::fs::write(folder.path().join("b.pem"), b"-----BEGIN CERTIFICATE-----\n%%%\n").unwrap();
        std::fs::write(folder.path().join("c.json"), b"{\"x\": {\"Certificates\": [{\"key\": 3}]}}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("d.pem")).unwrap();
        let mut holders = Vec::new();
        let root = folder.path().canonicalize().unwrap();
        walk(&root, &root, &mut holders).unwrap();
        assert!(holders.iter().all(|holder| holder.certificates.is_empty()));
        assert!(matches!(judge(&holders, 0, 0), Answer::Differs(found) if found[0].found == "none"));
    }
}
