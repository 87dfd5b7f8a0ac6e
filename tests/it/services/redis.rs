//! Redis and Valkey servers.

use std::process::{Command, Stdio};

use super::{Server, program};

/// What every server of a test is given: no saving of its own, and `DEBUG DIGEST`.
const USUAL: [&str; 6] = ["--save", "", "--repl-diskless-sync-delay", "0", "--enable-debug-command", "local"];

/// A running server.
pub struct Redis {
    pub server: Server,
    /// Of the default user; empty: none is wanted.
    pub password: String,
}

/// Starts `redis-server`, or another, with these options beside the usual ones.
pub fn start_program(name: &str, options: &[&str]) -> Redis {
    let server = Server::start(name, |folder, port| {
        let mut command = Command::new(program(name));
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(folder);
        command.args(USUAL).args(options);
        command
    });
    let mut words = options.iter();
    let password = words.find(|word| **word == "--requirepass").and_then(|_| words.next());
    Redis { server, password: password.copied().unwrap_or_default().to_owned() }
}

pub fn start(options: &[&str]) -> Redis {
    start_program("redis-server", options)
}

impl Redis {
    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.server.port)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program("redis-cli"));
        command.args(["-p", &self.server.port.to_string()]).args(words).stdin(Stdio::null());
        if !self.password.is_empty() {
            command.env("REDISCLI_AUTH", &self.password);
        }
        command
    }

    /// What the server answers, without the last line's end.
    pub fn ask(&self, words: &[&str]) -> String {
        let said = self.command(words).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).trim_end().to_owned();
        assert!(said.status.success(), "{words:?}: {text} {}", String::from_utf8_lossy(&said.stderr));
        text
    }

    /// Runs a Lua script, which fills much in one go.
    pub fn script(&self, text: &str) -> String {
        let answer = self.ask(&["EVAL", text, "0"]);
        assert!(!answer.starts_with("ERR"), "{answer}");
        answer
    }

    /// Everything in it, short: a digest over all databases, and the libraries of functions.
    pub fn content(&self) -> String {
        format!("{} {}", self.ask(&["DEBUG", "DIGEST"]), self.ask(&["FUNCTION", "LIST"]))
    }

    pub fn info(&self, field: &str) -> String {
        let text = self.ask(&["INFO"]);
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }
}
