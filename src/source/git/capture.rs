//! The capture: every repository checked, then bundled one after the other.
//!
//! The facts are read from the bundle itself as it passes, so they are of what was kept and not of what was there a
//! moment before or after.

use std::collections::VecDeque;
use std::io;

use serde_json::{Map, Value, json};

use super::bundle::{Head, HeadReader, refs_hash};
use super::look::{self, Repository, State};
use super::{Address, Git, GitError, text, tool};
use crate::base::process::Process;
use crate::format::entry::Timestamp;
use crate::source::capture::{Capture, Captured, PART_MODE, Part, SourceError, in_key_order};

/// The stream of objects and refs, beside the files of a repository.
pub const BUNDLE: &str = "repository.bundle";

/// What comes next.
enum Step {
    File { path: String, bytes: Vec<u8> },
    Bundle { place: usize },
}

/// Repositories being captured.
pub struct GitCapture {
    git: Git,
    now: Timestamp,
    repositories: Vec<(Repository, State)>,
    facts: Map<String, Value>,
    warnings: Vec<String>,
    steps: VecDeque<Step>,
    /// The bundle under way.
    open: Option<Open>,
    /// The file under way.
    rest: io::Cursor<Vec<u8>>,
    version: String,
    is_one: bool,
}

struct Open {
    place: usize,
    process: Process,
    head: HeadReader,
    failed: Option<String>,
}

impl GitCapture {
    /// Finds the repositories and checks them. `now`: the instant before.
    ///
    /// # Errors
    /// There is none, one is damaged or not whole.
    pub fn start(address: &Address, git: Git, now: Timestamp) -> Result<Self, SourceError> {
        Ok(Self::look(address, git, now)?)
    }

    fn look(address: &Address, git: Git, now: Timestamp) -> Result<Self, GitError> {
        let version = text(&git.ask("ask git for its version", None, &["--version"])?);
        let found = look::find(&address.path)?;
        let (mut repositories, mut damaged) = (Vec::new(), Vec::new());
        for repository in found.repositories {
            git.cancel.check()?;
            if address.fsck
                && let Some(said) = look::check(&git, &repository.git_dir)?
            {
                damaged.push(format!("repository {} is damaged:\n  {said}", repository.name));
                continue;
            }
            let state = look::inspect(&git, &repository)?;
            repositories.push((repository, state));
        }
        if !damaged.is_empty() {
            return Err(GitError::Failed(damaged.join("\n")));
        }
        let mut capture = Self {
            git,
            now,
            repositories,
            facts: Map::new(),
            warnings: Vec::new(),
            steps: VecDeque::new(),
            open: None,
            rest: io::Cursor::default(),
            version: version.trim_start_matches("git version ").to_owned(),
            is_one: found.is_one,
        };
        capture.plan(address.fsck);
        Ok(capture)
    }

    fn plan(&mut self, was_checked: bool) {
        for (place, (repository, state)) in self.repositories.iter_mut().enumerate() {
            let name = &repository.name;
            let mut steps: Vec<(String, Step)> = Vec::new();
            for (file, bytes) in std::mem::take(&mut state.extras) {
                let path = format!("/{name}/{file}");
                steps.push((path.clone(), Step::File { path, bytes }));
            }
            if !state.is_empty() {
                steps.push((format!("/{name}/{BUNDLE}"), Step::Bundle { place }));
            }
            steps.sort_by(|(a, _), (b, _)| in_key_order(a, b));
            self.steps.extend(steps.into_iter().map(|(_, step)| step));
            let mut fact = std::mem::take(&mut state.fact);
            fact.insert("checked".into(), was_checked.into());
            fact.insert("refs".into(), 0.into());
            fact.insert("objects".into(), 0.into());
            self.facts.insert(name.clone(), fact.into());
            self.warnings.append(&mut state.warnings);
            if !was_checked {
                self.warnings.push(format!("repository {name} was not checked before (fsck=no)"));
            }
        }
    }

