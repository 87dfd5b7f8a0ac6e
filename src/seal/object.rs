//! Seal and open the small objects: index objects and pack directories (index key), manifests (index key and
//! `meta`), the keyring (owner), and the signed plaintext ones.

use super::SealError;
use super::access::{Access, Domain, Identity, OwnerRoot, verify};
use super::block::{agree_new, agree_open, origin_of};
use super::derive::{TAG_BYTES, check_commitment, commitment, decrypt, derive, encrypt_from};
use crate::base::random::{self, Random};
use crate::format::header::{Header, Kem, ObjectKind, pad, unpad};
use crate::format::id::{KeyId, RepoId, SnapshotId};
use crate::format::keyring::{Key, Keyring};
use crate::format::manifest::{Contents, Summary};
use crate::format::pack::{Directory, Index};
use crate::format::signed::{Signed, check_checksum, with_checksum};

/// Directories are sealed beside blocks whose ordinals count up from 0; this nonce is theirs.
const DIRECTORY_ORDINAL: u64 = u64::MAX;

fn header_check(header: &Header, repo: &RepoId) -> Result<(), SealError> {
    if header.repo == *repo { Ok(()) } else { Err(SealError::OtherRepository) }
}

/// Signs a fixed-name object in the clear.
pub fn sign_object(
    identity: &Identity,
    repo: RepoId,
    kind: ObjectKind,
    domain: u32,
    body: Vec<u8>,
) -> Vec<u8> {
    let header = Header::new(kind, Kem::None, repo, domain, 0);
    let signature = identity.sign(&Signed::message(&header, &body));
    Signed { header, body, author: identity.key, signature }.encode()
}

/// Takes a signed object apart and verifies it; `find` gives the verifying key of an author who may sign it.
pub fn open_signed(
    bytes: &[u8],
    kind: ObjectKind,
    repo: &RepoId,
    find: impl FnOnce(&KeyId) -> Option<[u8; 32]>,
) -> Result<Signed, SealError> {
    let signed = Signed::decode(bytes, kind)?;
    header_check(&signed.header, repo)?;
    let what = kind.folder();
    let verifying = find(&signed.author).ok_or(SealError::Signature(what))?;
    verify(&verifying, &Signed::message(&signed.header, &signed.body), &signed.signature, what)?;
    Ok(signed)
}

fn directory_key(index: &Key, header: &Header) -> Key {
    derive("lifeboat v1 directory key", &[&index.0, &header.enc, &[header.kind as u8]])
}

fn split_signature(content: &[u8]) -> Result<(&[u8], &[u8; 64]), SealError> {
    content.split_last_chunk::<64>().ok_or(SealError::Damaged)
}

fn directory_message(header: &Header, encoded: &[u8]) -> Vec<u8> {
    let mut message = b"lifeboat pack directory v1\0".to_vec();
    message.extend_from_slice(&header.enc);
    message.extend_from_slice(&header.instance.to_le_bytes());
    message.extend_from_slice(encoded);
    message
}

/// Seals a pack's directory; the author is `access`. `header` is the pack's, with enc set.
pub fn seal_directory(access: &Access, header: &Header, directory: &Directory) -> Result<Vec<u8>, SealError> {
    let mut content = directory.encode();
    let signature = access.identity.sign(&directory_message(header, &content));
    content.extend_from_slice(&signature);
    let index = &access.domain(header.domain)?.epoch(header.epoch)?.index;
    let key = directory_key(index, header);
    let mut sealed = pad(&content);
    encrypt_from(&key, DIRECTORY_ORDINAL, &directory_aad(header), &mut sealed, 0)?;
    Ok(sealed)
}

/// What binds a directory to its pack: the header without the fields that are only known once it is sealed.
fn directory_aad(header: &Header) -> Vec<u8> {
    let mut bound = header.clone();
    bound.directory_offset = 0;
    bound.directory_length = 0;
    bound.encode()
}

