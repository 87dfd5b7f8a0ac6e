"""Seeded corpora: a mixed tree, many small files, random bytes; and seeded changes to a tree.

Everything follows from (seed, scale): the same bytes, names, modes and mtimes on every machine, however many
processes write them. A corpus is written beside its final name and renamed when whole, so an interrupted run
never leaves half a corpus that looks finished. Changes are applied in place and can be undone exactly.
"""

import functools
import json
import math
import multiprocessing
import os
import random
import shutil

import textmodel

TREE_BYTES, TREE_FILES, TREE_PROJECTS = 1_500_000_000, 45_000, 60
SMALL_FILES, SMALL_FOLDERS = 200_000, 400
RANDOM_BYTES = 1_000_000_000
FIRST_MTIME_S = 1_700_000_000

# kind: (share of the files, size factor, extensions)
KINDS = {
    "code": (0.50, 0.55, (".rs", ".py", ".go", ".c", ".h", ".ts", ".yaml", ".sql")),
    "prose": (0.11, 0.6, (".md", ".txt", ".html")),
    "json": (0.16, 1.1, (".json", ".jsonl")),
    "log": (0.05, 3.2, (".log", ".log.1")),
    "binary": (0.09, 2.0, (".so", ".o", ".wasm", "")),
    "packed": (0.09, 1.7, (".jpg", ".gz", ".png", ".woff2")),
}


class Contents:
    """What a project's files hold; models are built when first needed."""

    def __init__(self, seed):
        self._seed, self._models = seed, {}

    def _model(self, kind):
        if kind not in self._models:
            self._models[kind] = textmodel.TextModel(self._seed, kind)
        return self._models[kind]

    def make(self, kind, rng, size_bytes):
        if size_bytes == 0:
            return b""
        if kind == "packed":
            return rng.randbytes(size_bytes)
        if kind in ("code", "prose"):
            return self._model(kind).text(rng, size_bytes)
        shape = {"json": textmodel.json_lines, "log": textmodel.log_lines, "binary": textmodel.binary}[kind]
        return shape(self._model("prose" if kind == "log" else "code"), rng, size_bytes)


@functools.lru_cache(maxsize=2)
def _shared_contents(seed):
    """Folders that share a vocabulary share its models."""
    return Contents(seed)


def kind_of(name):
    """The kind a file's extension stands for (used to change it in kind)."""
    for kind, (_, _, extensions) in KINDS.items():
        if any(extension and name.endswith(extension) for extension in extensions):
            return kind
    return "binary"


