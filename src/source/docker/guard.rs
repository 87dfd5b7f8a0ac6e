//! Containers made quiet while their volumes are read, and set going again whatever happens.
//!
//! The order: intent written down, commands run inside, containers stopped or paused, volumes read, containers set
//! going, commands run inside. What was stopped is started as soon as the last volume was *read*, not when it was
//! stored. Should reading take longer than allowed, a watch starts everything again and the capture fails.

use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, StopContainerOptions};
use serde::{Deserialize, Serialize};

use super::address::{Options, Whom, duration};
use super::daemon::Daemon;
use super::helper::Workshop;
use super::volume::{COMPOSE_PROJECT, COMPOSE_SERVICE, SWARM_SERVICE, User};
use super::{DockerError, exec, swarm};

/// Labels by which containers say how they want to be treated.
const STOP: &str = "lifeboat.stop";
const PAUSE: &str = "lifeboat.pause";
const EXEC_PRE: &str = "lifeboat.exec-pre";
const EXEC_POST: &str = "lifeboat.exec-post";
const MAX_STOP: &str = "lifeboat.max-stop";
/// Compose's label with what a service needs: `db:service_started:true,cache:…`.
const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// How long the engine lets a container end unless it says otherwise.
const GRACE_S: i64 = 10;
/// Nobody waits longer than this for the end of a container.
const GRACE_LIMIT: Duration = Duration::from_secs(3600);
/// Exit status of a process that was killed.
const KILLED: i64 = 137;

/// A container, by its id and by what it will be found again when that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whose {
    pub id: String,
    pub name: String,
    pub project: Option<String>,
    pub service: Option<String>,
    /// How long the engine lets it end before it kills it, where that is its own; negative: for ever.
    #[serde(default)]
    pub stop_timeout_s: Option<i64>,
}

impl Whose {
    fn of(user: &User) -> Self {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Self {
            id: user.id.clone(),
            name: user.name.clone(),
            project: own(user.project()),
            service: own(user.service()),
            stop_timeout_s: None,
        }
    }

    /// One that is to be stopped.
    ///
    /// # Errors
    /// It would not be there any more to be started again.
    fn to_stop(daemon: &Daemon, user: &User) -> Result<Self, DockerError> {
        let look = daemon.api.inspect_container(&user.id, None);
        let look = daemon.call("look at", &user.name, look)?;
        if look.host_config.and_then(|host| host.auto_remove) == Some(true) {
            let (name, called) = (&user.name, user.called());
            return Err(DockerError::Refused(format!(
                "container {name} was made with --rm: stopping it removes it, and it could not be started again\n\
                 hint: pause it instead, with pause={called}"
            )));
        }
        let stop_timeout_s = look.config.and_then(|config| config.stop_timeout);
        Ok(Self { stop_timeout_s, ..Self::of(user) })
    }

    fn called(&self) -> &str {
        self.service.as_deref().unwrap_or(&self.name)
    }

    /// The container as it is now: ids change when somebody deploys meanwhile.
    fn find(&self, daemon: &Daemon) -> Result<Option<User>, DockerError> {
        let list = |filter: HashMap<String, Vec<String>>| {
            let options = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
            let found = daemon.undo("find", self.called(), daemon.api.list_containers(Some(options)))?;
            Ok::<_, DockerError>(found.into_iter().map(|summary| User::of(summary, None)).next())
        };
        let by_id = list(HashMap::from([("id".to_owned(), vec![self.id.clone()])]))?;
        if by_id.is_some() {
            return Ok(by_id);
        }
        let (Some(project), Some(service)) = (&self.project, &self.service) else { return Ok(None) };
        let labels = vec![format!("{COMPOSE_PROJECT}={project}"), format!("{COMPOSE_SERVICE}={service}")];
        list(HashMap::from([("label".to_owned(), labels)]))
    }
}

/// Something done, and how it is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Stopped(Whose),
    Paused(Whose),
    /// A Swarm service, to none of its replicas.
    Scaled {
        service: String,
        replicas: u64,
    },
    /// Nothing; its undoing is this command inside the container.
    Prepared {
        whose: Whose,
        post: String,
    },
}

