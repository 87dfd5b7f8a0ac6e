//! The planner: goes through the tree, makes folders and links, collects files into windows and finishes folders
//! when everything in them is there.
//!
//! Order of metadata: a folder gets its own (times above all) after the last thing in it, hard links included.
//! So it is kept with the window in which the walk left it, and finished when that window and all before are done.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::compare;
use super::file::{FileTask, Output, not_written, note_attributes};
use super::window::{BlockWork, Window};
use super::{Overwrite, RestoreOptions, Shared};
use crate::base::causes::causes;
use crate::engine::EngineError;
use crate::engine::read::fetch::Fetcher;
use crate::engine::read::filter::{PathFilter, Verdict};
use crate::engine::read::locate::Locator;
use crate::engine::read::select::Selected;
use crate::engine::read::walk::TreeWalk;
use crate::format::entry::{Entry, Kind, XattrValue};
use crate::format::header::ObjectKind;
use crate::repo::Repository;
use crate::repo::recipe::RecipeReader;
use crate::repo::tree::is_within;
use crate::source::files::split_key;
use crate::source::files::stat::Stat;
use crate::source::files::target::{Target, TargetError};

/// Windows whose blocks are under way at once.
const WINDOWS: usize = 2;
/// Hard links and folders kept for a window's end; more end the window.
const TAIL_LIMIT: usize = 16 * 1024;
/// Empty files and the like handed to a worker together.
const BATCH: usize = 64;

/// The key that `key` gets below the target.
pub(super) fn target_key<'k>(key: &'k [u8], selected: &Selected) -> &'k [u8] {
    if selected.is_single() {
        return split_key(key).map_or(key, |(_, name)| name);
    }
    let rest = key.strip_prefix(selected.key.as_slice()).unwrap_or(key);
    if selected.key.is_empty() { rest } else { rest.strip_prefix(b"\0").unwrap_or(rest) }
}

/// How many files of a window may be open at once: two windows, two descriptors a file at most, and the rest of the
/// process have to stay below the limit.
fn open_file_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(65_536);
    (limit.saturating_sub(400) / 4).clamp(32, 8192) as usize
}

/// A folder the walk is in.
struct OpenFolder {
    key: Vec<u8>,
    entry: Entry,
    wanted: bool,
    /// It exists, or was made.
    made: bool,
    /// It was made just now: nothing can be in it that we did not put there.
    fresh: bool,
}

/// What is done when a window is: links first, then folders as the walk left them.
#[derive(Default)]
struct Tail {
    links: Vec<(Vec<u8>, Vec<u8>, Entry)>,
    folders: Vec<(Vec<u8>, Entry)>,
}

/// See the module.
pub(super) struct Planner<'p> {
    shared: &'p Arc<Shared>,
    fetcher: &'p Fetcher<BlockWork>,
    options: &'p RestoreOptions,
    filter: &'p PathFilter,
    locator: Locator,
    window: Window,
    tail: Tail,
    under_way: VecDeque<(tokio::sync::mpsc::Receiver<()>, Tail)>,
    folders: Vec<OpenFolder>,
    /// First restored path of hard links whose own first path was not selected.
    leaders: HashMap<Vec<u8>, Vec<u8>>,
}