    fn begin(&mut self, place: usize) -> Result<Part, GitError> {
        let (repository, _) = &self.repositories[place];
        let subject = format!("bundle repository {}", repository.name);
        // One thread, so that the same objects make the same bytes.
        let arguments = ["-c", "pack.threads=1", "bundle", "create", "--quiet", "-", "--all"];
        let command = self.git.command(Some(&repository.git_dir), &arguments);
        let process = self.git.start(&subject, command)?;
        self.open = Some(Open { place, process, head: HeadReader::default(), failed: None });
        Ok(Part { path: format!("/{}/{BUNDLE}", repository.name), mode: PART_MODE, mtime: self.now })
    }

    /// The bundle before must have ended well, and hold what it should.
    fn close(&mut self) -> Result<(), GitError> {
        let Some(Open { place, process, head, failed }) = self.open.take() else { return Ok(()) };
        let (repository, state) = &self.repositories[place];
        let name = &repository.name;
        let subject = format!("bundle repository {name}");
        if let Some(why) = failed {
            return Err(GitError::Failed(format!("{subject}: what git gave is no bundle: {why}")));
        }
        let at_end = process.at_end();
        process.finish().map_err(|cause| tool(&subject, cause))?;
        let Some(head) = head.head().filter(|_| at_end) else {
            return Err(GitError::Failed(format!("{subject}: the bundle broke off")));
        };
        // What was there before and still is must be in it.
        let (after, _) = look::refs(&self.git, &subject, &repository.git_dir)?;
        let held: std::collections::HashSet<&(String, Vec<u8>)> = head.refs.iter().collect();
        if let Some((_, lost)) = state.refs.intersection(&after).find(|pair| !held.contains(pair)) {
            let lost = text(lost);
            return Err(GitError::Failed(format!("{subject}: {lost} is not in the bundle")));
        }
        let Head { refs, objects, .. } = head;
        let own: Vec<_> = refs.iter().filter(|(_, name)| name != b"HEAD").cloned().collect();
        let hash = refs_hash(own.iter().map(|(id, name)| (id.as_str(), name.as_slice())));
        let head_id = refs.iter().find(|(_, name)| name == b"HEAD").map(|(id, _)| id);
        if let Some(fact) = self.facts.get_mut(name).and_then(Value::as_object_mut) {
            fact.insert("refs".into(), own.len().into());
            fact.insert("refs_hash".into(), hash.into());
            fact.insert("tips".into(), look::tips(&own));
            fact.insert("objects".into(), (*objects).into());
            fact.insert("head_id".into(), json!(head_id));
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Part>, GitError> {
        self.git.cancel.check()?;
        self.close()?;
        match self.steps.pop_front() {
            None => Ok(None),
            Some(Step::Bundle { place }) => self.begin(place).map(Some),
            Some(Step::File { path, bytes }) => {
                self.rest = io::Cursor::new(bytes);
                Ok(Some(Part { path, mode: PART_MODE, mtime: self.now }))
            }
        }
    }
}

impl Capture for GitCapture {
    fn next_part(&mut self) -> Result<Option<Part>, SourceError> {
        Ok(self.step()?)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(open) = &mut self.open else { return io::Read::read(&mut self.rest, buffer) };
        let length = open.process.read_some(buffer).map_err(io::Error::other)?;
        if open.head.head().is_none()
            && let Err(why) = open.head.push(&buffer[..length])
        {
            open.failed = Some(why.clone());
            return Err(io::Error::other(why));
        }
        Ok(length)
    }

    fn finish(mut self: Box<Self>) -> Result<Captured, SourceError> {
        self.git.cancel.check()?;
        self.close()?;
        if !self.steps.is_empty() {
            return Err(GitError::Failed("not everything was read: this is a bug".into()).into());
        }
        let layout = if self.is_one { "repository" } else { "folder" };
        let facts = json!({ "git": self.version, "layout": layout, "repositories": self.facts });
        Ok(Captured {
            consistent: self.now,
            facts: Map::from_iter([("git".to_owned(), facts)]),
            warnings: std::mem::take(&mut self.warnings),
            problems: Vec::new(),
        })
    }
}
