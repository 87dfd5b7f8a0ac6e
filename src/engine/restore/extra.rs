//! What `--delete` would remove: what a target's folders hold beyond the snapshot, less what the snapshot's backup
//! never looked at ([`Untouched`]) and what this restore's filter leaves out.

use super::plan::{Folder, Planning};
use super::target_error;
use crate::engine::EngineError;
use crate::engine::read::filter::Verdict;
use crate::format::entry::{Entry, Kind};
use crate::source::files::push_component;
use crate::source::files::stat::{FileType, Stat};
use crate::source::files::target::Target;

impl Planning<'_> {
    /// Notes what a folder of the target holds beyond the snapshot.
    pub(super) fn leave(&mut self, folder: &Folder) -> Result<(), EngineError> {
        let Some(target) = self.target.clone().filter(|_| self.options.delete) else { return Ok(()) };
        let names = target.names(&folder.key).map_err(target_error)?;
        if self.untouched.is_passage(&folder.original) {
            return Ok(());
        }
        // An empty folder of a backup that stayed on one file system may have been a mount point.
        let mount = self.untouched.one_file_system()
            && (folder.names.is_empty() || self.is_elsewhere(&target, &folder.key)?);
        let marked = names.iter().chain(&folder.names).any(|name| self.untouched.is_marker(name));
        for name in names.iter().filter(|name| !folder.names.contains(*name)) {
            let (key, original) = (child(&folder.key, name), child(&folder.original, name));
            if mount || marked {
                self.keep(key);
                continue;
            }
            let mut removable = Vec::new();
            if self.removable(&target, &key, &original, folder.wanted, &mut removable)? {
                removable = vec![key];
            }
            self.plan.delete.append(&mut removable);
        }
        Ok(())
    }

    /// Notes when an entry takes the name of something of another type.
    pub(super) fn replaces(
        &mut self,
        key: &[u8],
        original: &[u8],
        entry: &Entry,
        existing: Option<&Stat>,
    ) -> Result<(), EngineError> {
        let (Some(stat), Some(target)) = (existing, self.target.clone()) else { return Ok(()) };
        if stat.file_type() == file_type(&entry.kind) || self.options.overwrite == super::Overwrite::Never {
            return Ok(());
        }
        if stat.is_directory() && !target.names(key).map_err(target_error)?.is_empty() {
            if !self.options.delete {
                self.plan.in_the_way.push(key.to_vec());
                return Ok(());
            }
            if !self.removable(&target, key, original, true, &mut Vec::new())? {
                return Err(EngineError::Refused(format!(
                    "{} is a folder that the snapshot has something else for, and it holds what the backup left \
                     out; move that away, or remove it too with --delete-excluded",
                    target.path_of(key).display()
                )));
            }
        }
        self.plan.replaced.push(key.to_vec());
        Ok(())
    }

    fn keep(&mut self, key: Vec<u8>) {
        self.plan.left_out.push(key);
    }

    fn is_elsewhere(&self, target: &Target, key: &[u8]) -> Result<bool, EngineError> {
        let device = |key: &[u8]| target.existing(key).map(|stat| stat.map(|stat| stat.device));
        Ok(device(key).map_err(target_error)? != device(b"").map_err(target_error)?)
    }

    /// Whether all at `key` may go. If not, what below it may is added to `removable`. As deep as a path can be.
    fn removable(
        &mut self,
        target: &Target,
        key: &[u8],
        original: &[u8],
        parent_wanted: bool,
        removable: &mut Vec<Vec<u8>>,
    ) -> Result<bool, EngineError> {
        let Some(stat) = target.existing(key).map_err(target_error)? else { return Ok(false) };
        let verdict = self.filter.judge(original, stat.is_directory(), parent_wanted);
        if verdict == Verdict::Unwanted {
            return Ok(false);
        }
        if self.untouched.leaves_out(original, &stat) {
            self.keep(key.to_vec());
            return Ok(false);
        }
        let wanted = verdict == Verdict::Wanted;
        if !stat.is_directory() || (wanted && self.untouched.is_open() && self.filter.is_open()) {
            return Ok(wanted);
        }
        let names = target.names(key).map_err(target_error)?;
        let mount = self.untouched.one_file_system() && self.is_elsewhere(target, key)?;
        if mount || names.iter().any(|name| self.untouched.is_marker(name)) {
            self.keep(key.to_vec());
            return Ok(false);
        }
        let mut all = wanted;
        let mut below = Vec::new();
        for name in names {
            let key = child(key, &name);
            if self.removable(target, &key, &child(original, &name), wanted, &mut below)? {
                below.push(key);
            } else {
                all = false;
            }
        }
        if !all {
            removable.append(&mut below);
        }
        Ok(all)
    }
}

fn child(key: &[u8], name: &[u8]) -> Vec<u8> {
    let mut child = key.to_vec();
    push_component(&mut child, name);
    child
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File(_) | Kind::Stream(_) => FileType::RegularFile,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice { .. } => FileType::CharacterDevice,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
    }
}
