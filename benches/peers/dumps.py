"""A plain SQL dump in pg_dump's COPY style, and its successor after a day's work.

Tables: pgbench's accounts, branches, tellers and history beside customers, orders and events with realistic
values. A day changes rows scattered over the whole file: account balances uniformly; customers, orders and events
with a skew towards recent rows; and 1 % of all rows are appended. As in PostgreSQL, an updated row keeps its place
when its page had room for the new version (taken as 70 %) and else moves to the table's end.
The successor is made by streaming the predecessor through the edits, so a history of days needs no memory.
"""

import itertools
import json
import multiprocessing
import os
import random

import textmodel

DUMP_BYTES = 1_500_000_000
SEGMENT_ROWS = 50_000
# table: (rows at scale 1, columns)
TABLES = {
    "pgbench_accounts": (6_800_000, "aid, bid, abalance, filler"),
    "pgbench_branches": (68, "bid, bbalance, filler"),
    "pgbench_history": (60_000, "tid, bid, aid, delta, mtime, filler"),
    "pgbench_tellers": (520, "tid, bid, tbalance, filler"),
    "customers": (1_200_000, "id, name, email, phone, address, city, balance, created_at, last_seen"),
    "events": (3_700_000, "id, customer_id, kind, path, session, duration_ms, at"),
    "orders": (3_400_000, "id, customer_id, status, total, currency, items, created_at, updated_at"),
}
DAY = {"accounts": 3000, "skewed": 5000, "appended_share": 0.01}  # updates at scale 1
HEADER = b"--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\nSET client_encoding = 'UTF8';\n\n"
STATUSES = ("pending", "paid", "packed", "shipped", "delivered", "delivered", "delivered", "returned")
KINDS = ("page_view", "page_view", "page_view", "click", "search", "add_to_cart", "checkout", "login")


def _clock(second):
    """A timestamp `second` seconds after 2025-01-01, 28-day months to keep it cheap."""
    day = second // 86400
    return (f"2025-{day // 28 % 12 + 1:02d}-{day % 28 + 1:02d} {second // 3600 % 24:02d}:{second // 60 % 60:02d}:"
            f"{second % 60:02d}.{second * 7919 % 1000000:06d}+00")


def _values(rng, count):
    """Two 32-bit random numbers a row, cheaply."""
    numbers = memoryview(rng.randbytes(8 * count)).cast("I")
    return zip(numbers[::2].tolist(), numbers[1::2].tolist())


def _names():
    rng = random.Random("people")
    people = [name.replace("_", "").capitalize() for name in textmodel.identifiers(rng, 3000)]
    streets = [name.replace("_", "").capitalize() + rng.choice((" Street", " Road", "strasse", " Avenue"))
               for name in textmodel.identifiers(rng, 4000)]
    return people, streets


PEOPLE, STREETS = _names()


def rows(table, seed, first, count):
    """Lines of rows first … first+count of a table, each ending in a newline."""
    rng = random.Random(f"{table}-{seed}-{first}")
    ids = range(first + 1, first + count + 1)
    pad84, pad88 = " " * 84, " " * 88
    if table == "pgbench_accounts":
        return [f"{i}\t{i // 100000 + 1}\t{0 if a % 10 < 6 else b % 10000 - 5000}\t{pad84}\n"
                for i, (a, b) in zip(ids, _values(rng, count))]
    if table == "pgbench_branches":
        return [f"{i}\t{a % 100000 - 50000}\t{pad88}\n" for i, (a, _) in zip(ids, _values(rng, count))]
    if table == "pgbench_tellers":
        return [f"{i}\t{i // 10 + 1}\t{a % 50000 - 25000}\t{pad84}\n" for i, (a, _) in zip(ids, _values(rng, count))]
    if table == "pgbench_history":
        return [f"{a % 680 + 1}\t{a % 68 + 1}\t{b % 6800000 + 1}\t{a % 10000 - 5000}\t{_clock(i * 3)[:-3]}\t\\N\n"
                for i, (a, b) in zip(ids, _values(rng, count))]
    if table == "customers":
        return [f"{i}\t{PEOPLE[a % 3000]} {PEOPLE[b % 3000]}\t{PEOPLE[a % 3000].lower()}.{b % 3000}{a % 97}@example.{'com' if a & 1 else 'org'}\t"
                f"+49{b:010d}\t{a % 250} {STREETS[b % 4000]}\t{STREETS[a % 400]}\t{a % 100000 / 100:.2f}\t{_clock(i * 20)}\t{_clock(i * 20 + b % 4000000)}\n"
                for i, (a, b) in zip(ids, _values(rng, count))]
    if table == "orders":
        return [f"{i}\t{a % 1200000 + 1}\t{STATUSES[b & 7]}\t{b % 50000 / 100:.2f}\tEUR\t{b >> 9 & 7}\t{_clock(i * 11)}\t{_clock(i * 11 + a % 500000)}\n"
                for i, (a, b) in zip(ids, _values(rng, count))]
    return [f"{i}\t{a % 1200000 + 1}\t{KINDS[b & 7]}\t/{STREETS[a >> 8 & 1023].split()[0].lower()}/{b >> 5 & 4095}\t{a:08x}{b:08x}\t{b % 9000}\t{_clock(i * 10)}\n"
            for i, (a, b) in zip(ids, _values(rng, count))]


