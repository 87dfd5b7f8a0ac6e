//! Containers stopped, paused and prepared while their volumes are read, and set going whatever happens.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{machine, unique};
use crate::cli::Machine;
use crate::services::dockerd::{Containers, Engine, IMAGE, engine};

/// A container that uses a volume, with labels.
struct Service {
    volume: String,
    name: String,
    _containers: Containers,
}

fn service(engine: &Engine, labels: &[&str]) -> Service {
    let (volume, name) = (unique("quiet"), unique("quiet-user"));
    engine.docker(&["volume", "create", &volume]);
    let mount = format!("{volume}:/data");
    // Ends at once when told to; what it wrote last tells that it was told.
    let script =
        "trap 'echo ended >> /data/log; exit 0' TERM; echo begun >> /data/log; while :; do sleep 0.05; done";
    let mut arguments = vec!["run", "-d", "--name", &name, "-v", &mount];
    labels.iter().for_each(|label| arguments.extend(["--label", label]));
    arguments.extend([IMAGE, "sh", "-c", script]);
    let containers = Containers(name.clone());
    engine.docker(&arguments);
    let log = engine.folder(&volume).join("log");
    engine.until("the container writes", |_| log.exists());
    Service { volume, name, _containers: containers }
}

impl Service {
    fn backup(&self, machine: &Machine, query: &str) -> crate::cli::Said {
        machine.run(&["backup", &format!("docker-volume:{}{query}", self.volume)])
    }
    fn captured_log(&self, machine: &Machine) -> String {
        machine.run(&["dump", &format!("latest:/volumes/{}/log", self.volume)]).stdout
    }
    fn runs(&self) -> bool {
        engine().running(&self.name) == [self.name.as_str()]
    }
}

#[test]
fn a_container_is_stopped_for_the_read_and_started_again() {
    let (engine, machine) = (engine(), machine());
    let by_label = service(engine, &["lifeboat.stop=true"]);
    let said = by_label.backup(&machine, "");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(by_label.captured_log(&machine), "begun\nended\n");
    assert!(by_label.runs());
    let by_name = service(engine, &[]);
    let said = by_name.backup(&machine, &format!("?stop={}", by_name.name));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(by_name.captured_log(&machine), "begun\nended\n");
    assert!(by_name.runs());
    // The address overrides the label.
    let said = by_label.backup(&machine, "?stop=no");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(by_label.captured_log(&machine), "begun\nended\nbegun\n");
    // No intent is left.
    assert_eq!(std::fs::read_dir(machine.path("state/docker")).unwrap().count(), 0);
    let said = by_name.backup(&machine, "?stop=nobody");
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains(&format!("there are {}", by_name.name)), "{}", said.stderr);
}

#[test]
fn a_container_is_paused_and_prepared() {
    let (engine, machine) = (engine(), machine());
    let labels = [
        "lifeboat.pause=true",
        "lifeboat.exec-pre=echo pre >> /data/log",
        "lifeboat.exec-post=echo post >> /data/log",
    ];
    let service = service(engine, &labels);
    let said = service.backup(&machine, "?read=engine");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(service.captured_log(&machine), "begun\npre\n");
    assert!(service.runs());
    let log = || std::fs::read_to_string(engine.folder(&service.volume).join("log")).unwrap();
    assert_eq!(log(), "begun\npre\npost\n");
    // A command that fails: no snapshot, and what undoes it runs.
    let said = service.backup(&machine, &format!("?exec-pre={}:echo%20no%20room%3B%20false", service.name));
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("ended with exit status 1; it said:\n  no room"), "{}", said.stderr);
    assert_eq!(log(), "begun\npre\npost\npre\npost\n");
    assert!(service.runs());
}

/// Is stopped before the slow one.
const FIRST: &[&str] = &["com.docker.compose.depends_on=slow:service_started:true"];