impl Act {
    /// How long the engine lets a container that is to be stopped end.
    pub fn grace(&self) -> Duration {
        match self {
            Self::Stopped(whose) => match whose.stop_timeout_s.unwrap_or(GRACE_S).try_into() {
                Ok(seconds) => Duration::from_secs(seconds).min(GRACE_LIMIT),
                Err(_) => GRACE_LIMIT,
            },
            _ => Duration::ZERO,
        }
    }

    /// Whether a container that was to be stopped runs on: it may be about to end.
    pub fn may_be_ending(&self, daemon: &Daemon) -> bool {
        match self {
            Self::Stopped(whose) => {
                whose.find(daemon).is_ok_and(|user| user.is_some_and(|user| user.running))
            }
            _ => false,
        }
    }

    fn perform(&self, daemon: &Daemon) -> Result<Option<String>, DockerError> {
        match self {
            Self::Stopped(whose) => {
                let stop = daemon.patient.stop_container(&whose.id, None::<StopContainerOptions>);
                // Waited for even when the run is cancelled: the engine stops it all the same, and only then can it
                // be started again.
                daemon.undo("stop container", &whose.name, stop)?;
                let look =
                    daemon.call("look at", &whose.name, daemon.api.inspect_container(&whose.id, None))?;
                let killed = look.state.and_then(|state| state.exit_code) == Some(KILLED);
                let name = &whose.name;
                Ok(killed.then(|| {
                    format!(
                        "container {name} did not stop in its time and was killed: its files may not be tidy"
                    )
                }))
            }
            Self::Paused(whose) => {
                daemon.call("pause container", &whose.name, daemon.api.pause_container(&whose.id))?;
                Ok(None)
            }
            Self::Scaled { service, .. } => swarm::scale(daemon, service, 0, true).map(|()| None),
            Self::Prepared { .. } => Ok(None),
        }
    }

    /// Undoes it, also for a run that is gone. Says what was done, if anything had to be.
    ///
    /// # Errors
    /// It cannot be undone.
    pub fn undo(&self, daemon: &Daemon) -> Result<Option<String>, DockerError> {
        match self {
            Self::Stopped(whose) => match whose.find(daemon)? {
                Some(user) if user.running => Ok(None),
                Some(user) => {
                    let start = daemon.api.start_container(&user.id, None);
                    daemon.undo("start container", &user.name, start)?;
                    Ok(Some(format!("container {} was started again", user.name)))
                }
                // Somebody removed it meanwhile, and its project: that is not ours to bring back.
                None => Ok(None),
            },
            Self::Paused(whose) => match whose.find(daemon)? {
                Some(user) if user.paused => {
                    let unpause = daemon.api.unpause_container(&user.id);
                    daemon.undo("unpause container", &user.name, unpause)?;
                    Ok(Some(format!("container {} runs on", user.name)))
                }
                _ => Ok(None),
            },
            Self::Scaled { service, replicas } => {
                swarm::scale(daemon, service, *replicas, false)?;
                Ok(Some(format!("service {service} has its {replicas} replicas again")))
            }
            Self::Prepared { whose, post } => match whose.find(daemon)? {
                Some(user) if user.running => {
                    exec::run_to_undo(daemon, &user, post)?;
                    Ok(Some(format!("in {} the command after the backup was run", user.name)))
                }
                _ => Ok(None),
            },
        }
    }
}

/// What is to be done to whom, decided before anything is done.
#[derive(Debug, Default)]
pub struct Plan {
    pre: Vec<(User, String)>,
    acts: Vec<Act>,
    max_stop: Duration,
    /// Ids of containers that do not write while volumes are read.
    quiet: Vec<String>,
}

