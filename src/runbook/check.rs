//! What makes a runbook dangerous or useless although it can be read. Nothing is run and nothing is reached.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::shell::{self, Command, Script};
use super::{Kind, Link, Phase, Role, Rollback, Runbook, Step, parse, redact};
use crate::base::own_file::{self, Trust};

/// No step may take longer.
const TIMEOUT_LIMIT: Duration = Duration::from_secs(24 * 3600);
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);
/// What every shell has.
const SYSTEM_VARIABLES: [&str; 7] = ["HOME", "PATH", "PWD", "USER", "TMPDIR", "HOSTNAME", "LINENO"];
/// Set by a drill.
pub const DRILL_VARIABLES: [&str; 3] = ["SANDBOX", "POSTGRES", "REDIS"];

/// Judges the words of one of our own command lines; the error is for people.
pub type Own<'o> = dyn Fn(&[&str]) -> Result<(), String> + 'o;

/// Whether a runbook may be rehearsed all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// It is not followed in a drill like this.
    Error,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    pub line: usize,
    pub severity: Severity,
    /// Which rule, for programs: `rollback`, `secret`…
    pub rule: &'static str,
    pub message: String,
}

/// A step with what its text holds.
pub(super) struct Read<'r> {
    pub step: &'r Step,
    pub script: Script,
}

impl Read<'_> {
    /// Line in the document of a line in the text.
    pub fn line(&self, line: usize) -> usize {
        self.step.line + 1 + line
    }

    /// Variables that come from outside.
    pub fn needs(&self) -> BTreeSet<&str> {
        let uses = self.script.uses.iter().map(|(name, _)| name.as_str());
        uses.filter(|name| !self.script.sets.contains(*name)).collect()
    }
}

pub(super) fn read(step: &Step) -> Read<'_> {
    let script = match step.kind {
        Kind::Shell(_) => shell::read(&step.text),
        Kind::Manual { .. } => Script::default(),
    };
    Read { step, script }
}

struct Found(Vec<Problem>);

impl Found {
    fn error(&mut self, line: usize, rule: &'static str, message: impl Into<String>) {
        self.0.push(Problem { line, severity: Severity::Error, rule, message: message.into() });
    }

    fn note(&mut self, line: usize, rule: &'static str, message: impl Into<String>) {
        self.0.push(Problem { line, severity: Severity::Note, rule, message: message.into() });
    }
}

/// Holds a runbook against the rules; in the order of its lines.
pub fn check(runbook: &Runbook, own: &Own) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    let steps: Vec<Read> = runbook.steps.iter().map(read).collect();
    named_as_its_file(runbook, &mut found);
    objectives(runbook, &mut found);
    for read in &steps {
        timeout(runbook, read.step, &mut found);
        way_back(runbook, read, &mut found);
        looks_destructive(read, &mut found);
        acts_on_the_host(runbook, read, &mut found);
        ours(read, own, &mut found);
        variables_of(runbook, read, &mut found);
    }
    stand_ins(runbook, &mut found);
    variables_used(runbook, &steps, &mut found);
    secrets(runbook, &mut found);
    links(runbook, &mut found);
    let ends_proven = runbook
        .steps
        .iter()
        .any(|step| step.phase == Phase::Verify && step.is_on_the_way() && !step.is_manual());
    if !ends_proven {
        found.error(1, "verify", "no step of phase verify: a recovery that nothing proves is none");
    }
    super::drill_rules::check(runbook, &steps, &mut |line, message| found.error(line, "drill", message));
    found.0.sort();
    found.0.dedup();
    found.0
}

fn named_as_its_file(runbook: &Runbook, found: &mut Found) {
    let stem = runbook.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if runbook.front.name != stem {
        found.error(
            1,
            "name",
            format!("name: {} is not what the file is called: {stem}", runbook.front.name),
        );
    }
}

fn objectives(runbook: &Runbook, found: &mut Found) {
    let front = &runbook.front;
    if front.rto.is_zero() {
        found.error(1, "objective", "rto: an RTO of nothing cannot be met");
    }
    match &front.measured {
        None => found.note(
            1,
            "measured",
            "it was never rehearsed, or nothing says so: runbook run --drill --record",
        ),
        Some(measured) if !runbook.is_as_measured(measured) => found.note(
            measured.line,
            "measured",
            format!(
                "the steps changed since they were timed on {}: runbook run --drill --record",
                measured.date
            ),
        ),
        Some(measured) if measured.rto > front.rto => {
            let why = format!("the rehearsal of {} took longer than the objective", measured.date);
            found.error(measured.line, "measured", why);
        }
        Some(_) => {}
    }
}

