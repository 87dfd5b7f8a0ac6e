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
