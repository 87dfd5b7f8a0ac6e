"""Fast, seeded text: byte strings that compress the way real files do.

A model is a table of 65,536 tokens whose multiplicities follow Zipf's law. Text is drawn by mapping
two random bytes at a time through the table, which costs CPython about 50 ns a token and needs no numpy.
Every project of a corpus has its own identifiers on top of shared keywords, so neighbours resemble each
other more than strangers do: a compressor that gathers neighbours gains what it would gain on a real disk,
and no more (one small global table would flatter large windows).
"""

import itertools
import random

TABLE_SIZE = 65536

SYLLABLES = ("ra le to mi con ver sta pre dex cu lor fi nal po ser ti ga ble ex tor in de su "
             "mat qui ro ab ner vi lu tem ca pro gen hy xo ke wa zi ju no").split()

CODE = ["    ", "        ", "            ", "if ", "for ", "return ", "let ", "self.", "(", ")", " = ", ";\n", ",\n",
        " {\n", "}\n", "\n", "\n\n", "fn ", "pub ", "struct ", "impl ", "match ", " => ", "import ", "from ", "def ",
        "class ", "None", "null", "true", "false", "== ", "!= ", " + ", " - ", " && ", " || ", "[0]", "[i]", ".len()",
        "// ", "/// ", "\"", "\",\n", "static ", "const ", "&mut ", "&", "*", "->", "i32", "u64", "String", "Vec<",
        ">", "Result<", "?;\n", "while ", "else {\n", "try:\n", "raise ", "assert", "print(", "0", "1", "2", "16", "0xff"]

PROSE = ["the ", "of ", "and ", "to ", "a ", "in ", "is ", "it ", "that ", "for ", "was ", "on ", "are ", "as ", "with ",
         "be ", "at ", "this ", "by ", "not ", ", ", ". ", ".\n", ".\n\n", "which ", "from ", "or ", "an ", "were ",
         "The ", "It ", "When ", "after ", "can ", "one ", "all ", "has ", "more ", "will ", "its "]


