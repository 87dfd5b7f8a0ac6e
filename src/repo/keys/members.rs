//! Members: keys are added, rotated and revoked by the owner. Each change puts the next keyring and the next roster,
//! in which every standing member's grant is sealed anew: so a change that was cut off is completed by the next.

use super::super::{Owner, RepoError, Repository};
use super::{NewSlot, numbered, slots};
use crate::base::random;
use crate::format::header::ObjectKind;
use crate::format::id::{KeyId, ShortId};
use crate::format::keyring::{Key, Keyring, Member, Role, Roster, SlotSecret};
use crate::format::manifest::Summary;
use crate::format::pack::{Block, IndexPack};
use crate::pack::index::PackInfo;
use crate::repo::sync::Thoroughness;
use crate::seal::access::{Identity, new_domain, new_epoch, recipient_pair, share};
use crate::seal::member::seal_grant;
use crate::seal::object::{seal_keyring, sign_object};

/// Rows of so many packs make one index object.
const PACKS_PER_INDEX: usize = 500;

/// A key that was added.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Added {
    #[serde(serialize_with = "super::list::hex")]
    pub key: KeyId,
    pub role: Role,
    /// The dedup domain it writes into.
    pub domain: u32,
    pub slot: String,
}

/// What a rotation did: every domain with its new epoch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rotated {
    pub epochs: Vec<(u32, u32)>,
    pub keyring: u64,
    pub roster: u64,
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Revoked {
    #[serde(serialize_with = "super::list::hex")]
    pub key: KeyId,
    /// The key cannot be made to forget what it knows: whoever has it must also lose the storage. This names the
    /// machine whose storage credential is to be ended.
    pub label: String,
    pub domain: u32,
    /// What its domain seals with from now on.
    pub epoch: u32,
    /// Snapshots that stay trusted: the last sequence number of each of its jobs.
    pub jobs: Vec<(String, u64)>,
    /// Packs of its making that the owner vouches for from now on.
    pub packs: u64,
    pub slots: Vec<String>,
}

/// Another slot over the same owner root.
pub async fn add_owner(repo: &Repository, new: &NewSlot<'_>) -> Result<Added, RepoError> {
    let owner = repo.require_owner("add keys")?;
    let key = repo.access.identity.key;
    let secret = SlotSecret::Owner { root: owner.root.0.clone() };
    let slot = slots::put(repo, new, Role::Owner, key, &secret).await?;
    Ok(Added { key, role: Role::Owner, domain: repo.access.home, slot })
}

/// A new writer. It gets a dedup domain of its own, unless `share_with` names one: by number or label, or by the
/// label of a key that writes into it. Inside a domain a stolen writer could poison chunks that others reuse.
pub async fn add_writer(
    repo: &Repository,
    new: &NewSlot<'_>,
    share_with: Option<&str>,
) -> Result<Added, RepoError> {
    add_member(repo, new, Role::Writer, share_with).await
}

/// A new member of any role.
pub(super) async fn add_member(
    repo: &Repository,
    new: &NewSlot<'_>,
    role: Role,
    share_with: Option<&str>,
) -> Result<Added, RepoError> {
    let owner = repo.require_owner("add keys")?;
    let random = repo.world.random.as_ref();
    let mut keyring = owner.keyring.clone();
    let domain = match share_with {
        Some(named) => find_domain(repo, owner, named).await?,
        None => {
            let next = keyring.domains.last().map_or(0, |domain| domain.domain + 1);
            keyring.domains.push(new_domain(random, next, &new.label));
            next
        }
    };
    let seed = Key(random::array(random));
    let identity = Identity::from_seed(&seed);
    let (secret, recipient) = recipient_pair(random);
    let mut members = repo.roster.members.clone();
    members.push(Member {
        key: identity.key,
        role,
        domain,
        verifying: identity.verifying(),
        recipient,
        created_seconds: repo.world.now().seconds,
        revoked: None,
        grant: Vec::new(),
    });
    put_next(repo, owner, keyring, members).await?;
    let secret = SlotSecret::Member { signing: seed, recipient: secret };
    let slot = slots::put(repo, new, role, identity.key, &secret).await?;
    Ok(Added { key: identity.key, role, domain, slot })
}

