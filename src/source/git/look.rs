//! Which repositories there are, and what is known of each before it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Git, GitError, file, read_all, text, tool};
use crate::base::process::ProcessError;
use crate::source::capture::in_key_order;

/// How deep repositories are looked for below a folder.
const DEPTH: usize = 4;
/// Folders and names looked at in all.
const NAMES: usize = 200_000;
/// Largest of the files beside the objects that is kept.
const EXTRA_LIMIT_BYTES: u64 = 4 << 20;
/// Most hooks kept.
const HOOKS: usize = 200;
/// Refs that the facts list by name; more are told by their number and hash.
const LISTED: usize = 500;
/// Lines of git's complaints that are repeated.
const SHOWN: usize = 5;

/// A repository that was found.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Its path in the snapshot, without the first slash.
    pub name: String,
    pub git_dir: PathBuf,
    pub is_bare: bool,
}

/// What there is at a path.
pub struct Found {
    /// The path itself is the one repository.
    pub is_one: bool,
    /// In the order of the snapshot.
    pub repositories: Vec<Repository>,
}

/// What is known of a repository before its bundle.
pub struct State {
    /// Without `HEAD`.
    pub refs: BTreeSet<(String, Vec<u8>)>,
    pub head_id: Option<String>,
    pub fact: Map<String, Value>,
    /// Files beside the objects: name below the repository, content.
    pub extras: BTreeMap<String, Vec<u8>>,
    pub warnings: Vec<String>,
}

impl State {
    pub fn is_empty(&self) -> bool {
        self.refs.is_empty() && self.head_id.is_none()
    }
}

/// The repository at `path`, or every one below it.
///
/// # Errors
/// There is none, or a folder cannot be looked into.
pub fn find(path: &Path) -> Result<Found, GitError> {
    let metadata = std::fs::metadata(path).map_err(file("open", path))?;
    let refused = |why: String| GitError::Refused(why);
    if !metadata.is_dir() {
        let why = format!("{} is no folder\nhint: a bundle is a file: back it up as one", path.display());
        return Err(refused(why));
    }
    if let Some((git_dir, is_bare)) = repository_at(path)? {
        let own = match path.file_name() {
            Some(name) if name == ".git" => path.parent().and_then(Path::file_name),
            name => name,
        };
        let name = utf8(path, own.unwrap_or_else(|| "repository".as_ref()).as_ref())?;
        return Ok(Found { is_one: true, repositories: vec![Repository { name, git_dir, is_bare }] });
    }
    let (mut repositories, mut waiting, mut seen) = (Vec::new(), vec![(path.to_owned(), 0)], 0);
    while let Some((folder, depth)) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).map_err(file("look into", &folder))? {
            let entry = entry.map_err(file("look into", &folder))?;
            seen += 1;
            if seen > NAMES {
                let why = format!("{} holds too much to search for repositories", path.display());
                return Err(refused(why));
            }
            // Links would show a repository twice.
            if !entry.file_type().map_err(file("look at", &entry.path()))?.is_dir() {
                continue;
            }
            let below = entry.path();
            if let Some((git_dir, is_bare)) = repository_at(&below)? {
                let name = utf8(&below, below.strip_prefix(path).unwrap_or(&below))?;
                repositories.push(Repository { name, git_dir, is_bare });
            } else if depth + 1 < DEPTH {
                waiting.push((below, depth + 1));
            }
        }
    }
    if repositories.is_empty() {
        let why = format!("{} is no git repository and holds none", path.display());
        return Err(GitError::Failed(why));
    }
    repositories.sort_by(|a, b| in_key_order(&a.name, &b.name));
    Ok(Found { is_one: false, repositories })
}

fn utf8(path: &Path, name: &Path) -> Result<String, GitError> {
    let name = name.to_str().filter(|name| !name.chars().any(char::is_control));
    let refused = || GitError::Refused(format!("{path:?}: names of repositories must be plain UTF-8 text"));
    name.map(str::to_owned).ok_or_else(refused)
}

