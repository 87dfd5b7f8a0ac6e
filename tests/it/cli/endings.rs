//! How a run ends when its terminal goes away, and what a full disk leaves of the files that a run writes.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Machine;
use super::restoring::Mount;

fn wait_for(path: &Path) {
    let since = Instant::now();
    while fs::read(path).map_or(true, |bytes| bytes.is_empty()) {
        assert!(since.elapsed() < Duration::from_secs(60), "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_terminal_that_goes_away_ends_a_run_cleanly() {
    let machine = Machine::with_repository();
    let script = "echo $$ > child; while :; do echo x; sleep 0.1; done";
    let mut command =
        machine.raw(&["backup", "--stdin-filename", "s", "--command", "--", "sh", "-c", script]);
    let mut run = command.process_group(0).spawn().unwrap();
    wait_for(&machine.path("child"));
    let child: i32 = fs::read_to_string(machine.path("child")).unwrap().trim().parse().unwrap();
    let id = Pid::from_raw(run.id() as i32);
    // Twice, as from the system and the shell: the second is no wish to stop at once.
    kill(id, Signal::SIGHUP).unwrap();
    kill(id, Signal::SIGHUP).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(kill(Pid::from_raw(child), None).is_err(), "the command it ran is still there");
    let said = machine.run(&["snapshots", "--json"]);
    assert_eq!(said.json().as_array().map_or(0, Vec::len), 0, "{}", said.stdout);
}

#[test]
fn a_run_that_is_to_outlive_its_terminal_does() {
    let machine = Machine::with_repository();
    let script = "echo $$ > child; while ! test -e on; do sleep 0.05; done; echo done";
    let of_run = machine.raw(&["backup", "--stdin-filename", "s", "--command", "--", "sh", "-c", script]);
    let mut nohup = std::process::Command::new("nohup");
    nohup.arg(of_run.get_program()).args(of_run.get_args()).env_clear();
    nohup.envs(of_run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut run = nohup.current_dir(of_run.get_current_dir().unwrap()).spawn().unwrap();
    wait_for(&machine.path("child"));
    kill(Pid::from_raw(run.id() as i32), Signal::SIGHUP).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    machine.file("on", "on");
    assert_eq!(run.wait().unwrap().code(), Some(0));
}

#[test]
fn a_full_disk_leaves_no_half_file() {
    let machine = Machine::with_repository();
    machine.file("data/a", "a");
    assert_eq!(machine.run(&["backup", "data", "--job", "data"]).code, 0);
    let drill = ["drill", "run", "d", "--snapshot", "data@latest", "--no-keep"];
    assert_eq!(machine.run(&drill).code, 0);
    let disk = machine.path("full");
    let _mount = Mount::of_bytes(disk.clone(), 64 << 10);
    machine.file("full/old.json", "old");
    fs::write(disk.join("ballast"), vec![1; 64 << 10]).unwrap_err();
    for arguments in [
        &["config", "init", "full/lifeboat.toml"][..],
        &["kit", "export", "full/kit.txt"],
        &["kit", "export", "full/kit.html"],
        &["kit", "export", "kit.txt", "--html", "full/page.html"],
        &["dump", "data@latest", "-o", "full/a"],
        &["key", "add", "--role", "writer", "--new-key-file", "full/key"],
        &[&drill[..], &["--json", "full/e.json"]].concat(),
        &[&drill[..], &["--json", "full/old.json"]].concat(),
        &[&drill[..], &["--html", "full/e.html"]].concat(),
        &[&drill[..], &["--junit", "full/e.xml"]].concat(),
    ] {
        let said = machine.run(arguments);
        assert_ne!(said.code, 0, "{arguments:?}: {}", said.stdout);
        let file = arguments.iter().rfind(|argument| argument.starts_with("full/")).unwrap();
        assert!(
            said.stderr.contains(file) && said.stderr.contains("No space left"),
            "{arguments:?}: {}",
            said.stderr
        );
        let left = fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = left.map(|name| name.into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["ballast", "old.json"], "{arguments:?}");
    }
    assert_eq!(fs::read(disk.join("old.json")).unwrap(), b"old");
}

#[test]
fn config_init_writes_where_the_file_is_looked_for() {
    let mut machine = Machine::new();
    let said = machine.run(&["config", "init", "--config", "by-flag.toml"]);
    assert!(said.code == 0 && machine.path("by-flag.toml").exists(), "{}{}", said.stdout, said.stderr);
    machine.set("LIFEBOAT_CONFIG", machine.path("by-variable.toml").to_str().unwrap());
    let said = machine.run(&["config", "init"]);
    assert!(said.code == 0 && machine.path("by-variable.toml").exists(), "{}{}", said.stdout, said.stderr);
    assert!(!said.stdout.contains("export LIFEBOAT_CONFIG"), "{}", said.stdout);
    assert_eq!(machine.run(&["config", "check"]).code, 0);
    assert_eq!(machine.run(&["config", "init"]).code, 11, "it is never overwritten");
    assert_eq!(machine.run(&["config", "init", "by-name.toml"]).code, 0);
}
