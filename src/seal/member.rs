//! Grants: a member's share of the keyring, sealed to the member's X25519 key, so that the owner can rotate keys
//! without knowing anybody's passphrase.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::SealError;
use super::derive::{decrypt, derive, encrypt_from};
use crate::base::random::{self, Random};
use crate::format::id::{KeyId, RepoId};
use crate::format::keyring::{Key, Keyring};

fn grant_key(
    repo: &RepoId,
    member: &KeyId,
    enc: &[u8; 32],
    recipient: &[u8; 32],
    shared: &x25519_dalek::SharedSecret,
) -> Result<Key, SealError> {
    if !shared.was_contributory() {
        return Err(SealError::WeakKey);
    }
    Ok(derive(
        "lifeboat v1 grant key",
        &[shared.as_bytes(), enc, recipient, repo.as_bytes(), member.as_bytes()],
    ))
}

/// Seals `share` to the member's public key.
pub fn seal_grant(
    repo: &RepoId,
    member: &KeyId,
    recipient: &[u8; 32],
    share: &Keyring,
    random: &dyn Random,
) -> Result<Vec<u8>, SealError> {
    let ephemeral = StaticSecret::from(random::array(random));
    let enc = PublicKey::from(&ephemeral).to_bytes();
    let shared = ephemeral.diffie_hellman(&PublicKey::from(*recipient));
    let key = grant_key(repo, member, &enc, recipient, &shared)?;
    let mut bytes = enc.to_vec();
    bytes.extend_from_slice(&share.encode());
    encrypt_from(&key, 0, b"", &mut bytes, 32)?;
    Ok(bytes)
}

/// Opens a grant with the member's secret.
pub fn open_grant(repo: &RepoId, member: &KeyId, secret: &Key, grant: &[u8]) -> Result<Keyring, SealError> {
    let (enc, sealed) = grant.split_first_chunk::<32>().ok_or(SealError::Damaged)?;
    let secret = StaticSecret::from(secret.0);
    let recipient = PublicKey::from(&secret).to_bytes();
    let shared = secret.diffie_hellman(&PublicKey::from(*enc));
    let key = grant_key(repo, member, enc, &recipient, &shared)?;
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let length = decrypt(&key, 0, b"", &mut sealed)?;
    Ok(Keyring::decode(&sealed[..length])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SystemRandom;
    use crate::format::keyring::Role;
    use crate::seal::access::{new_domain, recipient_pair, share};

    #[test]
    fn a_writers_grant_opens_and_holds_no_content_secret() {
        let keyring = Keyring {
            number: 1,
            domains: vec![new_domain(&SystemRandom, 0, "owner"), new_domain(&SystemRandom, 1, "web")],
        };
        let (secret, public) = recipient_pair(&SystemRandom);
        let (repo, member) = (RepoId([1; 16]), KeyId([2; 16]));
        let grant =
            seal_grant(&repo, &member, &public, &share(&keyring, Role::Writer, 1), &SystemRandom).unwrap();
        let opened = open_grant(&repo, &member, &secret, &grant).unwrap();
        assert_eq!(opened.domains.len(), 1);
        let epoch = &opened.domains[0].epochs[0];
        assert!(epoch.data_secret.is_none() && epoch.meta_secret.is_none() && epoch.pre_shared.is_some());
        assert!(open_grant(&repo, &KeyId([3; 16]), &secret, &grant).is_err());
    }
}
