//! Real servers for the tests: each on loopback, on a port of its own, in a folder of its own.
//!
//! A server dies with its handle, and, should the test process be killed, with that process. A test whose
//! server is not installed fails and says what to do.

// Each topic uses the part it needs.
#![allow(dead_code)]

pub mod dockerd;
pub mod influx;
pub mod influx2;
pub mod kubernetes;
pub mod mariadb;
pub mod postgres;
pub mod redis;
pub mod relay;
pub mod seaweed;
pub mod sshd;
pub mod victoria;
pub mod webdav;

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server process and its folder.
pub struct Server {
    child: Option<Child>,
    pub dir: tempfile::TempDir,
    pub port: u16,
}

/// Where the program is, or the failure that says how to get it.
pub fn program(name: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend([tools, "/usr/sbin".into(), "/usr/bin".into(), "/usr/lib/openssh".into()]);
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: install with ./tests/install"))
}

/// A port nobody listens on. Taken and freed again, so a start may lose a race for it: starts are repeated.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts the command in a process group of its own that is killed when this process dies.
pub fn spawn(command: &mut Command, log: &Path) -> Child {
    let out = std::fs::File::options().create(true).append(true).open(log).unwrap();
    let err = out.try_clone().unwrap();
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let parent = std::process::id();
    // SAFETY: between fork and exec only plain system calls are made.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the line above.
            match rustix::process::getppid() {
                Some(pid) if pid.as_raw_nonzero().get() as u32 == parent => Ok(()),
                _ => Err(std::io::Error::other("the test is gone")),
            }
        });
    }
    command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

impl Server {
    /// Starts a server and waits until it accepts connections. `make` gets the folder and the port.
    pub fn start(name: &str, make: impl Fn(&Path, u16) -> Command) -> Self {
        let mut log = String::new();
        for _ in 0..3 {
            let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
            let log_file = dir.path().join("log");
            let child = Some(spawn(&mut make(dir.path(), port), &log_file));
            let mut server = Self { child, dir, port };
            if server.accepts() {
                return server;
            }
            log = std::fs::read_to_string(&log_file).unwrap_or_default();
        }
        panic!("{name} does not start:\n{log}");
    }

    fn accepts(&mut self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(30) {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            if self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().unwrap();
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Ends the server at once, keeping its folder.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
