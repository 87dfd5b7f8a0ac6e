//! The real binary on local disk: exit codes, messages, JSON shapes, where passwords and the cache come from.

mod addresses;
mod cache_disk;
mod configuration;
mod continuity;
mod endings;
mod golden;
mod kit;
mod messages;
mod names;
mod passwords;
mod restoring;
mod starting;
mod verbs;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use assert_cmd::Command;

/// A machine of its own: a home, a cache, a place for a repository, and no variable of ours.
pub struct Machine {
    folder: tempfile::TempDir,
    /// Variables besides the usual.
    variables: Vec<(String, String)>,
}

/// What a command said, with the machine's folder written `$T`.
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Machine {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// With a repository, made the quick way.
    pub fn with_repository() -> Self {
        let machine = Self::new();
        let said = machine.run(&["init", "--argon-memory", "8M", "--argon-passes", "1"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        machine
    }

    /// Sets a variable for all that is run from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The command as the standard library knows it, for those that need pipes and signals.
    pub fn raw(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        let path = |name| self.path(name).into_os_string();
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", path("home"))
            .env("TZ", "UTC")
            .env("LIFEBOAT_REPOSITORY", path("repository"))
            .env("LIFEBOAT_CACHE_DIR", path("cache"))
            .env("LIFEBOAT_STATE_DIR", path("state"))
            .env("LIFEBOAT_PASSWORD", "right")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            // A terminal of whoever runs the tests must not be asked.
            .stdin(Stdio::null());
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        Command::from_std(self.raw(arguments))
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.said(self.command(arguments).output().unwrap())
    }

    /// Runs with variables changed; an empty value takes one away.
    pub fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        self.said(command.output().unwrap())
    }

    pub fn said(&self, output: Output) -> Said {
        let folder = self.folder.path().to_str().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(folder, "$T");
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The only object in a folder of the repository.
    pub fn object(&self, folder: &str) -> PathBuf {
        let mut entries = std::fs::read_dir(self.path("repository").join(folder)).unwrap();
        entries.next().unwrap().unwrap().path()
    }
}

impl Said {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", self.stdout))
    }
}

/// Changes one byte in the middle of a file.
pub fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// The command on a terminal of its own (by util-linux' `script`), so that it may ask.
pub fn on_terminal(command: &std::process::Command) -> Child {
    let quote = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let words: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]).env_clear();
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("TERM", "xterm").env("SHELL", "/bin/sh");
    script.current_dir(command.get_current_dir().unwrap());
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn().unwrap()
}

/// Reads until `expected` was shown, then types `answer` and Enter.
pub fn answer(child: &mut Child, expected: &str, answer: &str) -> String {
    let mut shown = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&shown).contains(expected) {
        let read = child.stdout.as_mut().unwrap().read(&mut byte).unwrap();
        assert_eq!(read, 1, "ended before it asked {expected:?}: {:?}", String::from_utf8_lossy(&shown));
        shown.push(byte[0]);
    }
    child.stdin.as_mut().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
    String::from_utf8_lossy(&shown).into_owned()
}
