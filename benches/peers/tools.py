"""One adapter per tool: the same verbs, each as the tool's own command lines.

Default settings, encryption on, compression on. Each tool gets its own HOME and XDG_CACHE_HOME below `place`,
beside its repository, and nothing else of the caller's environment. A verb returns what `measure.run` measured
(summed, when it takes more than one command). Repositories differ in what their default means; where a default
had to be chosen (borg), the `settings` line says so and goes into the report.
"""

import os
import shutil
import subprocess

import measure

PASSWORD = "correct horse battery staple"
STREAM = "dump.sql"


class Tool:
    """What all adapters share: a folder with repository, home, cache and log."""

    name = settings = ""
    verifies = True

    def __init__(self, program, place):
        self.program, self.place = program, place
        self.repository = f"{place}/repository"
        self.log = f"{place}/log"
        os.makedirs(f"{place}/home", exist_ok=True)
        self.env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": f"{place}/home", "LANG": "C.UTF-8",
                    "XDG_CACHE_HOME": f"{place}/cache", "XDG_CONFIG_HOME": f"{place}/home/config", "TMPDIR": f"{place}/home"}
        self.env |= self.variables()

    def variables(self):
        """Environment that names the repository and its secret."""
        return {}

    def run(self, *arguments, **options):
        """One command of this tool, measured."""
        return measure.run([self.program, *arguments], self.env, self.log, **options)

    @classmethod
    def version(cls, program):
        done = subprocess.run([program, *cls.version_arguments], capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).strip().splitlines()[0]

    version_arguments = ("--version",)

    def restored_root(self, target, source):
        """Where `source` came back below target."""
        for candidate in (target + source, f"{target}/{os.path.basename(source)}"):
            if os.path.lexists(candidate):
                return candidate
        return target


class Restic(Tool):
    name = "restic"
    settings = "defaults (compression auto, repository format 2)"
    version_arguments = ("version",)

    def variables(self):
        return {"RESTIC_REPOSITORY": self.repository, "RESTIC_PASSWORD": PASSWORD}

    def init(self):
        return self.run("init")

    def backup(self, path, time=None):
        return self.run("backup", *(("--time", time.strftime("%Y-%m-%d %H:%M:%S")) if time else ()), path)

    def stream(self, path, time=None):
        when = ("--time", time.strftime("%Y-%m-%d %H:%M:%S")) if time else ()
        return self.run("backup", "--stdin", "--stdin-filename", STREAM, *when, stdin_path=path)

    def restore(self, target):
        return self.run("restore", "latest", "--target", target)

    def dump(self, stdout_path=os.devnull):
        return self.run("dump", "latest", STREAM, stdout_path=stdout_path)

    def verify(self):
        return self.run("check", "--read-data")

    def drop(self, keep_last):
        return measure.add(self.run("forget", "--keep-last", str(keep_last)), self.run("prune"))

    def retain(self, daily, weekly):
        return measure.add(self.run("forget", "--keep-daily", str(daily), "--keep-weekly", str(weekly)), self.run("prune"))


class Rustic(Restic):
    name = "rustic"
    settings = "defaults (zstd 3); streams with --force (rustic#1793); prune with --instant-delete"
    version_arguments = ("--version",)

    def variables(self):
        return {"RUSTIC_REPOSITORY": self.repository, "RUSTIC_PASSWORD": PASSWORD, "RUSTIC_NO_PROGRESS": "true"}

    def stream(self, path, time=None):
        # --force: else a second stream of the same name counts as unchanged and the first comes back (rustic#1793).
        return self.run("backup", "--force", "--stdin-filename", STREAM, "-", stdin_path=path)

    def restore(self, target):
        return self.run("restore", "latest", target)

    def dump(self, stdout_path=os.devnull):
        return self.run("dump", f"latest:{STREAM}", stdout_path=stdout_path)

    def drop(self, keep_last):
        return measure.add(self.run("forget", "--keep-last", str(keep_last)), self.run("prune", "--instant-delete"))


