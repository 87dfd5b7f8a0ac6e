//! Repositories on their way back: each made anew beside its place, checked by git, compared with the facts, and only
//! then put there. What was there is kept under another name.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value, json};

use super::bundle::{HeadReader, refs_hash};
use super::capture::BUNDLE;
use super::{Address, Git, GitError, file, look, read_all, text, tool};
use crate::base::replace::{is_empty, parent, replace};
use crate::source::capture::SourceError;
use crate::source::target::{Returned, StoredPart, Target};

const EXTRA_LIMIT_BYTES: u64 = 4 << 20;

/// One repository's way back.
struct Plan {
    name: String,
    fact: Value,
    place: PathBuf,
    has_bundle: bool,
    /// Its own folder, in [`Self::fresh`] or that itself.
    fresh: Option<tempfile::TempDir>,
    objects: u32,
    extras: BTreeMap<String, Vec<u8>>,
}

/// See the module.
pub struct GitTarget {
    git: Git,
    address: Address,
    force: bool,
    /// Names what is kept of what was there.
    stamp: String,
    plans: Vec<Plan>,
    warnings: Vec<String>,
}

impl GitTarget {
    /// `force`: repositories that are there may be replaced. `stamp` ends the names they are kept under.
    pub fn new(address: Address, git: Git, force: bool, stamp: String) -> Self {
        Self { git, address, force, stamp, plans: Vec::new(), warnings: Vec::new() }
    }

    fn look(&mut self, parts: &[StoredPart], facts: &Map<String, Value>) -> Result<Vec<usize>, GitError> {
        let refused = |why: &str| GitError::Refused(why.to_owned());
        let git = facts.get("git").filter(|fact| fact.is_object());
        let git = git.ok_or_else(|| refused("the snapshot is not of git repositories"))?;
        let known = git["repositories"].as_object().cloned().unwrap_or_default();
        let mut wanted = Vec::new();
        for (name, fact) in &known {
            let prefix = format!("/{name}/");
            let own: Vec<usize> =
                (0..parts.len()).filter(|place| parts[*place].path.starts_with(&prefix)).collect();
            if own.is_empty() {
                continue;
            }
            let has_bundle = own.iter().any(|place| parts[*place].path == format!("{prefix}{BUNDLE}"));
            if !has_bundle && fact["refs"] != 0 {
                return Err(GitError::Refused(format!(
                    "the path leaves out the bundle of repository {name}\nhint: select SNAP:/{name}"
                )));
            }
            wanted.extend(own);
            self.plans.push(Plan {
                name: name.clone(),
                fact: fact.clone(),
                place: PathBuf::new(),
                has_bundle,
                fresh: None,
                objects: 0,
                extras: BTreeMap::new(),
            });
        }
        if self.plans.is_empty() {
            return Err(refused("the snapshot holds no repository at that path"));
        }
        self.place_plans(git["layout"] == "folder" && self.plans.len() == known.len())?;
        Ok(wanted)
    }

    fn place_plans(&mut self, in_folder: bool) -> Result<(), GitError> {
        let path = &self.address.path;
        for plan in &mut self.plans {
            let is_plain =
                Path::new(&plan.name).components().all(|part| matches!(part, Component::Normal(_)));
            if !is_plain {
                return Err(GitError::Refused(format!("{:?} is no name for a repository", plan.name)));
            }
            plan.place = if in_folder { path.join(&plan.name) } else { path.clone() };
            let is_free = plan.place.symlink_metadata().is_err()
                || (plan.place.is_dir() && is_empty(&plan.place).map_err(file("look into", &plan.place))?);
            if !is_free && !self.force {
                return Err(GitError::Refused(format!(
                    "{} is there already\nhint: --force puts the restored repository there, once it is proven, and keeps \
                     the old one beside it",
                    plan.place.display()
                )));
            }
        }
        if !in_folder && self.plans.len() > 1 {
            let names: Vec<&str> = self.plans.iter().map(|plan| plan.name.as_str()).collect();
            return Err(GitError::Refused(format!(
                "the path holds several repositories: {}\nhint: select one, as in SNAP:/{}",
                names.join(", "),
                names[0]
            )));
        }
        Ok(())
    }

