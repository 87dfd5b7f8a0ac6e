//! What the file means as a whole: which repository a job has, what this machine may do, and what makes no sense
//! together.
//!
//! Invariant: whatever passed here names only things that the file defines, and no stack waits for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::model::{Component, Drill, Duty, File, Job, OneOrMany, Repository, time};
use crate::base::names;
use crate::base::url::nearest;
use crate::drill::history::RESERVED;
use crate::format::manifest::NAME_LIMIT;
use crate::policy::objective;
use crate::policy::schedule::Schedule;
use crate::repo::snapshots::parse_time;

/// `there is no job "dbb": did you mean db?`
fn unknown<'k>(what: &str, name: &str, known: impl Iterator<Item = &'k String>) -> String {
    let known: Vec<&str> = known.map(String::as_str).collect();
    let near = nearest(name, &known).filter(|near| strsim::jaro_winkler(name, near) > 0.7);
    let hint = match (near, known.as_slice()) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, []) => format!("no {what} is defined"),
        (None, known) => format!("there are {}", known.join(", ")),
    };
    format!("there is no {what} {name:?}\nhint: {hint}")
}

impl File {
    /// The repository a job or drill means: its own, the default, or the only one that is no replica.
    fn repository_named(&self, named: Option<&String>) -> Result<(&str, &Repository), String> {
        if let Some(name) = named.or(self.defaults.repository.as_ref()) {
            let found = self.repository.get_key_value(name);
            return found
                .map(|(name, repository)| (name.as_str(), repository))
                .ok_or_else(|| unknown("repository", name, self.repository.keys()));
        }
        let mut all = self.repository.iter().filter(|(_, repository)| repository.replica_of.is_none());
        match (all.next(), all.next()) {
            (Some((name, repository)), None) => Ok((name, repository)),
            (None, _) => Err("no repository is defined".into()),
            _ => Err("which repository? write repository = or [defaults] repository =".into()),
        }
    }

    /// # Errors
    /// It is not to be told.
    pub fn repository_of(&self, job: &Job) -> Result<(&str, &Repository), String> {
        self.repository_named(job.repository.as_ref())
    }

    /// # Errors
    /// It is not to be told.
    pub fn repository_of_drill(&self, drill: &Drill) -> Result<(&str, &Repository), String> {
        self.repository_named(drill.repository.as_ref())
    }

    /// The one that verbs use which name none.
    ///
    /// # Errors
    /// It is not to be told.
    pub fn default_repository(&self) -> Result<(&str, &Repository), String> {
        self.repository_named(None)
    }

    /// The repositories that a job's snapshots are copied to.
    pub fn copies_of(&self, job: &Job) -> Vec<(&str, &Repository)> {
        let names = job.copy_to.as_ref().unwrap_or(&self.defaults.copy_to);
        let found = names.iter().filter_map(|name| self.repository.get_key_value(name));
        found.map(|(name, repository)| (name.as_str(), repository)).collect()
    }

    /// The zone that schedules are in.
    ///
    /// # Errors
    /// There is no such zone.
    pub fn zone(&self) -> Result<jiff::tz::TimeZone, String> {
        match &self.timezone {
            None => Ok(jiff::tz::TimeZone::system()),
            Some(name) => jiff::tz::TimeZone::get(name).map_err(|error| format!("timezone: {error}")),
        }
    }

    /// A stack's components in an order in which each comes after what it needs. Jobs that are needed and have no
    /// objectives of their own are components too.
    ///
    /// # Errors
    /// There is no such stack.
    pub fn stack_of(&self, name: &str) -> Result<BTreeMap<String, Component>, String> {
        let found = self.stack.get(name).ok_or_else(|| unknown("stack", name, self.stack.keys()))?;
        let mut all = found.clone();
        for needed in found.values().flat_map(|component| &component.needs) {
            all.entry(needed.clone()).or_default();
        }
        Ok(all)
    }

    /// The repositories that share the keys of this one: those that are a replica of it, or its original and that
    /// one's other replicas.
    pub fn kin_of(&self, name: &str) -> Vec<&Repository> {
        let original =
            self.repository.get(name).and_then(|found| found.replica_of.as_deref()).unwrap_or(name);
        let is_kin = |(other, found): &(&String, &Repository)| {
            *other != name && (*other == original || found.replica_of.as_deref() == Some(original))
        };
        self.repository.iter().filter(is_kin).map(|(_, found)| found).collect()
    }

    /// What keeps this machine from a duty: `None`, nothing.
    pub fn not_its_duty(&self, machine: &str, duty: Duty) -> Option<String> {
        let duties = self.machine.get(machine)?.duties.as_ref()?;
        if duties.contains(&duty) {
            return None;
        }
        let has: Vec<&str> = duties.iter().map(|duty| duty.name()).collect();
        let has = if has.is_empty() { "none".into() } else { has.join(", ") };
        Some(format!("{} is no duty of machine {machine} (it has: {has})", duty.name()))
    }

