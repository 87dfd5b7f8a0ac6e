//! A volume on its way back: made with the driver options it had, filled, and shown only when it is proven.
//!
//! Where the daemon shares our file system the folder is built beside the volume's own and exchanged with it in one
//! step; until then the volume is what it was. Elsewhere the bytes go in as a tar stream and are read back: into a
//! volume that is new or empty, else into one of our own first, so that the one that is there stays whole until its
//! successor is proven.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::RemoveVolumeOptionsBuilder;
use serde_json::{Map, Value, json};

use super::address::{Address, Reading};
use super::archive::{Contents, Download, Names, contents, upload};
use super::daemon::Daemon;
use super::helper::{Helper, MOUNT, OwnVolume, Workshop, nonce};
use super::proof::{self, Shared};
use super::volume::User;
use super::{DockerError, VOLUMES, volume};
use crate::source::capture::SourceError;
use crate::source::files::place::Places;
use crate::source::files::walk::{WalkOptions, walk_folder};
use crate::source::target::{Place, Placed, Returned, StoredPart, StoredTree, Target};

/// Folders beside a volume's own while a restore is under way.
const BESIDE: &str = "lifeboat-";

/// One volume that takes a tree.
pub struct VolumeTarget {
    daemon: Daemon,
    state: Option<PathBuf>,
    name: String,
    reading: Reading,
    force: bool,
    trees: Vec<StoredTree>,
    fact: Value,
    /// Which of the trees.
    wanted: Option<StoredTree>,
    filling: Option<Filling>,
    returned: Returned,
}

/// A volume being filled.
struct Filling {
    workshop: Arc<Workshop>,
    shared: Option<Shared>,
    volume: Volume,
    /// We made it: it goes away again when it is not filled whole.
    made: Option<Made>,
    empty: bool,
    place: Option<Beside>,
}

/// A volume that was made for a restore, removed unless it is kept.
struct Made {
    daemon: Daemon,
    name: String,
    keep: bool,
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.keep {
            let options = RemoveVolumeOptionsBuilder::new().force(true).build();
            let remove = self.daemon.api.remove_volume(&self.name, Some(options));
            if let Err(error) = self.daemon.undo("remove volume", &self.name, remove) {
                tracing::warn!("{error}");
            }
        }
    }
}

/// A folder beside a volume's own, removed when it is done with.
struct Beside {
    path: PathBuf,
    own: PathBuf,
    /// Somebody is still in it.
    keep: bool,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove {}: {error}", self.path.display());
            }
            _ => {}
        }
    }
}

impl VolumeTarget {
    /// `force`: what is in the volume may be replaced.
    pub fn new(daemon: Daemon, address: &Address, force: bool, state: Option<&Path>) -> Self {
        Self {
            daemon,
            state: state.map(Path::to_owned),
            name: address.name.clone(),
            reading: address.options.reading,
            force,
            trees: Vec::new(),
            fact: Value::Null,
            wanted: None,
            filling: None,
            returned: Returned::default(),
        }
    }

    /// The tree that is meant: the only one, or the one of the volume's name.
    fn choose(&self) -> Result<StoredTree, DockerError> {
        let own = format!("/{VOLUMES}/{}", self.name);
        match self.trees.as_slice() {
            [] => Err(DockerError::Refused(
                "the snapshot holds no folder that could go into a volume\nhint: name one, as in latest:/srv/data"
                    .into(),
            )),
            [tree] => Ok(tree.clone()),
            trees => trees.iter().find(|tree| tree.path == own).cloned().ok_or_else(|| {
                let paths: Vec<&str> = trees.iter().map(|tree| tree.path.as_str()).collect();
                let hint = format!("name one of them, as in latest:{}", paths[0]);
                DockerError::Refused(format!("the snapshot holds {}\nhint: {hint}", paths.join(", ")))
            }),
        }
    }