    /// Makes the empty repository beside its place, once.
    fn make(&mut self, place: usize) -> Result<PathBuf, GitError> {
        let worktree = self.has_worktree(place);
        let plan = &mut self.plans[place];
        if let Some(fresh) = &plan.fresh {
            return Ok(git_dir(fresh.path(), worktree));
        }
        let folder = parent(&plan.place);
        std::fs::create_dir_all(folder).map_err(file("make", folder))?;
        let fresh = tempfile::Builder::new()
            .prefix(".lifeboat-")
            .tempdir_in(folder)
            .map_err(file("make a folder in", folder))?;
        let git_dir = git_dir(fresh.path(), worktree);
        let subject = format!("make repository {}", plan.name);
        let format = plan.fact["format"].as_str().filter(|format| *format == "sha256").unwrap_or("sha1");
        let format = format!("--object-format={format}");
        let mut arguments = vec!["init", "--quiet", "--template=", "--initial-branch=main", &format];
        if plan.fact["reftable"] == true {
            arguments.push("--ref-format=reftable");
        }
        if !worktree {
            arguments.push("--bare");
        }
        let target = fresh.path().to_string_lossy().into_owned();
        arguments.push(&target);
        self.git.ask(&subject, None, &arguments)?;
        plan.fresh = Some(fresh);
        Ok(git_dir)
    }

    fn has_worktree(&self, place: usize) -> bool {
        let was = self.plans[place].fact["bare"] == false;
        self.address.worktree.unwrap_or(was)
    }

