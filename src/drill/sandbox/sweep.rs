//! Removes what killed drills left behind.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::PREFIX;

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

/// Ends every process that works in the folder or below it, such as servers that a runbook started.
pub fn end_all_in(folder: &Path) {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    // The kernel names folders from the root, whatever a scratch folder was called.
    let Ok(folder) = std::fs::canonicalize(folder) else { return };
    for process in processes.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let works_here =
            std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
        if let (Some(pid), true) = (pid, works_here) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
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