fn timeout(runbook: &Runbook, step: &Step, found: &mut Found) {
    if step.is_manual() {
        return;
    }
    if step.timeout < LEAST_TIMEOUT || step.timeout > TIMEOUT_LIMIT {
        found.error(step.line, "timeout", format!("step {}: a timeout lies between 1s and 24h", step.name));
    } else if step.timeout > runbook.front.rto && step.is_on_the_way() {
        found.error(
            step.line,
            "timeout",
            format!(
                "step {} may take longer than the whole recovery: its timeout is above the rto",
                step.name
            ),
        );
    }
}

fn way_back(runbook: &Runbook, read: &Read, found: &mut Found) {
    let step = read.step;
    let in_a_drill_only = matches!(step.role, Role::Before | Role::StandIn { .. });
    if !step.is_destructive {
        if step.confirm.is_some() {
            found.error(
                step.line,
                "confirm",
                format!("step {}: confirm belongs to a destructive step", step.name),
            );
        }
        if step.rollback.is_some() {
            found.error(
                step.line,
                "rollback",
                format!("step {}: rollback belongs to a destructive step", step.name),
            );
        }
        return;
    }
    match &step.confirm {
        None if !in_a_drill_only => {
            let why = format!(
                "step {} is destructive and has no confirm: which variable's value is to be typed?",
                step.name
            );
            found.error(step.line, "confirm", why);
        }
        Some(name) if runbook.variable(name).is_none() => {
            found.error(
                step.line,
                "confirm",
                format!("step {}: confirm={name} is no variable of this runbook", step.name),
            );
        }
        Some(name) if !step.is_manual() && !read.needs().contains(name.as_str()) => {
            let why = format!("step {}: it does not use {name}, so typing that confirms nothing", step.name);
            found.error(step.line, "confirm", why);
        }
        _ => {}
    }
    match &step.rollback {
        None if !in_a_drill_only && step.phase != Phase::Rollback => {
            let why = format!(
                "step {} is destructive and has no rollback: name a step, or say in words what is kept",
                step.name
            );
            found.error(step.line, "rollback", why);
        }
        Some(Rollback::Step(name)) => match runbook.step(name) {
            Some(back) if back.phase == Phase::Rollback => {}
            Some(_) => found.error(step.line, "rollback", format!("step {name} is not of phase rollback")),
            None => found.error(step.line, "rollback", format!("rollback={name}: there is no such step")),
        },
        _ => {}
    }
}

fn looks_destructive(read: &Read, found: &mut Found) {
    let step = read.step;
    if step.is_destructive || matches!(step.role, Role::Before) {
        return;
    }
    for command in &read.script.commands {
        if let Some(what) = destroys(command) {
            let why =
                format!("step {}: {what} removes or replaces something: mark it destructive", step.name);
            found.error(read.line(command.line), "destructive", why);
        }
    }
}