    /// Makes addresses and secrets those of this machine: its way to a repository, its own key, and the password of
    /// the repository that a replica shares.
    pub(super) fn settle(&mut self, machine: &str) {
        let key = self.machine.get(machine).and_then(|machine| machine.key.clone());
        let passwords: BTreeMap<String, _> = self
            .repository
            .iter()
            .filter_map(|(name, repository)| Some((name.clone(), repository.password.clone()?)))
            .collect();
        for repository in self.repository.values_mut() {
            if let Some(url) = repository.via.get(machine) {
                repository.url = url.clone();
            }
            let shared = repository.replica_of.as_ref().and_then(|source| passwords.get(source).cloned());
            repository.password = key.clone().or(repository.password.take()).or(shared);
        }
    }

    /// Objectives that no schedule of this file can keep, however quick its runs are.
    pub fn impossible(&self, now: jiff::Timestamp) -> Vec<String> {
        let mut found = Vec::new();
        for (stack, components) in &self.stack {
            for (name, component) in components {
                let rpo = time(name, "rpo", component.rpo.as_ref()).ok().flatten();
                let schedule = self.job.get(name).and_then(|job| job.schedule.as_ref());
                let (Some(rpo), Some(schedule), Ok(zone)) = (rpo, schedule, self.zone()) else { continue };
                let interval = Schedule::parse(schedule, zone).ok().and_then(|s| s.longest_interval(now));
                if let Some(interval) = interval.filter(|interval| *interval >= rpo) {
                    let minutes = |time: Duration| time.as_secs() / 60;
                    found.push(format!(
                        "stack {stack}: {name}: runs up to {} min apart cannot keep an RPO of {} min: `lifeboat plan` \
                         says what would",
                        minutes(interval),
                        minutes(rpo)
                    ));
                }
            }
        }
        found
    }

    /// Looks for what each part alone does not show.
    pub(super) fn check(&self) -> Result<(), String> {
        self.zone()?;
        self.check_names()?;
        if let Some(name) = &self.defaults.repository {
            self.repository_named(Some(name)).map_err(|error| format!("defaults: {error}"))?;
        }
        for (name, repository) in &self.repository {
            self.check_repository(name, repository).map_err(|error| format!("repository {name}: {error}"))?;
        }
        for (name, job) in &self.job {
            self.check_job(job).map_err(|error| format!("job {name}: {error}"))?;
        }
        for (name, components) in &self.stack {
            self.check_stack(components).map_err(|error| format!("stack {name}: {error}"))?;
        }
        for (name, drill) in &self.drill {
            self.check_drill(name, drill).map_err(|error| format!("drill {name}: {error}"))?;
        }
        Ok(())
    }

    /// Names end up in snapshots, evidence and on terminals.
    fn check_names(&self) -> Result<(), String> {
        let all = (self.machine.keys().map(|name| ("machine", name)))
            .chain(self.repository.keys().map(|name| ("repository", name)))
            .chain(self.job.keys().map(|name| ("job", name)))
            .chain(self.stack.keys().map(|name| ("stack", name)))
            .chain(self.drill.keys().map(|name| ("drill", name)))
            .chain(self.stack.values().flat_map(|parts| parts.keys().map(|name| ("component", name))))
            .chain(self.job.values().flat_map(|job| job.tags.iter().map(|name| ("tag", name))));
        for (kind, name) in all {
            names::check(name, NAME_LIMIT)
                .map_err(|error| format!("{kind} {}: {error}", names::shown(name.as_bytes())))?;
        }
        match self.job.keys().find(|name| name.starts_with(RESERVED)) {
            Some(name) => Err(format!(
                "job {name}: jobs called {RESERVED}… hold the evidence of drills: choose another name"
            )),
            None => Ok(()),
        }
    }

    fn check_repository(&self, name: &str, repository: &Repository) -> Result<(), String> {
        if let Some(source) = &repository.replica_of {
            let found = self.repository.get(source);
            let found = found.ok_or_else(|| unknown("repository", source, self.repository.keys()))?;
            if source == name || found.replica_of.is_some() {
                return Err(format!("{source:?} is itself a replica: name the repository both come from"));
            }
        }
        match repository.via.keys().find(|machine| !self.machine.contains_key(*machine)) {
            Some(machine) => Err(format!("via: {}", unknown("machine", machine, self.machine.keys()))),
            None => Ok(()),
        }
    }

    fn check_job(&self, job: &Job) -> Result<(), String> {
        let (own, _) = self.repository_of(job)?;
        if job.source.all().iter().all(|source| source.is_empty()) {
            return Err("there is nothing to back up".into());
        }
        for name in job.copy_to.as_ref().unwrap_or(&self.defaults.copy_to) {
            if !self.repository.contains_key(name) {
                return Err(format!("copy_to: {}", unknown("repository", name, self.repository.keys())));
            }
            if name == own {
                return Err(format!("copy_to: {name:?} is the repository it is backed up into"));
            }
        }
        if let Some(schedule) = &job.schedule {
            Schedule::parse(schedule, self.zone()?).map_err(|error| format!("schedule: {error}"))?;
        }
        Ok(())
    }