impl Plan {
    /// What the options and the containers' labels ask for.
    ///
    /// # Errors
    /// A name that no container has, a container that stopping would remove, a Swarm service that cannot be scaled.
    pub fn make(daemon: &Daemon, users: &[User], options: &Options) -> Result<Self, DockerError> {
        let mut plan = Self { max_stop: options.max_stop, ..Self::default() };
        for names in [&options.stop, &options.pause] {
            if let Whom::Named(names) = names {
                names.iter().try_for_each(|name| find(users, name).map(drop))?;
            }
        }
        for user in users.iter().filter(|user| user.running) {
            if let Some(limit) = user.labels.get(MAX_STOP).and_then(|text| duration(text)) {
                plan.max_stop = plan.max_stop.min(limit);
            }
            plan.prepare(user, options, users)?;
        }
        let wants = |whom: &Whom, label: &str, user: &User| match whom {
            Whom::All => user.writes,
            Whom::Named(names) => names.iter().any(|name| is_called(user, name)),
            Whom::Labelled => user.labels.get(label).is_some_and(|value| is_yes(value)),
        };
        let running: Vec<&User> = users.iter().filter(|user| user.running && !user.paused).collect();
        let (stops, others): (Vec<&User>, Vec<&User>) =
            running.into_iter().partition(|user| wants(&options.stop, STOP, user));
        for user in by_dependence(stops) {
            plan.quiet.push(user.id.clone());
            match user.labels.get(SWARM_SERVICE) {
                None => plan.acts.push(Act::Stopped(Whose::to_stop(daemon, user)?)),
                Some(service) => {
                    let known =
                        |act: &Act| matches!(act, Act::Scaled { service: other, .. } if other == service);
                    if !plan.acts.iter().any(known) {
                        let replicas = swarm::replicas(daemon, service)?;
                        plan.acts.push(Act::Scaled { service: service.clone(), replicas });
                    }
                }
            }
        }
        for user in others.into_iter().filter(|user| wants(&options.pause, PAUSE, user)) {
            plan.quiet.push(user.id.clone());
            plan.acts.push(Act::Paused(Whose::of(user)));
        }
        Ok(plan)
    }

    fn prepare(&mut self, user: &User, options: &Options, users: &[User]) -> Result<(), DockerError> {
        let of = |commands: &[(String, String)], label: &str| -> Result<Vec<String>, DockerError> {
            for (name, _) in commands {
                find(users, name)?;
            }
            let named =
                commands.iter().filter(|(name, _)| is_called(user, name)).map(|(_, text)| text.clone());
            Ok(user.labels.get(label).cloned().into_iter().chain(named).collect())
        };
        for post in of(&options.exec_post, EXEC_POST)? {
            self.acts.push(Act::Prepared { whose: Whose::of(user), post });
        }
        for pre in of(&options.exec_pre, EXEC_PRE)? {
            self.pre.push((user.clone(), pre));
        }
        Ok(())
    }

    /// Whether this container does not write while volumes are read.
    pub fn quiets(&self, user: &User) -> bool {
        user.paused || self.quiet.contains(&user.id)
    }

    fn is_empty(&self) -> bool {
        self.acts.is_empty() && self.pre.is_empty()
    }
}

fn is_yes(value: &str) -> bool {
    matches!(value, "" | "yes" | "true" | "1" | "on")
}

fn is_called(user: &User, name: &str) -> bool {
    user.name == name
        || user.service() == Some(name)
        || user.labels.get(SWARM_SERVICE).is_some_and(|full| full == name)
}

fn find<'u>(users: &'u [User], name: &str) -> Result<&'u User, DockerError> {
    users.iter().find(|user| is_called(user, name)).ok_or_else(|| {
        let known: Vec<&str> = users.iter().map(User::called).collect();
        let hint = if known.is_empty() {
            "nothing has it mounted".into()
        } else {
            format!("there are {}", known.join(", "))
        };
        DockerError::Refused(format!("no container or service {name:?} uses what is captured\nhint: {hint}"))
    })
}

/// Those that need others before those others.
fn by_dependence(users: Vec<&User>) -> Vec<&User> {
    let needs = |user: &User, other: &User| {
        let list = user.labels.get(DEPENDS_ON).map(String::as_str).unwrap_or_default();
        let mut names = list.split(',').map(|item| item.split(':').next().unwrap_or_default());
        names.any(|name| !name.is_empty() && other.service() == Some(name))
    };
    let mut left = users;
    let mut ordered = Vec::new();
    while !left.is_empty() {
        // One that nobody left needs; in a circle, whichever comes first.
        let free = (0..left.len()).find(|&at| !left.iter().any(|other| needs(other, left[at]))).unwrap_or(0);
        ordered.push(left.remove(free));
    }
    ordered
}