async fn find_domain(repo: &Repository, owner: &Owner, named: &str) -> Result<u32, RepoError> {
    let domains = &owner.keyring.domains;
    if let Ok(number) = named.parse::<u32>()
        && domains.iter().any(|domain| domain.domain == number)
    {
        return Ok(number);
    }
    let by_label = domains.iter().filter(|domain| domain.label == named).map(|domain| domain.domain);
    let labels = super::list::labels(repo).await?;
    let called = |member: &&Member| labels.get(&member.key).is_some_and(|label| label == named);
    let by_member = repo.roster.members.iter().filter(called);
    let mut found: Vec<u32> = by_label.chain(by_member.map(|member| member.domain)).collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [domain] => Ok(*domain),
        [] => {
            let known: Vec<_> = domains.iter().map(|d| format!("{} ({})", d.label, d.domain)).collect();
            Err(RepoError::Refused(format!(
                "no domain or key is called {named:?}; there are: {}",
                known.join(", ")
            )))
        }
        several => {
            Err(RepoError::Refused(format!("{named:?} names several domains: {several:?}; use the number")))
        }
    }
}

/// Puts the next keyring and the next roster, every standing member's grant sealed anew. Returns their numbers.
async fn put_next(
    repo: &Repository,
    owner: &Owner,
    mut keyring: Keyring,
    mut members: Vec<Member>,
) -> Result<(u64, u64), RepoError> {
    if repo.config.replica {
        let why = "this is a replica: change the keys at the repository it was made of, then copy";
        return Err(RepoError::Refused(why.to_owned()));
    }
    let random = repo.world.random.as_ref();
    let id = repo.access.repo;
    keyring.number = owner.keyring.number + 1;
    for member in &mut members {
        if member.role != Role::Owner && member.revoked.is_none() {
            let share = share(&keyring, member.role, member.domain);
            member.grant = seal_grant(&id, &member.key, &member.recipient, &share, random)?;
        }
    }
    let roster = Roster { number: repo.roster.number + 1, members };
    let bytes = seal_keyring(&owner.root, id, &keyring, random)?;
    numbered::put(repo, ObjectKind::Keyring, keyring.number, bytes).await?;
    // Cut off here: the owner seals with the new keyring, the members go on with the old epochs, all of it opens.
    let bytes = sign_object(&owner.root.identity(), id, ObjectKind::Roster, 0, roster.encode());
    numbered::put(repo, ObjectKind::Roster, roster.number, bytes).await?;
    Ok((keyring.number, roster.number))
}

fn begin_epoch(repo: &Repository, keyring: &mut Keyring, domain: u32) -> Option<(u32, u32)> {
    let keys = keyring.domains.iter_mut().find(|keys| keys.domain == domain)?;
    let next = keys.epochs.last().map_or(0, |epoch| epoch.epoch + 1);
    keys.epochs.push(new_epoch(repo.world.random.as_ref(), next));
    Some((domain, next))
}

/// Starts an epoch in every domain. Ids and cut points stay, so deduplication goes on; old epochs stay for reading.
pub async fn rotate(repo: &Repository) -> Result<Rotated, RepoError> {
    let owner = repo.require_owner("rotate keys")?;
    let mut keyring = owner.keyring.clone();
    let domains: Vec<u32> = keyring.domains.iter().map(|keys| keys.domain).collect();
    let epochs = domains.into_iter().filter_map(|domain| begin_epoch(repo, &mut keyring, domain)).collect();
    let (keyring, roster) = put_next(repo, owner, keyring, repo.roster.members.clone()).await?;
    Ok(Rotated { epochs, keyring, roster })
}