/// Opens a pack's directory and returns it with the signature's validity still to judge: see
/// [`DirectorySeal::verify`].
pub fn open_directory(
    repo: &RepoId,
    domain: &Domain,
    header: &Header,
    mut sealed: Vec<u8>,
) -> Result<(Directory, DirectorySeal), SealError> {
    header_check(header, repo)?;
    let key = directory_key(&domain.epoch(header.epoch)?.index, header);
    let length = decrypt(&key, DIRECTORY_ORDINAL, &directory_aad(header), &mut sealed)?;
    let (content, signature) = split_signature(unpad(&sealed[..length])?)?;
    let directory = Directory::decode(content)?;
    let seal = DirectorySeal { message: directory_message(header, content), signature: *signature };
    Ok((directory, seal))
}

/// The signature of an opened directory.
pub struct DirectorySeal {
    message: Vec<u8>,
    signature: [u8; 64],
}

impl DirectorySeal {
    /// Verifies that the holder of `verifying` signed the directory.
    pub fn verify(&self, verifying: &[u8; 32]) -> Result<(), SealError> {
        verify(verifying, &self.message, &self.signature, "a pack directory")
    }
}

/// Seals content with a symmetric key that the reader holds too.
fn seal_symmetric(
    base: &Key,
    mut header: Header,
    content: &[u8],
    random: &dyn Random,
) -> Result<Vec<u8>, SealError> {
    header.enc = random::array::<32>(random).to_vec();
    let key = symmetric_key(base, &header);
    header.commitment = commitment(&key);
    let mut bytes = header.encode();
    let (aad, from) = (bytes.clone(), bytes.len());
    bytes.extend_from_slice(&pad(content));
    encrypt_from(&key, 0, &aad, &mut bytes, from)?;
    Ok(bytes)
}

fn symmetric_key(base: &Key, header: &Header) -> Key {
    derive(
        "lifeboat v1 symmetric object key",
        &[
            &base.0,
            &header.enc,
            header.repo.as_bytes(),
            &header.domain.to_le_bytes(),
            &header.epoch.to_le_bytes(),
            &[header.kind as u8],
            &header.version.to_le_bytes(),
        ],
    )
}

fn open_symmetric(base: &Key, header: &Header, start: usize, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let key = symmetric_key(base, header);
    check_commitment(&key, &header.commitment)?;
    let mut sealed = bytes[start..].to_vec();
    let length = decrypt(&key, 0, &bytes[..start], &mut sealed)?;
    Ok(unpad(&sealed[..length])?.to_vec())
}

/// Seals and signs an index object of one domain.
pub fn seal_index(
    access: &Access,
    domain: &Domain,
    index: &Index,
    random: &dyn Random,
) -> Result<Vec<u8>, SealError> {
    let keys = domain.current();
    let header = Header::new(ObjectKind::Index, Kem::Symmetric, access.repo, domain.number(), keys.epoch);
    let mut content = index.encode();
    let signature = access.identity.sign(&index_message(&content));
    content.extend_from_slice(&signature);
    seal_symmetric(&keys.index, header, &content, random)
}

fn index_message(encoded: &[u8]) -> Vec<u8> {
    [b"lifeboat index v1\0".as_slice(), encoded].concat()
}

/// Opens an index object and verifies its author's signature. `Ok(None)`: of a domain this holder has no key for.
pub fn open_index(
    access: &Access,
    bytes: &[u8],
    find: impl FnOnce(&KeyId) -> Option<[u8; 32]>,
) -> Result<Option<(u32, Index)>, SealError> {
    let (header, start) = Header::decode_kind(bytes, ObjectKind::Index)?;
    header_check(&header, &access.repo)?;
    let Ok(domain) = access.domain(header.domain) else { return Ok(None) };
    let content = open_symmetric(&domain.epoch(header.epoch)?.index, &header, start, bytes)?;
    let (encoded, signature) = split_signature(&content)?;
    let index = Index::decode(encoded)?;
    let author = index.author.ok_or(SealError::Signature("an index object"))?;
    let verifying = find(&author).ok_or(SealError::Signature("an index object"))?;
    verify(&verifying, &index_message(encoded), signature, "an index object")?;
    Ok(Some((header.domain, index)))
}

