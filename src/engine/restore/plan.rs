//! What a restore would do, without doing it: `--dry-run`, and the list of what `--delete` would remove.

use std::collections::HashSet;

use super::entries::target_key;
use super::{Overwrite, RestoreOptions, check_options, target_error};
use crate::base::cancel::Cancel;
use crate::base::progress::Progress;
use crate::engine::EngineError;
use crate::engine::read::filter::{PathFilter, Verdict};
use crate::engine::read::left_out::Untouched;
use crate::engine::read::select::Selected;
use crate::engine::read::walk::TreeWalk;
use crate::format::entry::Entry;
use crate::repo::Repository;
use crate::repo::tree::is_within;
use crate::source::files::split_key;
use crate::source::files::stat::Stat;
use crate::source::files::target::Target;

/// What would be done. Sizes in bytes of content.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    /// Content of all files that are wanted.
    pub bytes: u64,
    /// Files where nothing is yet.
    pub new_files: u64,
    pub new_bytes: u64,
    /// Files that exist and would be compared, chunk by chunk, and changed where they differ.
    pub existing_files: u64,
    pub existing_bytes: u64,
    /// Of those, the ones whose size or mtime says that they differ.
    pub differing_files: u64,
    pub differing_bytes: u64,
    /// Left alone because of the overwrite rule.
    pub skipped: u64,
    /// What `--delete` would remove, keys below the target, ascending; a folder stands for all in it.
    pub delete: Vec<Vec<u8>>,
    /// What `--delete` leaves alone, because the backup never looked at it: it was excluded.
    pub left_out: Vec<Vec<u8>>,
    /// What would be replaced by something of another type.
    pub replaced: Vec<Vec<u8>>,
    /// Folders that are not empty where the snapshot has something else: they stay, and that is not restored.
    pub in_the_way: Vec<Vec<u8>>,
    /// Pages of the tree that cannot be read. Nothing is deleted then.
    pub unreadable_pages: u64,
    /// Paths that the target refuses.
    pub unsafe_paths: u64,
}

pub(super) struct Folder {
    pub key: Vec<u8>,
    pub original: Vec<u8>,
    pub names: HashSet<Vec<u8>>,
    pub wanted: bool,
}

pub(super) struct Planning<'p> {
    pub plan: Plan,
    pub target: Option<std::sync::Arc<Target>>,
    pub options: &'p RestoreOptions,
    pub filter: PathFilter,
    pub untouched: Untouched,
    folders: Vec<Folder>,
    damaged: bool,
}

