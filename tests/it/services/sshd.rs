//! OpenSSH's server, keys only, SFTP only; stands in for a Hetzner Storage Box.

use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat::store::{Location, StoreOptions};

use super::{Server, program};

pub struct Sshd(pub Server);

fn keygen(file: &Path) {
    let mut command = Command::new(program("ssh-keygen"));
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(file);
    assert!(command.status().unwrap().success());
}

impl Sshd {
    /// `sftp_options` go to `internal-sftp`: `-P remove` forbids deleting, for example.
    pub fn start(sftp_options: &str) -> Self {
        let sshd = program("sshd");
        std::fs::create_dir_all("/run/sshd").expect("sshd's own folder, needs root");
        let server = Server::start("sshd", |dir, port| {
            for key in ["host_key", "user_key", "stranger_key"] {
                if !dir.join(key).exists() {
                    keygen(&dir.join(key));
                }
            }
            let root = dir.join("root");
            std::fs::create_dir_all(&root).unwrap();
            std::fs::copy(dir.join("user_key.pub"), dir.join("authorized_keys")).unwrap();
            let host_key = std::fs::read_to_string(dir.join("host_key.pub")).unwrap();
            std::fs::write(dir.join("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
            let shown = dir.display();
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/host_key\nPidFile none\n\
                 AuthorizedKeysFile {shown}/authorized_keys\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
                 MaxStartups 10:30:100\nMaxSessions 10\nSubsystem sftp internal-sftp\n\
                 ForceCommand internal-sftp -d {shown}/root {sftp_options}\n"
            );
            std::fs::write(dir.join("sshd_config"), config).unwrap();
            let mut command = Command::new(&sshd);
            command.arg("-D").arg("-e").arg("-f").arg(dir.join("sshd_config"));
            command
        });
        Self(server)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.dir.path().join(name)
    }

    /// Below the folder a login starts in.
    pub fn location(&self, path: &str) -> Location {
        format!("sftp://127.0.0.1:{}/./{path}", self.0.port).parse().unwrap()
    }

    pub fn options(&self) -> StoreOptions {
        StoreOptions {
            ssh_identity_file: Some(self.path("user_key")),
            ssh_known_hosts_file: Some(self.path("known_hosts")),
            ..Default::default()
        }
    }
}
