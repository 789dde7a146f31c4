"""Measures `schedtrace sql` on a recorded trace of ten million events, beside DuckDB over the same files: sql.py PROGRAM RESULTS [ROUNDS [TRACE]]

Each statement is a process of its own, in turn with DuckDB's, round by round. DuckDB runs in Python: its query is measured apart from
the start and the import, and these, with a `select 1`, as well. Leaves sql.json in RESULTS, of which page.py makes rows.
"""

import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ten_million import EVENTS, record

program, results = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 5
THREADS = "2"
DUCKDB = """
import sys, time
import duckdb
duckdb.execute(f"set threads = {sys.argv[1]}")
began = time.perf_counter()
duckdb.sql(sys.argv[2]).fetchall()
print(time.perf_counter() - began)
"""


def ran(*command, stdin=None, terminal=False):
    """Runs it to its end: seconds, bytes of memory at most, and what it said; what it says to a terminal, where it asks for one."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    began = time.monotonic()
    child = subprocess.Popen(command, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.DEVNULL if terminal else theirs,
                             stderr=theirs if terminal else None)
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # a terminal has no end
            piece = b""
        if not piece:
            break
        said += piece
    os.close(ours)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command} ended with {child.returncode}: {said.decode(errors='replace')}")
    return wall, usage.ru_maxrss * 1024, said.decode(errors="replace")


def inner(said):
    """What the command says of its own time, for each statement."""
    return [float(seconds) for seconds in re.findall(r" in ([0-9.]+) s", said)]


def ask(trace, sql, again=1):
    """A process for one statement, or for the same one again and again."""
    command = [program, "sql", trace, "--format", "csv", "-o", "/dev/null", "--force", "--threads", THREADS]
    if again == 1:
        wall, peak, said = ran(*command, sql, terminal=True)
        return {"wall": wall, "peak": peak, "inner": inner(said)[0]}
    with tempfile.TemporaryFile() as statements:
        statements.write(";\n".join([sql] * again).encode())
        statements.seek(0)
        return inner(ran(*command, stdin=statements, terminal=True)[2])


def duckdb(sql):
    wall, peak, said = ran(sys.executable, "-c", DUCKDB, THREADS, sql)
    return {"wall": wall, "peak": peak, "inner": float(said)}


def rows_of(trace, sql):
    return json.loads(subprocess.run([program, "sql", trace, sql, "--format", "json"], stdout=subprocess.PIPE, check=True).stdout)


def statements(trace):
    """What is asked: name, statement, DuckDB's, what it should not take (seconds, and times DuckDB's)."""
    switches = f"read_parquet('{trace}/events/sched_switch/*.parquet')"
    bounds, = rows_of(trace, "select * from trace_bounds")
    at = (bounds["start_ts"] + bounds["end_ts"]) // 2
    second = f"between {at} and {at + 10**9}"
    tasks = rows_of(trace, f"select utid, tid, count(*) as n from sched_slice where ts {second} and utid <> 0 group by utid, tid order by n desc")
    # The busiest one, and one of those that other questions are about.
    busy, usual = tasks[0], min(tasks, key=lambda task: abs(task["n"] - 200))
    raw = f"select * from TABLE where next_task = {busy['utid']} and ts_ns {second}"
    percentile = "select next_task, count(*) as n, {} as p50, {} as p99 from TABLE group by next_task"
    sums = "select cpu, next_prio, count(*) as n, min(ts_ns) as a, max(ts_ns) as b, sum(prev_state) as s from TABLE group by cpu, next_prio"
    ours = lambda sql: sql.replace("TABLE", "sched_switch")
    theirs = lambda sql: sql.replace("TABLE", switches)
    written = lambda sql: f"copy ({theirs(sql)}) to '/dev/null' (format csv)"
    ours_at = [f"approx_percentile_cont({p}) within group (order by ts_ns)" for p in (0.5, 0.99)]
    theirs_at = [f"approx_quantile(ts_ns, {p})" for p in (0.5, 0.99)]
    return [
        ("percentiles of every state by name", """select comm, approx_percentile_cont(0.5) within group (order by dur) as p50,
            approx_percentile_cont(0.99) within group (order by dur) as p99, count(*) as n, sum(dur) as ns
            from thread_state where whole group by comm""", None, 2.0, None),
        ("switches by task, with percentiles", ours(percentile.format(*ours_at)), theirs(percentile.format(*theirs_at)), None, 1.5),
        ("switches by CPU and priority: count, min, max, sum", ours(sums), theirs(sums), None, 1.5),
        (f"states of one task in one second, {usual['n']:,} slices", f"select * from thread_state where tid = {usual['tid']} and ts {second}",
         None, 0.1, None),
        (f"the same of the busiest task, {busy['n']:,} slices", f"select * from thread_state where tid = {busy['tid']} and ts {second}", None, None, None),
        ("how many and how long of the busiest task", f"select count(*) as n, sum(dur) as ns from thread_state where tid = {busy['tid']} and ts {second}",
         None, 0.1, None),
        (f"switches to one task in one second, all {busy['n']:,} rows", ours(raw), written(raw), None, None),
        ("how many switches to one task in one second", ours(raw).replace("*", "count(*) as n, sum(ts_ns - 1) as s", 1),
         theirs(raw).replace("*", "count(*) as n, sum(ts_ns - 1) as s", 1), 0.1, None),
    ]


def builds():
    """How many compilers run meanwhile."""
    names = (path.read_text() for path in Path("/proc").glob("[0-9]*/comm") if path.exists())
    return sum(name.strip() in ("rustc", "cargo", "cc1", "ld") for name in names)


def measure(trace):
    measured = []
    for name, sql, other, seconds, times in statements(trace):
        rounds = []
        for _ in range(ROUNDS):
            row = {"load": os.getloadavg()[0], "builds": builds(), "start": ask(trace, "select 1"), "ours": ask(trace, sql)}
            if other:
                row |= {"duckdb_start": duckdb("select 1"), "duckdb": duckdb(other)}
            rounds.append(row)
            print(f"{name}: {row}", file=sys.stderr)
        # Within one process, the first of them left out.
        within = ask(trace, sql, 4)[1:]
        measured.append({"name": name, "sql": " ".join(sql.split()), "duckdb": other, "seconds": seconds, "times": times,
                         "rounds": rounds, "within": within})
    return measured


with tempfile.TemporaryDirectory() as folder:
    trace = Path(sys.argv[4]) if len(sys.argv) > 4 else record(program, Path(folder))
    info = json.loads(subprocess.run([program, "info", "--json", trace], stdout=subprocess.PIPE, check=True).stdout)
    events = info["completeness"]["events"]
    if events < EVENTS:
        sys.exit(f"{trace} has {events:,} events and not {EVENTS:,}: nothing is measured of it")
    told = {"events": events, "bytes": sum(file.stat().st_size for file in trace.rglob("*") if file.is_file()), "statements": measure(trace)}
    results.mkdir(parents=True, exist_ok=True)
    (results / "sql.json").write_text(json.dumps(told, indent=1))
