//! Certificates among restored files: valid for long enough, and each with the key that belongs to it.
//!
//! A certificate counts if it is of a server, has a key, or stands in a file with one that does; collections of authorities that are
//! trusted are not ours to renew. How they are found and told apart: see [`crate::source::certs::read`].

use std::path::Path;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Answer, Broken, Restored, counted};
use crate::source::certs::read::{Holder, belongs, find_up_to, key_holder};
use crate::source::difference::Difference;

/// Certbot keeps what it replaced in the first, beside the second.
const OLD_ONES: (&str, &str) = ("archive", "live");
const DAY_SECONDS: i64 = 24 * 60 * 60;

pub fn check(days_left: u32, restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    let root = restored.sandbox.path().ok_or("the sandbox holds no files")?;
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    // A restored volume may hold any number of files.
    let mut holders = find_up_to(&root, usize::MAX)?;
    holders.retain(|holder| !is_kept_aside(holder, &root));
    Ok(judge(&holders, days_left, restored.now.as_second()))
}

fn judge(holders: &[Holder], days_left: u32, now: i64) -> Answer {
    let (mut differences, mut valid, mut matching, mut first_end) = (Vec::new(), 0, 0, i64::MAX);
    for holder in holders {
        let keys = key_holder(holder, holders);
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
        let Some(parsed) = parsed(own) else { continue };
        let judged: Vec<Option<bool>> = keys.keys.iter().map(|key| belongs(key, &parsed)).collect();
        if judged.contains(&Some(true)) {
            matching += 1;
            continue;
        }
        let found = match judged.contains(&None) {
            true => "a key of a kind that cannot be judged here",
            false => "a key that does not match",
        };
        let wanted = format!("the key of {}", holder.name);
        differences.push(Difference::new(keys.name.clone(), wanted, found));
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

/// Whether a file is one that Certbot replaced: it keeps those in `archive`, beside `live`.
fn is_kept_aside(holder: &Holder, root: &Path) -> bool {
    let within = holder.folder.ancestors().take_while(|folder| folder.starts_with(root));
    within.into_iter().any(|folder| {
        folder.file_name() == Some(OLD_ONES.0.as_ref()) && folder.with_file_name(OLD_ONES.1).is_dir()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_certificates_is_no_pass() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.crt"), b"nothing").unwrap();
        let holders = find_up_to(folder.path(), usize::MAX).unwrap();
        assert!(matches!(judge(&holders, 0, 0), Answer::Differs(found) if found[0].found == "none"));
    }

    #[test]
    fn what_certbot_replaced_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let holder = |below: &str| Holder {
            name: "cert1.pem".into(),
            folder: root.join(below),
            stem: "cert1".into(),
            mode: 0o600,
            certificates: Vec::new(),
            keys: Vec::new(),
        };
        assert!(!is_kept_aside(&holder("archive/site"), root));
        std::fs::create_dir(root.join("live")).unwrap();
        assert!(is_kept_aside(&holder("archive/site"), root));
        assert!(!is_kept_aside(&holder("archive/site"), &root.join("archive/site")));
        assert!(!is_kept_aside(&holder("live/site"), root));
    }
}
