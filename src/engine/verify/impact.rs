//! What damage costs: which files of which snapshots. Walked only once something is known to be lost; a page under
//! which nothing is lost is looked at once for all snapshots.

use std::collections::HashMap;

use futures::future::BoxFuture;

use super::super::EngineError;
use super::chunks::{Place, View};
use super::outcome::{Cost, PATHS_LIMIT};
use super::snapshots::Opened;
use crate::base::cancel::Cancel;
use crate::format::entry::{ChunkRef, Entry, Refs};
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::format::page::{LEVEL_LIMIT, RecipePage, TreePage};
use crate::pack::read::Reader;
use crate::repo::RepoError;
use crate::repo::tree::path_of_key;
use crate::repo::tree::read::read_page;

struct Survey<'s> {
    reader: &'s Reader,
    view: &'s View,
    cancel: &'s Cancel,
    /// Whether everything below a page is there.
    whole: HashMap<(u32, ShortId, bool), bool>,
    domain: u32,
    cost: Cost,
}

pub(super) async fn costs(
    reader: &Reader,
    opened: &[Opened],
    view: &View,
    cancel: &Cancel,
) -> Result<Vec<Cost>, EngineError> {
    let (whole, cost) = (HashMap::new(), Cost::default());
    let mut survey = Survey { reader, view, cancel, whole, domain: 0, cost };
    let mut costs = Vec::new();
    for one in opened {
        let Some(contents) = &one.contents else { continue };
        survey.domain = one.snapshot.domain;
        survey.cost = Cost {
            snapshot: one.snapshot.id.hex(),
            job: one.snapshot.summary.job.clone(),
            confirmed: one.snapshot.confirmed,
            ..Cost::default()
        };
        let statistics = &one.snapshot.summary.statistics;
        let all = statistics.files + statistics.directories + statistics.others;
        if !survey.tree(contents.root.page, contents.root.level, all.max(1)).await? {
            costs.push(std::mem::take(&mut survey.cost));
        }
    }
    Ok(costs)
}

/// Errors other than damage come back.
fn lost<T>(result: Result<T, RepoError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Survey<'_> {
    fn has(&self, reference: &ChunkRef) -> Result<bool, EngineError> {
        Ok(self.view.place(self.domain, ObjectKind::Data, reference)? != Place::Missing)
    }

    /// Whether everything below the page is there; `count` entries are below it as far as its parent knows.
    fn tree(&mut self, id: ShortId, level: u8, count: u64) -> BoxFuture<'_, Result<bool, EngineError>> {
        Box::pin(async move {
            self.cancel.check()?;
            let key = (self.domain, id, false);
            if self.whole.get(&key) == Some(&true) {
                return Ok(true);
            }
            let Some(page) = lost(read_page(self.reader, self.domain, &id, level).await)? else {
                self.cost.unlisted += count;
                return Ok(false);
            };
            let mut whole = true;
            match page {
                TreePage::Leaf(entries) => {
                    for (key, entry) in entries {
                        if !self.entry(&entry).await? {
                            whole = false;
                            self.cost.files += 1;
                            if self.cost.paths.len() < PATHS_LIMIT {
                                let path = String::from_utf8_lossy(&path_of_key(&key)).into_owned();
                                self.cost.paths.push(path);
                            }
                        }
                    }
                }
                TreePage::Inner { children, .. } => {
                    for (_, child) in children {
                        whole &= self.tree(child.page.id, level - 1, child.count).await?;
                    }
                }
            }
            self.whole.insert(key, whole);
            Ok(whole)
        })
    }

    async fn entry(&mut self, entry: &Entry) -> Result<bool, EngineError> {
        for reference in entry.direct_refs() {
            if !self.has(reference)? {
                return Ok(false);
            }
        }
        match entry.content().map(|content| &content.refs) {
            Some(Refs::Recipe { root, level }) => self.recipe(*root, *level).await,
            _ => Ok(true),
        }
    }

    fn recipe(&mut self, id: ShortId, level: u8) -> BoxFuture<'_, Result<bool, EngineError>> {
        Box::pin(async move {
            let key = (self.domain, id, true);
            if let Some(known) = self.whole.get(&key) {
                return Ok(*known);
            }
            let bytes = self.reader.chunk(self.domain, ObjectKind::Meta, &id).await.map_err(RepoError::from);
            let page = lost(bytes)?.and_then(|bytes| RecipePage::decode(&bytes).ok());
            let whole = match page.filter(|page| page.level() == level && level <= LEVEL_LIMIT) {
                None => false,
                Some(RecipePage::Leaf(refs)) => {
                    let mut whole = true;
                    for reference in &refs {
                        whole &= self.has(reference)?;
                    }
                    whole
                }
                Some(RecipePage::Inner { children, .. }) => {
                    let mut whole = true;
                    for child in children {
                        whole &= self.recipe(child.page.id, level - 1).await?;
                    }
                    whole
                }
            };
            self.whole.insert(key, whole);
            Ok(whole)
        })
    }
}
