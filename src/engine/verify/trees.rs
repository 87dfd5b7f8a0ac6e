//! Walks the pages of all snapshots, each shared page once: every page must decode and add up, every chunk it
//! names must be in a pack.

use std::collections::{BTreeMap, HashMap};

use futures::future::BoxFuture;

use super::super::EngineError;
use super::chunks::{Place, View};
use super::outcome::{Report, State, state_of};
use super::snapshots::Opened;
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::format::FormatError;
use crate::format::entry::{ChunkRef, Entry, Refs};
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;
use crate::format::page::{LEVEL_LIMIT, RecipePage, TreePage};
use crate::pack::PackError;
use crate::pack::read::Reader;
use crate::repo::RepoError;
use crate::repo::tree::read::read_page;
use crate::seal::SealError;

/// What a page adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Totals {
    count: u64,
    bytes: u64,
    /// Of a tree page: a hash of the last key.
    last: u64,
}

fn key_hash(key: &[u8]) -> u64 {
    let hash = blake3::hash(key);
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

struct Walk<'w> {
    reader: &'w Reader,
    view: &'w mut View,
    report: &'w mut Report,
    progress: &'w dyn Progress,
    cancel: &'w Cancel,
    /// `None`: cannot be read, or something below it cannot.
    pages: HashMap<(u32, ShortId, bool), Option<Totals>>,
    state: State,
    domain: u32,
    broken: bool,
    missing: BTreeMap<(State, String), u64>,
    condemned: u64,
}

