//! A Docker Engine of the tests' own: private socket and data, no network of the machine touched. One for the whole
//! test binary, started by the first test that asks.
//!
//! Containers outlive a daemon that is killed, so a shell watches the test process: when that is gone, whatever way,
//! it removes the containers, ends the daemon and deletes its folder.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::program;

/// The image all tests use: busybox under the usual names.
pub const IMAGE: &str = "lifeboat-busybox";

static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::start);

/// The daemon.
pub struct Engine {
    dir: PathBuf,
    socket: PathBuf,
}

/// The daemon, running.
pub fn engine() -> &'static Engine {
    &ENGINE
}

/// Ends everything when its input ends: that is, when the test process does.
const WATCH: &str = r#"
cat >/dev/null
ids=$(docker -H "unix://$1/s" ps -aq 2>/dev/null)
[ -z "$ids" ] || docker -H "unix://$1/s" rm -f $ids >/dev/null 2>&1
kill $(cat "$1/pid" 2>/dev/null) 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -e "$1/pid" ] || break; sleep 0.2; done
for m in $(cut -d' ' -f2 /proc/mounts | grep "^$1/"); do umount -l "$m" 2>/dev/null; done
rm -rf "$1"
"#;

impl Engine {
    fn start() -> Self {
        let (dockerd, _) = (program("dockerd"), program("docker"));
        let dir = tempfile::Builder::new().prefix("lifeboat-dockerd-").tempdir().unwrap().keep();
        let path = |name: &str| dir.join(name);
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "watch"]).arg(&dir).stdin(Stdio::piped()).process_group(0);
        #[expect(clippy::zombie_processes, reason = "it outlives us on purpose")]
        let mut watch = watch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Held open until this process is gone.
        std::mem::forget(watch.stdin.take());
        let log = std::fs::File::create(path("log")).unwrap();
        let mut command = Command::new(dockerd);
        command.arg("--data-root").arg(path("data")).arg("--exec-root").arg(path("exec"));
        command.arg("--pidfile").arg(path("pid")).arg("-H").arg(format!("unix://{}", path("s").display()));
        command.args(["--iptables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        #[expect(clippy::zombie_processes, reason = "the watch ends it")]
        let _daemon = command.spawn().unwrap_or_else(|error| panic!("dockerd: {error}"));
        let engine = Self { socket: path("s"), dir };
        let begin = Instant::now();
        while !engine.raw(&["info"]).status.success() {
            let log = || std::fs::read_to_string(engine.dir.join("log")).unwrap_or_default();
            assert!(begin.elapsed() < Duration::from_secs(60), "dockerd does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        engine.import(IMAGE, &engine.busybox());
        engine
    }

    /// A root file system with nothing but busybox.
    fn busybox(&self) -> PathBuf {
        let root = self.dir.join("busybox");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy(program("busybox"), root.join("bin/busybox")).unwrap();
        for name in ["sh", "sleep", "cat", "touch", "ls", "rm", "echo", "kill", "true", "false"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        root
    }

    /// Makes an image of a folder.
    pub fn import(&self, image: &str, root: &Path) {
        let mut tar =
            Command::new("tar").arg("c").arg("-C").arg(root).arg(".").stdout(Stdio::piped()).spawn().unwrap();
        let mut import = self.command(&["import", "-", image]);
        let output = import.stdin(tar.stdout.take().unwrap()).output().unwrap();
        assert!(output.status.success() && tar.wait().unwrap().success(), "{output:?}");
    }

    /// What `DOCKER_HOST` must be.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("docker"));
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.dir.join("config")).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn raw(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the client; what it printed.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let output = self.raw(arguments);
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The same with something on standard input.
    pub fn docker_with(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "docker {arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes it a Swarm of one.
    pub fn swarm(&self) {
        static MADE: std::sync::Once = std::sync::Once::new();
        MADE.call_once(|| {
            let place = format!("127.0.0.1:{}", super::free_port());
            self.docker(&["swarm", "init", "--advertise-addr", &place, "--listen-addr", &place]);
        });
    }

    /// A volume's folder.
    pub fn folder(&self, volume: &str) -> PathBuf {
        self.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", volume]).into()
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}: still not");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Names of running containers whose name begins so.
    pub fn running(&self, prefix: &str) -> Vec<String> {
        let list = self.docker(&["ps", "--format", "{{.Names}} {{.Status}}"]);
        let mut names: Vec<String> = list
            .lines()
            .filter(|line| line.starts_with(prefix) && !line.contains("(Paused)"))
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Nothing of ours is left on the server.
    pub fn assert_no_helpers(&self, run: &str) {
        let label = "label=lifeboat.helper";
        for kind in [&["ps", "-aq"][..], &["volume", "ls", "-q"], &["images", "-aq"]] {
            let mut arguments = kind.to_vec();
            arguments.extend(["--filter", label]);
            let left = self.docker(&arguments);
            assert_eq!(left, "", "{run}: {kind:?} leaves something");
        }
    }
}

/// Containers of a test, gone with it.
pub struct Containers(pub String);

impl Drop for Containers {
    fn drop(&mut self) {
        let engine = engine();
        let filter = format!("name=^/?{}", self.0);
        let ids =
            String::from_utf8(engine.raw(&["ps", "-aq", "--filter", &filter]).stdout).unwrap_or_default();
        let mut arguments = vec!["rm", "-f", "-v"];
        arguments.extend(ids.split_whitespace());
        if arguments.len() > 3 {
            engine.raw(&arguments);
        }
    }
}
