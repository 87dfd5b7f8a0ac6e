//! A recovery that begins with nothing of this machine's but the program: a child of our own, in an empty folder, with
//! an empty home, no configuration, no cache and no state, given an address, a kit, the password and the storage's
//! credentials. Its evidence is what it found; the machine that started it signs it.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use super::super::{CliError, Context, Exit};
use super::filing::Started;
use crate::base::cancel::{Cancel, Cancelled};
use crate::config::STORAGE_VARIABLES;
use crate::drill::Spec;
use crate::drill::evidence::{Evidence, Start};
use crate::drill::fault::Witness;
use crate::drill::sandbox::scratch_folder;
use crate::drill::spec::From;
use crate::drill::stack::StackSpec;
use crate::seal::slot::Unlock;

/// What the child rehearses.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    One(Spec),
    Stack(StackSpec),
}

impl Told {
    pub fn hash(&self) -> Result<String, CliError> {
        Ok(match self {
            Self::One(spec) => spec.hash(),
            Self::Stack(spec) => spec.hash(),
        }?)
    }

    /// The same as the child runs it: where it begins is where it is, and faults are none of its.
    fn of_child(self) -> Self {
        match self {
            Self::One(spec) => Self::One(Spec { from: From::Here, faults: Vec::new(), ..spec }),
            Self::Stack(spec) => Self::Stack(StackSpec { from: From::Here, faults: Vec::new(), ..spec }),
        }
    }
}

/// What the child is given.
#[derive(Clone)]
pub struct Bare {
    /// `kit`, `replica` or `address`.
    pub from: &'static str,
    /// The kit's file, and how it is told: when it was made and its fingerprint.
    pub kit: Option<(PathBuf, String)>,
    /// Without secrets.
    pub address: String,
    /// Storage options.
    pub options: Vec<(String, String)>,
    pub unlock: Unlock,
    /// By which checks find what stands beside the sandbox.
    pub variables: Vec<(String, String)>,
    pub scratch: PathBuf,
    pub cancel: Cancel,
    /// Set when it ended without a word: nobody knows what it did.
    pub started: Started,
}

/// Variables besides the storage's that a program cannot do without, and that say nothing of this machine's backups.
const HARMLESS: [&str; 5] = ["PATH", "TZ", "LANG", "SSH_AUTH_SOCK", "LIFEBOAT_MACHINE"];

fn failed(what: &str, error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Failed, format!("{what}: {error}"))
}

impl Bare {
    /// At the repository that the settings name, with nothing but what opened it.
    pub fn at(context: &Context, unlock: &Unlock, scratch: PathBuf) -> Result<Self, CliError> {
        Ok(Self {
            from: "address",
            kit: None,
            address: super::super::kit::address_of(context.location()?)?,
            options: context.storage_options(),
            unlock: unlock.clone(),
            variables: Vec::new(),
            scratch,
            cancel: context.cancel.clone(),
            started: Started::default(),
        })
    }

    /// Runs the specification there.
    ///
    /// # Errors
    /// It could not begin; what it found out later is in the evidence.
    pub async fn run(self, told: Told) -> Result<(Evidence, Witness), CliError> {
        // The child works elsewhere.
        let scratch =
            std::path::absolute(&self.scratch).map_err(|error| failed("find the scratch folder", error))?;
        let folder = scratch_folder(&scratch).map_err(|error| failed("cannot make an empty home", error))?;
        let told = told.of_child();
        let text = serde_json::to_vec(&told).map_err(|error| failed("specification", error))?;
        let (file, seen) = (folder.path().join("drill.json"), folder.path().join("seen"));
        std::fs::write(&file, text).map_err(|error| failed("write the specification", error))?;
        let program = std::env::current_exe().map_err(|error| failed("find this program", error))?;
        let variables: Vec<&str> = HARMLESS
            .into_iter()
            .chain(STORAGE_VARIABLES.iter().copied())
            .filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
            .collect();
        let start = Start {
            from: self.from.into(),
            kit: self.kit.as_ref().map(|(_, words)| words.clone()),
            address: self.address.clone(),
            program: hash(&program).map_err(|error| failed("read this program", error))?,
            variables: variables.iter().map(|name| (*name).to_owned()).collect(),
            options: self.options.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        };
        let mut command = tokio::process::Command::new(&program);
        command.env_clear().current_dir(folder.path()).process_group(0).kill_on_drop(true);
        for name in variables {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        for name in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "LIFEBOAT_STATE_DIR"] {
            command.env(name, folder.path().join("home"));
        }
        command.args(["--json", "--quiet", "--no-cache", "--repository", &self.address]);
        if let Some((kit, _)) = &self.kit {
            command.arg("--kit").arg(kit);
        }
        for (key, value) in &self.options {
            command.arg("--option").arg(format!("{key}={value}"));
        }
        let (flag, secret) = match &self.unlock {
            Unlock::Passphrase(secret) => ("--password-file", [secret.as_slice(), b"\n"].concat()),
            Unlock::KeyFile(key) => ("--key-file", key.0.to_vec()),
        };
        let secret = zeroize::Zeroizing::new(secret);
        command.args([flag, "/dev/stdin", "drill", "run"]).arg("--bare").arg(&file);
        command.arg("--witness").arg(&seen);
        command.arg("--scratch").arg(&scratch);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut evidence = self.supervise(command, &secret).await?;
        evidence.start = Some(start);
        evidence.spec_hash = told.hash()?;
        // One that is not there was not written because nothing was restored.
        let seen = std::fs::read(&seen).unwrap_or_default();
        Ok((evidence, Witness::from_bytes(&seen)))
    }