def write_file(path, content, rng, executable=False):
    """Write one file with a seeded mtime and mode."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755 if executable else 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view):]
    finally:
        os.close(descriptor)
    stamp_ns = (FIRST_MTIME_S + rng.randrange(60_000_000)) * 10**9 + rng.randrange(10**9)
    os.utime(path, ns=(stamp_ns, stamp_ns))


def _tree_sizes(seed, files, total_bytes):
    """(kind, size) of every file: log-normal sizes, scaled so that they sum to about total_bytes."""
    rng = random.Random(f"tree-sizes-{seed}")
    kinds = rng.choices(list(KINDS), [share for share, _, _ in KINDS.values()], k=files)
    raw = [min(math.exp(rng.gauss(math.log(4096), 1.9)), 4e6) * KINDS[kind][1] for kind in kinds]
    factor = total_bytes / sum(raw)
    sizes = [(kind, int(size * factor)) for kind, size in zip(kinds, raw)]
    return [(kind, 0 if rng.random() < 0.005 else size) for kind, size in sizes]


def _write_project(job):
    """One top-level folder of the tree."""
    root, seed, number, sizes = job
    rng = random.Random(f"project-{seed}-{number}")
    contents = Contents(f"{seed}-{number}")
    names = textmodel.identifiers(rng, 400)
    base = f"{root}/{number:03d}-{names[0]}"
    os.makedirs(base)
    folders = [base]
    for _ in range(len(sizes) // 9):
        parent = rng.choice(folders)
        if parent.count("/") - base.count("/") >= 7:
            parent = base
        child = f"{parent}/{rng.choice(names)}"
        if child not in folders:
            os.mkdir(child)
            folders.append(child)
    kept = []
    for at, (kind, size_bytes) in enumerate(sizes):
        folder = rng.choice(folders)
        extension = rng.choice(KINDS[kind][2])
        path = f"{folder}/{rng.choice(names)}{at}{extension}"
        chance = rng.random()
        if chance < 0.01 and kept:
            os.symlink(os.path.relpath(rng.choice(kept)[0], folder), path)
            continue
        if chance < 0.04 and kept:
            content = rng.choice(kept)[1]  # a copy: real trees are full of them
        else:
            content = contents.make(kind, rng, size_bytes)
        write_file(path, content, rng, executable=kind == "binary" and at % 3 == 0)
        if len(content) < 200_000 and len(kept) < 200:
            kept.append((path, content))
    for folder in sorted(folders, reverse=True):
        os.utime(folder, (FIRST_MTIME_S, FIRST_MTIME_S))


def make_tree(path, seed, scale):
    """About 1.5 GB in 50,000 entries (files, folders, some links) at scale 1."""
    files = max(60, int(TREE_FILES * scale))
    projects = max(2, min(TREE_PROJECTS, int(TREE_PROJECTS * scale) or 2))
    sizes = _tree_sizes(seed, files, TREE_BYTES * scale)
    share = files // projects
    jobs = [(path, seed, number, sizes[number * share:(number + 1) * share if number + 1 < projects else None])
            for number in range(projects)]
    with multiprocessing.Pool(2) as pool:
        pool.map(_write_project, jobs, chunksize=1)


def _write_small_folder(job):
    root, seed, number, files = job
    rng = random.Random(f"small-{seed}-{number}")
    contents = _shared_contents(f"small-{seed}-{number // 40}")
    folder = f"{root}/{number // 20:02d}/{number:03d}"
    os.makedirs(folder)
    for at in range(files):
        size_bytes = int(min(max(math.exp(rng.gauss(math.log(2400), 0.7)), 300), 12_000))
        kind = rng.choices(("code", "json", "prose", "packed", "binary"), (40, 25, 15, 15, 5))[0]
        name = f"{folder}/{at:05d}{rng.choice(KINDS[kind][2])}"
        write_file(name, contents.make(kind, rng, size_bytes), rng)


def make_small(path, seed, scale):
    """200,000 files of 0.3 to 12 kB (most of them below 4), about 600 MB, at scale 1."""
    files = max(400, int(SMALL_FILES * scale))
    folders = max(4, int(SMALL_FOLDERS * scale))
    jobs = [(path, seed, number, files // folders) for number in range(folders)]
    with multiprocessing.Pool(2) as pool:
        pool.map(_write_small_folder, jobs, chunksize=4)


def make_random(path, seed, scale):
    """One file of incompressible bytes, 1 GB at scale 1."""
    os.makedirs(path)
    rng = random.Random(f"random-{seed}")
    left = int(RANDOM_BYTES * scale)
    with open(f"{path}/random.bin", "wb") as out:
        while left > 0:
            step = min(left, 4 << 20)
            out.write(rng.randbytes(step))
            left -= step


def ensure(path, make, seed, scale):
    """Make the corpus at path unless it is there, whole."""
    if os.path.lexists(path):
        return
    beside = path + ".unfinished"
    if os.path.isdir(beside):
        shutil.rmtree(beside)
    elif os.path.exists(beside):
        os.remove(beside)
    make(beside, seed, scale)
    os.rename(beside, path)


def list_files(root):
    """Every regular file under root, sorted."""
    found = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        found.extend(f"{folder}/{name}" for name in names if not os.path.islink(f"{folder}/{name}"))
    return sorted(found)


class Changes:
    """Seeded changes of a tree that can be undone: originals wait in `stash`, created files are journalled.

    The journal is written before a file is touched, so `undo` also works after an interrupted run.
    """

    def __init__(self, root, stash):
        self._root, self._stash = root, stash
        self._journal = f"{stash}/journal"

    def apply(self, seed, share):
        """Change `share` of the files: 70 % edited in the middle, 15 % appended to, 8 % new, 7 % deleted."""
        os.makedirs(self._stash, exist_ok=True)
        files = list_files(self._root)
        rng = random.Random(f"changes-{seed}")
        contents = Contents(f"changes-{seed}")
        chosen = rng.sample(files, max(4, int(len(files) * share)))
        with open(self._journal, "a", encoding="utf-8") as journal:
            for at, path in enumerate(chosen):
                part = at / len(chosen)
                if part < 0.08:
                    self._create(journal, f"{os.path.dirname(path)}/new{at}-{os.path.basename(path)}",
                                 contents.make(kind_of(path), rng, os.path.getsize(path)), rng)
                    continue
                kept = self._put_away(journal, path)
                if part < 0.15:
                    continue
                with open(kept, "rb") as source:
                    old = source.read()
                extra = contents.make(kind_of(path), rng, 20 + min(len(old), 4000) // 10)
                cut = len(old) if part < 0.30 else rng.randrange(len(old) + 1)
                self._create(journal, path, old[:cut] + extra + old[cut + (0 if part < 0.30 else len(extra)):], rng)
        return len(chosen)

    def undo(self):
        """Back to the tree before the first apply."""
        if not os.path.exists(self._journal):
            return
        with open(self._journal, encoding="utf-8") as journal:
            entries = [json.loads(line) for line in journal]
        for verb, path, kept in reversed(entries):
            if verb == "new" and os.path.lexists(path):
                os.remove(path)
            elif verb == "kept" and os.path.lexists(kept):
                os.rename(kept, path)
        shutil.rmtree(self._stash)

    def _put_away(self, journal, path):
        kept = f"{self._stash}/{len(os.listdir(self._stash))}"
        journal.write(json.dumps(["kept", path, kept]) + "\n")
        journal.flush()
        os.rename(path, kept)
        return kept

    @staticmethod
    def _create(journal, path, content, rng):
        journal.write(json.dumps(["new", path, ""]) + "\n")
        journal.flush()
        write_file(path, content, rng)