/// The folder git keeps its own in, and whether there are no files beside it.
fn repository_at(path: &Path) -> Result<Option<(PathBuf, bool)>, GitError> {
    if is_git_dir(path) {
        let is_bare = path.file_name().is_none_or(|name| name != ".git");
        return Ok(Some((path.to_owned(), is_bare)));
    }
    let inner = path.join(".git");
    if is_git_dir(&inner) {
        return Ok(Some((inner, false)));
    }
    // A submodule's or linked worktree's `.git` is a file.
    let Ok(content) = std::fs::read_to_string(&inner) else { return Ok(None) };
    let Some(to) = content.strip_prefix("gitdir:") else { return Ok(None) };
    let git_dir = path.join(to.trim());
    if git_dir.join("commondir").exists() {
        let common = std::fs::read_to_string(git_dir.join("commondir")).unwrap_or_default();
        let main = git_dir.join(common.trim());
        let main = main.canonicalize().unwrap_or(main);
        return Err(GitError::Refused(format!(
            "{} is a worktree of another repository\nhint: back up that one: git:{}",
            path.display(),
            main.display()
        )));
    }
    Ok(is_git_dir(&git_dir).then_some((git_dir, false)))
}

fn is_git_dir(path: &Path) -> bool {
    let is = |name: &str| path.join(name).is_dir();
    path.join("HEAD").symlink_metadata().is_ok() && is("objects") && (is("refs") || is("reftable"))
}

/// Has git read every object. `None`: all is well; else what it says.
pub fn check(git: &Git, repository: &Path) -> Result<Option<String>, GitError> {
    let subject = format!("check {}", repository.display());
    let arguments = ["fsck", "--full", "--no-dangling", "--no-progress"];
    let mut process = git.start(&subject, git.command(Some(repository), &arguments))?;
    let said = read_all(&subject, &mut process)?;
    match process.finish() {
        Ok(_) => Ok(None),
        Err(ProcessError::Failed { stderr, how, .. }) => {
            let said = String::from_utf8_lossy(&said).into_owned();
            let lines: Vec<&str> =
                stderr.lines().chain(said.lines()).filter(|line| !line.is_empty()).collect();
            let shown = lines.iter().take(SHOWN).copied().collect::<Vec<_>>().join("\n  ");
            Ok(Some(if shown.is_empty() { format!("git fsck {how}") } else { shown }))
        }
        Err(cause) => Err(tool(&subject, cause)),
    }
}

/// Every ref but `HEAD`, and which of them only name another.
pub type Refs = (BTreeSet<(String, Vec<u8>)>, BTreeMap<String, String>);

/// Lists the refs.
pub fn refs(git: &Git, subject: &str, git_dir: &Path) -> Result<Refs, GitError> {
    let format = "--format=%(objectname) %(symref) %(refname)";
    let listed = git.ask(subject, Some(git_dir), &["for-each-ref", format])?;
    let (mut refs, mut symbolic) = (BTreeSet::new(), BTreeMap::new());
    for line in listed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (id, to, name) = (words.next(), words.next(), words.next());
        let (Some(id), Some(to), Some(name)) = (id, to, name) else {
            return Err(GitError::Failed(format!("{subject}: git lists a ref that makes no sense")));
        };
        if !to.is_empty() {
            symbolic.insert(text(name), text(to));
        }
        refs.insert((text(id), name.to_vec()));
    }
    Ok((refs, symbolic))
}

/// `HEAD`'s branch, and its object if there is one.
pub fn head(git: &Git, subject: &str, git_dir: &Path) -> Result<(Option<String>, Option<String>), GitError> {
    let ask = |arguments: &[&str]| git.ask_maybe(subject, Some(git_dir), arguments);
    let branch = ask(&["symbolic-ref", "--quiet", "HEAD"])?.map(|answer| text(&answer));
    let id = ask(&["rev-parse", "--quiet", "--verify", "HEAD"])?.map(|answer| text(&answer));
    Ok((branch, id))
}

