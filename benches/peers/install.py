"""Installs the peers: restic and borg from Debian, rustic and bupstash from crates.io into their own folder.

Versions of the crates are pinned, so that two runs compare the same programs. Both are built with the lock file
they were published with: without it bupstash 0.12.0 does not compile (a newer `console` lost items that its
`indicatif` imports). Builds are done once, at low priority, one job at a time, in a temporary target folder.
"""

import os
import shutil
import subprocess
import tempfile

CRATES = {"rustic": ("rustic-rs", "0.11.4"), "bupstash": ("bupstash", "0.12.0")}
DEBIAN = {"restic": ["restic"], "borg": ["borgbackup"]}
BUILD_PACKAGES = {"bupstash": ["libsodium-dev", "pkg-config"]}


def _apt(packages):
    """Install Debian packages; needs root, waits for apt's lock."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    subprocess.run(["apt-get", *wait, "update", "-qq"], env=environment, check=True)
    subprocess.run(["apt-get", *wait, "install", "-y", "-qq", "--no-install-recommends", *packages], env=environment, check=True)


def ensure(names, tools_folder, say):
    """Install those of `names` that are missing."""
    missing = [name for name in names if not shutil.which(name) and not os.access(f"{tools_folder}/bin/{name}", os.X_OK)]
    packages = [package for name in missing for package in DEBIAN.get(name, []) + BUILD_PACKAGES.get(name, [])]
    if packages:
        say(f"installing {' '.join(packages)} from Debian")
        _apt(packages)
    for name in missing:
        if name not in CRATES:
            continue
        crate, version = CRATES[name]
        say(f"building {crate} {version} (minutes)")
        with tempfile.TemporaryDirectory(prefix="peers.build.") as scratch:
            # Away from this project's folder: its cargo configuration is not the peers'.
            subprocess.run(["nice", "-n", "10", "cargo", "install", crate, "--version", version, "--locked", "-j1", "--root",
                            os.path.abspath(tools_folder)],
                           cwd=scratch, env=os.environ | {"CARGO_TARGET_DIR": f"{scratch}/target"}, check=True)