class Borg(Tool):
    name = "borg"
    settings = "encryption repokey-blake2, compression zstd,3 (its default would be lz4)"

    def variables(self):
        self._count = 0
        return {"BORG_REPO": self.repository, "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": f"{self.place}/home",
                "BORG_CACHE_DIR": f"{self.place}/cache/borg", "PYTHONDONTWRITEBYTECODE": "1"}

    def _next(self):
        self._count += 1
        return f"::{self._count:04d}"

    def init(self):
        return self.run("init", "--encryption", "repokey-blake2")

    def backup(self, path, time=None):
        return self.run("create", "--compression", "zstd,3", self._next(), path, allowed=(0, 1))

    def stream(self, path, time=None):
        return self.run("create", "--compression", "zstd,3", "--stdin-name", STREAM, self._next(), "-", stdin_path=path)

    def restore(self, target):
        return self.run("extract", f"::{self._count:04d}", cwd=target)

    def dump(self, stdout_path=os.devnull):
        return self.run("extract", "--stdout", f"::{self._count:04d}", stdout_path=stdout_path)

    def verify(self):
        return self.run("check", "--verify-data")

    def drop(self, keep_last):
        return measure.add(self.run("prune", "--keep-last", str(keep_last)), self.run("compact"))


class Bupstash(Tool):
    name = "bupstash"
    settings = "defaults (zstd 3), key file; no verify of its data; streams restored with get"
    verifies = False

    def variables(self):
        self._ids, self._streamed = [], False
        return {"BUPSTASH_REPOSITORY": self.repository, "BUPSTASH_KEY": f"{self.place}/key"}

    def init(self):
        return measure.add(self.run("new-key", "-o", f"{self.place}/key"), self.run("init"))

    def _put(self, *arguments, **options):
        cost = self.run("put", *arguments, stdout_path=f"{self.place}/id", **options)
        with open(f"{self.place}/id", encoding="ascii") as out:
            self._ids.append(out.read().split()[-1])
        return cost

    def backup(self, path, time=None):
        return self._put(f"name={os.path.basename(path)}", path)

    def stream(self, path, time=None):
        self._streamed = True
        return self._put(f"name={STREAM}", "-", stdin_path=path)

    def restore(self, target):
        if self._streamed:  # its restore takes folders only
            return self.dump(stdout_path=f"{target}/{STREAM}")
        return self.run("restore", "--into", target, f"id={self._ids[-1]}")

    def dump(self, stdout_path=os.devnull):
        return self.run("get", f"id={self._ids[-1]}", stdout_path=stdout_path)

    def drop(self, keep_last):
        cost, gone = None, self._ids[:-keep_last]
        for one in gone:
            cost = measure.add(cost, self.run("rm", f"id={one}"))
        self._ids = self._ids[-keep_last:]
        return measure.add(cost, self.run("gc"))

    def restored_root(self, target, source):
        return target


class Lifeboat(Tool):
    name = "lifeboat"
    settings = "defaults"

    def variables(self):
        return {"LIFEBOAT_REPOSITORY": self.repository, "LIFEBOAT_PASSWORD": PASSWORD}

    def init(self):
        return self.run("init")

    def backup(self, path, time=None):
        return self.run("backup", *(("--time", time.strftime("%Y-%m-%dT%H:%M:%SZ")) if time else ()), path)

    def stream(self, path, time=None):
        when = ("--time", time.strftime("%Y-%m-%dT%H:%M:%SZ")) if time else ()
        return self.run("backup", "--stdin", "--stdin-filename", STREAM, *when, stdin_path=path)

    def restore(self, target):
        return self.run("restore", "latest", "--target", target)

    def dump(self, stdout_path=os.devnull):
        return self.run("dump", f"latest:/{STREAM}", stdout_path=stdout_path)

    def verify(self):
        return self.run("verify", "--read-data")

    def _forget(self, *rules):
        # Off a terminal destructive verbs may want their consent spelled out.
        done = subprocess.run([self.program, "forget", "--help"], capture_output=True, text=True, check=False)
        yes = ("--yes",) if "--yes" in done.stdout else ()
        return measure.add(self.run("forget", *rules, *yes), self.run("prune", "--grace", "0", *yes))

    def drop(self, keep_last):
        return self._forget("--keep-last", str(keep_last))

    def retain(self, daily, weekly):
        return self._forget("--keep-daily", str(daily), "--keep-weekly", str(weekly))


TOOLS = {tool.name: tool for tool in (Lifeboat, Restic, Rustic, Borg, Bupstash)}


def find_program(name, tools_folder, lifeboat):
    """The path of a tool's program, or None when it is not installed."""
    if name == "lifeboat":
        return os.path.abspath(lifeboat) if os.access(lifeboat, os.X_OK) else None
    own = f"{tools_folder}/bin/{name}"
    return os.path.abspath(own) if os.access(own, os.X_OK) else shutil.which(name)