/// What was done, until it is undone.
struct State {
    daemon: Daemon,
    done: Vec<Act>,
    workshop: Arc<Workshop>,
    /// The watch had to end it.
    expired: bool,
    warnings: Vec<String>,
    /// What could not be undone.
    problems: Vec<String>,
}

/// What somebody should know of containers that were set going.
#[derive(Debug, Default)]
pub struct Released {
    pub warnings: Vec<String>,
    /// Containers that could not be.
    pub problems: Vec<String>,
}

impl State {
    fn undo(&mut self) {
        let mut failed = false;
        for act in std::mem::take(&mut self.done).iter().rev() {
            if let Err(error) = act.undo(&self.daemon) {
                failed = true;
                self.problems.push(format!("{error}; the next run of lifeboat tries again"));
            }
        }
        if failed {
            self.workshop.keep_journal();
        }
    }
}

/// Containers being quiet. Dropping it sets them going.
pub struct Guard {
    state: Arc<Mutex<State>>,
    watch: Option<(Sender<()>, JoinHandle<()>)>,
    max_stop: Duration,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guard {
    /// Does what the plan says. What was done is undone when a part of it fails.
    ///
    /// # Errors
    /// There is nowhere to write the intent down, a container does not do as it is told.
    pub fn engage(plan: Plan, workshop: &Arc<Workshop>) -> Result<Option<Self>, DockerError> {
        if plan.is_empty() {
            return Ok(None);
        }
        let daemon = workshop.daemon.clone();
        workshop.intend(&plan.acts)?;
        let state = State {
            daemon: daemon.clone(),
            done: plan.acts.iter().filter(|act| matches!(act, Act::Prepared { .. })).cloned().collect(),
            workshop: workshop.clone(),
            expired: false,
            warnings: Vec::new(),
            problems: Vec::new(),
        };
        let mut guard = Self { state: Arc::new(Mutex::new(state)), watch: None, max_stop: plan.max_stop };
        for (user, command) in &plan.pre {
            exec::run(&daemon, user, command)?;
        }
        guard.start_watch()?;
        for act in plan.acts.into_iter().filter(|act| !matches!(act, Act::Prepared { .. })) {
            // Noted first: a stop that fails half-way is undone too.
            lock(&guard.state).done.push(act.clone());
            let warning = act.perform(&daemon)?;
            let mut state = lock(&guard.state);
            state.warnings.extend(warning);
            if state.expired {
                // The watch undid it before it was done.
                state.done.push(act);
                state.undo();
                drop(state);
                return guard.release().map(|_| None);
            }
        }
        Ok(Some(guard))
    }

    fn start_watch(&mut self) -> Result<(), DockerError> {
        let (end, ended) = channel();
        let (state, limit) = (self.state.clone(), self.max_stop);
        let watch = move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let mut state = lock(&state);
                state.expired = true;
                state.undo();
            }
        };
        let thread = std::thread::Builder::new().name("docker-max-stop".into()).spawn(watch);
        let thread = thread.map_err(|cause| DockerError::Local {
            operation: "start",
            subject: "a thread".into(),
            cause,
        })?;
        self.watch = Some((end, thread));
        Ok(())
    }

    /// Everything was read, or nothing more will be: sets the containers going. Returns what somebody should know.
    ///
    /// # Errors
    /// They had to be set going before.
    pub fn release(mut self) -> Result<Released, DockerError> {
        self.end();
        let mut state = lock(&self.state);
        if state.expired {
            let why = format!(
                "containers stood still for more than {} s and were set going again before everything was read\n\
                 hint: allow more with max-stop=…, or read less",
                self.max_stop.as_secs()
            );
            return Err(DockerError::Failed(why));
        }
        let warnings = std::mem::take(&mut state.warnings);
        Ok(Released { warnings, problems: std::mem::take(&mut state.problems) })
    }

    fn end(&mut self) {
        if let Some((end, thread)) = self.watch.take() {
            drop(end);
            let _ = thread.join();
        }
        lock(&self.state).undo();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
        let state = lock(&self.state);
        for warning in state.warnings.iter().chain(&state.problems) {
            tracing::warn!("{warning}");
        }
    }
}
