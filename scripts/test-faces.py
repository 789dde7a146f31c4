"""Asks every face for the same reports of a trace, and compares them, digit by digit: test-faces.py BUILT TRACE

BUILT is the folder of the built programs. Needs the packages `schedtrace`, `mcp` and `pyte`. Ends with "N passed, N failed".
"""

import asyncio
import functools
import json
import subprocess
import sys
from pathlib import Path

import mcp
import pyte
import schedtrace
from mcp import StdioServerParameters

import checks

COLUMNS, LINES = 150, 60
GROUPS = ("task", "process", "cgroup", "cpu", "llc")
TOP = 100


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
    run = subprocess.Popen(["script", "-qec", show, "/dev/null"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    shown = []
    # Until the last line, which is drawn last, is there.
    while not any("q quit" in line for line in shown):
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

    report = reports["task"]
    shown = on_terminal(command, trace)
    wait = report["run_queue"]["total"]["wait"]
    check(
        "the terminal's totals",
        shown[2],
        f"{wait['count']} waits for a CPU, {time_of(wait['total_ns'])} in all: p50 {time_of(wait['p50_ns'])}, "
        f"p99 {time_of(wait['p99_ns'])}, longest {time_of(wait['max_ns'])}",
    )
    used = {name_of(row["group"]): row["cpu_time_ns"] for row in report["cpu_time"]["groups"]}
    rows = [line.split() for line in shown]
    for row in report["run_queue"]["groups"][:20]:
        name, wait = name_of(row["group"]), row["wait"]
        open_ns = row["censored"]["wait_ns"] + row["in_loss"]["wait_ns"]
        waits = wait["count"] + row["censored"]["waits"] + row["in_loss"]["waits"]
        busy = 100 * used.get(name, 0) / report["window"]["duration_ns"]
        figures = [str(waits), f"{busy:.1f}%", ">" * (open_ns > 0) + time_of(wait["total_ns"] + open_ns)]
        figures += [time_of(wait[key]) if wait["count"] else "-" for key in ("p50_ns", "p99_ns", "max_ns")]
        check(f"the terminal's line of {name}", [line[1:7] for line in rows if line[:1] == [name]], [figures])
    waits = {row["group"]["cpu"]: row["wait"]["p99_ns"] for row in reports["cpu"]["run_queue"]["groups"]}
    for row in report["cpu_time"]["cpus"]:
        cpu, p99 = row["cpu"], waits.get(row["cpu"], 0)
        cell = [f"{100 * row['utilisation_ratio']:.0f}%", time_of(p99) if p99 else "-"]
        found = [line[at + 2 : at + 4] for line in rows[3:8] for at in range(len(line)) if line[at] == str(cpu) and line[at + 1 : at + 2] and line[at + 1] in "▁▂▃▄▅▆▇█"]
        check(f"the terminal's CPU {cpu}", found, [cell])
    return checks.finish()


if len(sys.argv) != 3:
    sys.exit(__doc__)
sys.exit(main(*sys.argv[1:]))
