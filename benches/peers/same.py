"""Says whether two files or folders hold the same: `same.py EXPECTED ACTUAL`, exit 1 and the first difference if not.

A program of its own, because what it remembers of 200,000 files would raise the harness's memory, and with it
the floor of every peak measured afterwards. Folder times are not compared (not every tool restores them).
"""

import hashlib
import os
import stat
import sys


def _file_hash(path):
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(root):
    """{relative path: (kind, mode, mtime, content)} of everything below root, or of the file itself."""
    if not os.path.isdir(root):
        return {"": _file_hash(root)}
    found = {}
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = f"{folder}/{name}"
            facts = os.lstat(path)
            if stat.S_ISLNK(facts.st_mode):
                value = ("link", os.readlink(path))
            elif stat.S_ISDIR(facts.st_mode):
                value = ("folder", stat.S_IMODE(facts.st_mode))
            else:
                value = (stat.S_IMODE(facts.st_mode), facts.st_mtime_ns // 1000, _file_hash(path))
            found[os.path.relpath(path, root)] = value
    return found


def main():
    expected, actual = fingerprint(sys.argv[1]), fingerprint(sys.argv[2])
    wrong = [path for path in sorted(expected.keys() | actual.keys()) if expected.get(path) != actual.get(path)]
    if wrong:
        print(f"{len(wrong)} of {len(expected)} entries came back wrong, first {wrong[0]!r}: "
              f"expected {expected.get(wrong[0])}, found {actual.get(wrong[0])}")
        sys.exit(1)


if __name__ == "__main__":
    main()
