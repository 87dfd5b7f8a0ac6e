//! Removes what killed drills left behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::PREFIX;

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
    let folder = folder.as_path();
    let mut waited = Duration::ZERO;
    let mut found = working_in(folder);
    for pid in &found {
        // It may have ended meanwhile.
        let _ = kill_process(*pid, Signal::INT);
    }
    while !found.is_empty() && waited < ENDS_WITHIN {
        std::thread::sleep(PAUSE);
        waited += PAUSE;
        found = working_in(folder);
    }
    for pid in found {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn working_in(folder: &Path) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pid = |process: &std::fs::DirEntry| {
        let pid = process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        let works_here = std::fs::read_link(process.path().join("cwd")).ok()?.starts_with(folder);
        works_here.then_some(pid)
    };
    processes.flatten().filter_map(|process| pid(&process)).collect()
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