/// What of a command destroys, if it does.
pub(super) fn destroys(command: &Command) -> Option<String> {
    let program = command.program();
    let named = |flags: &[&str]| command.has(flags).then(|| program.to_owned());
    let second = command.words.get(1).map_or("", |word| word.text.as_str());
    let says = |words: &[&str]| {
        let text: Vec<String> = command.words.iter().map(|word| word.text.to_ascii_lowercase()).collect();
        let text = format!(" {} ", text.join(" "));
        words.iter().any(|word| text.contains(word))
    };
    let found = match program {
        "rm" | "rmdir" | "unlink" | "shred" | "dd" | "wipefs" | "truncate" | "mv" | "dropdb" | "dropuser" => {
            true
        }
        _ if program.starts_with("mkfs") => true,
        "find" => {
            return command
                .has(&["-delete"])
                .then(|| "find -delete".into())
                .or_else(|| runs_a_destroyer(command));
        }
        "rsync" => command.words.iter().any(|word| word.text.starts_with("--delete")),
        "git" => {
            says(&[" push "]) && command.has(&["--force", "-f", "--mirror", "--delete"])
                || says(&[" reset --hard", " clean ", " update-ref -d", " branch -d "])
        }
        "redis-cli" | "valkey-cli" => {
            says(&[" flushall", " flushdb", " del ", " shutdown", " replicaof", " slaveof"])
        }
        "psql" => says(&["drop ", "truncate ", "delete from", " rename to"]),
        "terraform" | "tofu" => says(&[" apply", " destroy", " state rm", " state push", " import "]),
        "docker" | "podman" => says(&[" rm ", " prune", " down"]),
        "kubectl" => says(&[" delete "]),
        "aws" | "b2" | "hcloud" | "doctl" | "gcloud" | "az" => says(&["delete", "terminate", " rm "]),
        "lifeboat" => return lifeboat_destroys(command),
        "sh" | "bash" | "dash" | "eval" | "xargs" | "timeout" | "nice" | "ssh" | "chroot" => {
            return runs_a_destroyer(command);
        }
        _ => false,
    };
    if found {
        return Some(program.to_owned());
    }
    let outside = |path: &str| path.starts_with('/') && !path.starts_with("/dev/");
    if let Some(target) = command.writes.iter().find(|target| outside(&target.text)) {
        return Some(format!("writing to {}", target.text));
    }
    named(&[]).or_else(|| (program == "tee" && outside(second)).then(|| format!("tee {second}")))
}

/// Of a program that runs what its words say.
fn runs_a_destroyer(command: &Command) -> Option<String> {
    let mut words = command.words.iter().skip(1);
    words.find_map(|word| shell::read(&word.text).commands.iter().find_map(destroys))
}

fn lifeboat_destroys(command: &Command) -> Option<String> {
    let verb = verbs(command);
    let flags = ["--force", "--flush-first", "--delete", "--delete-excluded", "--in-place"];
    let destroys = match verb.as_slice() {
        ["restore", ..] => command.has(&flags),
        ["forget" | "prune", ..] | ["key", "remove" | "revoke" | "passwd", ..] | ["cache", "clear", ..] => {
            true
        }
        _ => false,
    };
    let is_dry = command.has(&["-n", "--dry-run"]);
    (destroys && !is_dry)
        .then(|| format!("lifeboat {}", verb.iter().take(2).copied().collect::<Vec<_>>().join(" ")))
}

/// The words of one of our command lines that are no flags and no values of global ones.
pub(super) fn verbs(command: &Command) -> Vec<&str> {
    const WITH_VALUE: [&str; 12] = [
        "-r",
        "--repository",
        "--config",
        "--password-file",
        "--password-command",
        "--key-file",
        "--kit",
        "--cache-dir",
        "--limit-upload",
        "--limit-download",
        "--settle",
        "--option",
    ];
    let mut found = Vec::new();
    let mut words = command.words.iter().skip(1).map(|word| word.text.as_str());
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            found.push(word);
        }
    }
    found
}

/// Programs that change the machine they run on, whatever their arguments name.
fn acts_on_the_host(runbook: &Runbook, read: &Read, found: &mut Found) {
    const HOST: [&str; 21] = [
        "systemctl",
        "service",
        "docker",
        "docker-compose",
        "podman",
        "kubectl",
        "helm",
        "apt-get",
        "apt",
        "dnf",
        "yum",
        "apk",
        "ip",
        "iptables",
        "nft",
        "reboot",
        "shutdown",
        "crontab",
        "useradd",
        "usermod",
        "ufw",
    ];
    let step = read.step;
    let runs_in_a_drill = match &step.role {
        Role::Skip(_) => false,
        Role::Same => step.phase != Phase::Rollback && stand_in(runbook, step).is_none(),
        Role::Before | Role::StandIn { .. } => true,
    };
    if !runs_in_a_drill {
        return;
    }
    for command in &read.script.commands {
        if HOST.contains(&command.program()) {
            let why = format!(
                "step {}: {} changes the machine that a drill runs on: drill=skip because=\"…\", or give it a stand-in",
                step.name,
                command.program()
            );
            found.error(read.line(command.line), "host", why);
        }
    }
}

