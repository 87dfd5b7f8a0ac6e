//! Docker: volumes and projects, against a real engine.

mod project;
mod quiet;
mod reach;
mod volume;

use std::path::Path;
use std::process::Command;

use crate::cli::Machine;
use crate::services::dockerd::{Engine, engine};

/// A machine whose Docker is the tests' own.
pub fn machine() -> Machine {
    let mut machine = Machine::with_repository();
    machine.set("DOCKER_HOST", &engine().host());
    machine
}

/// A name no other test uses.
pub fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a shell in a folder.
pub fn shell(folder: &Path, script: &str) {
    let output = Command::new("bash").args(["-euc", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// All of a folder as text: type, mode, numeric owner, size, times, links, attributes, content.
pub fn listing(folder: &Path, whole_seconds: bool) -> String {
    let time = if whole_seconds { "%Ts" } else { "%T@" };
    // Times of files and links; those of folders need not survive an archive.
    let script = format!(
        "find . -printf '%P %y %m %U:%G %l ' \\( -type f -printf '%s {time} ' -o -true \\) -printf '\\n' | sort; \
         find . -type f -print0 | sort -z | xargs -0r sha256sum; \
         find . -type f -links +1 -printf '%i %P\\n' | sort | awk '{{print $2}}'"
    );
    let output = Command::new("bash").args(["-euc", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A volume with everything a file system has, and a root folder of its own mode and owner.
pub fn filled(engine: &Engine, name: &str) {
    engine.docker(&["volume", "create", name]);
    let script = "
        mkdir -p a/b 'odd name' .wh.x; echo one > a/b/file; echo two > a-b; echo three > 'odd name/ü ø'
        printf 'line\\n' > $'new\\nline'; : > empty; head -c 3000000 /dev/urandom > large
        ln a-b hard; ln -s a/b/file soft; ln -s /nowhere dangling; mkfifo fifo; mknod null c 1 3
        echo w > .wh.y; truncate -s 4M sparse; printf end >> sparse
        long=$(printf 'n%.0s' {1..200}); mkdir -p $long/$long; echo deep > $long/$long/$long
        chown 70:70 a/b/file; chown 1234567:7654321 empty; chmod 4750 large; chmod 1777 a
        touch -d 2020-02-02T02:02:02.123456789 a-b; chown 999:998 .; chmod 0701 .";
    shell(&engine.folder(name), script);
}