/// Works the plan out. Reads the tree and looks at the target; changes nothing.
///
/// # Errors
/// Options that contradict each other, a tree or target that cannot be read.
pub async fn plan(
    repo: &Repository,
    selected: &Selected,
    options: &RestoreOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Plan, EngineError> {
    check_options(options, selected)?;
    progress.phase("planning");
    let target = match options.target.symlink_metadata() {
        Ok(_) => Some(Target::open(&options.target, options.files.clone()).map_err(target_error)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(cause) => {
            let path = options.target.display().to_string();
            return Err(EngineError::Local { operation: "look at", path, cause });
        }
    };
    let filter = PathFilter::new(&options.filter)?;
    let (plan, folders) = (Plan::default(), Vec::new());
    let untouched = untouched(repo, selected, options).await?;
    let mut planning = Planning { plan, target, options, filter, untouched, folders, damaged: false };
    let mut walk = TreeWalk::new(&repo.reader, selected.snapshot.domain, selected.root, &selected.key);
    if selected.entry.is_none() {
        let wanted = planning.filter.judge(&selected.key, true, false) == Verdict::Wanted;
        planning.enter(Vec::new(), selected.key.clone(), wanted);
    }
    loop {
        cancel.check()?;
        match walk.next().await {
            Ok(None) => break,
            Ok(Some((key, entry))) => {
                if planning.entry(&key, &entry, selected)? {
                    walk.skip_below(&key);
                }
                progress.add_done(0, 1);
            }
            Err(error) if error.is_damage() => {
                planning.plan.unreadable_pages += 1;
                planning.damaged = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
    while let Some(folder) = planning.folders.pop() {
        planning.leave(&folder)?;
    }
    let mut plan = planning.plan;
    for keys in [&mut plan.delete, &mut plan.left_out, &mut plan.replaced, &mut plan.in_the_way] {
        keys.sort();
    }
    if planning.damaged {
        plan.delete.clear();
    }
    Ok(plan)
}

/// What `--delete` must not touch.
async fn untouched(
    repo: &Repository,
    selected: &Selected,
    options: &RestoreOptions,
) -> Result<Untouched, EngineError> {
    let paths = match options.delete {
        true => repo.contents(&selected.snapshot).await?.paths,
        false => Vec::new(),
    };
    let obeys = options.delete && !options.delete_excluded;
    Untouched::new(&selected.snapshot.summary, &paths, obeys).map_err(|error| match error {
        EngineError::Refused(why) => {
            EngineError::Refused(format!("{why}\nhint: --delete-excluded removes that too, whatever it is"))
        }
        error => error,
    })
}

impl Planning<'_> {
    fn enter(&mut self, key: Vec<u8>, original: Vec<u8>, wanted: bool) {
        self.folders.push(Folder { key, original, names: HashSet::new(), wanted });
    }

    /// True: nothing below is wanted.
    fn entry(&mut self, key: &[u8], entry: &Entry, selected: &Selected) -> Result<bool, EngineError> {
        let below = target_key(key, selected);
        while let Some(folder) = self.folders.pop_if(|folder| !is_within(below, &folder.key)) {
            self.leave(&folder)?;
        }
        if let (Some(folder), Some((_, name)), true) =
            (self.folders.last_mut(), split_key(below), self.options.delete)
        {
            folder.names.insert(name.to_vec());
        }
        let parent_wanted = self.folders.last().is_some_and(|folder| folder.wanted);
        let verdict = self.filter.judge(key, entry.is_directory(), parent_wanted);
        if verdict == Verdict::Unwanted {
            return Ok(entry.is_directory());
        }
        if Target::check_key(below).is_err() {
            self.plan.unsafe_paths += 1;
            return Ok(true);
        }
        let existing: Option<Stat> = match &self.target {
            Some(target) => target.existing(below).map_err(target_error)?,
            None => None,
        };
        if entry.is_directory() || verdict == Verdict::Wanted {
            self.replaces(below, key, entry, existing.as_ref())?;
        }
        if entry.is_directory() {
            self.plan.directories += u64::from(verdict == Verdict::Wanted);
            self.enter(below.to_vec(), key.to_vec(), verdict == Verdict::Wanted);
        } else if verdict == Verdict::Wanted {
            self.leaf(entry, existing);
        }
        Ok(false)
    }

    fn leaf(&mut self, entry: &Entry, existing: Option<Stat>) {
        let plan = &mut self.plan;
        let Some(content) = entry.content() else {
            plan.others += 1;
            plan.skipped += u64::from(existing.is_some() && self.options.overwrite == Overwrite::Never);
            return;
        };
        plan.files += 1;
        plan.bytes += content.size_bytes;
        match existing {
            None => {
                plan.new_files += 1;
                plan.new_bytes += content.size_bytes;
            }
            Some(stat) => {
                let like =
                    stat.is_file() && stat.size_bytes == content.size_bytes && stat.mtime == entry.mtime;
                match self.options.overwrite {
                    Overwrite::Never => plan.skipped += 1,
                    Overwrite::IfChanged if like => plan.skipped += 1,
                    Overwrite::IfChanged | Overwrite::Always => {
                        plan.existing_files += 1;
                        plan.existing_bytes += content.size_bytes;
                        plan.differing_files += u64::from(!like);
                        plan.differing_bytes += if like { 0 } else { content.size_bytes };
                    }
                }
            }
        }
    }
}
