//! Level 2: one SFTP session over the system's `ssh`.
//!
//! `ssh` brings the user's agent, configuration, jump hosts and known hosts; we start it as a child without a
//! terminal, speak SFTP over its pipes, and end it with the session: killed with us, nothing stays behind.
//! What it prints is kept, for it names the reason when a connection fails.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssh_sftp_client::{Sftp, SftpOptions};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::{HostKeyCheck, StoreErrorKind, StoreOptions};

/// What of `ssh`'s messages is kept.
const MAX_MESSAGE_BYTES: usize = 8 << 10;

/// How to reach the server: everything of a session but the session.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// A connected session; dropping it ends its `ssh`.
pub(super) struct Session {
    pub(super) sftp: Sftp,
    _child: Child,
}

impl Session {
    /// Starts `ssh` and shakes hands.
    pub(super) async fn connect(
        server: &Server,
        options: &StoreOptions,
    ) -> Result<Self, (StoreErrorKind, String)> {
        let mut child = command(server, options).spawn().map_err(|e| {
            let cause =
                format!("cannot run {}: {e}\nhint: install an OpenSSH client", options.ssh_program.display());
            (StoreErrorKind::Config, cause)
        })?;
        let (Some(stdin), Some(stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err((StoreErrorKind::Other, "ssh has no pipes".into()));
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&said);
        // Ends with ssh; read to the end so that ssh never blocks on a full pipe.
        let listener = tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MAX_MESSAGE_BYTES.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..n.min(room)]);
            }
        });
        let greeting = Sftp::new(stdin, stdout, SftpOptions::new());
        // ssh's own ConnectTimeout covers the connection only, not a login that hangs.
        match tokio::time::timeout(options.connect_timeout * 2, greeting).await {
            Ok(Ok(sftp)) => Ok(Self { sftp, _child: child }),
            Ok(Err(error)) => {
                // The pipes broke because ssh ends; its last words come before.
                let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
                let _ = tokio::time::timeout(Duration::from_secs(1), listener).await;
                let said = said.lock().unwrap_or_else(PoisonError::into_inner);
                Err(explain(&String::from_utf8_lossy(&said), &error.to_string()))
            }
            Err(_) => Err((StoreErrorKind::Temporary, "the login took too long".into())),
        }
    }
}

fn command(server: &Server, options: &StoreOptions) -> Command {
    let mut ssh = Command::new(&options.ssh_program);
    let mut option = |text: String| {
        ssh.arg("-o").arg(text);
    };
    option("BatchMode=yes".into());
    option(format!("ConnectTimeout={}", options.connect_timeout.as_secs().max(1)));
    option("ServerAliveInterval=15".into());
    option("ServerAliveCountMax=4".into());
    // A shared master would outlive us and count our sessions as one.
    option("ControlMaster=no".into());
    option("ControlPath=none".into());
    option("ClearAllForwardings=yes".into());
    // Sealed data does not compress.
    option("Compression=no".into());
    option(match options.ssh_host_key_check {
        HostKeyCheck::Strict => "StrictHostKeyChecking=yes".into(),
        HostKeyCheck::AcceptNew => "StrictHostKeyChecking=accept-new".into(),
    });
    if let Some(file) = &options.ssh_known_hosts_file {
        option(format!("UserKnownHostsFile=\"{}\"", file.display()));
    }
    if let Some(file) = &options.ssh_identity_file {
        ssh.arg("-o").arg("IdentitiesOnly=yes").arg("-i").arg(file);
    }
    if let Some(user) = &server.user {
        ssh.arg("-l").arg(user);
    }
    if let Some(port) = server.port {
        ssh.arg("-p").arg(port.to_string());
    }
    ssh.arg("-s").arg("--").arg(server.host.trim_matches(['[', ']'])).arg("sftp");
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // A Ctrl-C in the terminal is ours to handle; ssh must stay until the last object is written.
    ssh.process_group(0);
    ssh
}

/// What `ssh` said when no session came about. Unknown words mean a broken line, which may mend.
fn explain(said: &str, error: &str) -> (StoreErrorKind, String) {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Warning:"));
    let text = lines.collect::<Vec<_>>().join("; ");
    let has = |words: &str| text.contains(words);
    let (kind, hint) = if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let hint = "\nhint: the server's key is not the known one: find out why before removing the old key";
        (StoreErrorKind::Config, hint)
    } else if has("Host key verification failed") || has("host key is known") {
        let hint = "\nhint: compare the server's key with what its operator publishes, then add it: ssh-keyscan HOST";
        (StoreErrorKind::Config, hint)
    } else if has("Permission denied") || has("Too many authentication failures") {
        (StoreErrorKind::Denied, "\nhint: only keys are used; is the public key installed on the server?")
    } else if has("Could not resolve hostname") && !has("Temporary failure") {
        (StoreErrorKind::Config, "")
    } else if has("subsystem request failed") {
        (StoreErrorKind::Config, "\nhint: the server offers no SFTP")
    } else if has("UNPROTECTED PRIVATE KEY") || has("Bad configuration option") || has("invalid format") {
        (StoreErrorKind::Config, "")
    } else {
        (StoreErrorKind::Temporary, "")
    };
    let text = if text.is_empty() { error.to_owned() } else { text };
    (kind, format!("{text}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_ssh_become_kinds() {
        for (said, kind) in [
            ("u@h: Permission denied (publickey).", StoreErrorKind::Denied),
            (
                "No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.",
                StoreErrorKind::Config,
            ),
            ("ssh: connect to host h port 1: Connection refused", StoreErrorKind::Temporary),
            ("kex_exchange_identification: Connection closed by remote host", StoreErrorKind::Temporary),
            ("ssh: Could not resolve hostname h: Name or service not known", StoreErrorKind::Config),
            (
                "ssh: Could not resolve hostname h: Temporary failure in name resolution",
                StoreErrorKind::Temporary,
            ),
            ("subsystem request failed on channel 0", StoreErrorKind::Config),
            ("", StoreErrorKind::Temporary),
        ] {
            assert_eq!(explain(said, "eof").0, kind, "{said}");
        }
    }
}
