//! Reads the newest config and roster when a repository is opened.
//!
//! Invariant: a number in an object is the number in its name, and what is returned was signed by the owner; except
//! for a lenient reader, which gives the newest that is so, or says what follows from the slot alone.

use super::RepoError;
use crate::format::FormatError;
use crate::format::header::ObjectKind;
use crate::format::id::RepoId;
use crate::format::keyring::{Member, Role, Roster};
use crate::format::signed::Config;
use crate::seal::access::key_id;
use crate::seal::object::open_signed;
use crate::store::Store;

/// An object's number and itself, from its body.
type Decode<'d, T> = dyn Fn(&[u8]) -> Result<(u64, T), FormatError> + Sync + 'd;

/// See the module.
pub(super) struct NumberedReader<'s> {
    pub store: &'s dyn Store,
    pub repo: RepoId,
    pub owner_key: [u8; 32],
    pub lenient: bool,
}

impl NumberedReader<'_> {
    /// Number by the listing, the config, and whether it is one that was stored.
    pub async fn config(&self) -> Result<(u64, Config, bool), RepoError> {
        let decode = |body: &[u8]| Config::decode(body).map(|config| (config.number, config));
        let (number, found) = self.newest(ObjectKind::Config, "the config", &decode).await?;
        let is_stored = found.is_some();
        // As if of a replica: then nothing is said about chains, which a replica need not hold whole.
        let guess = || Config {
            number,
            created_seconds: 0,
            owner_key: self.owner_key,
            replica: true,
            pack_bytes: 32 << 20,
            compression_level: 2,
        };
        Ok((number, found.unwrap_or_else(guess), is_stored))
    }

    /// Number by the listing, and the roster.
    pub async fn roster(&self) -> Result<(u64, Roster), RepoError> {
        let decode = |body: &[u8]| Roster::decode(body).map(|roster| (roster.number, roster));
        let (number, found) = self.newest(ObjectKind::Roster, "the roster", &decode).await?;
        let owner = || Member {
            key: key_id(&self.owner_key),
            role: Role::Owner,
            domain: 0,
            verifying: self.owner_key,
            recipient: [0; 32],
            created_seconds: 0,
            revoked: None,
            grant: Vec::new(),
        };
        Ok((number, found.unwrap_or_else(|| Roster { number, members: vec![owner()] })))
    }

    async fn newest<T>(
        &self,
        kind: ObjectKind,
        what: &'static str,
        decode: &Decode<'_, T>,
    ) -> Result<(u64, Option<T>), RepoError> {
        let listed = self.store.list(kind.folder()).await?;
        let mut numbers: Vec<u64> = listed
            .iter()
            .filter_map(|listed| listed.name.rsplit('/').next().and_then(|number| number.parse().ok()))
            .collect();
        numbers.sort_unstable();
        let newest = numbers.last().copied();
        while let Some(number) = numbers.pop() {
            match self.one(kind, number, what, decode).await {
                Ok(found) => return Ok((newest.unwrap_or(number), Some(found))),
                Err(error) if self.lenient && error.is_damage() && error.newer_version().is_none() => {
                    tracing::warn!(%error, "an older one is used to verify the rest");
                }
                Err(error) => return Err(error),
            }
        }
        match (newest, self.lenient) {
            (Some(newest), _) => Ok((newest, None)),
            (None, true) => Ok((0, None)),
            (None, false) => Err(RepoError::Missing { object: format!("{}/0", kind.folder()) }),
        }
    }

    async fn one<T>(
        &self,
        kind: ObjectKind,
        number: u64,
        what: &'static str,
        decode: &Decode<'_, T>,
    ) -> Result<T, RepoError> {
        let name = format!("{}/{number}", kind.folder());
        let bytes = self.store.get(&name).await?;
        let owner = key_id(&self.owner_key);
        let find = |key: &_| (*key == owner).then_some(self.owner_key);
        let signed = open_signed(&bytes, kind, &self.repo, find).map_err(RepoError::object(name.clone()))?;
        let (said, found) = decode(&signed.body).map_err(|error| RepoError::object(name)(error.into()))?;
        if said != number {
            // An old signed object put again under a new name.
            return Err(RepoError::RolledBack { object: what, found: said, seen: number });
        }
        Ok(found)
    }
}
