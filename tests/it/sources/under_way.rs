//! A backup or restore while it is under way: started, its children found, killed; and what must not be left of it.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::{Machine, Said};

/// Starts the binary, its files below the machine's folder.
pub fn spawn(machine: &Machine, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    std::fs::create_dir_all(machine.path("tmp")).unwrap();
    let mut command = machine.raw(arguments);
    command.env("TMPDIR", machine.path("tmp")).envs(variables.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn wait(machine: &Machine, child: Child) -> Said {
    machine.said(child.wait_with_output().unwrap())
}

/// A child of `parent` whose name, as in `/proc/*/stat`, begins `(program`.
pub fn child_of(parent: u32, program: &str) -> Option<i32> {
    let children = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = children.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((start, rest)) = stat.rsplit_once(')') else { return false };
        let of: Option<u32> = rest.split_whitespace().nth(1).and_then(|of| of.parse().ok());
        start.ends_with(program) && of == Some(parent)
    })
}

pub fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub fn no_snapshot(machine: &Machine) {
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0), "{}", listed.stdout);
}

/// No session on the server, as `sessions` counts them, and no file here.
pub fn nothing_left(machine: &Machine, sessions: impl Fn() -> String) {
    for _ in 0..200 {
        if sessions() == "0" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(sessions(), "0");
    let left: Vec<_> = std::fs::read_dir(machine.path("tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
