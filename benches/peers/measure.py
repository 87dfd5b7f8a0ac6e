"""Run one command and say what it cost: wall, CPU, peak memory, output.

Wall is the monotonic clock around spawn and reap. CPU is the reaped process's rusage, which includes every
descendant it waited for. Peak memory is the larger of two figures: the kernel's high-water mark (`ru_maxrss`,
the largest single process) and the largest sum of resident memory over the process tree, sampled every 20 ms
(bupstash works in two processes; shared pages then count twice). The harness itself must stay small: the
kernel counts a parent's pages at the moment of fork into the child's mark.
"""

import contextlib
import os
import subprocess
import threading
import time

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """A command ended badly; carries what it printed last."""


def _tree_pids(pid):
    """pid and its descendants that are alive now."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children", encoding="ascii") as children:
                    todo.extend(map(int, children.read().split()))
    return found


def _tree_resident_bytes(pid):
    total = 0
    for one in _tree_pids(pid):
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(f"/proc/{one}/statm", encoding="ascii") as statm:
                total += int(statm.read().split()[1]) * PAGE_BYTES
    return total


class _Sampler(threading.Thread):
    """Samples the tree's resident memory until told to stop."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self._pid, self._end = pid, threading.Event()
        self.peak_bytes = 0

    def run(self):
        while not self._end.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, _tree_resident_bytes(self._pid))

    def finish(self):
        self._end.set()
        self.join()
        return self.peak_bytes


def run(argv, env, log_path, stdin_path=None, stdout_path=os.devnull, cwd=None, allowed=(0,)):
    """Run argv; stdin_path comes through a pipe fed by cat. Returns the costs as a dictionary."""
    feeder = None
    with open(log_path, "ab") as log, open(stdout_path, "wb") as out:
        log.write(("\n$ " + " ".join(argv) + "\n").encode())
        log.flush()
        start = time.monotonic()
        if stdin_path:
            feeder = subprocess.Popen(["cat", stdin_path], stdout=subprocess.PIPE)
        process = subprocess.Popen(argv, env=env, cwd=cwd, stdin=feeder.stdout if feeder else subprocess.DEVNULL,
                                   stdout=out, stderr=log)
        if feeder:
            feeder.stdout.close()
        sampler = _Sampler(process.pid)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        sampled_bytes = sampler.finish()
        if feeder:
            feeder.wait()
    if process.returncode not in allowed:
        with open(log_path, "rb") as log:
            tail = log.read()[-1500:].decode(errors="replace")
        raise Failed(f"{' '.join(argv)} ended with {process.returncode}:\n{tail}")
    return {
        "wall_s": wall_s,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_bytes": max(usage.ru_maxrss * 1024, sampled_bytes),
        "peak_largest_process_bytes": usage.ru_maxrss * 1024,
    }


def add(first, second):
    """The cost of two commands run one after the other."""
    if first is None:
        return second
    together = {key: first[key] + second[key] for key in ("wall_s", "user_s", "system_s")}
    together |= {key: max(first[key], second[key]) for key in ("peak_bytes", "peak_largest_process_bytes")}
    return together


def folder_bytes(path):
    """Sum of the sizes of all files below path."""
    return sum(os.lstat(f"{folder}/{name}").st_size for folder, _, names in os.walk(path) for name in names)


def settle(paths=()):
    """Flush dirty pages, so that no command pays for its predecessor's writes, and warm the inputs."""
    os.sync()
    for path in paths:
        names = [path] if os.path.isfile(path) else [f"{f}/{n}" for f, _, ns in os.walk(path) for n in ns]
        for name in names:
            if os.path.islink(name):
                continue
            with open(name, "rb", buffering=0) as source:
                while source.read(4 << 20):
                    pass
