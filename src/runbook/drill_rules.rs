//! What may run in a drill: only what is proven, by the document itself, to aim at the sandbox.
//!
//! Invariant: a step runs in a drill only if every variable it uses was made by the drill, or is declared as only read
//! from; a destructive one uses no place that is written out; and our own verbs that write name a repository of the
//! sandbox.

use std::collections::BTreeSet;

use super::check::{DRILL_VARIABLES, Read, destroys, stand_in, verbs};
use super::shell::Command;
use super::{Phase, Role, Runbook, Step, Variable};

/// The steps of a drill: those that set the scene, then those of the way, each with its stand-in if it has one.
pub fn way(runbook: &Runbook) -> (Vec<&Step>, Vec<&Step>) {
    let before = runbook.steps.iter().filter(|step| step.role == Role::Before).collect();
    let way = runbook.steps.iter().filter(|step| step.is_on_the_way());
    (before, way.map(|step| stand_in(runbook, step).unwrap_or(step)).collect())
}

/// Whether a drill makes this variable's value.
pub fn is_of_the_sandbox(variable: &Variable) -> bool {
    let is_below = |rest: &str| (rest.is_empty() || rest.starts_with(['/', '?'])) && !rest.contains("..");
    let value = variable.drill.as_deref().unwrap_or_default();
    let mut made = DRILL_VARIABLES.iter().filter_map(|name| value.strip_prefix('$')?.strip_prefix(name));
    made.any(is_below)
}

/// Whether a drill gives it a value that is written out: a label, a moment, never a place.
fn is_a_word(variable: &Variable) -> bool {
    variable.drill.as_ref().is_some_and(|value| !value.contains(['$', '/']))
}

pub(super) fn check(runbook: &Runbook, steps: &[Read], fault: &mut dyn FnMut(usize, String)) {
    for variable in &runbook.front.variables {
        if let Some(value) = &variable.drill
            && value.contains('$')
            && !is_of_the_sandbox(variable)
        {
            let why = format!(
                "{}: drill: {value:?} begins with none of ${}",
                variable.name,
                DRILL_VARIABLES.join(", $")
            );
            fault(variable.line, why);
        }
    }
    let (before, way) = way(runbook);
    let runs: BTreeSet<&str> = before.iter().chain(&way).map(|step| step.name.as_str()).collect();
    let runs = steps.iter().filter(|read| {
        let step = read.step;
        runs.contains(step.name.as_str()) && !matches!(step.role, Role::Skip(_)) && !step.is_manual()
    });
    for read in runs {
        of_step(runbook, read, fault);
    }
}

fn of_step(runbook: &Runbook, read: &Read, fault: &mut dyn FnMut(usize, String)) {
    let step = read.step;
    for name in read.needs() {
        let Some(variable) = runbook.variable(name) else { continue };
        if !is_of_the_sandbox(variable) && !variable.is_read_only && !is_a_word(variable) {
            let why = format!(
                "step {} uses {name}, which a drill would leave at its real value: give it a drill: value, or say \
                 read-only: yes if no step changes what it names",
                step.name
            );
            fault(step.line, why);
        }
    }
    if let Some(variable) = step.confirm.as_ref().and_then(|name| runbook.variable(name))
        && !is_of_the_sandbox(variable)
        && !(is_a_word(variable) && only_keys(runbook, read))
    {
        let why =
            format!("step {} destroys {}, which is not the sandbox's in a drill", step.name, variable.name);
        fault(step.line, why);
    }
    for (value, line) in &read.script.assigned {
        if let Some(place) = place_in(value) {
            fault(read.line(*line), is_written_out(step, place));
        }
    }
    for command in &read.script.commands {
        let line = read.line(command.line);
        written_out(step, command, line, fault);
        if (step.is_destructive || step.role == Role::Before) && destroys(command).is_some() {
            aimed(runbook, step, command, line, fault);
        }
        if let Some(verb) = writes_unnamed(runbook, command) {
            let why = format!(
                "step {}: lifeboat {verb} would write to the real repository in a drill: name one of the sandbox with -r",
                step.name
            );
            fault(line, why);
        }
    }
}

/// Whether all that it destroys is in a repository of the sandbox, so that what is typed may be a name in there.
fn only_keys(runbook: &Runbook, read: &Read) -> bool {
    let mut destroying = read.script.commands.iter().filter(|command| destroys(command).is_some());
    destroying.all(|command| {
        let of_repository = matches!(verbs(command).as_slice(), ["key" | "forget" | "prune", ..]);
        of_repository && writes_unnamed(runbook, command).is_none()
    })
}