def _segment(job):
    return "".join(rows(*job)).encode()


def make_dump(path, seed, scale):
    """The first dump, 1.5 GB at scale 1, with a sidecar that says where each table's rows lie."""
    places, line = {}, HEADER.count(b"\n")
    with multiprocessing.Pool(2) as pool, open(path, "wb") as out:
        out.write(HEADER)
        for table, (full_rows, columns) in TABLES.items():
            count = full_rows if full_rows < 1000 else max(500, int(full_rows * scale))
            out.write(f"COPY public.{table} ({columns}) FROM stdin;\n".encode())
            places[table] = {"first_line": line + 1, "rows": count, "next_id": count}
            jobs = [(table, seed, first, min(SEGMENT_ROWS, count - first)) for first in range(0, count, SEGMENT_ROWS)]
            for block in pool.imap(_segment, jobs):
                out.write(block)
            out.write(b"\\.\n\n\n")
            line += 1 + count + 3
        out.write(b"--\n-- PostgreSQL database dump complete\n--\n\n")
    _write_places(path, places)


def _places_name(path):
    return path.removesuffix(".unfinished") + ".places.json"


def _write_places(path, places):
    with open(_places_name(path), "w", encoding="utf-8") as out:
        json.dump(places, out)


def _changed(table, row, rng):
    """The row's next version."""
    fields = row.decode().rstrip("\n").split("\t")
    if table == "pgbench_accounts":
        fields[2] = str(int(fields[2]) + rng.randrange(-5000, 5001))
    elif table == "customers":
        fields[6] = f"{rng.randrange(100000) / 100:.2f}"
        fields[8] = _clock(31_000_000 + rng.randrange(86400))
    elif table == "events":
        fields[2], fields[5] = rng.choice(KINDS), str(rng.randrange(9000))
    else:
        fields[2] = rng.choice(STATUSES)
        fields[7] = _clock(31_000_000 + rng.randrange(86400))
    return ("\t".join(fields) + "\n").encode()


def _pick_rows(places, scale, rng):
    """Which rows of which table change: {table: sorted distinct row numbers}."""
    accounts = places["pgbench_accounts"]["rows"]
    updates, skewed = max(3, int(DAY["accounts"] * scale)), max(5, int(DAY["skewed"] * scale))

    def recent(table, share):
        """Rows with a skew towards the end: the newest hundredth changes about twenty times as often as the oldest."""
        count = places[table]["rows"]
        return sorted({count - 1 - int(count * (rng.expovariate(3.0) % 1.0)) for _ in range(int(skewed * share))})

    return {
        "pgbench_accounts": sorted({rng.randrange(accounts) for _ in range(updates)}),
        "customers": recent("customers", 0.2), "events": recent("events", 0.4), "orders": recent("orders", 0.4),
    }


def next_day(source_path, target_path, seed, scale):
    """Write the dump of the day after `source_path`'s; returns (rows updated, rows appended)."""
    with open(_places_name(source_path), encoding="utf-8") as sidecar:
        places = json.load(sidecar)
    rng = random.Random(f"day-{seed}")
    picked = _pick_rows(places, scale, rng)
    total_rows = sum(place["rows"] for place in places.values())
    appended = int(total_rows * DAY["appended_share"])
    growth = {"events": appended * 6 // 10, "orders": appended * 3 // 10,
              "customers": appended // 10, "pgbench_history": max(3, int(DAY["accounts"] * scale))}
    new_places, line, at = {}, 0, 0
    with open(source_path, "rb", buffering=1 << 20) as source, open(target_path, "wb", buffering=1 << 20) as out:
        for table in TABLES:
            place = places[table]
            out.writelines(itertools.islice(source, place["first_line"] - at))
            line += place["first_line"] - at
            at = place["first_line"]
            moved, done = [], 0
            for number in picked.get(table, ()):
                out.writelines(itertools.islice(source, number - done))
                row = _changed(table, next(source), rng)
                if rng.random() < 0.7:
                    out.write(row)
                else:
                    moved.append(row)
                done = number + 1
            out.writelines(itertools.islice(source, place["rows"] - done))
            at += place["rows"]
            fresh = [row.encode() for row in rows(table, seed, place["next_id"], growth.get(table, 0))]
            out.writelines(moved)
            out.writelines(fresh)
            new_places[table] = {"first_line": line, "rows": place["rows"] + len(fresh), "next_id": place["next_id"] + len(fresh)}
            line += place["rows"] + len(fresh)
        out.writelines(source)
    _write_places(target_path, new_places)
    return sum(map(len, picked.values())), sum(growth.values())


def make_next(source_path):
    """A maker (for corpora.ensure) of the day after source_path."""
    def make(path, seed, scale):
        next_day(source_path, path, f"{seed}-2", scale)
    return make


def remove(path):
    """Delete a dump and its sidecar."""
    for name in (path, _places_name(path)):
        if os.path.exists(name):
            os.remove(name)