    fn look(&mut self) -> Result<(), DockerError> {
        let workshop = Workshop::open(&self.daemon, self.state.as_deref())?;
        let shared = match self.reading {
            Reading::Engine => None,
            Reading::Auto | Reading::Folder => proof::prove(&workshop)?,
        };
        let (volume, made) = match volume::inspect(&self.daemon, &self.name) {
            Ok(volume) => (volume, None),
            Err(error) if error.is_missing() => {
                let volume = create(&self.daemon, &self.name, &self.fact)?;
                let made = Made { daemon: self.daemon.clone(), name: self.name.clone(), keep: false };
                (volume, Some(made))
            }
            Err(error) => return Err(error),
        };
        let users = idle(&self.daemon, &self.name)?;
        let helper = workshop.helper(&self.name, false)?;
        let folder = match &shared {
            Some(shared) => shared.folder(&volume, &helper)?,
            None => None,
        };
        let empty = made.is_some() || is_empty(&helper, folder.as_deref())?;
        if !empty && !self.force {
            let name = &self.name;
            let why = format!(
                "volume {name} is not empty\nhint: --force replaces what is in it, once the restored volume is proven"
            );
            return Err(DockerError::Refused(why));
        }
        if !empty && folder.is_none() && !users.is_empty() {
            let why = format!(
                "volume {} is used by container {} and can be reached through the engine only, which cannot empty it\n\
                 hint: remove the container, or restore into a new volume",
                self.name, users[0].name
            );
            return Err(DockerError::Refused(why));
        }
        drop(helper);
        let beside = |own: PathBuf| {
            let path = own.with_file_name(format!("{BESIDE}{}", nonce()));
            Beside { path, own, keep: false }
        };
        let place = folder.map(beside);
        self.filling = Some(Filling { workshop, shared, volume, made, empty, place });
        Ok(())
    }

    fn filling(&mut self) -> Result<&mut Filling, DockerError> {
        self.filling.as_mut().ok_or_else(|| DockerError::Failed("nothing was prepared: this is a bug".into()))
    }
}

/// The containers that have a volume mounted, none of which runs.
fn idle(daemon: &Daemon, name: &str) -> Result<Vec<User>, DockerError> {
    let users = volume::users(daemon, name)?;
    match users.iter().find(|user| user.running) {
        None => Ok(users),
        Some(User { name: container, .. }) => Err(DockerError::Refused(format!(
            "volume {name} is in use by the running container {container}\n\
             hint: stop it first: docker stop {container}"
        ))),
    }
}

/// Makes a volume as the facts say it was.
fn create(daemon: &Daemon, name: &str, fact: &Value) -> Result<Volume, DockerError> {
    let map = |member: &str| -> HashMap<String, String> {
        let object = fact.get(member).and_then(Value::as_object);
        let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        object.map(|object| object.iter().filter_map(pair).collect()).unwrap_or_default()
    };
    let request = VolumeCreateRequest {
        name: Some(name.to_owned()),
        driver: fact.get("driver").and_then(Value::as_str).map(str::to_owned),
        driver_opts: Some(map("options")),
        labels: Some(map("labels")),
        ..VolumeCreateRequest::default()
    };
    daemon.call("make volume", name, daemon.api.create_volume(request))
}

fn is_empty(helper: &Helper, folder: Option<&Path>) -> Result<bool, DockerError> {
    if let Some(folder) = folder {
        let local = |cause| {
            let subject = folder.display().to_string();
            DockerError::Local { operation: "look into", subject, cause }
        };
        return Ok(std::fs::read_dir(folder).map_err(local)?.next().is_none());
    }
    // The first member is the folder itself.
    let mut archive = tar::Archive::new(Download::start(helper, MOUNT));
    let local = |cause| DockerError::Local { operation: "look into", subject: "the volume".into(), cause };
    let mut entries = archive.entries().map_err(local)?;
    for _ in 0..2 {
        match entries.next() {
            None => return Ok(true),
            Some(member) => drop(member.map_err(local)?),
        }
    }
    Ok(false)
}

impl Target for VolumeTarget {
    fn trees(&mut self, trees: &[StoredTree]) {
        self.trees = trees.to_vec();
    }

