//! The recovery kit: what is needed besides the backups themselves when everything else is gone, as one text file.
//!
//! It carries the addresses, the newest config, keyring and roster, and the owner's slots, exactly as they are stored:
//! sealed or signed, each ending in its own checksum; and, for people, the configuration file without its secrets and
//! the public keys that sign the evidence of drills. Nothing in it opens without the owner's passphrase or key file.
//!
//! Version 2 added what is for people and a checksum over the lines outside the objects; version 1 is read for good.

mod overlay;
pub mod scan;

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
use crate::seal::slot::Slot;
use crate::store::Store;

/// First line of a kit, before its version.
const TITLE: &str = "LIFEBOAT RECOVERY KIT ";
/// The version written; all below are read.
const VERSION: u32 = 2;
/// The block that holds the configuration file. It is text, a `| ` before each line.
const CONFIG_BLOCK: &str = "lifeboat.toml";
const CONFIG_LINE: &str = "|";
/// Longest line that says something outside the objects, in bytes, and how many of a kind there may be.
const LINE_LIMIT_BYTES: usize = 4096;
const LINES_LIMIT: usize = 64;
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
    /// Public keys that evidence of drills is checked with: `HEX HOST`.
    pub drill_keys: Vec<String>,
    /// The configuration file when the kit was made, without secrets.
    pub config: Option<String>,
    /// By object name.
    pub objects: BTreeMap<String, Bytes>,
    /// Characters of what stands outside the objects were changed: addresses and times are not to be relied on.
    pub altered: bool,
}

/// What goes into a kit besides what the repository holds.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// The repository's own first, then its replicas'; without secrets.
    pub addresses: Vec<String>,
    pub drill_keys: Vec<String>,
    pub config: Option<String>,
}

/// Why a text is no usable kit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KitError {
    #[error("it is no recovery kit: it neither starts with {TITLE:?} nor holds scanned codes")]
    NotAKit,
    #[error("it is a recovery kit of version {0}, and this lifeboat reads up to {VERSION}: use a newer one")]
    Newer(u64),
    #[error("{0} is incomplete: the kit was cut off or lines are missing")]
    Incomplete(String),
    #[error("line {line} is not what a kit holds")]
    Line { line: usize },
    #[error("{0} does not match its checksum: characters were changed")]
    Checksum(String),
    #[error("it holds no {0}")]
    Missing(&'static str),
    #[error("{0} cannot stand in a kit: it has a line break, or is too long")]
    Unwritable(String),
    #[error("codes {missing} of {of} are missing")]
    Codes { missing: String, of: usize },
    #[error("the codes cannot be read: {0}")]
    Scan(String),
}

impl From<KitError> for RepoError {
    fn from(error: KitError) -> Self {
        Self::Refused(format!("the recovery kit cannot be used: {error}"))
    }
}

impl Kit {
    /// Collects the kit of an opened repository.
    pub async fn collect(repo: &Repository, extras: Extras) -> Result<Self, RepoError> {
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
        let Extras { addresses, drill_keys, config } = extras;
        // As it reads back: a mail may change how lines begin and end.
        let config = config.map(|text| lines_of(&text));
        let repo = repo.access.repo;
        let kit = Self { addresses, repo, made, drill_keys, config, objects, altered: false };
        for line in kit.addresses.iter().chain(&kit.drill_keys) {
            if line.len() > LINE_LIMIT_BYTES || line.contains(char::is_control) || line.trim() != line {
                return Err(KitError::Unwritable(format!("{line:?}")).into());
            }
        }
        kit.check()?;
        Ok(kit)
    }

    /// The text, with what to do first. Reading it back gives the same kit.
    pub fn encode(&self) -> String {
        format!("{TITLE}{VERSION}\n\n{}{}", self.instructions(), self.body())
    }

    /// The text without words for people: what codes carry.
    fn terse(&self) -> String {
        format!("{TITLE}{VERSION}\n{}", self.body())
    }

