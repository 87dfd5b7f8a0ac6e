//! Key derivation: BLAKE3 in `derive_key` mode, one fixed context string a purpose, every part length-prefixed so
//! that two lists of parts never collide.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};

use super::SealError;
use crate::format::keyring::Key;

/// Bytes the AEAD adds.
pub const TAG_BYTES: usize = 16;

/// A key for one purpose from secret and public parts.
pub fn derive(context: &'static str, parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Key(*hasher.finalize().as_bytes())
}

/// What the header shows of a key: enough to recognise it, nothing to recover it.
pub fn commitment(key: &Key) -> [u8; 32] {
    derive("lifeboat v1 key commitment", &[&key.0]).0
}

/// Compares in constant time.
pub fn check_commitment(key: &Key, expected: &[u8; 32]) -> Result<(), SealError> {
    use subtle::ConstantTimeEq;
    if bool::from(commitment(key).ct_eq(expected)) { Ok(()) } else { Err(SealError::WrongKey) }
}

fn nonce(ordinal: u64) -> Nonce {
    let mut bytes = [0u8; 12];
    bytes[..8].copy_from_slice(&ordinal.to_le_bytes());
    bytes.into()
}

/// Encrypts `buffer[from..]` in place and appends the tag. The pair (key, ordinal) must never be used again.
pub fn encrypt_from(
    key: &Key,
    ordinal: u64,
    aad: &[u8],
    buffer: &mut Vec<u8>,
    from: usize,
) -> Result<(), SealError> {
    let cipher = ChaCha20Poly1305::new(&key.0.into());
    let tag = cipher
        .encrypt_inout_detached(&nonce(ordinal), aad, (&mut buffer[from..]).into())
        .map_err(|_| SealError::Damaged)?;
    buffer.extend_from_slice(&tag);
    Ok(())
}

/// Authenticates and decrypts `buffer` (ciphertext and tag) in place; returns the plaintext's length.
pub fn decrypt(key: &Key, ordinal: u64, aad: &[u8], buffer: &mut [u8]) -> Result<usize, SealError> {
    let (content, tag) = buffer.split_last_chunk_mut::<TAG_BYTES>().ok_or(SealError::Damaged)?;
    let tag = Tag::from(*tag);
    let cipher = ChaCha20Poly1305::new(&key.0.into());
    cipher
        .decrypt_inout_detached(&nonce(ordinal), aad, (&mut *content).into(), &tag)
        .map_err(|_| SealError::Damaged)?;
    Ok(content.len())
}