    fn prepare(&mut self, _: &[StoredPart], facts: &Map<String, Value>) -> Result<Vec<usize>, SourceError> {
        let wanted = self.choose()?;
        let name = wanted.path.strip_prefix(&format!("/{VOLUMES}/")).unwrap_or_default();
        self.fact =
            facts.get("docker").and_then(|docker| docker["volumes"].get(name)).cloned().unwrap_or_default();
        self.wanted = Some(wanted);
        self.look()?;
        Ok(Vec::new())
    }

    fn place(&mut self, tree: &StoredTree) -> Result<Place, SourceError> {
        if self.wanted.as_ref() != Some(tree) {
            return Ok(Place::Nowhere);
        }
        let Some(beside) = &self.filling()?.place else { return Ok(Place::Tar) };
        std::fs::create_dir(&beside.path).map_err(|cause| {
            let subject = beside.path.display().to_string();
            DockerError::Local { operation: "make", subject, cause }
        })?;
        Ok(Place::Folder(beside.path.clone()))
    }

    fn placed(&mut self, _: &StoredTree, placed: Placed) -> Result<(), SourceError> {
        let name = self.name.clone();
        let filling = self.filling()?;
        let Some(beside) = &mut filling.place else { return Ok(()) };
        let daemon = &filling.workshop.daemon;
        let found = count(&beside.path, daemon)?;
        if found != placed {
            return Err(differs(&name, &format!("{found:?} are there, {placed:?} were put")).into());
        }
        // Filling took its time: somebody may have been started meanwhile.
        idle(daemon, &name)?;
        exchange(beside)?;
        if let Some(made) = &mut filling.made {
            made.keep = true;
        }
        // Or in this very moment: then it is in the old folder, and that must not go from under it.
        let warning = idle(daemon, &name).err().map(|error| {
            beside.keep = true;
            let old = beside.path.display();
            let why = error.to_string();
            let why = why.lines().next().unwrap_or_default();
            format!(
                "the old content of volume {name} is kept in {old}, for somebody may still write there ({why}); \
                 restart what uses the volume, then remove that folder"
            )
        });
        self.returned.warnings.extend(warning);
        let read_back = "every file was read back and is what was captured".to_owned();
        self.prove(placed, read_back);
        Ok(())
    }

    fn put_tree(&mut self, _: &StoredTree, tar: &mut dyn Read) -> Result<(), SourceError> {
        let name = self.name.clone();
        let filling = self.filling()?;
        idle(&filling.workshop.daemon, &name)?;
        let stage: Option<OwnVolume> = match filling.empty {
            true => None,
            false => Some(filling.workshop.volume()?),
        };
        let first = stage.as_ref().map_or(name.as_str(), |stage| &stage.name);
        let helper = filling.workshop.helper(first, true)?;
        let expected = upload(&helper, tar, Names::Relative)?;
        proven(&helper, &name, &expected)?;
        // It has the staged volume mounted, which could not be removed.
        drop(helper);
        if let Some(mut stage) = stage {
            // Proven: now the old one may go.
            let daemon = filling.workshop.daemon.clone();
            idle(&daemon, &name)?;
            filling.workshop.keep_volume(&mut stage, &name)?;
            let options = RemoveVolumeOptionsBuilder::new().build();
            let removed = daemon.call("remove volume", &name, daemon.api.remove_volume(&name, Some(options)));
            removed
                .and_then(|()| succeed(&filling.workshop, &filling.volume, &stage, &expected))
                .map_err(|error| unfinished(&name, &stage.name, error))?;
            stage.keep = false;
        }
        if let Some(made) = &mut filling.made {
            made.keep = true;
        }
        let Contents { files, directories, others, bytes, .. } = expected;
        // The first member is the folder itself.
        let placed = Placed { files, directories: directories.saturating_sub(1), others, bytes };
        self.prove(placed, "its archive was read back and has the same hash".into());
        Ok(())
    }

    fn put(&mut self, _: &StoredPart, _: &mut dyn Read) -> Result<(), SourceError> {
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        if self.returned.proven.is_empty() {
            return Err(DockerError::Failed(format!("volume {}: nothing came", self.name)).into());
        }
        let shared = self.filling()?.shared.is_some();
        tracing::debug!(shared, "volume {} is back", self.name);
        Ok(std::mem::take(&mut self.returned))
    }
}

