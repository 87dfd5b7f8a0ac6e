//! Volumes: both ways of reading, both ways of giving back, and what is refused.

use super::super::conformance::{self, Subject};
use super::{filled, listing, machine, shell, unique};
use crate::cli::Machine;
use crate::services::dockerd::{Containers, IMAGE, engine};

/// A volume read directly, or through the engine.
struct Volumes {
    name: String,
    query: &'static str,
    whole_seconds: bool,
}

impl Volumes {
    fn direct() -> Self {
        Self { name: unique("direct"), query: "", whole_seconds: false }
    }
    fn through_engine() -> Self {
        Self { name: unique("engine"), query: "?read=engine", whole_seconds: true }
    }
}

impl Subject for Volumes {
    fn machine(&self) -> Machine {
        machine()
    }
    fn address(&self) -> String {
        format!("docker-volume:{}{}", self.name, self.query)
    }
    fn vacant(&mut self) -> String {
        format!("docker-volume:{}{}", unique(&format!("{}-back", self.name)), self.query)
    }
    fn fill(&mut self) {
        filled(engine(), &self.name);
    }
    fn change(&mut self) {
        shell(&engine().folder(&self.name), "rm -r a; echo more >> a-b; echo fresh > fresh; chmod 0710 .");
    }
    fn content(&self, address: &str) -> String {
        let name = address.strip_prefix("docker-volume:").unwrap().split('?').next().unwrap();
        listing(&engine().folder(name), self.whole_seconds)
    }
    fn nowhere(&self) -> String {
        format!("docker-volume:no.such_volume-{}", self.name)
    }
}

#[test]
fn a_volume_read_directly_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Volumes::direct());
}

#[test]
fn a_volume_read_through_the_engine_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Volumes::through_engine());
}

#[test]
fn a_volume_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Volumes::direct());
}

#[test]
fn damage_in_the_repository_leaves_a_volume_as_it_was() {
    conformance::damage_reaches_no_target(&mut Volumes::direct());
    conformance::damage_reaches_no_target(&mut Volumes::through_engine());
}

#[test]
fn a_container_runs_on_while_its_volume_is_read() {
    let (engine, volume, name) = (engine(), unique("live"), unique("live-user"));
    filled(engine, &volume);
    let _containers = Containers(name.clone());
    let mount = format!("{volume}:/data");
    engine.docker(&["run", "-d", "--name", &name, "-v", &mount, IMAGE, "sleep", "600"]);
    let machine = machine();
    let said = machine.run(&["--json", "backup", &format!("docker-volume:{volume}")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(engine.running(&name), [name.as_str()]);
    let said = machine.run(&["restore", "latest", "--to", &format!("docker-volume:{volume}"), "--force"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains(&format!("running container {name}")), "{}", said.stderr);
}

#[test]
fn a_database_under_its_running_server_is_refused() {
    let (engine, volume, name) = (engine(), unique("pgdata"), unique("pgdata-user"));
    engine.docker(&["volume", "create", &volume]);
    shell(&engine.folder(&volume), "mkdir -p 18/docker; echo 18 > 18/docker/PG_VERSION");
    let containers = Containers(name.clone());
    let mount = format!("{volume}:/data");
    let labels = ["com.docker.compose.project=shop", "com.docker.compose.service=db"];
    let mut arguments = vec!["run", "-d", "--name", &name, "-v", &mount];
    labels.iter().for_each(|label| arguments.extend(["--label", label]));
    arguments.extend([IMAGE, "sleep", "600"]);
    engine.docker(&arguments);
    let machine = machine();
    // Directly it is seen before a byte is read, through the engine when it comes by.
    for query in ["", "?read=engine"] {
        let said = machine.run(&["backup", &format!("docker-volume:{volume}{query}")]);
        assert_eq!(said.code, 2, "{query}: {}", said.stderr);
        assert!(said.stderr.contains("postgres://db@shop/*"), "{}", said.stderr);
        let said = machine.run(&["--json", "snapshots"]);
        assert_eq!(said.json().as_array().map(Vec::len), Some(0), "{}", said.stdout);
    }
    let said = machine.run(&["backup", &format!("docker-volume:{volume}?crash-unsafe=true")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    drop(containers);
    // At rest it is files like any others.
    let said = machine.run(&["backup", &format!("docker-volume:{volume}")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn names_and_options_that_make_no_sense_are_refused() {
    let machine = machine();
    for (address, hint) in [
        ("docker-volume:../etc", "no name of a volume"),
        ("docker-volume:x?stopp=yes", "did you mean stop?"),
        ("docker-project:a b", "no name of a project"),
    ] {
        let said = machine.run(&["backup", address]);
        assert_eq!(said.code, 2, "{address}: {}", said.stderr);
        assert!(said.stderr.contains(hint), "{}", said.stderr);
    }
}

#[test]
fn a_daemon_that_is_not_there_is_named() {
    let mut machine = machine();
    machine.set("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let said = machine.run(&["backup", "docker-volume:x"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(
        said.stderr.contains("unix:///nowhere/docker.sock") && said.stderr.contains("hint: "),
        "{}",
        said.stderr
    );
}
