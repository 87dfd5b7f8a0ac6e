"""Medians, ratios to the best peer, and their two forms: a Markdown page and a JSON file.

A ratio divides Lifeboat's median by the smallest median among the other tools in the same row, so below 1 is
better than every peer. The JSON keeps every single measurement; the page can be made again from it.
"""

import json
import statistics

STEP_TITLES = {
    "init": "init", "backup": "first backup", "stream": "first dump (stdin)", "unchanged": "again, unchanged",
    "changed": "after the changes", "restore": "restore", "dump": "dump to stdout", "verify": "verify every byte",
    "prune": "forget 5 of 10, prune",
}
CORPUS_TITLES = {
    "tree": "Tree of mixed files (then 1 % of the files changed)", "small": "Small files (then 1 % changed)",
    "dump": "SQL dump on stdin (then the next day's dump)", "random": "Random bytes",
}
# metric: (title, of a measurement, text)
METRICS = {
    "wall": ("wall, s", lambda m: m["wall_s"], "{:.2f}"),
    "cpu": ("CPU, s", lambda m: m["user_s"] + m["system_s"], "{:.2f}"),
    "user": ("user CPU, s", lambda m: m["user_s"], "{:.2f}"),
    "peak": ("peak RSS, MiB", lambda m: m["peak_bytes"] / 2**20, "{:.0f}"),
    "repository": ("repository, MB", lambda m: m["repository_bytes"] / 1e6, "{:.1f}"),
    "added": ("added, MB", lambda m: m["added_bytes"] / 1e6, "{:.2f}"),
}
SIZE_STEPS = ("backup", "stream", "changed", "unchanged", "prune")


def medians(measurements):
    """{(corpus, step, tool): {metric: median, "runs": count}} in the order first seen."""
    groups = {}
    for entry in measurements:
        groups.setdefault((entry["corpus"], entry["step"], entry["tool"]), []).append(entry)
    return {key: {name: statistics.median(map(of, group)) for name, (_, of, _) in METRICS.items()} | {"runs": len(group)}
            for key, group in groups.items()}


def ratios(table, ours="lifeboat"):
    """{(corpus, step): {metric: (ratio, best peer)}} where we and a peer were both measured."""
    found = {}
    for corpus, step in dict.fromkeys(key[:2] for key in table):
        row = {key[2]: value for key, value in table.items() if key[:2] == (corpus, step)}
        peers = [name for name in row if name != ours]
        if ours not in row or not peers:
            continue
        found[corpus, step] = {}
        for metric in METRICS:
            best = min(peers, key=lambda name: row[name][metric])
            if row[best][metric] > 0:
                found[corpus, step][metric] = (row[ours][metric] / row[best][metric], best)
    return found


def _corpus_tables(corpus, table, compared, steps):
    lines = [f"### {CORPUS_TITLES[corpus]}", ""]
    shown = [step for step in dict.fromkeys(key[1] for key in table if key[0] == corpus) if step in steps]
    tools = list(dict.fromkeys(key[2] for key in table if key[0] == corpus))
    tools.sort(key=lambda name: (name != "lifeboat", name))
    for metric, (title, _, text) in METRICS.items():
        rows = [step for step in shown if metric not in ("repository", "added") or step in SIZE_STEPS]
        if not rows:
            continue
        ours = any((corpus, step) in compared for step in rows)
        lines += [f"| {title} | " + " | ".join(tools) + (" | ÷ best peer |" if ours else " |"),
                  "|---|" + "---:|" * (len(tools) + ours)]
        for step in rows:
            cells = [text.format(table[corpus, step, tool][metric]) if (corpus, step, tool) in table else "–" for tool in tools]
            if ours:
                ratio = compared.get((corpus, step), {}).get(metric)
                cells.append(f"{ratio[0]:.2f} ({ratio[1]})" if ratio else "–")
            lines.append(f"| {STEP_TITLES[step]} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def markdown(facts, measurements, steps):
    """The report page."""
    table = medians(measurements)
    compared = ratios(table)
    runs = {value["runs"] for value in table.values()}
    lines = ["# Lifeboat and its peers, measured", "",
             f"Date {facts['date']} · command `{facts['command']}` · medians of {'/'.join(map(str, sorted(runs)))} run(s) · "
             f"seed {facts['seed']}, scale {facts['scale']}", "",
             f"Machine: {facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, "
             f"file system {facts['file_system']}; load when started {facts['load']}.", "",
             "| tool | version | settings |", "|---|---|---|"]
    lines += [f"| {name} | {version} | {settings} |" for name, version, settings in facts["tools"]]
    lines += ["", "| corpus | bytes | files |", "|---|---:|---:|"]
    lines += [f"| {name} | {size:,} | {files:,} |" for name, size, files in facts["corpora"]]
    lines.append("")
    for corpus in dict.fromkeys(entry["corpus"] for entry in measurements):
        lines += _corpus_tables(corpus, table, compared, steps)
    return "\n".join(lines)


def write(folder, facts, measurements, steps):
    """results.json and results.md in folder; returns the page."""
    page = markdown(facts, measurements, steps)
    table = medians(measurements)
    summary = [dict(zip(("corpus", "step", "tool"), key)) | value for key, value in table.items()]
    compared = [{"corpus": key[0], "step": key[1]} | {metric: {"ratio": ratio, "best_peer": peer} for metric, (ratio, peer) in value.items()}
                for key, value in ratios(table).items()]
    with open(f"{folder}/results.json", "w", encoding="utf-8") as out:
        json.dump({"facts": facts, "medians": summary, "ratios_to_best_peer": compared, "measurements": measurements}, out, indent=1)
    with open(f"{folder}/results.md", "w", encoding="utf-8") as out:
        out.write(page + "\n")
    return page