    fn body(&self) -> String {
        let mut text = String::new();
        for address in &self.addresses {
            text += &format!("address: {address}\n");
        }
        text += &format!("repository: {}\nmade: {}\n", self.repo, self.made);
        for key in &self.drill_keys {
            text += &format!("drill-key: {key}\n");
        }
        text += &format!("sum: {}\n", self.sum());
        for (name, bytes) in &self.objects {
            text += &format!("\n{BEGIN}{name}{DASHES}\n");
            let armour = BASE64.encode(bytes);
            for line in armour.as_bytes().chunks(LINE_CHARS) {
                text.extend(line.iter().map(|byte| char::from(*byte)));
                text.push('\n');
            }
            text += &format!("{END}{name} {}{DASHES}\n", short_hash(bytes));
        }
        if let Some(config) = &self.config {
            text += &format!("\n{BEGIN}{CONFIG_BLOCK}{DASHES}\n");
            for line in config.lines() {
                text += &format!("{CONFIG_LINE} {line}\n");
            }
            text += &format!("{END}{CONFIG_BLOCK} {}{DASHES}\n", short_hash(config.as_bytes()));
        }
        text
    }

    /// Over the lines that no object's checksum covers.
    fn sum(&self) -> String {
        let mut lines = vec![self.repo.to_string(), self.made.clone()];
        lines.extend(self.addresses.iter().map(|address| format!("address: {address}")));
        lines.extend(self.drill_keys.iter().map(|key| format!("drill-key: {key}")));
        short_hash(lines.join("\n").as_bytes())
    }

    fn instructions(&self) -> String {
        let [first, rest @ ..] = self.commands("kit.txt");
        let rest: String =
            rest.iter().zip(4..).map(|(command, step)| format!("\x20 {step}. {command}\n")).collect();
        format!(
            "Keep this where the backups are not. It opens nothing without the owner's passphrase or key file,\n\
             which is not in it. To restore on a machine that has nothing:\n\
             \x20 1. Install lifeboat {} or newer, and save this text as kit.txt.\n\
             \x20 2. Give it the storage's own credentials, as its documentation says for this kind of address.\n\
             \x20 3. {first}\n{rest}\n",
            env!("CARGO_PKG_VERSION")
        )
    }

    /// The keys that evidence of drills is checked with, each with the machine that signs by it.
    pub fn drill_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.drill_keys.iter().map(|key| key.split_once(' ').unwrap_or((key, "?")))
    }

    /// What to type to have everything back, in order. `file`: the kit's name.
    pub fn commands(&self, file: &str) -> [String; 4] {
        let at = match self.addresses.is_empty() {
            true => format!("lifeboat -r ADDRESS --kit {file}"),
            false => format!("lifeboat --kit {file}"),
        };
        [
            format!("lifeboat kit open {file}"),
            format!("{at} snapshots"),
            format!("{at} restore '*@latest' --target /restored"),
            format!("{at} verify --read-data"),
        ]
    }

    /// Reads a kit: its text, a page that holds it, or the lines that scanned codes give, in any order. Line ends,
    /// indentation and empty lines do not matter: it may have come through a mail.
    pub fn decode(text: &str) -> Result<Self, KitError> {
        let text = match scan::gather(text)? {
            Some(text) => std::borrow::Cow::Owned(text),
            None => std::borrow::Cow::Borrowed(text),
        };
        let mut lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let title = lines.next().map_or("", |(_, line)| line.trim_start_matches('\u{feff}'));
        let version = title.strip_prefix(TITLE).and_then(|version| version.parse::<u64>().ok());
        match version {
            Some(version) if version > u64::from(VERSION) => return Err(KitError::Newer(version)),
            Some(1..) => {}
            _ => return Err(KitError::NotAKit),
        }
        let mut reading = Reading::new();
        for (number, line) in lines {
            reading.line(line, number + 1)?;
        }
        let kit = reading.finish(version != Some(1))?;
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

    /// The store, with its keys hidden and the kit's in their place: what opens then, the kit alone opens.
    pub fn instead_of_keys(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(KitStore::alone(store, self.objects.clone(), KINDS.map(ObjectKind::folder)))
    }

    /// The newest number that the kit holds of a numbered kind.
    pub fn number(&self, kind: ObjectKind) -> Option<u64> {
        let numbers =
            self.objects.keys().filter_map(|name| name.strip_prefix(kind.folder())?.strip_prefix('/'));
        numbers.filter_map(|number| number.parse().ok()).max()
    }

    /// The owner's slots in it, in the order of their names.
    pub fn slots(&self) -> Vec<Slot> {
        let slots = self.objects.iter().filter(|(name, _)| name.starts_with("slots/"));
        slots.filter_map(|(_, bytes)| Slot::decode(bytes).ok()).collect()
    }

    /// What names exactly this kit, whatever file it stands in.
    pub fn fingerprint(&self) -> String {
        short_hash(self.body().as_bytes())
    }
}

