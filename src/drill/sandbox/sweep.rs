//! Removes what killed drills left behind: their folders with whatever works in them, and commands that still run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::PREFIX;

/// In the environment of every command that a drill runs: the drill's own process.
pub const MAKER: &str = "LIFEBOAT_DRILL_PROCESS";
/// How long what is left has to end by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);

/// Sweeps sandboxes below `scratch` whose makers are gone; returns their folders. One that cannot be removed is
/// logged and left to the next.
pub fn sweep(scratch: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(scratch) else { return Vec::new() };
    let mut swept = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Some(maker) = name.to_str().and_then(maker_of) else { continue };
        // Somebody else's folder of this name is not ours to remove; root's drills give theirs to the server's user.
        let me = rustix::process::geteuid();
        let is_ours = entry.metadata().is_ok_and(|found| {
            found.is_dir() && (me.is_root() || std::os::unix::fs::MetadataExt::uid(&found) == me.as_raw())
        });
        if !is_ours || Path::new("/proc").join(maker.to_string()).exists() {
            continue;
        }
        end_all_in(&path);
        match std::fs::remove_dir_all(&path) {
            Ok(()) => swept.push(path),
            Err(error) => tracing::warn!(%error, "cannot sweep {}", path.display()),
        }
    }
    swept
}

fn maker_of(name: &str) -> Option<i32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// Ends every process that works in the folder or below it: first as an operator would, so that a server leaves no
/// shared memory behind, then at once. Such as servers that a runbook started.
pub fn end_all_in(folder: &Path) {
    // The kernel names folders from the root, whatever a scratch folder was called.
    let Ok(folder) = std::fs::canonicalize(folder) else { return };
    end_all(|process| Some(std::fs::read_link(process.join("cwd")).ok()?.starts_with(&folder)));
}

/// Ends commands, and what they started, whose drill is gone: it was killed, and could not end them. How many there were.
pub fn end_orphans() -> usize {
    end_all(|process| Some(!Path::new("/proc").join(maker_in(process)?).exists()))
}

/// The process that a command's environment names, if that is one of ours to look for: elsewhere numbers mean others.
fn maker_in(process: &Path) -> Option<String> {
    let environment = std::fs::read(process.join("environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(MAKER.as_bytes())?.strip_prefix(b"="))?;
    let namespace = |process: &Path| std::fs::read_link(process.join("ns/pid")).ok();
    let (theirs, ours) = (namespace(process)?, namespace(Path::new("/proc/self"))?);
    let maker = std::str::from_utf8(value).ok()?;
    (theirs == ours && maker.parse::<u32>().is_ok()).then(|| maker.to_owned())
}

/// Ends all processes but this one of which `is_meant` says so of their folders in `/proc`; how many there were.
fn end_all(is_meant: impl Fn(&Path) -> Option<bool>) -> usize {
    let find = || -> Vec<Pid> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pid = |process: std::fs::DirEntry| {
            let pid = process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
            let is_other = pid != rustix::process::getpid();
            (is_other && is_meant(&process.path())?).then_some(pid)
        };
        processes.flatten().filter_map(pid).collect()
    };
    let (mut waited, mut found) = (Duration::ZERO, find());
    let count = found.len();
    for pid in &found {
        // It may have ended meanwhile.
        let _ = kill_process(*pid, Signal::INT);
    }
    while !found.is_empty() && waited < ENDS_WITHIN {
        std::thread::sleep(PAUSE);
        waited += PAUSE;
        found = find();
    }
    for pid in found {
        let _ = kill_process(pid, Signal::KILL);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_drills_left_is_swept() {
        let scratch = tempfile::tempdir().unwrap();
        // No process has this number: it is above the system's limit.
        let (dead, alive) = (format!("{PREFIX}2000000000-x"), format!("{PREFIX}{}-x", std::process::id()));
        for name in [dead.as_str(), alive.as_str(), "lifeboat-drill-mine", "other"] {
            std::fs::create_dir(scratch.path().join(name)).unwrap();
        }
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(scratch.path().join(&dead))
            .spawn()
            .unwrap();
        assert_eq!(sweep(scratch.path()), [scratch.path().join(&dead)]);
        assert!(!child.wait().unwrap().success());
        assert!(scratch.path().join(&alive).exists());
        assert!(scratch.path().join("lifeboat-drill-mine").exists());
    }
}