    async fn supervise(
        &self,
        mut command: tokio::process::Command,
        secret: &[u8],
    ) -> Result<Evidence, CliError> {
        let mut child = command.spawn().map_err(|error| failed("start this program", error))?;
        let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
        if let Some(mut stdin) = child.stdin.take() {
            // A child that did not want it says why by itself.
            let _ = stdin.write_all(secret).await;
        }
        let cancelled = async {
            while !self.cancel.is_cancelled() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            // It cleans its sandbox, and its evidence says that it was interrupted.
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            }
            std::future::pending::<()>().await;
        };
        let output = tokio::select! {
            output = child.wait_with_output() => output,
            () = cancelled => return Err(Cancelled.into()),
        };
        let output = output.map_err(|error| failed("wait for the bare drill", error))?;
        match serde_json::from_slice(&output.stdout) {
            Ok(evidence) => Ok(evidence),
            Err(_) if self.cancel.is_cancelled() => Err(Cancelled.into()),
            Err(_) => Err(self.said(output.status.code(), &output.stderr)),
        }
    }
}

impl Bare {
    /// The error that the child told, as ours.
    fn said(&self, code: Option<i32>, stderr: &[u8]) -> CliError {
        let exit =
            code.and_then(|code| u8::try_from(code).ok()).and_then(Exit::of_code).unwrap_or(Exit::Failed);
        let text = String::from_utf8_lossy(stderr);
        let told = text.lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let Some(told) = told else {
            self.started.set(true);
            let last = text.lines().last().unwrap_or("it said nothing").to_owned();
            return CliError::new(exit, format!("the bare drill ended without evidence: {last}"));
        };
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let mut causes: Vec<String> = text(&told["error"]).into_iter().collect();
        causes.extend(told["causes"].as_array().into_iter().flatten().filter_map(text));
        CliError { exit, causes, hint: text(&told["hint"]) }
    }
}

fn hash(path: &std::path::Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Nobody hears what a child found whose parent was killed, nor removes its sandboxes: it breaks off and does so itself.
/// The kernel's own signal for this may come more than once, and a second one means: at once.
fn end_with_parent(cancel: Cancel) {
    let parent = rustix::process::getppid();
    std::thread::spawn(move || {
        while rustix::process::getppid() == parent {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        cancel.cancel();
    });
}

/// The child's side: the specification from a file, the evidence unsigned on stdout.
pub async fn child(
    args: &super::args::Args,
    file: &std::path::Path,
    context: &Context,
) -> Result<Exit, CliError> {
    let text = std::fs::read(file).map_err(|error| failed("read the specification", error))?;
    let told: Told =
        serde_json::from_slice(&text).map_err(|error| failed("read the specification", error))?;
    end_with_parent(context.cancel.clone());
    let witness = Witness::default();
    let evidence = match told {
        Told::One(spec) => {
            super::rehearse::here(args, &spec, &witness, &Started::default(), context).await?.evidence
        }
        Told::Stack(spec) => super::stack::bare(args, &spec, context).await?,
    };
    if let Some(seen) = &args.faults.witness
        && let Err(error) = std::fs::write(seen, witness.to_bytes())
    {
        // Half of it would be held against the whole; what the drill found is told without it.
        context.warn(format_args!("tell what was restored: {error}"));
        std::fs::remove_file(seen).map_err(|error| failed("remove half of what was restored", error))?;
    }
    context.json(&evidence)?;
    Ok(Exit::Ok)
}
