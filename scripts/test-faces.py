"""Asks every face for the same reports of a trace, and compares them, digit by digit: test-faces.py BUILT TRACE

BUILT is the folder of the built programs. Needs the packages `schedtrace`, `mcp` and `pyte`. Ends with "N passed, N failed".
"""

import asyncio
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mcp
import pyte
import schedtrace
from mcp import StdioServerParameters

import checks

COLUMNS, LINES = 150, 60
GROUPS = ("task", "process", "cgroup", "cpu", "llc")
TOP = 100
# How busy a CPU was; nothing, if it was not.
BARS = "▁▂▃▄▅▆▇█"


def check(what, ours, theirs):
    checks.check(what, ours == theirs, lambda: first_difference(ours, theirs))


def first_difference(a, b, path=""):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            if a.get(key) != b.get(key):
                return first_difference(a.get(key), b.get(key), f"{path}.{key}")
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for at, (x, y) in enumerate(zip(a, b)):
            if x != y:
                return first_difference(x, y, f"{path}[{at}]")
    return f"{path}: {str(a)[:200]} and {str(b)[:200]}"


def rounded(value):
    """With floats to as many digits as an agent is told: six of a ratio, nine of what is larger."""
    match value:
        case float():
            return float(f"{value:.{5 if abs(value) < 1 else 8}e}")
        case dict():
            return {key: rounded(below) for key, below in value.items()}
        case list():
            return [rounded(below) for below in value]
    return value


def printed(program, *arguments):
    run = subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE)
    return json.loads(run.stdout)


async def by_mcp(program, trace):
    """What the tool `analyze` says, by group, without what only an answer has but for what it is short of, and with CPUs in the
    order of others."""
    reports = {}
    server = StdioServerParameters(command=str(program), args=["mcp", "--trace", trace])
    async with mcp.Client(server, mode="auto", read_timeout_seconds=60) as client:
        for by in GROUPS:
            result = await client.call_tool("analyze", {"trace": trace, "by": by, "top": TOP})
            assert not result.is_error, result
            report = result.structured_content
            cpus = report["cpus_total"]
            for key in ("summary", "report", "trace", "cpus_total", "units", "next"):
                del report[key]
            for table in ("cpu_time", "switches"):
                assert len(report[table]["cpus"]) == cpus, "all CPUs are told"
                report[table]["cpus"].sort(key=lambda row: row["cpu"])
            reports[by] = report
    return reports