impl<'p> Planner<'p> {
    pub(super) fn new(
        shared: &'p Arc<Shared>,
        fetcher: &'p Fetcher<BlockWork>,
        options: &'p RestoreOptions,
        filter: &'p PathFilter,
    ) -> Self {
        Self {
            shared,
            fetcher,
            options,
            filter,
            locator: Locator::new(shared.repo_reader.index().clone(), shared.domain),
            window: Window::new(open_file_limit()),
            tail: Tail::default(),
            under_way: VecDeque::new(),
            folders: Vec::new(),
            leaders: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, repo: &Repository, selected: &Selected) -> Result<(), EngineError> {
        let mut walk = TreeWalk::new(&repo.reader, self.shared.domain, selected.root, &selected.key);
        let mut last = Vec::new();
        loop {
            self.shared.check()?;
            match walk.next().await {
                Ok(None) => break,
                Ok(Some((key, entry))) => {
                    let skips = self.entry(&key, entry, selected).await?;
                    if skips {
                        walk.skip_below(&key);
                    }
                    last.clear();
                    last.extend_from_slice(target_key(&key, selected));
                }
                Err(error) if error.is_damage() => self.shared.outcome.lost_page(&last, causes(&error)),
                Err(error) => return Err(error.into()),
            }
        }
        while self.leave_folder() {}
        self.flush().await?;
        while self.finish_oldest().await? {}
        Ok(())
    }

    /// Handles one entry. True: nothing below it is wanted.
    async fn entry(
        &mut self,
        key: &[u8],
        mut entry: Entry,
        selected: &Selected,
    ) -> Result<bool, EngineError> {
        let below = target_key(key, selected).to_vec();
        while self.folders.last().is_some_and(|folder| !is_within(&below, &folder.key)) {
            self.leave_folder();
        }
        let parent_wanted = self.folders.last().is_some_and(|folder| folder.wanted);
        let verdict = self.filter.judge(key, entry.is_directory(), parent_wanted);
        if verdict == Verdict::Unwanted {
            return Ok(entry.is_directory());
        }
        if let Err(error) = Target::check_key(&below) {
            self.shared.outcome.damaged(&below, error.to_string());
            return Ok(true);
        }
        if verdict == Verdict::Wanted && !self.load_attributes(&below, &mut entry).await? {
            return Ok(false);
        }
        if entry.is_directory() {
            if self.options.overwrite == Overwrite::Never
                && let Ok(Some(stat)) = self.existing(&below)
                && !stat.is_directory()
            {
                let why = "something that is no folder is in the way, and was left alone".to_owned();
                self.shared.outcome.failed(&below, why);
                return Ok(true);
            }
            let wanted = verdict == Verdict::Wanted;
            self.folders.push(OpenFolder { key: below, entry, wanted, made: false, fresh: false });
            if wanted {
                self.make_folders();
            }
            return Ok(false);
        }
        if verdict == Verdict::Wanted {
            self.make_folders();
            match entry.kind {
                Kind::File(_) | Kind::Stream(_) => self.file(below, entry, selected).await?,
                _ => self.special(&below, &entry),
            }
        }
        Ok(false)
    }

    /// Makes the folders on the way that are not made yet.
    fn make_folders(&mut self) {
        for folder in self.folders.iter_mut().filter(|folder| !folder.made) {
            folder.made = true;
            match self.shared.target.make_directory(&folder.key) {
                Ok(fresh) => {
                    folder.fresh = fresh;
                    // A target that we made gets its owner and mode at once, not only at the end: run again after an
                    // interruption, it exists, and is left as it is.
                    if fresh && folder.key.is_empty() && folder.entry.mode & 0o700 == 0o700 {
                        let _ = self.shared.target.finish_metadata(&folder.key, &folder.entry);
                    }
                }
                Err(error) => not_written(self.shared, &folder.key, error),
            }
        }
    }

    /// The innermost folder is behind the walk. False: there was none.
    fn leave_folder(&mut self) -> bool {
        let Some(folder) = self.folders.pop() else { return false };
        // What was there and is only passed through, or is to be left alone, keeps its own; so does the target,
        // which is the caller's folder and not the snapshot's unless we made it.
        let leaves_alone =
            !folder.wanted || folder.key.is_empty() || self.options.overwrite == Overwrite::Never;
        if folder.made && (folder.fresh || !leaves_alone) {
            self.tail.folders.push((folder.key, folder.entry));
        }
        true
    }

    /// Brings attributes that were stored apart. False: they are lost, and with them the entry as it was.
    async fn load_attributes(&self, key: &[u8], entry: &mut Entry) -> Result<bool, EngineError> {
        for (_, value) in &mut entry.xattrs {
            let XattrValue::Chunk(reference) = value else { continue };
            let read = self.shared.repo_reader.chunk(self.shared.domain, ObjectKind::Data, &reference.id);
            match read.await {
                Ok(bytes) => *value = XattrValue::Inline(bytes.to_vec()),
                Err(error) if error.is_damage() => {
                    self.shared.outcome.damaged(key, causes(&error));
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// What is at `key`, asked only where something can be.
    fn existing(&self, key: &[u8]) -> Result<Option<Stat>, TargetError> {
        if self.folders.last().is_some_and(|folder| folder.fresh) {
            return Ok(None);
        }
        self.shared.target.existing(key)
    }

    fn special(&self, key: &[u8], entry: &Entry) {
        let target = &self.shared.target;
        let restore = || {
            if self.existing(key)?.is_some() {
                if self.options.overwrite == Overwrite::Never {
                    self.shared.outcome.add(|outcome| outcome.skipped += 1);
                    return Ok(());
                }
                let same = match &entry.kind {
                    Kind::Symlink(to) => target.read_link(key).is_ok_and(|now| now == *to),
                    _ => false,
                };
                if !same {
                    target.make_special(key, &entry.kind)?;
                }
            } else {
                target.make_special(key, &entry.kind)?;
            }
            note_attributes(self.shared, key, target.finish_metadata(key, entry)?);
            self.shared.outcome.add(|outcome| outcome.others += 1);
            Ok::<(), TargetError>(())
        };
        if let Err(error) = restore() {
            not_written(self.shared, key, error);
        }
    }

    async fn file(&mut self, key: Vec<u8>, entry: Entry, selected: &Selected) -> Result<(), EngineError> {
        let existing = match self.existing(&key) {
            Ok(existing) => existing,
            Err(error) => {
                not_written(self.shared, &key, error);
                return Ok(());
            }
        };
        if let Some(stat) = &existing
            && self.leaves_alone(stat, &entry)
        {
            self.shared.outcome.add(|outcome| outcome.skipped += 1);
            return Ok(());
        }
        if let Some(leader) = self.leader(&key, &entry, selected) {
            self.tail.links.push((key, leader, entry));
            return if self.tail.links.len() >= TAIL_LIMIT { self.flush().await } else { Ok(()) };
        }
        let output = match self.output(&key, &entry, existing.as_ref()) {
            Ok(output) => output,
            Err(error) => {
                not_written(self.shared, &key, error);
                return Ok(());
            }
        };
        let task = Arc::new(FileTask::new(key, entry, output));
        if let Some(content) = task.entry.content().filter(|_| task.data_bytes > 0) {
            self.chunks(&task, content).await?;
        }
        self.window.complete.push(task);
        if self.window.is_full() || self.tail.folders.len() >= TAIL_LIMIT {
            self.flush().await
        } else {
            Ok(())
        }
    }

    fn leaves_alone(&self, stat: &Stat, entry: &Entry) -> bool {
        match self.options.overwrite {
            Overwrite::Always => false,
            Overwrite::Never => true,
            Overwrite::IfChanged => {
                let size = entry.content().map_or(0, |content| content.size_bytes);
                stat.is_file() && stat.size_bytes == size && stat.mtime == entry.mtime
            }
        }
    }

    /// The restored path that this one is another name of. Notes the first path of links whose leader is not
    /// restored here.
    fn leader(&mut self, key: &[u8], entry: &Entry, selected: &Selected) -> Option<Vec<u8>> {
        let original = entry.hardlink_to.as_ref()?;
        if self.options.overwrite == Overwrite::Never {
            // The leader may be somebody else's file that was left alone.
            return None;
        }
        if !selected.is_single()
            && is_within(original, &selected.key)
            && self.filter.judge_deep(original, false, &selected.key) == Verdict::Wanted
        {
            return Some(target_key(original, selected).to_vec());
        }
        if let Some(known) = self.leaders.get(original) {
            return Some(known.clone());
        }
        self.leaders.insert(original.clone(), key.to_vec());
        None
    }

    fn output(&self, key: &[u8], entry: &Entry, existing: Option<&Stat>) -> Result<Output, TargetError> {
        let (Some(stat), Some(content)) = (existing, entry.content()) else { return Ok(Output::None) };
        if !stat.is_file() || stat.size_bytes == 0 {
            return Ok(Output::None);
        }
        let Some(old) = self.shared.target.update_file(key, content.size_bytes)? else {
            return Ok(Output::None);
        };
        if self.options.in_place {
            for (offset, length) in &content.holes {
                old.zero_at(*offset, *length)?;
            }
            return Ok(Output::Writing(old));
        }
        if stat.size_bytes == content.size_bytes && content.holes.is_empty() {
            return Ok(Output::Same(old));
        }
        let new = self.shared.target.create_file(key, content.size_bytes, content.holes.is_empty())?;
        Ok(Output::Rebuilding { old, new })
    }

    /// Adds a file's chunks to the window, and further windows where one is not enough.
    async fn chunks(
        &mut self,
        task: &Arc<FileTask>,
        content: &crate::format::entry::Content,
    ) -> Result<(), EngineError> {
        let reader = self.shared.repo_reader.clone();
        let mut recipe = RecipeReader::new(&reader, self.shared.domain, content);
        let mut place = self.window.add_file(task.clone());
        let mut offset = 0;
        loop {
            let refs = match recipe.next(&mut |_| true).await {
                Ok(Some(refs)) => refs,
                Ok(None) => break,
                Err(error) if error.is_damage() => {
                    task.lose_with(self.shared, causes(&error));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let bytes: u64 = refs.iter().map(|reference| u64::from(reference.length)).sum();
            if offset + bytes > task.data_bytes {
                break;
            }
            self.window.add_chunks(place, offset, &refs);
            offset += bytes;
            if self.window.is_full() {
                self.flush().await?;
                place = self.window.add_file(task.clone());
            }
        }
        if offset != task.data_bytes {
            task.lose_with(self.shared, "its list of chunks does not add up to its size".into());
        }
        Ok(())
    }

    /// Sends the window on its way; waits for the oldest when too many are.
    async fn flush(&mut self) -> Result<(), EngineError> {
        let next = self.window.next();
        let mut window = std::mem::replace(&mut self.window, next);
        compare::drop_present(self.shared, &mut window, self.options.fetch.thread_count()).await;
        let (ticket, done) = tokio::sync::mpsc::channel(1);
        let blocks = window.by_block(&mut self.locator, self.shared, &ticket)?;
        while self.under_way.len() >= WINDOWS {
            self.finish_oldest().await?;
        }
        self.shared.check()?;
        self.fetcher.submit(blocks).await;
        // Every chunk was announced to its file above, so letting go may finish only files that are complete.
        let mut complete = window.complete.into_iter().peekable();
        while complete.peek().is_some() {
            let batch: Vec<Arc<FileTask>> = complete.by_ref().take(BATCH).collect();
            let (shared, ticket) = (self.shared.clone(), ticket.clone());
            self.fetcher
                .run(move || {
                    batch.iter().for_each(|task| task.release(&shared, 1));
                    drop(ticket);
                })
                .await;
        }
        drop(ticket);
        self.under_way.push_back((done, std::mem::take(&mut self.tail)));
        Ok(())
    }

    /// Waits for the oldest window and does what was kept for its end. False: none is under way.
    async fn finish_oldest(&mut self) -> Result<bool, EngineError> {
        let Some((mut done, tail)) = self.under_way.pop_front() else { return Ok(false) };
        // Nothing is ever sent: it ends when the last ticket is dropped.
        while done.recv().await.is_some() {}
        self.shared.check()?;
        for (key, leader, entry) in tail.links {
            self.link(&key, &leader, &entry).await?;
        }
        for (key, entry) in tail.folders {
            match self.shared.target.finish_metadata(&key, &entry) {
                Ok(problems) => {
                    note_attributes(self.shared, &key, problems);
                    self.shared.outcome.add(|outcome| outcome.directories += 1);
                }
                Err(error) => not_written(self.shared, &key, error),
            }
        }
        Ok(true)
    }

    async fn link(&self, key: &[u8], leader: &[u8], entry: &Entry) -> Result<(), EngineError> {
        if self.shared.outcome.is_lost(leader) {
            self.shared.outcome.damaged(key, "the file it is another name of could not be restored".into());
            return Ok(());
        }
        match self.shared.target.make_hardlink(key, leader) {
            Ok(()) => {
                let bytes = entry.content().map_or(0, |content| content.size_bytes);
                self.shared.outcome.add(|outcome| {
                    outcome.files += 1;
                    outcome.hardlinks += 1;
                    outcome.bytes += bytes;
                });
                self.shared.progress.add_done(bytes, 1);
            }
            Err(error) => not_written(self.shared, key, error),
        }
        Ok(())
    }
}