def identifiers(rng, count):
    """Distinct-looking names of one to four syllables, some in snake or camel case."""
    names = []
    for _ in range(count):
        parts = rng.choices(SYLLABLES, k=rng.choice((1, 2, 2, 3, 3, 4)))
        style = rng.random()
        if style < 0.25 and len(parts) > 1:
            parts[len(parts) // 2] = "_" + parts[len(parts) // 2]
        elif style < 0.45:
            parts[-1] = parts[-1].capitalize()
        names.append("".join(parts))
    return names


class TextModel:
    """One token table. The same (seed, kind) always gives the same table."""

    def __init__(self, seed, kind):
        rng = random.Random(f"text-{kind}-{seed}")
        common, share, space = (CODE, 0.45, "") if kind == "code" else (PROSE, 0.40, " ")
        own = [name + space for name in identifiers(rng, 2500)]
        weights = list(itertools.accumulate(1.0 / (rank + 2) for rank in range(len(common))))
        own_weights = list(itertools.accumulate(1.0 / (rank + 8) ** 0.9 for rank in range(len(own))))

        def draw(count):
            return [rng.choices(common, cum_weights=weights)[0] if rng.random() < share
                    else rng.choices(own, cum_weights=own_weights)[0] for _ in range(count)]

        commons = rng.choices(common, cum_weights=weights, k=int(TABLE_SIZE * share * 0.8))
        owns = rng.choices(own, cum_weights=own_weights, k=int(TABLE_SIZE * (1 - share) * 0.8))
        # Idioms: short runs of tokens that come back whole, as boilerplate does.
        idioms = ["".join(draw(rng.randint(3, 9))) for _ in range(1200)]
        idiom_weights = [1.0 / (rank + 3) for rank in range(len(idioms))]
        rest = rng.choices(idioms, idiom_weights, k=TABLE_SIZE - len(commons) - len(owns))
        table = [token.encode() for token in commons + owns + rest]
        rng.shuffle(table)
        self._pick = table.__getitem__
        self.mean_token_bytes = sum(map(len, table)) / TABLE_SIZE

    def text(self, rng, size_bytes):
        """Exactly size_bytes of text."""
        tokens = int(size_bytes / self.mean_token_bytes * 1.05) + 64
        out = b"".join(map(self._pick, memoryview(rng.randbytes(2 * tokens)).cast("H")))
        while len(out) < size_bytes:
            out += out
        return out[:size_bytes]

    def words(self, rng, count):
        """A list of count tokens without line ends, for values inside records."""
        picked = map(self._pick, memoryview(rng.randbytes(2 * count)).cast("H"))
        return [token.decode().replace("\n", " ").replace('"', "").replace("\t", " ").strip() or "x" for token in picked]


def _skewed_alphabet(rng):
    """A translation table that turns uniform bytes into machine-code-like ones (about 5.5 bits each)."""
    weights = [1.0 / (rank + 3) ** 0.9 for rank in range(256)]
    symbols = list(range(256))
    rng.shuffle(symbols)
    return bytes(rng.choices(symbols, weights, k=256))


def json_lines(model, rng, size_bytes):
    """Records with fixed keys, words, counters and hexadecimal ids."""
    out, total = [], 0
    identity = rng.randrange(10**6)
    while total < size_bytes:
        words = model.words(rng, 600)
        digest = rng.randbytes(8 * 100).hex()
        for at in range(100):
            a, b, c, d, e, f = words[at * 6:at * 6 + 6]
            identity += rng.randrange(1, 9)
            line = (f'{{"id": {identity}, "key": "{digest[at * 16:at * 16 + 16]}", "name": "{a} {b}", "kind": "{c[:12]}", '
                    f'"enabled": {"true" if identity & 3 else "false"}, "tags": ["{d}", "{e}"], '
                    f'"score": {identity % 9973 / 100}, "note": "{f}"}},\n').encode()
            out.append(line)
            total += len(line)
    return b"".join(out)[:size_bytes]


def log_lines(model, rng, size_bytes):
    """Time-stamped lines of few message shapes with many numbers."""
    out, total, at_ms = [], 0, rng.randrange(10**9)
    levels = ("INFO", "INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR")
    shapes = [" ".join(model.words(rng, 4)) for _ in range(40)]
    while total < size_bytes:
        numbers = memoryview(rng.randbytes(4 * 4 * 200)).cast("I")
        for at in range(0, 800, 4):
            n = numbers[at]
            at_ms += n & 1023
            line = (f"2026-03-{at_ms // 86400000 % 28 + 1:02d}T{at_ms // 3600000 % 24:02d}:{at_ms // 60000 % 60:02d}:"
                    f"{at_ms // 1000 % 60:02d}.{at_ms % 1000:03d}Z {levels[n % 7]} worker-{n >> 8 & 15} "
                    f"{shapes[(n >> 12) % 40]} took={numbers[at + 1] % 5000}ms id={numbers[at + 2]:08x} "
                    f"client=10.{numbers[at + 3] & 3}.{numbers[at + 3] >> 4 & 63}.{numbers[at + 3] >> 12 & 255}\n").encode()
            out.append(line)
            total += len(line)
    return b"".join(out)[:size_bytes]


def binary(model, rng, size_bytes):
    """Sections as in an executable: code-like bytes, a table of growing offsets, strings, padding."""
    code = rng.randbytes(int(size_bytes * 0.55)).translate(_skewed_alphabet(rng))
    offset, table = 0, []
    for step in rng.randbytes(max(1, int(size_bytes * 0.15) // 8)):
        offset += step & 0x7C
        table.append(offset.to_bytes(4, "little") + (step & 7).to_bytes(4, "little"))
    strings = model.text(rng, int(size_bytes * 0.2)).replace(b"\n", b"\0")
    body = b"\x7fELF" + code + b"".join(table) + strings
    return body[:size_bytes].ljust(size_bytes, b"\0")