/// Walks every snapshot. Returns whether anything a snapshot needs cannot be had.
pub(super) async fn check(
    reader: &Reader,
    opened: &[Opened],
    view: &mut View,
    report: &mut Report,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<bool, EngineError> {
    let (pages, missing) = (HashMap::new(), BTreeMap::new());
    let (state, domain, broken, condemned) = (State::Damaged, 0, false, 0);
    let mut walk =
        Walk { reader, view, report, progress, cancel, pages, state, domain, broken, missing, condemned };
    for one in opened {
        let Some(contents) = &one.contents else { continue };
        // Confirmed snapshots come first, so what they share with an unfinished one is judged as theirs.
        walk.state = if one.snapshot.confirmed { State::Damaged } else { State::Incomplete };
        walk.domain = one.snapshot.domain;
        let root = contents.root;
        let length = walk.place(ObjectKind::Meta, &ChunkRef { id: root.page, length: root.length }).await?;
        if length {
            walk.tree(root.page, root.level).await?;
        }
    }
    let Walk { missing, condemned, broken, .. } = walk;
    for ((state, object), count) in missing {
        let what = match state {
            State::Incomplete => "belonged to an upload that was never committed",
            _ => "cannot be had any more",
        };
        let how = if view.is_listed(&object) { "is damaged" } else { "is missing" };
        report.add(state, object, format!("{how}: {count} chunks that were in it {what}"));
    }
    if condemned > 0 {
        report
            .note(format!("{condemned} chunks stand only in condemned packs; their prune copies them first"));
    }
    Ok(broken)
}

impl Walk<'_> {
    /// Whether a chunk can be had; counts it if not.
    async fn place(&mut self, kind: ObjectKind, reference: &ChunkRef) -> Result<bool, EngineError> {
        self.report.checked.references += 1;
        match self.view.place(self.domain, kind, reference)? {
            Place::Sound => return Ok(true),
            Place::Condemned if self.view.prove(self.reader, self.domain, kind, reference).await? => {
                self.condemned += 1;
                return Ok(true);
            }
            Place::Condemned | Place::Missing => {}
        }
        let pack = self.view.former_pack(self.domain, kind, &reference.id);
        let object = pack.unwrap_or_else(|| format!("a pack of {} that no index names", kind.folder()));
        *self.missing.entry((self.state, object)).or_default() += 1;
        self.broken = true;
        Ok(false)
    }

    fn damaged(&mut self, what: String, id: &ShortId) {
        self.broken = true;
        let state = self.state;
        self.report.add(
            state,
            format!("{what} {}", id.hex()),
            "does not add up or is not in order".to_owned(),
        );
    }

    /// Notes a page that cannot be read; an error that is not damage comes back.
    fn unreadable(&mut self, what: &str, id: &ShortId, error: RepoError) -> Result<(), EngineError> {
        if !error.is_damage() {
            return Err(error.into());
        }
        self.broken = true;
        match error {
            RepoError::Damaged { object, cause } | RepoError::Pack(PackError::Damaged { object, cause }) => {
                let state = if state_of(&cause) == State::Newer { State::Newer } else { self.state };
                self.report.add(state, object, format!("{cause} ({what} {})", id.hex()));
            }
            error => self.report.add(self.state, format!("{what} {}", id.hex()), error.to_string()),
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), EngineError> {
        self.cancel.check()?;
        self.report.checked.pages += 1;
        self.progress.add_done(0, 1);
        Ok(())
    }

    fn tree(&mut self, id: ShortId, level: u8) -> BoxFuture<'_, Result<Option<Totals>, EngineError>> {
        Box::pin(async move {
            let key = (self.domain, id, false);
            if let Some(known) = self.pages.get(&key) {
                return Ok(*known);
            }
            self.start()?;
            let totals = match read_page(self.reader, self.domain, &id, level).await {
                Ok(TreePage::Leaf(entries)) => self.leaf(&entries).await?,
                Ok(TreePage::Inner { children, .. }) => {
                    let mut sum = Totals { count: 0, bytes: 0, last: 0 };
                    let mut whole = true;
                    for (last, child) in children {
                        let found = match self.place(ObjectKind::Meta, &child.page).await? {
                            true => self.tree(child.page.id, level - 1).await?,
                            false => None,
                        };
                        let said = Totals { count: child.count, bytes: child.bytes, last: key_hash(&last) };
                        match found {
                            None => whole = false,
                            Some(found) if found != said => {
                                self.damaged("tree page".to_owned(), &id);
                                whole = false;
                            }
                            Some(_) => {}
                        }
                        sum.count = sum.count.wrapping_add(child.count);
                        sum.bytes = sum.bytes.wrapping_add(child.bytes);
                        sum.last = said.last;
                    }
                    whole.then_some(sum)
                }
                Err(error) => {
                    self.unreadable("tree page", &id, error)?;
                    None
                }
            };
            self.pages.insert(key, totals);
            Ok(totals)
        })
    }

    /// Checks a leaf's entries. Missing file content does not make the page itself broken.
    async fn leaf(&mut self, entries: &[(Vec<u8>, Entry)]) -> Result<Option<Totals>, EngineError> {
        let mut totals = Totals { count: entries.len() as u64, bytes: 0, last: 0 };
        for (key, entry) in entries {
            for reference in entry.direct_refs() {
                self.place(ObjectKind::Data, reference).await?;
            }
            let Some(content) = entry.content() else { continue };
            totals.bytes = totals.bytes.wrapping_add(content.size_bytes);
            if let Refs::Recipe { root, level } = &content.refs {
                let found = self.recipe(*root, *level).await?;
                if found.is_some_and(|found| found.bytes != content.data_bytes()) {
                    self.damaged(format!("recipe of {}", String::from_utf8_lossy(key)), root);
                }
            }
        }
        if let Some((key, _)) = entries.last() {
            totals.last = key_hash(key);
        }
        Ok(Some(totals))
    }

    async fn recipe_page(&mut self, id: &ShortId, level: u8) -> Result<RecipePage, RepoError> {
        let bytes = self.reader.chunk(self.domain, ObjectKind::Meta, id).await?;
        let object = || format!("recipe page {}", id.hex());
        let page = RecipePage::decode(&bytes).map_err(|error| RepoError::object(object())(error.into()))?;
        if page.level() == level && level <= LEVEL_LIMIT {
            return Ok(page);
        }
        Err(RepoError::object(object())(SealError::Format(FormatError::Invalid("page level"))))
    }

    fn recipe(&mut self, id: ShortId, level: u8) -> BoxFuture<'_, Result<Option<Totals>, EngineError>> {
        Box::pin(async move {
            let key = (self.domain, id, true);
            if let Some(known) = self.pages.get(&key) {
                return Ok(*known);
            }
            self.start()?;
            let totals = match self.recipe_page(&id, level).await {
                Ok(RecipePage::Leaf(refs)) => {
                    let mut bytes = 0u64;
                    for reference in &refs {
                        self.place(ObjectKind::Data, reference).await?;
                        bytes += u64::from(reference.length);
                    }
                    Some(Totals { count: refs.len() as u64, bytes, last: 0 })
                }
                Ok(RecipePage::Inner { children, .. }) => {
                    let mut sum = Totals { count: 0, bytes: 0, last: 0 };
                    let mut whole = true;
                    for child in children {
                        let found = match self.place(ObjectKind::Meta, &child.page).await? {
                            true => self.recipe(child.page.id, level - 1).await?,
                            false => None,
                        };
                        let said = Totals { count: child.count, bytes: child.bytes, last: 0 };
                        whole &= found.is_some();
                        if found.is_some_and(|found| found != said) {
                            self.damaged("recipe page".to_owned(), &id);
                            whole = false;
                        }
                        sum.count = sum.count.wrapping_add(child.count);
                        sum.bytes = sum.bytes.wrapping_add(child.bytes);
                    }
                    whole.then_some(sum)
                }
                Err(error) => {
                    self.unreadable("recipe page", &id, error)?;
                    None
                }
            };
            self.pages.insert(key, totals);
            Ok(totals)
        })
    }
}