    fn check_stack(&self, components: &BTreeMap<String, Component>) -> Result<(), String> {
        for (name, wanted) in components {
            self.check_machine(wanted.machine.as_ref()).map_err(|error| format!("{name}: {error}"))?;
            for (key, text) in [("rto", &wanted.rto), ("rpo", &wanted.rpo)] {
                if time(name, key, text.as_ref())?.is_some_and(|limit| limit.is_zero()) {
                    return Err(format!("{name}: an {} of nothing cannot be met", key.to_uppercase()));
                }
            }
            if self.job.contains_key(name) {
                continue;
            }
            // What is no job is made from others; what needs nothing either is a typo.
            if wanted.needs.is_empty() {
                let why = unknown("job", name, self.job.keys());
                return Err(format!("{name} is no job and needs nothing: {why}"));
            }
            if wanted.rpo.is_some() || wanted.machine.is_some() {
                let what = if wanted.rpo.is_some() { "an RPO" } else { "a machine" };
                return Err(format!("{name} has {what} and no data of its own: it is no job"));
            }
        }
        let parts = components.iter().map(|(name, component)| {
            // Jobs without objectives of their own may be needed too.
            let is_part = |need: &&String| !self.job.contains_key(*need) || components.contains_key(*need);
            let needs: BTreeSet<String> = component.needs.iter().filter(is_part).cloned().collect();
            (name.clone(), objective::Component { takes: Duration::ZERO, needs })
        });
        objective::critical_path(&parts.collect()).map(drop).map_err(|error| match error {
            objective::OrderError::Unknown { component, needed } => {
                let known = self.job.keys().chain(components.keys());
                format!("{component} needs {needed}, and {}", unknown("component or job", &needed, known))
            }
            error => error.to_string(),
        })
    }

    /// A file that names its machines names all of them.
    fn check_machine(&self, named: Option<&String>) -> Result<(), String> {
        match named.filter(|name| !self.machine.is_empty() && !self.machine.contains_key(*name)) {
            Some(name) => Err(unknown("machine", name, self.machine.keys())),
            None => Ok(()),
        }
    }

    fn check_drill(&self, name: &str, drill: &Drill) -> Result<(), String> {
        if let Some(why) = not_a_drill(name) {
            return Err(why.into());
        }
        self.repository_of_drill(drill)?;
        self.check_machine(drill.machine.as_ref())?;
        if drill.runbook.is_some() {
            return of_runbook(drill);
        }
        if !drill.set.is_empty() {
            return Err("set belongs to runbook".into());
        }
        match (&drill.restore, &drill.stack) {
            (None, None) => {
                return Err(
                    "say what to restore: restore = \"JOB@latest\", stack = \"NAME\" or runbook = \"FILE\""
                        .into(),
                );
            }
            (Some(_), Some(_)) => return Err("restore and stack: write one of them".into()),
            (Some(_), None) if !drill.component.is_empty() || drill.at.is_some() => {
                return Err("component and at are for drills of a stack; restore takes JOB@TIME".into());
            }
            (Some(_), None) => {}
            (None, Some(stack)) => {
                let components = self.stack_of(stack)?;
                if let Some(name) = drill.component.keys().find(|name| !components.contains_key(*name)) {
                    return Err(unknown("component", name, components.keys()));
                }
                if !drill.checks.is_empty() || drill.sandbox.is_some() {
                    return Err(
                        "checks and sandbox of a stack stand under its components: component.NAME.checks"
                            .into(),
                    );
                }
                if let Some(at) = drill.at.as_ref().filter(|at| parse_time(at).is_none()) {
                    return Err(format!("at: {at:?} is no time such as 2026-11-20T02:00"));
                }
            }
        }
        let times =
            [("rto", &drill.rto), ("rpo", &drill.rpo), ("detect", &drill.detect), ("decide", &drill.decide)];
        for (key, text) in times {
            time(key, "time", text.as_ref()).map_err(|error| error.replace(": time: ", ": "))?;
        }
        Ok(())
    }
}

impl OneOrMany {
    pub fn all(&self) -> Vec<&str> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many.iter().map(String::as_str).collect(),
        }
    }
}

/// Why a drill cannot be called this; a file that evidence is written to is told from a name by its dot or slash.
pub fn not_a_drill(name: &str) -> Option<&'static str> {
    name.contains(['.', '/']).then_some("a drill's name has no . and no /: that is a file")
}

/// A runbook says itself what is restored, checked and wanted.
fn of_runbook(drill: &Drill) -> Result<(), String> {
    if drill.restore.is_some() || drill.stack.is_some() {
        return Err("restore, stack and runbook: write one of them".into());
    }
    let of_others =
        [&drill.at, &drill.sandbox, &drill.rto, &drill.rpo, &drill.detect, &drill.decide, &drill.machine];
    let says_more = of_others.into_iter().any(Option::is_some) || !drill.checks.is_empty();
    if says_more || !drill.component.is_empty() || !drill.secrets.is_empty() {
        return Err("objectives, checks and sandbox stand in the runbook itself".into());
    }
    Ok(())
}