/// Seals the keyring for the owner. The keyring is also signed, since who knows the sealing key of an old copy
/// must not be able to make a newer one.
pub fn seal_keyring(
    root: &OwnerRoot,
    repo: RepoId,
    keyring: &Keyring,
    random: &dyn Random,
) -> Result<Vec<u8>, SealError> {
    let header = Header::new(ObjectKind::Keyring, Kem::Symmetric, repo, 0, 0);
    let mut content = keyring.encode();
    let signature = root.identity().sign(&keyring_message(&content));
    content.extend_from_slice(&signature);
    Ok(with_checksum(seal_symmetric(&root.keyring_key(), header, &content, random)?))
}

fn keyring_message(encoded: &[u8]) -> Vec<u8> {
    [b"lifeboat keyring v1\0".as_slice(), encoded].concat()
}

/// Opens what [`seal_keyring`] made.
pub fn open_keyring(root: &OwnerRoot, repo: &RepoId, bytes: &[u8]) -> Result<Keyring, SealError> {
    let (header, start) = Header::decode_kind(bytes, ObjectKind::Keyring)?;
    header_check(&header, repo)?;
    let content = check_checksum(bytes)?;
    let content = zeroize::Zeroizing::new(open_symmetric(&root.keyring_key(), &header, start, content)?);
    let (encoded, signature) = split_signature(&content)?;
    verify(&root.identity().verifying(), &keyring_message(encoded), signature, "the keyring")?;
    Ok(Keyring::decode(encoded)?)
}

/// An opened manifest's readable part.
#[derive(Clone, Debug)]
pub struct OpenSummary {
    pub id: SnapshotId,
    pub domain: u32,
    pub summary: Summary,
}

fn summary_key(index: &Key, header: &Header) -> Key {
    derive("lifeboat v1 manifest summary key", &[&index.0, &header.enc])
}

/// Signs and seals a manifest. Sets `contents_hash`; returns the snapshot id and the object's bytes. `keyring` is
/// the newest keyring object as stored.
pub fn seal_manifest(
    access: &Access,
    mut summary: Summary,
    contents: &Contents,
    keyring: &[u8],
    random: &dyn Random,
) -> Result<(SnapshotId, Vec<u8>), SealError> {
    let contents = contents.encode();
    summary.contents_hash = *blake3::hash(&contents).as_bytes();
    let encoded = summary.encode();
    let signature = access.identity.sign(&Summary::message(&encoded));
    let id = Summary::snapshot_id(&encoded, &signature);
    Ok((id, seal_manifest_parts(access, &encoded, &signature, &contents, keyring, random)?))
}

/// Seals the two plaintext parts: also how a manifest is re-sealed for a replica without changing its id.
pub fn seal_manifest_parts(
    access: &Access,
    summary: &[u8],
    signature: &[u8; 64],
    contents: &[u8],
    keyring: &[u8],
    random: &dyn Random,
) -> Result<Vec<u8>, SealError> {
    let (mut header, contents_key) = agree_new(access, ObjectKind::Snapshot, random, &[signature])?;
    let domain = access.home();
    let key = summary_key(&domain.current().index, &header);
    let summary = pad(&[summary, signature].concat());
    header.directory_offset = header.encoded_bytes() as u64;
    header.directory_length = (summary.len() + TAG_BYTES) as u64;
    let mut bytes = header.encode();
    let aad = bytes.clone();
    let from = bytes.len();
    bytes.extend_from_slice(&summary);
    encrypt_from(&key, 0, &aad, &mut bytes, from)?;
    let length = u32::try_from(keyring.len()).map_err(|_| SealError::Damaged)?;
    let aad = contents_aad(&aad, &length.to_le_bytes(), keyring);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(keyring);
    let from = bytes.len();
    bytes.extend_from_slice(&pad(contents));
    encrypt_from(&contents_key, 0, &aad, &mut bytes, from)?;
    Ok(bytes)
}