/// A place that is written out is the same in a drill as in an emergency.
fn written_out(step: &Step, command: &Command, line: usize, fault: &mut dyn FnMut(usize, String)) {
    for word in command.words.iter().skip(1).chain(&command.writes) {
        if let Some(place) = place_in(&word.text) {
            fault(line, is_written_out(step, place));
        }
    }
}

fn is_written_out(step: &Step, place: &str) -> String {
    format!(
        "step {}: {place} is written out: name it by a variable that a drill can point elsewhere",
        step.name
    )
}

/// A place in a word, also behind a flag's `=` or inside a text that another shell reads.
fn place_in(text: &str) -> Option<&str> {
    let mut parts = text.split(|c: char| c.is_whitespace() || "=;&|()<>\"'".contains(c));
    parts.find(|part| {
        let is_path = part.starts_with('/') && !part.starts_with("/dev/") && part.len() > 1;
        let climbs = part.split('/').any(|name| name == "..") || part.starts_with('~');
        is_path || climbs || *part == "/"
    })
}

/// What a destructive command removes begins with a variable that is not only read from.
fn aimed(
    runbook: &Runbook,
    step: &Step,
    command: &Command,
    line: usize,
    fault: &mut dyn FnMut(usize, String),
) {
    if !destroys_files(command.program()) {
        return;
    }
    for word in command.words.iter().skip(1).filter(|word| !word.text.starts_with('-')) {
        if !is_in_the_sandbox(runbook, &word.text) {
            let why = format!(
                "step {}: {} does not begin with a variable that a drill makes: what would be removed cannot be told",
                step.name, word.text
            );
            fault(line, why);
        }
    }
}

/// Whether a word begins with a variable of the sandbox.
fn is_in_the_sandbox(runbook: &Runbook, text: &str) -> bool {
    let Some(rest) = text.strip_prefix('$') else { return false };
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let name = &rest[..end];
    DRILL_VARIABLES.contains(&name) || runbook.variable(name).is_some_and(is_of_the_sandbox)
}

fn destroys_files(program: &str) -> bool {
    matches!(program, "rm" | "rmdir" | "unlink" | "shred" | "truncate" | "mv")
}

/// Our verb, if it writes to a repository that is not named as one of the sandbox.
fn writes_unnamed(runbook: &Runbook, command: &Command) -> Option<String> {
    if command.program() != "lifeboat" {
        return None;
    }
    let verb = verbs(command);
    let sandboxed = |value: Option<&str>| value.is_some_and(|value| is_in_the_sandbox(runbook, value));
    let repository = || {
        sandboxed(command.value(&["-r", "--repository"]))
            || runbook.variable("LIFEBOAT_REPOSITORY").is_some_and(is_of_the_sandbox)
    };
    let (writes, is_safe) = match verb.as_slice() {
        ["init" | "backup" | "run" | "forget" | "prune" | "repair" | "job", ..] => (true, repository()),
        ["key", action, ..] => (*action != "list", repository()),
        ["copy", ..] => (true, sandboxed(command.value(&["--to"]))),
        ["drill", "run", ..] => (!command.has(&["--no-keep"]), repository()),
        ["cache" | "runbook", ..] => (false, true),
        _ => (false, true),
    };
    let is_dry = command.has(&["-n", "--dry-run"]);
    (writes && !is_safe && !is_dry).then(|| verb.iter().take(2).copied().collect::<Vec<_>>().join(" "))
}

/// What a drill does not rehearse, for its evidence.
pub fn not_rehearsed(runbook: &Runbook) -> Vec<String> {
    let mut found = Vec::new();
    for step in &runbook.steps {
        match &step.role {
            Role::Skip(because) if step.phase != Phase::Rollback => {
                found.push(format!("step {}: {because}", step.name))
            }
            Role::StandIn { instead_of, because } => {
                found.push(format!("step {instead_of}: a stand-in ran: {because}"))
            }
            Role::Same if step.is_manual() && stand_in(runbook, step).is_none() => {
                found.push(format!("step {}: a person does it", step.name));
            }
            _ => {}
        }
    }
    let back = runbook.steps.iter().filter(|step| step.phase == Phase::Rollback).count();
    if back > 0 {
        found.push(format!("{back} ways back, which run only when a step failed"));
    }
    found
}