/// Looks a repository over.
///
/// # Errors
/// It does not hold all of its history, or git cannot read it.
pub fn inspect(git: &Git, repository: &Repository) -> Result<State, GitError> {
    let Repository { name, git_dir, is_bare } = repository;
    let subject = format!("read repository {name}");
    let ask = |arguments: &[&str]| git.ask(&subject, Some(git_dir), arguments);
    if text(&ask(&["rev-parse", "--is-shallow-repository"])?) == "true" {
        let why = format!(
            "repository {name} is shallow: it holds only the end of its history, which makes no whole copy\n\
             hint: git -C {} fetch --unshallow, or back up its origin",
            git_dir.display()
        );
        return Err(GitError::Refused(why));
    }
    let partial = ["config", "--local", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"];
    if git.ask_maybe(&subject, Some(git_dir), &partial)?.is_some() {
        let why = format!("repository {name} is a partial clone: it lacks objects\nhint: back up its origin");
        return Err(GitError::Refused(why));
    }
    let (refs, symbolic) = refs(git, &subject, git_dir)?;
    let (branch, head_id) = head(git, &subject, git_dir)?;
    let format = git.ask_maybe(&subject, Some(git_dir), &["rev-parse", "--show-object-format"])?;
    let (extras, mut not_included) = extras(git_dir)?;
    let mut warnings = Vec::new();
    let lfs = count_files(&git_dir.join("lfs/objects"))?;
    if lfs > 0 {
        let place = git_dir.join("lfs");
        warnings.push(format!(
            "repository {name}: {lfs} objects of Git LFS are not in the snapshot; back up {} as files",
            place.display()
        ));
        not_included.push(format!("{lfs} objects of Git LFS"));
    }
    let worktrees = count_folders(&git_dir.join("worktrees"));
    if worktrees > 0 {
        warnings.push(format!("repository {name}: {worktrees} linked worktrees are not in the snapshot"));
        not_included.push(format!("{worktrees} linked worktrees"));
    }
    if !is_bare {
        not_included.push("what is not committed; the index; stashes but the last; reflogs".into());
    }
    let mut fact = Map::new();
    let mut say = |key: &str, value: Value| fact.insert(key.to_owned(), value);
    say("bare", (*is_bare).into());
    say("format", format.map_or_else(|| "sha1".to_owned(), |answer| text(&answer)).into());
    say("head", json!(branch));
    say("head_id", json!(head_id));
    say("symbolic", json!(symbolic));
    say("reftable", git_dir.join("reftable").is_dir().into());
    say("alternates", json!(alternates(git_dir)));
    say("hooks", json!(extras.keys().filter_map(|name| name.strip_prefix("hooks/")).collect::<Vec<_>>()));
    say("not_included", json!(not_included));
    if let Ok(metadata) = std::fs::metadata(git_dir) {
        use std::os::unix::fs::MetadataExt as _;
        say("owner", json!([metadata.uid(), metadata.gid()]));
    }
    Ok(State { refs, head_id, fact, extras, warnings })
}

/// The tips by name, where they are few.
pub fn tips(refs: &[(String, Vec<u8>)]) -> Value {
    if refs.len() > LISTED {
        return Value::Null;
    }
    let pair = |(id, name): &(String, Vec<u8>)| (text(name), Value::from(id.clone()));
    Value::Object(refs.iter().map(pair).collect())
}

type Extras = (BTreeMap<String, Vec<u8>>, Vec<String>);

/// What people put beside the objects; and what of it is too large to be that.
fn extras(git_dir: &Path) -> Result<Extras, GitError> {
    let (mut kept, mut left_out) = (BTreeMap::new(), Vec::new());
    let mut names: Vec<String> =
        ["config", "description", "info/attributes", "info/exclude"].map(String::from).into();
    let hooks = git_dir.join("hooks");
    for entry in std::fs::read_dir(&hooks).into_iter().flatten().flatten() {
        match entry.file_name().into_string() {
            Ok(name) if !name.ends_with(".sample") => names.push(format!("hooks/{name}")),
            _ => {}
        }
    }
    for name in names {
        let path = git_dir.join(&name);
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if !metadata.is_file() || metadata.len() > EXTRA_LIMIT_BYTES || kept.len() > HOOKS {
            left_out.push(name);
            continue;
        }
        kept.insert(name, std::fs::read(&path).map_err(file("read", &path))?);
    }
    Ok((kept, left_out))
}

fn alternates(git_dir: &Path) -> Vec<String> {
    let list = std::fs::read_to_string(git_dir.join("objects/info/alternates")).unwrap_or_default();
    list.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn count_folders(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |names| names.flatten().count())
}

fn count_files(folder: &Path) -> Result<u64, GitError> {
    let (mut count, mut waiting) = (0, vec![folder.to_owned()]);
    while let Some(folder) = waiting.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(file("look into", &folder))?,
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    Ok(count)
}