impl VolumeTarget {
    fn prove(&mut self, placed: Placed, read_back: String) {
        let Placed { files, directories, others, bytes } = placed;
        let name = &self.name;
        let line =
            format!("volume {name}: {files} files, {directories} folders, {others} others; {read_back}");
        self.returned.proven.push(line);
        let fact = json!({ "files": files, "directories": directories, "others": others, "bytes": bytes });
        self.returned.facts.insert("docker".into(), json!({ "volumes": { name.as_str(): fact } }));
    }
}

fn differs(name: &str, how: &str) -> DockerError {
    DockerError::Failed(format!("volume {name} is not what was captured: {how}"))
}

/// Counts what is in a folder, not the folder itself.
fn count(folder: &Path, daemon: &Daemon) -> Result<Placed, DockerError> {
    let failed = |why: String| DockerError::Failed(format!("cannot count {}: {why}", folder.display()));
    let places =
        Places::of_folders([(b"v".as_slice(), folder)]).map_err(|errno| failed(errno.to_string()))?;
    let walk = walk_folder(&Arc::new(places), b"v", WalkOptions::default(), &daemon.cancel)
        .map_err(|error| failed(error.to_string()))?;
    let mut found = Placed::default();
    for item in walk.flatten() {
        let item = item.map_err(|problem| failed(problem.to_string()))?;
        let stat = item.stat;
        if stat.is_directory() {
            found.directories += u64::from(item.key != b"v");
        } else if stat.is_file() {
            found.files += 1;
            found.bytes += stat.size_bytes;
        } else {
            found.others += 1;
        }
    }
    daemon.cancel.check()?;
    Ok(found)
}

/// Gives the volume its new folder in one step; the old one is removed when `beside` is dropped.
fn exchange(beside: &Beside) -> Result<(), DockerError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let local = |cause| {
        let subject = beside.own.display().to_string();
        DockerError::Local { operation: "exchange", subject, cause }
    };
    renameat_with(CWD, &beside.path, CWD, &beside.own, RenameFlags::EXCHANGE)
        .map_err(|errno| local(errno.into()))?;
    let parent = beside.own.parent().unwrap_or(Path::new("/"));
    std::fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(local)
}

/// Makes a volume that was removed anew, with what is in the staged one.
fn succeed(
    workshop: &Arc<Workshop>,
    volume: &Volume,
    stage: &OwnVolume,
    expected: &Contents,
) -> Result<(), DockerError> {
    let name = &volume.name;
    create(&workshop.daemon, name, &volume::fact(volume, &[], "engine"))?;
    let from = workshop.helper(&stage.name, false)?;
    let to = workshop.helper(name, true)?;
    let mut download = Download::start(&from, &format!("{MOUNT}/."));
    upload(&to, &mut download, Names::Relative)?;
    proven(&to, name, expected)
}

/// What is said when the old volume may be gone and the new one is not whole.
fn unfinished(name: &str, stage: &str, error: DockerError) -> DockerError {
    let where_it_is = format!(
        "volume {name} was being replaced and may be gone or half filled; what was restored is whole in volume {stage}, \
         which is kept"
    );
    match error {
        // It must stay what it is.
        DockerError::Cancelled(cancelled) => {
            tracing::warn!("{where_it_is}");
            cancelled.into()
        }
        error => DockerError::Failed(format!(
            "{error}; {where_it_is}\nhint: restore once more, then docker volume rm {stage}"
        )),
    }
}

/// Reads a helper's volume back.
fn proven(helper: &Helper, name: &str, expected: &Contents) -> Result<(), DockerError> {
    let found = contents(Download::start(helper, MOUNT), Names::BelowMount);
    let found = found.map_err(|cause| {
        let subject = format!("volume {name} back");
        DockerError::Local { operation: "read", subject, cause }
    })?;
    if found.hash == expected.hash {
        return Ok(());
    }
    let counts = |contents: &Contents| {
        let Contents { files, directories, others, bytes, .. } = contents;
        format!("{files} files, {directories} folders, {others} others, {bytes} bytes")
    };
    Err(differs(name, &format!("there are {}, there were {}", counts(&found), counts(expected))))
}