def on_terminal(program, trace):
    """The lines of a terminal that shows the trace."""
    show = f"stty cols {COLUMNS} rows {LINES}; exec {program} top {trace}"
    with tempfile.TemporaryDirectory() as home:
        # Whatever its user has chosen, and looked at last.
        environment = {"HOME": home, "PATH": os.environ["PATH"], "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        run = subprocess.Popen(["script", "-qec", show, "/dev/null"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        screen = pyte.Screen(COLUMNS, LINES)
        stream = pyte.ByteStream(screen)
        shown = []
        # Until the last line, which is drawn last, is there.
        while not (shown and "? help" in shown[-1]):
            data = run.stdout.read1(1 << 16)
            assert data, "the terminal was closed"
            stream.feed(data)
            shown = [line.rstrip() for line in screen.display]
        run.stdin.write(b"q")
        run.stdin.close()
        run.stdout.read()
        assert run.wait() == 0
    return shown


def time_of(ns):
    """As people read it: three digits."""
    if ns < 1_000:
        return f"{ns}ns"
    value, unit = (ns / 1e3, "us") if ns < 999_500 else (ns / 1e6, "ms") if ns < 999_500_000 else (ns / 1e9, "s")
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"


def rate_of(count, report):
    """How often a second: three digits with the letter of a power of a thousand."""
    rate = count / max(report["window"]["duration_ns"], 1) * 1e9
    for least, power, letter in ((999_500_000, 1e9, "G"), (999_500, 1e6, "M"), (9_995, 1e3, "k")):
        if rate >= least:
            return f"{rate / power:.{1 if rate / power < 9.95 else 0}f}{letter}"
    return f"{rate:.1f}" if rate < 10 and rate % 1 else f"{rate:.0f}"


def check_terminal(shown, reports):
    """Every figure of the first screen: of the machine, of each task that waited, and of each CPU."""
    report = reports["task"]
    switches, wakeups, migrations = (report[table]["total"][table] for table in ("switches", "wakeups", "migrations"))
    used, recorder = report["cpu_time"]["total"], report["cpu_time"]["recorder_ns"]
    whole = sum(used[part] for part in ("busy_ns", "idle_ns", "unknown_ns"))
    busy = f"{'>' if used['unknown_ns'] >= 0.005 * whole else ''}{100 * used['utilisation_ratio']:.0f}% busy"
    busy += f" (recorder {100 * recorder / whole:.1f}%)" if recorder else ""
    check(
        "the terminal's rates",
        shown[2].split("   "),
        [busy, f"{rate_of(switches, report)} switches/s"]
        + [f"{rate_of(wakeups, report)} wakeups/s", f"{rate_of(migrations, report)} migrations/s"],
    )
    wait = report["run_queue"]["total"]["wait"]
    check(
        "the terminal's totals",
        shown[3],
        f"{wait['count']} waits for a CPU, {time_of(wait['total_ns'])} in all: p50 {time_of(wait['p50_ns'])}, "
        f"p99 {time_of(wait['p99_ns'])}, longest {time_of(wait['max_ns'])}",
    )
    used = {name_of(row["group"]): row["cpu_time_ns"] for row in report["cpu_time"]["groups"]}
    counts = [("switches", "switches"), ("switches", "involuntary"), ("wakeups", "wakeups"), ("migrations", "migrations")]
    counted = {table: {name_of(row["group"]): row for row in report[table]["groups"]} for table, _ in counts}
    rows = [line.split() for line in shown]
    for row in report["run_queue"]["groups"][:20]:
        name, wait = name_of(row["group"]), row["wait"]
        open_ns = row["censored"]["wait_ns"] + row["in_loss"]["wait_ns"]
        waits = wait["count"] + row["censored"]["waits"] + row["in_loss"]["waits"]
        busy = 100 * used.get(name, 0) / report["window"]["duration_ns"]
        figures = [f"{busy:.1f}%", ">" * (open_ns > 0) + time_of(wait["total_ns"] + open_ns), str(waits)]
        figures += [time_of(wait[key]) if wait["count"] else "-" for key in ("p50_ns", "p99_ns", "max_ns")]
        figures += [str(counted[table][name][key]) if name in counted[table] else "-" for table, key in counts]
        check(f"the terminal's line of {name}", [line[1:11] for line in rows if line[:1] == [name]], [figures])
    waits = {row["group"]["cpu"]: row["wait"]["p99_ns"] for row in reports["cpu"]["run_queue"]["groups"]}
    cells = []
    for line in rows[4:9]:
        cells += [line[at - 1 : at + 3] for at in range(1, len(line)) if line[at] in BARS]
    for row in report["cpu_time"]["cpus"]:
        cpu, p99 = row["cpu"], waits.get(row["cpu"], 0)
        cell = [f"{100 * row['utilisation_ratio']:.0f}%", time_of(p99) if p99 else "-"]
        found = [[figure for figure in told[1:] if figure not in BARS] for told in cells if told[0] == str(cpu)]
        check(f"the terminal's CPU {cpu}", found, [cell])


def name_of(group):
    return f"{group['comm']}[{group['tid']}]"


def main(built, trace):
    built = Path(built)
    command = built / "schedtrace"
    reports = {by: printed(command, "report", trace, "--by", by, "--top", str(TOP), "--json") for by in GROUPS}
    asked = asyncio.run(by_mcp(command, trace))
    opened = schedtrace.open(trace)
    for by in GROUPS:
        cut = asked[by].pop("cut_to_fit", [])
        told = {key: value for key, value in reports[by].items() if key in asked[by]}
        check(f"the library and the command, by {by}", printed(built / "examples/report", trace, by, str(TOP)), told)
        check(f"the notebook and the command, by {by}", opened.report(by=by, top=TOP).to_dict(), told)
        # An answer says of which lists it has only the beginning.
        for of in cut:
            *path, last = of["field"].split(".")
            below = functools.reduce(dict.__getitem__, path, told)
            check(f"the agent on {of['field']}, by {by}", of["total"], len(below[last]))
            below[last] = below[last][: of["shown"]]
        check(f"the agent and the command, by {by}", asked[by], rounded(told))

    check_terminal(on_terminal(command, trace), reports)
    return checks.finish()


if len(sys.argv) != 3:
    sys.exit(__doc__)
sys.exit(main(*sys.argv[1:]))
