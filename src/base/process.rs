//! A child process under supervision: its own process group, its output as a stream, its complaints kept.
//!
//! Invariants: stderr is drained while stdout is read, so neither blocks the other; a child that stalls is ended;
//! whatever happens to us short of SIGKILL, the whole group is gone when the [`Process`] is.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal as SignalName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::cancel::{Cancel, Cancelled};

/// What of stderr is kept: its end.
const STDERR_TAIL_BYTES: usize = 64 * 1024;
/// Room between the child and us, where the system grants it.
const PIPE_BYTES: usize = 1024 * 1024;
/// How often a wait looks whether the run was cancelled.
const SLICE: Duration = Duration::from_millis(100);
/// How long stderr is waited for after the child ended: somebody it left behind may hold it open.
const STDERR_PATIENCE: Duration = Duration::from_secs(1);

/// How a child is supervised.
#[derive(Clone, Copy, Debug)]
pub struct ProcessOptions {
    /// A child that gives nothing for this long while we wait for it is ended. Time in which we do not read does
    /// not count.
    pub no_progress: Option<Duration>,
    /// How long the group has between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Environment variables the child does not get: what is our secret is not its.
    pub withheld: &'static [&'static str],
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { no_progress: Some(Duration::from_secs(30 * 60)), grace: Duration::from_secs(5), withheld: &[] }
    }
}

/// A child that did not do what it should. `program` is its name, never its arguments: those may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot start {program:?}")]
    Start {
        program: String,
        #[source]
        cause: io::Error,
    },
    #[error("cannot read from {program:?}")]
    Read {
        program: String,
        #[source]
        cause: io::Error,
    },
    #[error("{program:?} gave nothing for {} s and was ended{}", after.as_secs(), said(stderr))]
    Stalled { program: String, after: Duration, stderr: String },
    #[error("{program:?} {how}{}", said(stderr))]
    Failed {
        program: String,
        /// `ended with exit status 3`, `was killed by SIGKILL`
        how: String,
        stderr: String,
    },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// The last lines of stderr, for a message.
fn said(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
    if last.is_empty() { String::new() } else { format!("; it said:\n  {last}") }
}

