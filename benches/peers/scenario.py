"""What is measured: for each corpus an ordered list of steps, each done by every tool before the next.

Doing one step with all tools, then the next, keeps the compared numbers close in time; the order of the tools
rotates from run to run. Steps the caller did not select are left out, except those others stand on. After each
first restore and dump of a tool its output is compared with the source by hash, outside the measured time.
"""

import os
import shutil
import subprocess
import sys

import measure

STEPS = {
    "tree": ("init", "backup", "unchanged", "changed", "restore", "verify", "prune"),
    "small": ("init", "backup", "unchanged", "changed", "restore", "verify"),
    "dump": ("init", "stream", "unchanged", "changed", "dump", "restore", "verify"),
    "random": ("init", "backup", "unchanged", "restore", "verify"),
}
FOUNDATIONS = ("init", "backup", "stream")
CHANGED_SHARE, PRUNE_SHARE, SNAPSHOTS, KEPT = 0.01, 0.05, 10, 5


def steps_of(corpus, wanted):
    """The steps to run: the wanted ones and those they stand on."""
    return [step for step in STEPS[corpus] if step in FOUNDATIONS or not wanted or step in wanted]


def compare(source, root, who):
    """Fail unless what lies below root is what lies below source (see same.py)."""
    done = subprocess.run([sys.executable, "-B", f"{os.path.dirname(os.path.abspath(__file__))}/same.py", source, root],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise measure.Failed(f"{who}: {done.stdout or done.stderr}")


class Runner:
    """Runs one corpus's steps once with all tools and hands each row to `record`."""

    def __init__(self, corpus, sources, place, tools, changes, record, say):
        self.corpus, self.place = corpus, place
        self.source, self.successor = sources
        self.live = self.source  # what the next backup reads
        self.tools = tools  # name -> adapter maker (place)
        self.changes, self.record, self.say = changes, record, say
        self.checked, self.failures = set(), []

    def run(self, run, steps):
        """All steps; the corpus is back in its first state afterwards, whatever happens."""
        self.live = self.source
        names = list(self.tools)
        at = run % len(names)
        adapters = {name: self.tools[name](f"{self.place}/{name}") for name in names[at:] + names[:at]}
        try:
            measure.settle([self.source])
            for step in steps:
                self._prepare(step)
                if step == "prune":
                    self._age(adapters, steps)
                for name in list(adapters):
                    self._guarded(adapters, name, self._one, run, step, adapters[name])
            for name in list(adapters) if "prune" in steps else ():
                self._guarded(adapters, name, self._check_pruned, adapters[name])
        finally:
            if self.changes:
                self.changes.undo()
            for name in self.tools:
                shutil.rmtree(f"{self.place}/{name}", ignore_errors=True)

    def _guarded(self, adapters, name, work, *arguments):
        """A tool that fails is reported and sits out the rest of this corpus's run."""
        try:
            work(*arguments)
        except measure.Failed as failure:
            self.failures.append(str(failure))
            self.say(f"FAILED {self.corpus} {name}: {failure}")
            del adapters[name]

    def _prepare(self, step):
        if step != "changed":
            return
        if self.successor:
            self.live = self.successor
            measure.settle([self.live])
        else:
            self.changes.apply("first", CHANGED_SHARE)

    def _one(self, run, step, adapter):
        if step == "verify" and not adapter.verifies:
            return
        measure.settle()
        before = measure.folder_bytes(adapter.repository)
        cost = self._drop(adapter) if step == "prune" else getattr(self, f"_{step}")(adapter)
        after = measure.folder_bytes(adapter.repository)
        self.record(run, self.corpus, step, adapter.name, cost | {"repository_bytes": after, "added_bytes": after - before})
        self.say(f"run {run + 1} {self.corpus:6} {step:9} {adapter.name:8} {cost['wall_s']:8.2f} s wall "
                 f"{cost['user_s'] + cost['system_s']:8.2f} s CPU {cost['peak_bytes'] / 2**20:7.0f} MiB "
                 f"{after / 1e6:9.1f} MB ({(after - before) / 1e6:+.1f})")

    @staticmethod
    def _init(adapter):
        return adapter.init()

    def _backup(self, adapter):
        return adapter.stream(self.live) if self.corpus == "dump" else adapter.backup(self.live)

    _stream = _unchanged = _changed = _backup

    @staticmethod
    def _verify(adapter):
        return adapter.verify()

    @staticmethod
    def _drop(adapter):
        return adapter.drop(KEPT)

    def _restore(self, adapter, name="restored"):
        # Removed with everything else at the run's end: ext4 passes over inodes that were deleted a moment ago, one
        # by one, so the next tool's restore would pay for this one's removal.
        target = f"{adapter.place}/{name}"
        os.makedirs(target)
        cost = adapter.restore(target)
        if self._first("restore", adapter):
            root = self._stream_file(target) if self.corpus == "dump" else adapter.restored_root(target, self.live)
            compare(self.live, root, f"{adapter.name} restore of {self.corpus}")
        return cost

    @staticmethod
    def _stream_file(target):
        """The one file of a restored stream, under whatever name the tool gives it."""
        files = [f"{folder}/{name}" for folder, _, names in os.walk(target) for name in names]
        if len(files) != 1:
            raise measure.Failed(f"a restored stream left {len(files)} files")
        return files[0]

    def _dump(self, adapter):
        if self._first("dump", adapter):
            copy = f"{adapter.place}/dumped"
            adapter.dump(stdout_path=copy)
            compare(self.live, copy, f"{adapter.name} dump")
            os.remove(copy)
        return adapter.dump()

    def _first(self, what, adapter):
        if (what, adapter.name) in self.checked:
            return False
        self.checked.add((what, adapter.name))
        return True

    def _age(self, adapters, steps):
        """Snapshots until there are ten, each after changing 5 % of the files."""
        taken = 1 + ("unchanged" in steps) + ("changed" in steps)
        for number in range(taken, SNAPSHOTS):
            self.changes.apply(f"prune-{number}", PRUNE_SHARE)
            for name in list(adapters):
                self._guarded(adapters, name, adapters[name].backup, self.live)

    def _check_pruned(self, adapter):
        """What prune left must still restore."""
        if self._first("prune", adapter):
            self.checked.discard(("restore", adapter.name))
            self._restore(adapter, "restored-after-prune")