/// Ends a key at the last snapshot of each of its jobs that is confirmed now, and starts an epoch in its domain.
///
/// What it wrote until now stays: the owner signs index rows for its packs. What it writes later is not trusted:
/// neither manifests after the vouched heads, nor index rows and pack directories that only it signed.
pub async fn revoke(repo: &Repository, key: &KeyId) -> Result<Revoked, RepoError> {
    let owner = repo.require_owner("revoke keys")?;
    let member =
        repo.member(key).ok_or_else(|| RepoError::Refused(format!("no key has the id {key}")))?.clone();
    if member.role == Role::Owner {
        let why = "the owner's key cannot be revoked: make a new repository and copy the snapshots into it";
        return Err(RepoError::Refused(why.to_owned()));
    }
    if member.revoked.is_some() {
        return Err(RepoError::Refused(format!("the key {key} is revoked already")));
    }
    let label = super::list::labels(repo).await?.remove(key).unwrap_or_default();
    let packs = vouch(repo, &member).await?;
    let known = repo.snapshots().await?;
    let mut jobs: std::collections::BTreeMap<String, u64> = Default::default();
    for snapshot in known.snapshots.iter().filter(|s| s.confirmed && s.summary.author == *key) {
        let sequence = jobs.entry(snapshot.summary.job.clone()).or_default();
        *sequence = snapshot.summary.sequence.max(*sequence);
    }
    let heads = jobs.iter().map(|(job, sequence)| (Summary::job_hash(job), *sequence)).collect();
    let mut keyring = owner.keyring.clone();
    let epoch = begin_epoch(repo, &mut keyring, member.domain).map_or(0, |(_, epoch)| epoch);
    let mut members = repo.roster.members.clone();
    if let Some(member) = members.iter_mut().find(|member| member.key == *key) {
        member.revoked = Some(heads);
        member.grant = Vec::new();
    }
    put_next(repo, owner, keyring, members).await?;
    let mut removed = Vec::new();
    for (name, slot) in super::super::open::slots(repo.store.as_ref()).await? {
        if slot.is_ok_and(|slot| slot.info.key == *key) {
            // The key is ended already; a slot that cannot be deleted opens nothing any more.
            match repo.store.delete(&name).await {
                Ok(()) => removed.push(slots::id_of(&name)),
                Err(error) => tracing::warn!(%error, "the revoked key's slot stays"),
            }
        }
    }
    Ok(Revoked {
        key: *key,
        label,
        domain: member.domain,
        epoch,
        jobs: jobs.into_iter().collect(),
        packs,
        slots: removed,
    })
}

/// Signs index rows, as the owner, for every pack that the member wrote until now.
async fn vouch(repo: &Repository, member: &Member) -> Result<u64, RepoError> {
    repo.sync(Thoroughness::Tolerant).await?;
    let mut count = 0;
    for domain in repo.access.domains() {
        let made = repo.index.packs().into_iter();
        let made: Vec<_> =
            made.filter(|pack| pack.author == member.key && pack.domain == domain.number()).collect();
        for some in made.chunks(PACKS_PER_INDEX) {
            let rows = some.iter().map(|pack| index_rows(repo, pack)).collect::<Result<Vec<_>, _>>()?;
            count += rows.len() as u64;
            repo.publish(domain, rows, Vec::new()).await?;
        }
    }
    Ok(count)
}

/// What an index object says of a pack, from the local index.
pub fn index_rows(repo: &Repository, pack: &PackInfo) -> Result<IndexPack, RepoError> {
    let blocks = repo.index.blocks_of(pack)?;
    let blocks = blocks.iter().map(|block| Block::<ShortId> {
        stored_length: block.stored_length,
        raw_length: block.raw_length,
        codec: block.codec,
        origin: block.origin,
        ordinal: block.ordinal,
        chunks: block.chunks.clone(),
    });
    Ok(IndexPack {
        pack: pack.hash,
        kind: pack.kind,
        size_bytes: pack.size_bytes,
        author: pack.author,
        run: pack.run,
        own: pack.own.clone(),
        origins: pack.origins.clone(),
        blocks: blocks.collect(),
    })
}
