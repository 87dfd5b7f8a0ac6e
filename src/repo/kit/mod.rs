//! The recovery kit: what is needed besides the backups themselves when everything else is gone, as one text file.
//!
//! It carries the address, the newest config, keyring and roster, and the owner's slots, exactly as they are stored:
//! sealed or signed, each ending in its own checksum. Nothing in it opens without the owner's passphrase or key file.

mod overlay;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

pub use overlay::KitStore;

use super::open::{newest, slots};
use super::{RepoError, Repository};
use crate::format::header::{Header, ObjectKind};
use crate::format::id::RepoId;
use crate::format::keyring::Role;
use crate::format::signed::{OBJECT_LIMIT_BYTES, check_checksum};
use crate::store::Store;

/// First line of a kit of this version.
const TITLE: &str = "LIFEBOAT RECOVERY KIT 1";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Characters in a line of armour.
const LINE_CHARS: usize = 64;
/// Folders whose objects a kit may hold.
const KINDS: [ObjectKind; 4] =
    [ObjectKind::Config, ObjectKind::Keyring, ObjectKind::Roster, ObjectKind::Slot];
/// Objects of a kind that are looked at to see whose repository it is, and how much of each.
const PROBED_OBJECTS: usize = 4;
const HEADER_PROBE_BYTES: u64 = 256;
/// Longest kit read, in bytes.
pub const LIMIT_BYTES: u64 = 3 * OBJECT_LIMIT_BYTES as u64;

/// A kit in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kit {
    /// Where the repository and its replicas are, without secrets.
    pub addresses: Vec<String>,
    pub repo: RepoId,
    /// When it was made, as text.
    pub made: String,
    /// By object name.
    pub objects: BTreeMap<String, Bytes>,
}

/// Why a text is no usable kit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KitError {
    #[error("it does not start with {TITLE:?}")]
    NotAKit,
    #[error("{0} is incomplete: the kit was cut off or lines are missing")]
    Incomplete(String),
    #[error("line {line} is not what a kit holds")]
    Line { line: usize },
    #[error("{0} does not match its checksum: characters were changed")]
    Checksum(String),
    #[error("it holds no {0}")]
    Missing(&'static str),
}

impl From<KitError> for RepoError {
    fn from(error: KitError) -> Self {
        Self::Refused(format!("the recovery kit cannot be used: {error}"))
    }
}

impl Kit {
    /// Collects the kit of an opened repository. `addresses`: the repository's own first, then its replicas'.
    pub async fn collect(repo: &Repository, addresses: Vec<String>) -> Result<Self, RepoError> {
        let store = repo.store.as_ref();
        let mut objects = BTreeMap::new();
        for kind in [ObjectKind::Config, ObjectKind::Roster] {
            let (number, bytes) = newest(store, kind).await?;
            objects.insert(format!("{}/{number}", kind.folder()), bytes);
        }
        // The keyring as it was opened, which may have come from a manifest.
        let number = match &repo.owner {
            Some(owner) => owner.keyring.number,
            None => newest(store, ObjectKind::Keyring).await?.0,
        };
        objects.insert(format!("keyring/{number}"), repo.keyring_object.clone().into());
        for (name, slot) in slots(store).await? {
            if slot.is_ok_and(|slot| slot.info.role == Role::Owner) {
                let bytes = store.get(&name).await?;
                objects.insert(name, bytes);
            }
        }
        let made = repo.world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let kit = Self { addresses, repo: repo.access.repo, made, objects };
        kit.check()?;
        Ok(kit)
    }

    /// The text. Reading it back gives the same kit.
    pub fn encode(&self) -> String {
        let mut text = format!("{TITLE}\n\n{}", self.instructions());
        for address in &self.addresses {
            text += &format!("address: {address}\n");
        }
        text += &format!("repository: {}\nmade: {}\n", self.repo, self.made);
        for (name, bytes) in &self.objects {
            text += &format!("\n{BEGIN}{name}{DASHES}\n");
            let armour = BASE64.encode(bytes);
            for line in armour.as_bytes().chunks(LINE_CHARS) {
                text.extend(line.iter().map(|byte| char::from(*byte)));
                text.push('\n');
            }
            text += &format!("{END}{name} {}{DASHES}\n", short_hash(bytes));
        }
        text
    }

    fn instructions(&self) -> String {
        // In single quotes for a shell.
        let address = self.addresses.first().map_or("ADDRESS", String::as_str).replace('\'', "'\\''");
        format!(
            "Keep this where the backups are not. It opens nothing without the owner's passphrase or key file,\n\
             which is not in it. To restore on a machine that has nothing:\n\
             \x20 1. Install lifeboat {} or newer, and save this text as kit.txt.\n\
             \x20 2. Give it the storage's own credentials, as its documentation says for this kind of address.\n\
             \x20 3. lifeboat -r '{address}' --kit kit.txt snapshots\n\
             \x20 4. lifeboat -r '{address}' --kit kit.txt restore latest --target /restored\n\
             \x20 5. lifeboat -r '{address}' --kit kit.txt verify --read-data\n\n",
            env!("CARGO_PKG_VERSION")
        )
    }