    fn take(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), GitError> {
        let own = |plan: &Plan| part.path.strip_prefix(&format!("/{}/", plan.name)).map(str::to_owned);
        let found = self.plans.iter().enumerate().find_map(|(place, plan)| Some((place, own(plan)?)));
        let (place, name) =
            found.ok_or_else(|| GitError::Failed(format!("{} was not expected", part.path)))?;
        let git_dir = self.make(place)?;
        if name == BUNDLE {
            return self.unbundle(place, &git_dir, content);
        }
        let mut bytes = Vec::new();
        content
            .take(EXTRA_LIMIT_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(file("read", Path::new(&part.path)))?;
        self.plans[place].extras.insert(name, bytes);
        Ok(())
    }

    /// The objects go to git as they come; then the refs are set.
    fn unbundle(&mut self, place: usize, git_dir: &Path, content: &mut dyn Read) -> Result<(), GitError> {
        let name = self.plans[place].name.clone();
        let subject = format!("fill repository {name}");
        let arguments = ["index-pack", "--stdin", "--fix-thin"];
        let (mut process, mut feed) =
            self.git.start_fed(&subject, self.git.command(Some(git_dir), &arguments))?;
        let (mut reader, mut buffer) = (HeadReader::default(), vec![0; 256 << 10]);
        let mut is_there = true;
        loop {
            let length = content.read(&mut buffer).map_err(file("read", Path::new(BUNDLE)))?;
            if length == 0 {
                break;
            }
            let pack = match reader.head() {
                Some(_) => Some(feed.write_all(&buffer[..length])),
                None => reader
                    .push(&buffer[..length])
                    .map_err(|why| GitError::Failed(format!("{subject}: {why}")))?
                    .map(|pack| feed.write_all(&pack)),
            };
            if pack.is_some_and(|written| written.is_err()) {
                is_there = false;
                break;
            }
        }
        drop(feed);
        read_all(&subject, &mut process)?;
        process.finish().map_err(|cause| tool(&subject, cause))?;
        let head = reader.head().filter(|_| is_there);
        let head = head.ok_or_else(|| GitError::Failed(format!("{subject}: the bundle broke off")))?;
        let symbolic = self.plans[place].fact["symbolic"].as_object().cloned().unwrap_or_default();
        let mut orders = Vec::new();
        for (id, name) in &head.refs {
            if name == b"HEAD" || symbolic.contains_key(&text(name)) {
                continue;
            }
            if !name.starts_with(b"refs/") {
                return Err(GitError::Failed(format!("{subject}: {:?} is no ref", text(name))));
            }
            orders.extend_from_slice(b"create ");
            orders.extend_from_slice(name);
            orders.extend_from_slice(format!("\0{id}\0").as_bytes());
        }
        self.git.tell(&subject, git_dir, &["update-ref", "-z", "--stdin"], &orders)?;
        for (name, to) in &symbolic {
            let to = to.as_str().unwrap_or_default();
            self.git.ask(&subject, Some(git_dir), &["symbolic-ref", name, to])?;
        }
        self.plans[place].objects = head.objects;
        Ok(())
    }

    /// HEAD, then git's own check and the comparison with the facts.
    fn prove(&mut self, place: usize) -> Result<String, GitError> {
        let git_dir = self.make(place)?;
        let Plan { name, fact, objects, has_bundle, .. } = &self.plans[place];
        let subject = format!("prove repository {name}");
        let (branch, id) = (fact["head"].as_str(), fact["head_id"].as_str());
        match (branch, id) {
            (Some(branch), _) => self.git.ask(&subject, Some(&git_dir), &["symbolic-ref", "HEAD", branch])?,
            (None, Some(id)) => {
                self.git.ask(&subject, Some(&git_dir), &["update-ref", "--no-deref", "HEAD", id])?
            }
            (None, None) => Vec::new(),
        };
        if !has_bundle {
            return Ok(format!("{name}: an empty repository, as it was"));
        }
        if let Some(said) = look::check(&self.git, &git_dir)? {
            return Err(GitError::Differs(format!("git finds repository {name} damaged:\n  {said}")));
        }
        let (refs, _) = look::refs(&self.git, &subject, &git_dir)?;
        let hash = refs_hash(refs.iter().map(|(id, name)| (id.as_str(), name.as_slice())));
        if fact["refs_hash"] != hash.as_str() || fact["refs"] != refs.len() {
            let (found, was) = (refs.len(), &fact["refs"]);
            return Err(GitError::Differs(format!(
                "repository {name} has {found} refs, others than the {was} it had"
            )));
        }
        let (_, found) = look::head(&self.git, &subject, &git_dir)?;
        // Since the facts were read HEAD may have moved with its branch, whose ref was compared already.
        if id.is_some() && branch.is_none() && found.as_deref() != id {
            return Err(GitError::Differs(format!("HEAD of repository {name} is {found:?}, was {id:?}")));
        }
        let counted = text(&self.git.ask(&subject, Some(&git_dir), &["count-objects", "-v"])?);
        let packed = counted.lines().find_map(|line| line.strip_prefix("in-pack: ")?.parse::<u64>().ok());
        if packed != fact["objects"].as_u64() || fact["objects"] != *objects {
            let (found, was) = (packed.unwrap_or_default(), &fact["objects"]);
            return Err(GitError::Differs(format!("repository {name} has {found} objects, had {was}")));
        }
        Ok(format!(
            "{name}: git fsck finds it sound; {} refs and {objects} objects are those of the snapshot",
            refs.len()
        ))
    }

    /// Files, configuration and hooks: last, so that nothing of them is obeyed while git is still asked.
    fn dress(&mut self, place: usize) -> Result<(), GitError> {
        let git_dir = self.make(place)?;
        let worktree = self.has_worktree(place);
        let plan = &self.plans[place];
        let subject = format!("set up repository {}", plan.name);
        let folder = plan.fresh.as_ref().map(|fresh| fresh.path().to_owned()).unwrap_or_default();
        let (_, head) = look::head(&self.git, &subject, &git_dir)?;
        if worktree && head.is_some() {
            let tree = format!("--work-tree={}", folder.display());
            self.git.ask(&subject, Some(&git_dir), &[&tree, "reset", "--hard", "--quiet", "HEAD"])?;
        }
        for (name, bytes) in &plan.extras {
            let path = git_dir.join(name);
            let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            if !is_plain {
                return Err(GitError::Failed(format!("{name:?} is no name for a file of a repository")));
            }
            std::fs::create_dir_all(parent(&path)).map_err(file("make", parent(&path)))?;
            std::fs::write(&path, bytes).map_err(file("write", &path))?;
            let mode = if name.starts_with("hooks/") { 0o755 } else { 0o644 };
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).map_err(file("write", &path))?;
        }
        if plan.extras.contains_key("config") {
            let bare = if worktree { "false" } else { "true" };
            self.git.ask(&subject, Some(&git_dir), &["config", "core.bare", bare])?;
            self.git.ask_maybe(&subject, Some(&git_dir), &["config", "--unset-all", "core.worktree"])?;
        }
        // Made for us alone; a repository is read by whom its folder lets in.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&folder, open).map_err(file("open", &folder))?;
        let owner = (plan.fact["owner"][0].as_u64(), plan.fact["owner"][1].as_u64());
        if let (Some(uid), Some(gid)) = owner {
            let (uid, gid) = (u32::try_from(uid).unwrap_or(u32::MAX), u32::try_from(gid).unwrap_or(u32::MAX));
            let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            if rustix::process::geteuid().is_root() {
                give_away(&folder, uid, gid)?;
            } else if ours.0 != uid {
                let name = &plan.name;
                self.warnings
                    .push(format!("repository {name} belonged to user {uid} and belongs to {} now", ours.0));
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Returned, GitError> {
        let (mut returned, mut facts) = (Returned::default(), Map::new());
        for place in 0..self.plans.len() {
            returned.proven.push(self.prove(place)?);
        }
        for place in 0..self.plans.len() {
            self.dress(place)?;
        }
        self.git.cancel.check()?;
        for plan in &mut self.plans {
            let Some(fresh) = plan.fresh.take() else { continue };
            // From here on it may be the old one that has this name.
            let fresh = fresh.keep();
            let kept = replace(&fresh, &plan.place, &self.stamp).map_err(|cause| {
                let (place, fresh) = (plan.place.display(), fresh.display());
                GitError::Failed(format!(
                    "cannot replace {place}: {cause}\nhint: look at {fresh}, which is kept"
                ))
            })?;
            if let Some(kept) = kept {
                let (name, kept) = (&plan.name, kept.display());
                returned.proven.push(format!(
                    "{name}: what was there is kept as {kept}; remove it when you need it no more"
                ));
            }
            let fact = json!({ "refs": plan.fact["refs"], "objects": plan.fact["objects"] });
            facts.insert(plan.name.clone(), fact);
            for left in plan.fact["not_included"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                self.warnings.push(format!("{}: not part of the snapshot: {left}", plan.name));
            }
        }
        returned.warnings = std::mem::take(&mut self.warnings);
        returned.facts.insert("git".into(), json!({ "repositories": facts }));
        Ok(returned)
    }
}

fn git_dir(folder: &Path, worktree: bool) -> PathBuf {
    if worktree { folder.join(".git") } else { folder.to_owned() }
}

/// Everything at and below `folder` to one owner; links themselves, not what they lead to.
fn give_away(folder: &Path, uid: u32, gid: u32) -> Result<(), GitError> {
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).map_err(file("give away", &path))?;
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            for entry in std::fs::read_dir(&path).map_err(file("look into", &path))? {
                waiting.push(entry.map_err(file("look into", &path))?.path());
            }
        }
    }
    Ok(())
}

impl Target for GitTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        Ok(self.look(parts, facts)?)
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        Ok(self.take(part, content)?)
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        Ok(self.end()?)
    }
}
