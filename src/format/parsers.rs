//! Every parser of the format by name, as a function that reads bytes and writes back what it read. One value has
//! one encoding, so whatever is accepted must come back byte for byte: fuzzing and the replay test hold this.

use super::FormatError;
use super::codec::Decoder;
use super::header::{Header, ObjectKind, pad, unpad};
use super::keyring::{Keyring, Roster, SlotInfo, SlotSecret};
use super::manifest::{Contents, Summary};
use super::pack::{Directory, Index};
use super::page::{RecipePage, TreePage};
use super::parity::Table;
use super::signed::{Config, Mark, Run, Signed, Tombstone, check_checksum, with_checksum};

/// Reads bytes, then encodes what was read.
pub type Reencode = fn(&[u8]) -> Result<Vec<u8>, FormatError>;

fn header(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let (header, length) = Header::decode(bytes)?;
    let mut encoded = header.encode();
    encoded.extend_from_slice(&bytes[length..]);
    Ok(encoded)
}

/// The checksum is put on, or no mutation of an object would come past it.
fn signed(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let whole = with_checksum(bytes.to_vec());
    let number = bytes.get(10).copied().unwrap_or(0);
    let kind = ObjectKind::ALL.into_iter().find(|kind| *kind as u8 == number);
    let kind = kind.ok_or(FormatError::Invalid("object kind"))?;
    let encoded = Signed::decode(&whole, kind)?.encode();
    check_checksum(&encoded).map(<[u8]>::to_vec)
}

fn slot_info(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut decoder = Decoder::new(bytes, "slot");
    let info = SlotInfo::take(&mut decoder)?;
    decoder.finish()?;
    Ok(info.encode())
}

fn parity_table(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let (table, length) = Table::decode(bytes)?;
    Ok([&table.encode(), &bytes[length..]].concat())
}

/// All of them. A name is also the name of the fuzz target and of its corpus.
pub const PARSERS: [(&str, Reencode); 19] = [
    ("header", header),
    ("signed", signed),
    ("padding", |bytes| Ok(pad(unpad(bytes)?))),
    ("config", |bytes| Ok(Config::decode(bytes)?.encode())),
    ("run", |bytes| Ok(Run::decode(bytes)?.encode())),
    ("mark", |bytes| Ok(Mark::decode(bytes)?.encode())),
    ("tombstone", |bytes| Ok(Tombstone::decode(bytes)?.encode())),
    ("roster", |bytes| Ok(Roster::decode(bytes)?.encode())),
    ("keyring", |bytes| Ok(Keyring::decode(bytes)?.encode().to_vec())),
    ("slot_info", slot_info),
    ("slot_secret", |bytes| Ok(SlotSecret::decode(bytes)?.encode().to_vec())),
    ("pack_directory", |bytes| Ok(Directory::decode(bytes)?.encode())),
    ("parity_table", parity_table),
    ("index", |bytes| Ok(Index::decode(bytes)?.encode())),
    ("manifest_summary", |bytes| Ok(Summary::decode(bytes)?.encode())),
    ("manifest_contents", |bytes| Ok(Contents::decode(bytes)?.encode())),
    ("tree_page", |bytes| Ok(TreePage::decode(bytes)?.encode())),
    ("recipe_page", |bytes| Ok(RecipePage::decode(bytes)?.encode())),
    ("checksum", |bytes| Ok(with_checksum(check_checksum(bytes)?.to_vec()))),
];

/// Whether the parser accepts the bytes; `Err` with what it would have written if that is not the same.
pub fn is_canonical(parser: &str, bytes: &[u8]) -> Result<bool, Vec<u8>> {
    let Some((_, reencode)) = PARSERS.iter().find(|(name, _)| *name == parser) else { return Ok(false) };
    match reencode(bytes) {
        Err(_) => Ok(false),
        Ok(encoded) if encoded == bytes => Ok(true),
        Ok(encoded) => Err(encoded),
    }
}