fn short_hash(bytes: &[u8]) -> String {
    crate::format::id::to_hex(&blake3::hash(bytes).as_bytes()[..8])
}

/// A text as it survives mail: lines without what surrounds them, none of them empty.
fn lines_of(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// A kit while its lines are read.
struct Reading {
    kit: Kit,
    repo: Option<RepoId>,
    sum: Option<String>,
    /// Name and content of the block that was begun and has not ended.
    open: Option<(String, String)>,
}

impl Reading {
    fn new() -> Self {
        let kit = Kit {
            addresses: Vec::new(),
            repo: RepoId([0; 16]),
            made: String::new(),
            drill_keys: Vec::new(),
            config: None,
            objects: BTreeMap::new(),
            altered: false,
        };
        Self { kit, repo: None, sum: None, open: None }
    }

    fn line(&mut self, line: &str, number: usize) -> Result<(), KitError> {
        let bad = || KitError::Line { line: number };
        if let Some(marked) = line.strip_prefix(BEGIN) {
            if let Some((name, _)) = self.open.take() {
                return Err(KitError::Incomplete(name));
            }
            self.open = Some((marked.strip_suffix(DASHES).ok_or_else(bad)?.to_owned(), String::new()));
        } else if let Some(marked) = line.strip_prefix(END) {
            let (name, content) = self.open.take().ok_or_else(bad)?;
            let hash = marked.strip_suffix(DASHES).and_then(|marked| marked.strip_prefix(&name));
            self.block(name, content, hash.ok_or_else(bad)?.trim())?;
        } else if let Some((name, content)) = &mut self.open {
            match line.strip_prefix(CONFIG_LINE) {
                Some(line) if name == CONFIG_BLOCK => *content += &format!("{}\n", line.trim()),
                _ => content.push_str(line),
            }
        } else if let Some(address) = line.strip_prefix("address: ") {
            bounded(&mut self.kit.addresses, address).ok_or_else(bad)?;
        } else if let Some(key) = line.strip_prefix("drill-key: ") {
            bounded(&mut self.kit.drill_keys, key).ok_or_else(bad)?;
        } else if let Some(id) = line.strip_prefix("repository: ") {
            self.repo = Some(RepoId::from_hex(id).ok_or_else(bad)?);
        } else if let Some(made) = line.strip_prefix("made: ") {
            self.kit.made = made.chars().take(64).collect();
        } else if let Some(sum) = line.strip_prefix("sum: ") {
            self.sum = Some(sum.to_owned());
        }
        Ok(())
    }

    fn block(&mut self, name: String, content: String, hash: &str) -> Result<(), KitError> {
        if name == CONFIG_BLOCK {
            if hash != short_hash(content.as_bytes()) {
                return Err(KitError::Checksum(name));
            }
            self.kit.config = Some(content);
            return Ok(());
        }
        let bytes = BASE64.decode(&content).map_err(|_| KitError::Checksum(name.clone()))?;
        if hash != short_hash(&bytes) {
            return Err(KitError::Checksum(name));
        }
        self.kit.objects.insert(name, bytes.into());
        Ok(())
    }

    fn finish(self, has_sum: bool) -> Result<Kit, KitError> {
        if let Some((name, _)) = self.open {
            return Err(KitError::Incomplete(name));
        }
        let mut kit = self.kit;
        kit.repo = self.repo.ok_or(KitError::Missing("repository id"))?;
        // Not an error: the keys are sound, and whoever has nothing else should have them.
        kit.altered = has_sum && self.sum != Some(kit.sum());
        Ok(kit)
    }
}

fn bounded(lines: &mut Vec<String>, line: &str) -> Option<()> {
    (lines.len() < LINES_LIMIT && line.len() <= LINE_LIMIT_BYTES).then(|| lines.push(line.to_owned()))
}

#[cfg(test)]
mod tests;