/// A running child. Reading it reads its standard output; dropping it ends it.
#[derive(Debug)]
pub struct Process {
    program: String,
    child: Child,
    group: Option<Pid>,
    stdout: ChildStdout,
    at_end: bool,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    drain: Option<JoinHandle<()>>,
    options: ProcessOptions,
    cancel: Cancel,
    reaped: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in its own process group, with no standard input.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        mut command: Command,
        options: ProcessOptions,
        cancel: &Cancel,
    ) -> Result<Self, ProcessError> {
        command.stdin(Stdio::null());
        Self::spawn(command, options, cancel)
    }

    /// The same with a standard input that the caller writes, and ends by dropping it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_fed(
        mut command: Command,
        options: ProcessOptions,
        cancel: &Cancel,
    ) -> Result<(Self, Feed), ProcessError> {
        command.stdin(Stdio::piped());
        let mut process = Self::spawn(command, options, cancel)?;
        let error = |cause| ProcessError::Start { program: process.program.clone(), cause };
        let stdin = process.child.stdin.take().ok_or_else(|| error(io::Error::other("no pipe")))?;
        let flags = fcntl_getfl(&stdin).map_err(|errno| error(errno.into()))?;
        fcntl_setfl(&stdin, flags | OFlags::NONBLOCK).map_err(|errno| error(errno.into()))?;
        let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE_BYTES);
        Ok((process, Feed { stdin, cancel: cancel.clone() }))
    }

    fn spawn(mut command: Command, options: ProcessOptions, cancel: &Cancel) -> Result<Self, ProcessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let error = |cause| ProcessError::Start { program: program.clone(), cause };
        for name in options.withheld {
            command.env_remove(name);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(error)?;
        let pipes = child.stdout.take().zip(child.stderr.take());
        let (stdout, stderr) = pipes.ok_or_else(|| error(io::Error::other("no pipes")))?;
        let group = Pid::from_raw(child.id().cast_signed());
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let mut process = Self {
            program,
            child,
            group,
            stdout,
            at_end: false,
            stderr: kept.clone(),
            drain: None,
            options,
            cancel: cancel.clone(),
            reaped: None,
        };
        // From here on dropping `process` ends the child.
        let error = |cause: io::Error| ProcessError::Start { program: process.program.clone(), cause };
        let flags = fcntl_getfl(&process.stdout).map_err(|errno| error(errno.into()))?;
        fcntl_setfl(&process.stdout, flags | OFlags::NONBLOCK).map_err(|errno| error(errno.into()))?;
        let _ = rustix::pipe::fcntl_setpipe_size(&process.stdout, PIPE_BYTES);
        let drain = thread::Builder::new().name("stderr".into()).spawn(move || drain(stderr, &kept));
        process.drain = Some(drain.map_err(error)?);
        Ok(process)
    }

    /// The end of what it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        let kept = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its process group, which everything it starts belongs to.
    pub fn group(&self) -> Option<i32> {
        self.group.map(|group| group.as_raw_nonzero().get())
    }

    /// Whether its standard output was read to the end.
    pub fn at_end(&self) -> bool {
        self.at_end
    }

    /// Waits for the child, whose output should have ended, and wants exit status 0. Returns the end of its stderr.
    ///
    /// # Errors
    /// Another status, a signal, a stall, a cancelled run.
    pub fn finish(mut self) -> Result<String, ProcessError> {
        let mut waited = Duration::ZERO;
        let mut pause = Duration::from_millis(1);
        while !self.has_exited() {
            self.cancel.check()?;
            self.check_stall(waited)?;
            thread::sleep(pause);
            waited += pause;
            pause = (pause * 2).min(SLICE);
        }
        let status = self.child.wait().map_err(|cause| self.read_error(cause))?;
        self.reaped = Some(status);
        self.wait_for_stderr();
        if status.success() {
            return Ok(self.stderr());
        }
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit status {code}"),
            (_, Some(signal)) => match SignalName::try_from(signal) {
                Ok(name) => format!("was killed by {name}"),
                Err(_) => format!("was killed by signal {signal}"),
            },
            _ => format!("ended with {status}"),
        };
        Err(ProcessError::Failed { program: self.program.clone(), how, stderr: self.stderr() })
    }

    fn check_stall(&mut self, waited: Duration) -> Result<(), ProcessError> {
        match self.options.no_progress {
            Some(limit) if waited >= limit => {
                self.end();
                Err(ProcessError::Stalled {
                    program: self.program.clone(),
                    after: limit,
                    stderr: self.stderr(),
                })
            }
            _ => Ok(()),
        }
    }

    fn read_error(&self, cause: io::Error) -> ProcessError {
        ProcessError::Read { program: self.program.clone(), cause }
    }

    /// Whether the child ended, leaving it to be waited for: its number stays ours until then.
    pub fn has_exited(&self) -> bool {
        let Some(pid) = self.group else { return true };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None) | Err(Errno::INTR))
    }

    fn wait_for_stderr(&mut self) {
        let Some(drain) = self.drain.take() else { return };
        let mut waited = Duration::ZERO;
        while !drain.is_finished() && waited < STDERR_PATIENCE {
            thread::sleep(Duration::from_millis(2));
            waited += Duration::from_millis(2);
        }
    }

    /// Ends the whole group: SIGTERM, time to leave, SIGKILL.
    pub fn end(&mut self) {
        if self.reaped.is_some() {
            return;
        }
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::TERM);
            let mut waited = Duration::ZERO;
            while !self.has_exited() && waited < self.options.grace {
                thread::sleep(Duration::from_millis(10));
                waited += Duration::from_millis(10);
            }
            // Also what the child left behind: the group lives as long as one of them does.
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.reaped = self.child.wait().ok();
        self.wait_for_stderr();
    }

    /// Reads some of standard output; 0 at its end.
    ///
    /// # Errors
    /// A stall, a cancelled run (the child is ended in both cases), or what the system says.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ProcessError> {
        let mut waited = Duration::ZERO;
        loop {
            if let Err(cancelled) = self.cancel.check() {
                self.end();
                return Err(cancelled.into());
            }
            match rustix::io::read(&self.stdout, &mut *buffer) {
                Ok(length) => {
                    self.at_end |= length == 0 && !buffer.is_empty();
                    return Ok(length);
                }
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(self.read_error(errno.into())),
            }
            self.check_stall(waited)?;
            let slice = Timespec { tv_sec: 0, tv_nsec: SLICE.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&slice)) {
                Ok(0) => waited += SLICE,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.read_error(errno.into())),
            }
        }
    }
}

impl Read for Process {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(io::Error::other)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A child's standard input. Writing waits as long as the child works; dropping it is the end of the input.
#[derive(Debug)]
pub struct Feed {
    stdin: ChildStdin,
    cancel: Cancel,
}

impl Write for Feed {
    /// A child that is gone is a broken pipe: [`Process::finish`] knows why.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.cancel.check().map_err(io::Error::other)?;
            match rustix::io::write(&self.stdin, bytes) {
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                written => return written.map_err(io::Error::from),
            }
            let slice = Timespec { tv_sec: 0, tv_nsec: SLICE.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.stdin, PollFlags::OUT)], Some(&slice)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn drain(mut stderr: ChildStderr, kept: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&buffer[..length]);
                let surplus = kept.len().saturating_sub(STDERR_TAIL_BYTES);
                kept.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
