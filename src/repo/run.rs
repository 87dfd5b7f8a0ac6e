//! A run that may reuse chunks says that it is alive, so that a pruner can be polite to it. Safety never rests on
//! this: see [`super::commit`].

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::sync::{Inventory, Thoroughness};
use super::{RepoError, Repository};
use crate::base::random;
use crate::format::header::ObjectKind;
use crate::format::id::RunId;
use crate::format::signed;
use crate::pack::build::PackSeed;
use crate::seal::object::sign_object;

/// How often a run shows that it is alive and looks at tombstones.
pub const BEAT: Duration = Duration::from_secs(3600);

/// A live run.
pub struct Run<'r> {
    pub repo: &'r Repository,
    pub id: RunId,
    /// Counts the packs this run made: part of what their keys are hedged with.
    pub packs: Arc<AtomicU64>,
    number: u64,
    last_beat: Duration,
    /// The local index's generation when the run began or last checked.
    pub generation: i64,
}

/// `runs/<run>.<number>`
pub fn object_name(run: &RunId, number: u64) -> String {
    format!("runs/{run}.{number}")
}

/// Takes apart what [`object_name`] made.
pub fn parse_object_name(name: &str) -> Option<(RunId, u64)> {
    let (run, number) = name.strip_prefix("runs/")?.split_once('.')?;
    Some((RunId::from_hex(run)?, number.parse().ok()?))
}

impl<'r> Run<'r> {
    /// Announces the run, waits Δ, and syncs the local index.
    pub async fn begin(repo: &'r Repository) -> Result<(Self, Inventory), RepoError> {
        let id = RunId(random::array(repo.world.random.as_ref()));
        let mut run = Self {
            repo,
            id,
            packs: Arc::default(),
            number: 0,
            last_beat: repo.world.clock.elapsed(),
            generation: 0,
        };
        run.put(0).await?;
        repo.settle().await;
        let inventory = repo.sync(Thoroughness::Tolerant).await?;
        run.generation = repo.index.generation()?;
        Ok((run, inventory))
    }

    /// A run that writes nothing and so need not be announced.
    pub fn unannounced(repo: &'r Repository) -> Result<Self, RepoError> {
        Ok(Self {
            repo,
            id: RunId(random::array(repo.world.random.as_ref())),
            packs: Arc::default(),
            number: 0,
            last_beat: repo.world.clock.elapsed(),
            generation: repo.index.generation()?,
        })
    }

    async fn put(&self, number: u64) -> Result<(), RepoError> {
        let body = signed::Run { run: self.id, number }.encode();
        let access = &self.repo.access;
        let bytes = sign_object(&access.identity, access.repo, ObjectKind::Run, access.home, body);
        Ok(self.repo.store.put(&object_name(&self.id, number), bytes.into()).await?)
    }

    /// If an hour has passed: shows a higher number and stops reusing what was condemned since.
    pub async fn beat(&mut self) -> Result<(), RepoError> {
        let now = self.repo.world.clock.elapsed();
        if now.saturating_sub(self.last_beat) < BEAT {
            return Ok(());
        }
        self.last_beat = now;
        self.put(self.number + 1).await?;
        self.number += 1;
        let condemned = super::marks::condemned(&self.repo.tombstones().await?);
        self.repo.index.condemn(&condemned)?;
        // Best effort: a writer's credentials may not delete.
        let _ = self.repo.store.delete(&object_name(&self.id, self.number - 1)).await;
        Ok(())
    }

    /// What this run's packs are sealed with.
    pub fn seed(&self) -> PackSeed<'_> {
        PackSeed {
            access: &self.repo.access,
            random: self.repo.world.random.as_ref(),
            run: self.id,
            counter: &self.packs,
        }
    }

    /// Ends the run. Where the credentials cannot delete, a prune clears it away.
    pub async fn end(self) {
        if let Err(error) = self.repo.store.delete(&object_name(&self.id, self.number)).await {
            tracing::debug!(%error, "the run's sign of life stays");
        }
    }
}
