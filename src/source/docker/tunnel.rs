//! A way to a server in a container that has no address we reach: a socket here, and for every connection to it a
//! command inside the container that passes bytes on to the server's port there.
//!
//! Whatever speaks to the server, we or its client tools, speaks to the socket. It lies in a folder that only this user
//! may enter: a server may trust whoever comes from inside its container.
//!
//! Invariant: dropping the tunnel ends every connection through it, and what passes bytes inside ends with its input.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use super::daemon::Daemon;
use super::volume::User;
use super::{DockerError, exec};
use crate::base::socket::Socket;

/// Longest path a socket may have.
const PATH_BYTES: usize = 107;
/// How long a server may go on after its client is gone.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// After a client that could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Programs that pass bytes between their standard input and output and a port, in the order they are tried. Some kinds of
/// `nc` go on after their input ended unless they are told not to, each by another flag.
const RELAYS: [(&str, &str); 5] = [
    (
        "nc",
        "case \"$(nc -h 2>&1)\" in *-N*) exec nc -N 127.0.0.1 PORT;; *'-q secs'*) exec nc -q 1 127.0.0.1 PORT;; \
         *) exec nc 127.0.0.1 PORT;; esac",
    ),
    ("socat", "exec socat - TCP:127.0.0.1:PORT"),
    ("bash", "exec bash -c \"$0\""),
    ("python3", "exec python3 -c \"$1\""),
    ("perl", "exec perl -e \"$2\""),
];
/// Whichever side ends first ends the other.
const BASH: &str = "exec 3<>/dev/tcp/127.0.0.1/PORT 4<&0 || exit 1
cat <&3 & out=$!
{ cat <&4 >&3; kill $out; } >/dev/null 2>&1 &
wait $out 2>/dev/null; exit 0";
const PYTHON: &str = "import os, socket, threading
s = socket.create_connection(('127.0.0.1', PORT))
def up():
    for b in iter(lambda: os.read(0, 65536), b''): s.sendall(b)
    s.shutdown(1)
threading.Thread(target=up, daemon=True).start()
for b in iter(lambda: s.recv(65536), b''):
    while b: b = b[os.write(1, b):]
os._exit(0)";
const PERL: &str = "use IO::Socket::INET;
my $s = IO::Socket::INET->new('127.0.0.1:PORT') or die \"cannot connect: $!\n\";
my $up = fork // die;
if (!$up) { my $b; while (sysread STDIN, $b, 65536) { syswrite $s, $b } shutdown $s, 1; exit }
my $b; while (sysread $s, $b, 65536) { syswrite STDOUT, $b } kill 9, $up";

/// What is open as long as this is kept.
struct Tunnel {
    _folder: tempfile::TempDir,
    task: JoinHandle<()>,
}

/// Looks for something that passes bytes in the container, tries it, and listens in a folder below `spool`.
///
/// # Errors
/// There is no shell or nothing that passes bytes; nobody listens on `port` inside.
pub fn open(daemon: &Daemon, user: &User, port: u16, spool: &Path) -> Result<Socket, DockerError> {
    let command = command(daemon, user, port)?;
    let local = |cause: std::io::Error| {
        DockerError::Failed(format!("cannot make a socket in {}: {cause}", spool.display()))
    };
    let folder = tempfile::Builder::new().prefix("lifeboat-way-").tempdir_in(spool).map_err(local)?;
    // What clients of PostgreSQL look for; to others it is a name like any.
    let socket = folder.path().join(format!(".s.PGSQL.{port}"));
    if socket.as_os_str().len() > PATH_BYTES {
        return Err(DockerError::Failed(format!(
            "{} is too long for a socket\nhint: set TMPDIR to a shorter path",
            socket.display()
        )));
    }
    let entered = daemon.runtime.enter();
    let listener = UnixListener::bind(&socket).map_err(local)?;
    drop(entered);
    let (daemon, container) = (daemon.clone(), user.id.clone());
    let task = daemon.runtime.clone().spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many files are open, say: those that are connected go on.
                    tracing::warn!("the way into the container cannot take another client: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (daemon, container, command) = (daemon.clone(), container.clone(), command.clone());
            open.spawn(async move {
                if let Err(error) = pass(&daemon, &container, command, stream).await {
                    tracing::warn!("the way into the container broke off: {error}");
                }
            });
            while open.try_join_next().is_some() {}
        }
    });
    Ok(Socket::new(socket, Arc::new(Tunnel { _folder: folder, task })))
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The command that passes bytes, once it was seen to reach the port.
fn command(daemon: &Daemon, user: &User, port: u16) -> Result<Vec<String>, DockerError> {
    let mut script = String::new();
    for (place, (program, run)) in RELAYS.into_iter().enumerate() {
        let word = if place == 0 { "if" } else { "elif" };
        script.push_str(&format!("{word} command -v {program} >/dev/null 2>&1; then {run}\n"));
    }
    script.push_str("else echo 'no nc, socat, bash, python3 or perl is there' >&2; exit 127; fi");
    let words = ["sh", "-c", &script, BASH, PYTHON, PERL].map(|word| word.replace("PORT", &port.to_string()));
    let failed = |why: String| {
        DockerError::Failed(format!(
            "port {port} in container {} cannot be reached from inside: {}\nhint: publish its port on 127.0.0.1, or connect the \
             container to a network of this machine",
            user.name,
            why.trim()
        ))
    };
    // Without input it connects and is gone.
    match exec::try_words(daemon, user, &words) {
        Ok((0, _)) => Ok(words.to_vec()),
        Ok((_, said)) => Err(failed(said)),
        Err(cancelled @ DockerError::Cancelled(_)) => Err(cancelled),
        // No shell, most likely.
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn pass(
    daemon: &Daemon,
    container: &str,
    command: Vec<String>,
    stream: UnixStream,
) -> Result<(), bollard::errors::Error> {
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command),
        ..ExecConfig::default()
    };
    let exec = daemon.api.create_exec(container, config).await?;
    let StartExecResults::Attached { mut output, mut input } =
        daemon.patient.start_exec(&exec.id, None).await?
    else {
        return Ok(());
    };
    let (mut from, mut into) = stream.into_split();
    let up = async move {
        let _ = tokio::io::copy(&mut from, &mut input).await;
        let _ = input.shutdown().await;
        tokio::time::sleep(AFTERWARDS).await;
    };
    let down = async move {
        while let Some(piece) = output.next().await {
            match piece? {
                LogOutput::StdErr { message } => {
                    tracing::debug!("in the container: {}", String::from_utf8_lossy(&message).trim());
                }
                piece => {
                    // A client that is gone wants no more.
                    if into.write_all(&piece.into_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        }
        let _ = into.shutdown().await;
        Ok(())
    };
    tokio::select! {
        done = down => done,
        () = up => Ok(()),
    }
}