    /// Reads a kit. Line ends, indentation and empty lines do not matter: it may have come through a mail.
    pub fn decode(text: &str) -> Result<Self, KitError> {
        let mut lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        if lines.next().is_none_or(|(_, line)| line.trim_start_matches('\u{feff}') != TITLE) {
            return Err(KitError::NotAKit);
        }
        let mut kit = Self {
            addresses: Vec::new(),
            repo: RepoId([0; 16]),
            made: String::new(),
            objects: BTreeMap::new(),
        };
        let mut repo = None;
        let mut open: Option<(String, String)> = None;
        for (number, line) in lines {
            let bad = || KitError::Line { line: number + 1 };
            if let Some(marked) = line.strip_prefix(BEGIN) {
                if let Some((name, _)) = open {
                    return Err(KitError::Incomplete(name));
                }
                open = Some((marked.strip_suffix(DASHES).ok_or_else(bad)?.to_owned(), String::new()));
            } else if let Some(marked) = line.strip_prefix(END) {
                let (name, armour) = open.take().ok_or_else(bad)?;
                let hash = marked.strip_suffix(DASHES).and_then(|marked| marked.strip_prefix(&name));
                let bytes = BASE64.decode(&armour).map_err(|_| KitError::Checksum(name.clone()))?;
                if hash.ok_or_else(bad)?.trim() != short_hash(&bytes) {
                    return Err(KitError::Checksum(name));
                }
                kit.objects.insert(name, bytes.into());
            } else if let Some((_, armour)) = &mut open {
                armour.push_str(line);
            } else if let Some(address) = line.strip_prefix("address: ") {
                kit.addresses.push(address.to_owned());
            } else if let Some(id) = line.strip_prefix("repository: ") {
                repo = Some(RepoId::from_hex(id).ok_or_else(bad)?);
            } else if let Some(made) = line.strip_prefix("made: ") {
                kit.made = made.to_owned();
            }
        }
        if let Some((name, _)) = open {
            return Err(KitError::Incomplete(name));
        }
        kit.repo = repo.ok_or(KitError::Missing("repository id"))?;
        kit.check()?;
        Ok(kit)
    }

    /// Every object is whole and of this repository, and there is one of each kind.
    fn check(&self) -> Result<(), KitError> {
        for (name, bytes) in &self.objects {
            let kind = KINDS
                .into_iter()
                .find(|kind| name.strip_prefix(kind.folder()).is_some_and(|rest| rest.starts_with('/')));
            let header = Header::decode(bytes).map(|(header, _)| header);
            let sound = check_checksum(bytes).is_ok()
                && header.is_ok_and(|header| Some(header.kind) == kind && header.repo == self.repo);
            if !sound {
                return Err(KitError::Checksum(name.clone()));
            }
        }
        for kind in KINDS {
            if !self.objects.keys().any(|name| name.starts_with(&format!("{}/", kind.folder()))) {
                return Err(KitError::Missing(kind.folder()));
            }
        }
        Ok(())
    }

    /// Errors when the storage shows that it is another repository's.
    pub async fn require_kin(&self, store: &dyn Store) -> Result<(), RepoError> {
        let mut other = None;
        for kind in [
            ObjectKind::Config,
            ObjectKind::Roster,
            ObjectKind::Keyring,
            ObjectKind::Slot,
            ObjectKind::Snapshot,
        ] {
            for listed in store.list(kind.folder()).await?.into_iter().take(PROBED_OBJECTS) {
                let length = listed.size_bytes.min(HEADER_PROBE_BYTES);
                let Ok(head) = store.get_range(&listed.name, 0, length).await else { continue };
                match Header::decode(&head) {
                    Ok((header, _)) if header.repo == self.repo => return Ok(()),
                    Ok((header, _)) => other = other.or(Some(header.repo)),
                    Err(_) => {}
                }
            }
        }
        let Some(other) = other else { return Ok(()) };
        let (here, address) = (store.location(), self.addresses.first().map_or("", String::as_str));
        Err(RepoError::Refused(format!(
            "this recovery kit is for another repository: it was made {} for {} at {address}, and at {here} is {other}",
            self.made, self.repo
        )))
    }

    /// The store, with what it lost supplied from the kit.
    pub fn over(self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(KitStore::new(store, self.objects))
    }
}

fn short_hash(bytes: &[u8]) -> String {
    crate::format::id::to_hex(&blake3::hash(bytes).as_bytes()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::Kem;
    use crate::format::signed::with_checksum;

    fn sample() -> Kit {
        let repo = RepoId([7; 16]);
        let object =
            |kind| -> Bytes { with_checksum(Header::new(kind, Kem::None, repo, 0, 0).encode()).into() };
        let objects = KINDS.into_iter().map(|kind| (format!("{}/0", kind.folder()), object(kind))).collect();
        Kit { addresses: vec!["sftp://box/x".into(), "/b".into()], repo, made: "2026-11-22".into(), objects }
    }

    #[test]
    fn a_kit_survives_mail_and_shows_every_changed_character() {
        let kit = sample();
        let text = kit.encode();
        assert_eq!(Kit::decode(&text).unwrap(), kit);
        let mailed = format!("\u{feff}{}", text.replace('\n', " \r\n\r\n  "));
        assert_eq!(Kit::decode(&mailed).unwrap(), kit);
        let armour = text.find(BEGIN).unwrap();
        for at in (armour..text.len()).filter(|at| text.is_char_boundary(*at)) {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'Q' { b'R' } else { b'Q' };
            let changed = String::from_utf8(changed).unwrap();
            if text.as_bytes()[at] != b'\n' {
                assert!(Kit::decode(&changed).map_or(true, |read| read == kit), "at {at}");
            }
        }
        assert!(matches!(
            Kit::decode(&text[..text.len() / 2]),
            Err(KitError::Incomplete(_) | KitError::Missing(_))
        ));
        assert_eq!(Kit::decode("BEGIN"), Err(KitError::NotAKit));
    }
}