/// The contents are bound to the header and to the keyring beside them.
fn contents_aad(header: &[u8], length: &[u8], keyring: &[u8]) -> Vec<u8> {
    [header, length, keyring].concat()
}

/// A manifest's parts as they lie: header, sealed summary, keyring object, sealed contents.
struct ManifestParts<'b> {
    header: Header,
    aad: &'b [u8],
    summary: &'b [u8],
    length: &'b [u8],
    keyring: &'b [u8],
    contents: &'b [u8],
}

fn manifest_parts(bytes: &[u8]) -> Result<ManifestParts<'_>, SealError> {
    let (header, start) = Header::decode_kind(bytes, ObjectKind::Snapshot)?;
    if header.directory_offset != start as u64 {
        return Err(SealError::Damaged);
    }
    let (aad, rest) = bytes.split_at_checked(start).ok_or(SealError::Damaged)?;
    let summary = usize::try_from(header.directory_length).map_err(|_| SealError::Damaged)?;
    let (summary, rest) = rest.split_at_checked(summary).ok_or(SealError::Damaged)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(SealError::Damaged)?;
    let keyring = u32::from_le_bytes(*length) as usize;
    let (keyring, contents) = rest.split_at_checked(keyring).ok_or(SealError::Damaged)?;
    Ok(ManifestParts { header, aad, summary, length, keyring, contents })
}

/// The keyring object that a manifest carries; opened with [`open_keyring`]. Needs no key.
pub fn manifest_keyring(bytes: &[u8]) -> Result<&[u8], SealError> {
    manifest_parts(bytes).map(|parts| parts.keyring)
}

/// Opens a manifest's summary and verifies the author's signature. `Ok(None)`: of a domain without a key here.
pub fn open_summary(
    access: &Access,
    bytes: &[u8],
    find: impl FnOnce(&KeyId) -> Option<[u8; 32]>,
) -> Result<Option<OpenSummary>, SealError> {
    let parts = manifest_parts(bytes)?;
    let header = &parts.header;
    header_check(header, &access.repo)?;
    let Ok(domain) = access.domain(header.domain) else { return Ok(None) };
    let key = summary_key(&domain.epoch(header.epoch)?.index, header);
    let mut sealed = parts.summary.to_vec();
    let length = decrypt(&key, 0, parts.aad, &mut sealed)?;
    let (encoded, signature) = split_signature(unpad(&sealed[..length])?)?;
    let summary = Summary::decode(encoded)?;
    let verifying = find(&summary.author).ok_or(SealError::Signature("a manifest"))?;
    verify(&verifying, &Summary::message(encoded), signature, "a manifest")?;
    Ok(Some(OpenSummary { id: Summary::snapshot_id(encoded, signature), domain: header.domain, summary }))
}

/// Opens a manifest's contents; needs the `meta` secret. `summary` must come from the same bytes.
pub fn open_contents(access: &Access, bytes: &[u8], summary: &Summary) -> Result<Contents, SealError> {
    let parts = manifest_parts(bytes)?;
    let header = &parts.header;
    header_check(header, &access.repo)?;
    let domain = access.domain(header.domain)?;
    let key = agree_open(access.repo, domain, ObjectKind::Snapshot, &origin_of(header))?;
    let mut sealed = parts.contents.to_vec();
    let aad = contents_aad(parts.aad, parts.length, parts.keyring);
    let length = decrypt(&key, 0, &aad, &mut sealed)?;
    let encoded = unpad(&sealed[..length])?;
    if blake3::hash(encoded).as_bytes() != &summary.contents_hash {
        return Err(SealError::Damaged);
    }
    Ok(Contents::decode(encoded)?)
}