/// A backup under way whose container stands still: another one is slow to stop.
fn standing_still(machine: &Machine, service: &Service, query: &str) -> (Child, Containers) {
    let (engine, name) = (engine(), unique("quiet-slow"));
    let mount = format!("{}:/data", service.volume);
    let script = "trap 'sleep 3; exit 0' TERM; while :; do sleep 0.05; done";
    let containers = Containers(name.clone());
    engine.docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--label",
        "com.docker.compose.service=slow",
        "-v",
        &mount,
        IMAGE,
        "sh",
        "-c",
        script,
    ]);
    let address = format!("docker-volume:{}?stop=yes&read=engine{query}", service.volume);
    let mut command = machine.raw(&["backup", &address]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    engine.until("the container is stopped", |engine| engine.running(&service.name).is_empty());
    (child, containers)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_run_that_is_killed_is_repaired_by_the_next() {
    let (engine, machine) = (engine(), machine());
    let service = service(engine, FIRST);
    let (mut child, slow) = standing_still(&machine, &service, "");
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    assert!(!service.runs());
    // The engine is still stopping the other one.
    let said = machine.run(&["snapshots"]);
    assert_eq!(said.code, 0);
    assert!(
        said.stderr.contains(&format!("container {} was started again", service.name)),
        "{}",
        said.stderr
    );
    assert!(service.runs() && engine.running(&slow.0) == [slow.0.as_str()]);
    assert_eq!(machine.run(&["snapshots"]).stderr, "", "said once");
    assert_eq!(machine.run(&["--json", "snapshots"]).json().as_array().map(Vec::len), Some(0));
    // Nothing else is left of it.
    assert_eq!(std::fs::read_dir(machine.path("state/docker")).unwrap().count(), 0);
}

#[test]
fn an_interrupted_run_leaves_containers_running() {
    let (engine, machine) = (engine(), machine());
    let service = service(engine, FIRST);
    let (child, slow) = standing_still(&machine, &service, "");
    signal(&child, Signal::INT);
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 130, "{}", said.stderr);
    assert!(service.runs() && engine.running(&slow.0) == [slow.0.as_str()]);
    assert_eq!(machine.run(&["--json", "snapshots"]).json().as_array().map(Vec::len), Some(0));
    assert_eq!(std::fs::read_dir(machine.path("state/docker")).unwrap().count(), 0);
}

#[test]
fn containers_do_not_stand_still_for_longer_than_allowed() {
    let (engine, machine) = (engine(), machine());
    let service = service(engine, FIRST);
    let (child, slow) = standing_still(&machine, &service, "&max-stop=1s");
    engine.until("the container runs", |_| service.runs());
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("max-stop"), "{}", said.stderr);
    assert!(service.runs() && engine.running(&slow.0) == [slow.0.as_str()]);
    assert_eq!(machine.run(&["--json", "snapshots"]).json().as_array().map(Vec::len), Some(0));
}

#[test]
fn a_container_that_stopping_would_remove_is_not_stopped() {
    let (engine, machine, name) = (engine(), machine(), unique("quiet-rm"));
    let containers = Containers(name.clone());
    let mount = format!("{name}-data:/data");
    engine.docker(&["run", "-d", "--rm", "--name", &name, "-v", &mount, IMAGE, "sleep", "600"]);
    let said = machine.run(&["backup", &format!("docker-volume:{name}-data?stop=yes")]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains(&format!("pause={name}")), "{}", said.stderr);
    assert_eq!(engine.running(&name), [name.as_str()]);
    drop(containers);
}

#[test]
fn a_container_that_cannot_be_started_again_makes_the_run_partial() {
    let (engine, machine, name) = (engine(), machine(), unique("quiet-lost"));
    let containers = Containers(name.clone());
    let gone = machine.path("gone");
    std::fs::create_dir(&gone).unwrap();
    let (mount, bind) = (format!("{name}-data:/data"), format!("type=bind,src={},dst=/gone", gone.display()));
    engine.docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "-v",
        &mount,
        "--mount",
        &bind,
        IMAGE,
        "sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 0.05; done",
    ]);
    std::fs::remove_dir(&gone).unwrap();
    let said = machine.run(&["backup", &format!("docker-volume:{name}-data?stop=yes")]);
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains(&format!("cannot start container {name}")), "{}", said.stderr);
    drop(containers);
}