/// The block that takes a step's place in a drill.
pub(super) fn stand_in<'r>(runbook: &'r Runbook, step: &Step) -> Option<&'r Step> {
    runbook
        .steps
        .iter()
        .find(|other| matches!(&other.role, Role::StandIn { instead_of, .. } if *instead_of == step.name))
}

fn stand_ins(runbook: &Runbook, found: &mut Found) {
    for step in &runbook.steps {
        let Role::StandIn { instead_of, .. } = &step.role else { continue };
        match runbook.step(instead_of) {
            None => found.error(step.line, "drill", format!("for={instead_of}: there is no such step")),
            Some(real) if !real.is_on_the_way() => {
                found.error(step.line, "drill", format!("for={instead_of}: that step is not on the way"));
            }
            Some(real) if stand_in(runbook, real).is_some_and(|first| first.name != step.name) => {
                found.error(step.line, "drill", format!("for={instead_of}: it has a stand-in already"));
            }
            Some(_) => {}
        }
    }
}

fn ours(read: &Read, own: &Own, found: &mut Found) {
    for command in read.script.commands.iter().filter(|command| command.program() == "lifeboat") {
        let words: Vec<&str> = command.words.iter().map(|word| word.text.as_str()).collect();
        if let Err(why) = own(&words) {
            found.error(read.line(command.line), "command", format!("step {}: {why}", read.step.name));
        }
    }
}

fn variables_of(runbook: &Runbook, read: &Read, found: &mut Found) {
    let only_in_drills = matches!(read.step.role, Role::Before | Role::StandIn { .. });
    for (name, line) in &read.script.uses {
        let is_known = runbook.variable(name).is_some()
            || read.script.sets.contains(name)
            || SYSTEM_VARIABLES.contains(&name.as_str())
            || (only_in_drills && DRILL_VARIABLES.contains(&name.as_str()));
        if !is_known {
            let names: Vec<&str> =
                runbook.front.variables.iter().map(|variable| variable.name.as_str()).collect();
            let near =
                crate::base::url::nearest(name, &names).filter(|near| strsim::jaro_winkler(name, near) > 0.8);
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let why =
                format!("step {}: ${name} is neither declared nor set in this step{near}", read.step.name);
            found.error(read.line(*line), "variable", why);
        }
    }
}

fn variables_used(runbook: &Runbook, steps: &[Read], found: &mut Found) {
    for variable in &runbook.front.variables {
        let in_text = steps.iter().any(|read| match read.step.kind {
            Kind::Manual { .. } => read.step.text.contains(&format!("${}", variable.name)),
            Kind::Shell(_) => read.needs().contains(variable.name.as_str()),
        });
        // Those of ours and of the tools are read by the commands themselves.
        let is_read_by_tools = ["LIFEBOAT_", "AWS_", "B2_", "PG", "REDISCLI_", "TF_", "SSH_"]
            .iter()
            .any(|prefix| variable.name.starts_with(prefix));
        if !in_text && !is_read_by_tools {
            found.error(
                variable.line,
                "variable",
                format!("{} is declared and no step uses it", variable.name),
            );
        }
    }
}

fn secrets(runbook: &Runbook, found: &mut Found) {
    for (at, line) in runbook.text.lines().enumerate() {
        if let Some(what) = redact::looks_secret(line) {
            let why = format!("{what} stands in the document: name a file or a variable instead");
            found.error(at + 1, "secret", why);
        }
    }
}

fn links(runbook: &Runbook, found: &mut Found) {
    let folder = runbook.path.parent().unwrap_or(std::path::Path::new(""));
    for Link { line, target } in &runbook.links {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let known = match path {
            "" => Some(runbook.anchors.clone()),
            path => {
                let place = folder.join(path);
                match (place.exists(), path.ends_with(".md")) {
                    (false, _) => {
                        found.error(*line, "link", format!("{path}: there is no such file"));
                        continue;
                    }
                    (true, true) => {
                        own_file::read(&place, 1 << 20, Trust::Any).ok().map(|text| parse::anchors(&text))
                    }
                    (true, false) => None,
                }
            }
        };
        if !anchor.is_empty() && known.is_some_and(|known| !known.iter().any(|known| known == anchor)) {
            found.error(*line, "link", format!("{target}: there is no such heading"));
        }
    }
}
