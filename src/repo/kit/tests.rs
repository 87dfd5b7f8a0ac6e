//! What a kit survives, and what it does not.

use super::*;
use crate::format::header::Kem;
use crate::format::signed::with_checksum;

fn sample() -> Kit {
    let repo = RepoId([7; 16]);
    let object = |kind| -> Bytes { with_checksum(Header::new(kind, Kem::None, repo, 0, 0).encode()).into() };
    Kit {
        addresses: vec!["sftp://box/x".into(), "/b & c".into()],
        repo,
        made: "2026-11-22".into(),
        drill_keys: vec![format!("{} ops1", "ab".repeat(32))],
        config: Some("[repository.main]\nurl = \"/b & <c>\"\n".into()),
        objects: KINDS.into_iter().map(|kind| (format!("{}/0", kind.folder()), object(kind))).collect(),
        altered: false,
    }
}

#[test]
fn a_kit_survives_mail_and_shows_every_changed_character() {
    let kit = sample();
    let text = kit.encode();
    assert_eq!(Kit::decode(&text).unwrap(), kit);
    let mailed = format!("\u{feff}{}", text.replace('\n', " \r\n\r\n  "));
    assert_eq!(Kit::decode(&mailed).unwrap(), kit);
    let body = text.find("address: ").unwrap();
    for at in (body..text.len()).filter(|at| text.is_char_boundary(*at)) {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'Q' { b'R' } else { b'Q' };
        let changed = String::from_utf8(changed).unwrap();
        if text.as_bytes()[at] != b'\n' {
            assert!(Kit::decode(&changed).map_or(true, |read| read.altered || read == kit), "at {at}");
        }
    }
    for length in 0..text.len() {
        if text.is_char_boundary(length) {
            let read = Kit::decode(&text[..length]);
            assert!(
                read.map_or(true, |read| Kit { config: kit.config.clone(), ..read } == kit),
                "at {length}"
            );
        }
    }
    assert_eq!(Kit::decode("BEGIN"), Err(KitError::NotAKit));
}

#[test]
fn a_kit_of_version_1_is_read_and_one_of_version_3_says_so() {
    let kit = sample();
    let first = kit.encode().replace("KIT 2", "KIT 1");
    let first: String = first
        .split("-----BEGIN lifeboat.toml")
        .next()
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("sum: ") && !line.starts_with("drill-key: "))
        .fold(String::new(), |text, line| text + line + "\n");
    let plain = Kit { config: None, drill_keys: Vec::new(), ..kit.clone() };
    assert_eq!(Kit::decode(&first).unwrap(), plain);
    assert_eq!(Kit::decode(&kit.encode().replace("KIT 2", "KIT 3")), Err(KitError::Newer(3)));
    assert_eq!(Kit::decode(&kit.encode().replace("KIT 2", "KIT 0")), Err(KitError::NotAKit));
}

#[test]
fn an_address_that_was_changed_shows_and_costs_no_keys() {
    let kit = sample();
    let read = Kit::decode(&kit.encode().replace("sftp://box/x\n", "sftp://bix/x\n")).unwrap();
    assert!(read.altered);
    assert_eq!(read.objects, kit.objects);
}

#[test]
fn scanned_codes_give_the_kit_in_any_order() {
    let kit = sample();
    let codes = scan::codes(&kit, 300);
    assert!(codes.len() > 2 && codes.iter().all(|code| code.len() <= 300), "{}", codes.len());
    let mut shuffled = codes.clone();
    shuffled.reverse();
    shuffled.push(codes[0].clone());
    assert_eq!(Kit::decode(&format!("QR-Code:{}", shuffled.join("\r\nQR-Code: "))).unwrap(), kit);
    let page = format!("<html><pre>{}</pre>", codes.join("</pre><pre>"));
    assert_eq!(Kit::decode(&page).unwrap(), kit);
    let lacking = codes[1..].join("\n");
    let error = Kit::decode(&lacking).unwrap_err();
    assert_eq!(error, KitError::Codes { missing: "1".into(), of: codes.len() });
    let mut other = kit.clone();
    other.made = "2026-11-23".into();
    let mixed = format!("{}\n{}", codes[0], scan::codes(&other, 300)[1..].join("\n"));
    assert!(matches!(Kit::decode(&mixed), Err(KitError::Codes { .. })));
    for at in 0..codes[0].len() {
        let mut changed = codes[0].clone().into_bytes();
        changed[at] = if changed[at] == b'7' { b'6' } else { b'7' };
        let text = format!("{}\n{lacking}", String::from_utf8(changed).unwrap());
        assert!(Kit::decode(&text).is_err(), "at {at}");
    }
}
