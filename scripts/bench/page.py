"""Makes docs/performance.md of what was measured, on standard output: page.py RESULTS CRITERION"""

import json
import statistics
import sys
from pathlib import Path

results, criterion = map(Path, sys.argv[1:])
here = Path(__file__).parent
tools = json.loads((results / "compare.json").read_text())
own = json.loads((results / "figures.json").read_text())
programs = [json.loads(line) for line in (results / "programs.jsonl").read_text().splitlines()]
MIB = 1 << 20


def spread(values, form):
    """The median, and the middle half in brackets."""
    values = list(values)
    middle = form(statistics.median(values))
    if len(values) < 4:
        return middle
    low, _, high = statistics.quantiles(values, n=4)
    return f"{middle} [{form(low)}, {form(high)}]"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def stages():
    """Events per second of each bench of criterion, by group and name."""
    found = {}
    for file in sorted(criterion.glob("*/**/new/benchmark.json")):
        bench, estimates = json.loads(file.read_text()), json.loads((file.parent / "estimates.json").read_text())
        if not bench["throughput"]:
            continue
        events, median = bench["throughput"]["Elements"], estimates["median"]
        rate = lambda ns: events / ns * 1e3
        span = median["confidence_interval"]
        found.setdefault(bench["group_id"], {})[bench["function_id"]] = (
            rate(median["point_estimate"]), rate(span["upper_bound"]), rate(span["lower_bound"]))
    return found


def compared(measured):
    for workload in measured["workloads"].values():
        base = workload["runs"]["none"]
        rows = []
        for tool in measured["tools"]:
            runs = workload["runs"][tool["name"]]
            row = [tool["name"], spread((run["took"] / none["took"] for run, none in zip(runs, base)), "{:.2f}x".format),
                   spread((run["took"] for run in runs), "{:.2f}".format)]
            events = statistics.median(run["events"] for run in runs)
            if tool["name"] == "none":
                row += [""] * 5
            else:
                much = events > 20_000
                cpu = spread((run["cpu"] / max(run["events"], 1) * 1e6 for run in runs), "{:.2f}".format)
                row += [f"{events:,.0f}", f"{statistics.median(run['lost'] for run in runs):,.0f}" if tool["keeps"] else "",
                        spread((run["bytes"] / run["events"] for run in runs), "{:.1f}".format) if tool["keeps"] and much else "",
                        cpu if much else f"{statistics.median(run['cpu'] for run in runs):.2f} s in all",
                        f"{statistics.median(run['peak'] for run in runs) / MIB:.0f}"]
            rows.append(row)
        head = ["tracer", "time against none", "seconds", "events", "lost", "bytes per event on disk", "CPU s per M events", "peak MiB"]
        yield f"### {workload['title'][0].upper() + workload['title'][1:]}\n\n{table(head, rows)}\n"


def figures(rates):
    def row(what, measured, reach, met, command):
        return [what, measured, reach, "yes" if met else "**no**", f"`{command}`"]

    above = lambda transport, kind: [row[kind] - row["empty_" + kind] for row in programs if row["transport"] == transport]
    ns = lambda transport: (f"{spread(above(transport, 'switch'), '{:.0f}'.format)} ns; at a waking "
                            f"{statistics.median(above(transport, 'waking')):.0f} ns")
    kept = {name: statistics.median(run["bytes"] / run["events"] for run in workload["runs"]["schedtrace"])
            for name, workload in tools["workloads"].items()
            # Of few events, the footers of the files are most of it.
            if statistics.median(run["events"] for run in workload["runs"]["schedtrace"]) > 20_000}
    pipe = tools["workloads"]["pipe"]["runs"]
    ratios = lambda tool: [run["took"] / none["took"] for run, none in zip(pipe[tool], pipe["none"])]
    pipes, pipes_rings = ratios("schedtrace"), ratios("schedtrace, ring buffers")
    highest, highest_rings, idle, starved = own["highest"], own["highest_rings"], own["idle"], own["starved"]
    cpu, user = (highest[of] / highest["events"] * 1e9 for of in ("cpu_to_end", "user_to_end"))
    cpu_rings, user_rings = (highest_rings[of] / highest_rings["events"] * 1e9 for of in ("cpu_to_end", "user_to_end"))
    write, latency = rates["decode, merge and write"], rates["decode, merge and run-queue latency"]
    newer = results / "reports.json"
    report = (json.loads(newer.read_text()) if newer.exists() else own)["report"]
    median = lambda of: statistics.median(row[of] for row in report)
    reports = "scripts/bench.sh reports"
    took = median("took")
    idles = idle["cpu"] / idle["seconds"]
    rate = lambda row: row["events"] / row["seconds"]
    form = lambda x: f"{x[0]:.1f} M/s [{x[1]:.1f}, {x[2]:.1f}]"
    bench, compare, alone = "scripts/bench.sh stages", "scripts/bench.sh compare", "scripts/bench.sh figures"
    rows = [
        row("bytes per switch, per waking: in a log of the arena, and on a ring, header included", "24, 32", "32", True,
            "cargo test -p schedtrace-bpf 32_bytes"),
        row("BPF time per run at a switch, above an empty program: arena", ns("arena"), "50 ns, aiming at 30",
            statistics.median(above("arena", "switch")) <= 50, "scripts/bench.sh programs"),
        row("the same: rings", ns("ring"), "100 ns", statistics.median(above("ring", "switch")) <= 100, "scripts/bench.sh programs"),
        row("disk bytes per event, everything mixed, where there are more than 20,000 events", f"{min(kept.values()):.1f} to {max(kept.values()):.1f} by workload", "8, aiming at 5",
            max(kept.values()) <= 8, compare),
        row("`perf bench sched pipe` on one CPU, the recorder on the other, against none: arena", spread(pipes, "{:.2f}x".format),
            "1.10x, aiming at 1.05x", statistics.median(pipes) <= 1.10, compare + " 5 pipe"),
        row("the same: rings", spread(pipes_rings, "{:.2f}x".format), "1.20x, aiming at 1.13x",
            statistics.median(pipes_rings) <= 1.20, compare + " 5 pipe"),
        row("user-space CPU time of the recorder per event, Parquet included: arena", f"{user:.0f} ns; with the kernel's {cpu:.0f} ns",
            "100 ns", user <= 100, alone),
        row("CPU time of the recorder per event, Parquet included: rings", f"{cpu_rings:.0f} ns, {user_rings:.0f} of them in user space",
            "200 ns, aiming at 100", cpu_rings <= 200, alone),
        row("synthetic -> decode -> merge -> trace writer, one core", form(write), "5 M/s", write[0] >= 5, bench),
        row("synthetic -> decode -> merge -> run-queue latency, one core", form(latency), "15 M/s", latency[0] >= 15, bench),
        row(f"open a trace of {report[0]['events'] / 1e6:.1f} M events and print the full report, 2 cores",
            spread((r["took"] for r in report), "{:.2f} s".format), "2 s", took <= 2, reports),
        row("all reports of it at once, 2 cores", spread((r["all"] for r in report), "{:.2f} s".format), "5 s",
            median("all") <= 5, reports),
        row("the memory that takes", f"{max(r['all_peak'] for r in report) / MIB:.0f} MiB", "1,024 MiB",
            max(r["all_peak"] for r in report) < 1024 * MIB, reports),
        row("explain one second of it", spread((1e3 * r["explain"] for r in report), "{:.0f} ms".format), "300 ms",
            median("explain") <= 0.3, reports),
        row("thread states over a recorded trace, one core: read from disk", form(rates["read and thread states"]), "8 M/s",
            rates["read and thread states"][0] >= 8, bench),
        row("the same, of events in memory", form(rates["thread states"]), "8 M/s", rates["thread states"][0] >= 8, bench),
        row("memory of `record` beyond its rings, at the highest rate", f"{highest['beyond_rings'] / MIB:.0f} MiB", "100 MiB, aiming at 48",
            highest["beyond_rings"] <= 100 * MIB, alone),
        row("CPU time of `record` on an idle machine", f"{idles:.2%} of a core", "0.5%", idles <= 0.005, alone),
        row(f"lost at the highest rate ({rate(highest):,.0f} events/s, both CPUs saturated), 16 MiB in all: arena",
            f"{highest['lost']:,}", 0, highest["lost"] == 0, alone),
        row(f"the same: rings ({rate(highest_rings):,.0f} events/s)", f"{highest_rings['lost']:,}", 0, highest_rings["lost"] == 0, alone),
        row("the same, the load at nice -10: arena", f"{starved['lost']:,} of {starved['events'] + starved['lost']:,}", 0, starved["lost"] == 0, alone),
    ]
    rows += [row(*of, "scripts/bench.sh sql") for of in statements()]
    rows += [row(*of, "scripts/bench.sh mcp") for of in answers()]
    rows += [row(*of, "scripts/bench.sh top") for of in screens()]
    return table(["what", "measured", "to reach", "met", "command"], rows)


def statements():
    """Of `schedtrace sql`: what, measured, to reach, met."""
    file = results / "sql.json"
    if not file.exists():
        return
    asked = json.loads(file.read_text())
    for one in asked["statements"]:
        rounds = one["rounds"]
        what = f"SQL over {asked['events'] / 1e6:.1f} M events, a process of its own, 2 cores: {one['name']}"
        walls = [row["ours"]["wall"] for row in rounds]
        took = f"{spread(walls, '{:.3f} s'.format)}; again within one process {statistics.median(one['within']):.3f} s"
        reach, met = [], True
        if one["seconds"]:
            reach.append(f"{one['seconds']:g} s")
            met = statistics.median(walls) <= one["seconds"]
        if one["duckdb"]:
            # DuckDB comes in Python here: only the time of its query counts, of ours the whole process.
            ratios = [row["ours"]["wall"] / row["duckdb"]["inner"] for row in rounds]
            inner = [row["ours"]["inner"] / row["duckdb"]["inner"] for row in rounds]
            took += (f"; {spread(ratios, '{:.2f}x'.format)} of DuckDB's query alone, without the start of either "
                     f"{spread(inner, '{:.2f}x'.format)}")
            if one["times"]:
                reach.append(f"{one['times']:g}x")
                met = met and statistics.median(ratios) <= one["times"]
        yield [what, took, ", ".join(reach) or "-", met]
        yield ["the memory that takes", f"{max(row['ours']['peak'] for row in rounds) / MIB:.0f} MiB", "1,024 MiB",
               max(row["ours"]["peak"] for row in rounds) < 1024 * MIB]


def answers():
    """Of the MCP server: what, measured, to reach, met."""
    file = results / "mcp.json"
    if not file.exists():
        return
    asked = json.loads(file.read_text())
    millions = f"{asked['events'] / 1e6:.1f} M events"
    for one in asked["questions"]:
        rounds = one["rounds"]
        walls = [row["wall"] for row in rounds]
        # What reads all of it, because it was asked to, has no second to keep to.
        whole = one["arguments"].get("from") == "0s"
        what = f"MCP server, {millions}, from its start to the answer of `{one['tool']}`" + (", all of the trace" if whole else "")
        met = statistics.median(walls) <= 1 and (whole or rounds[0]["bytes"] <= 15_000)
        took = f"{spread(walls, '{:.2f} s'.format)}; {rounds[0]['bytes'] / 1000:.1f} kB, {max(row['peak'] for row in rounds) / MIB:.0f} MiB"
        yield [what, took, "-" if whole else "1 s, 15 kB", whole or met]
    live = asked["stream"]
    rate = live["events"] / live["seconds"]
    yield [f"MCP server, {rate:,.0f} events/s to a client that does not read them: memory before and at most",
           f"{live['before'] / MIB:.0f} and {live['peak'] / MIB:.0f} MiB", "256 MiB", live["peak"] < 256 * MIB]
    yield ["another call meanwhile", spread(live["delays"], "{:.3f} s".format) + f", at most {max(live['delays']):.3f} s", "1 s",
           max(live["delays"]) < 1]


def screens():
    """Of the terminal UI: what, measured, to reach, met."""
    for file in sorted(criterion.glob("frame*/*/new/benchmark.json")):
        bench, median = json.loads(file.read_text()), json.loads((file.parent / "estimates.json").read_text())["median"]
        low, high = (median["confidence_interval"][bound] / 1e6 for bound in ("lower_bound", "upper_bound"))
        yield [f"terminal UI, {bench['group_id']}, 300x80: {bench['function_id']}",
               f"{median['point_estimate'] / 1e6:.2f} ms [{low:.2f}, {high:.2f}]", "16 ms", high < 16]
    file = results / "top.json"
    if not file.exists():
        return
    told = json.loads(file.read_text())
    replay, millions = told["replay"], f"{told['events'] / 1e6:.1f} M events"
    yield [f"terminal UI, {millions}: from its start to the first screen with figures", spread(replay["first"], "{:.2f} s".format), "1 s",
           max(replay["first"]) <= 1]
    yield [f"terminal UI, {millions}: from a key that seeks to the screen of the other second",
           spread(replay["seek"], "{:.3f} s".format) + f", at most {max(replay['seek']):.3f} s", "200 ms", max(replay["seek"]) <= 0.2]
    yield [f"terminal UI, {millions}: its memory at most", f"{max(replay['peak']) / MIB:.0f} MiB", "-", True]
    for live in told["live"].values():
        beyond, rate = live["cpu"] - live["collecting"], live["switches"] / live["seconds"]
        at = f"terminal UI, live, {rate:,.0f} switches/s and their wakings"
        # The figure to reach is of 100,000 events a second; beyond, it is told what that takes.
        is_steady = rate < 100_000
        yield [f"{at}: CPU time beyond collecting, of one core", f"{beyond:.1%}; with collecting {live['cpu']:.1%}",
               "15% at 100,000 events/s" if is_steady else "-", beyond <= 0.15 or not is_steady]
        yield [f"{at}: from a key until the screen changes",
               spread(live["delays"], "{:.3f} s".format) + f", at most {max(live['delays']):.3f} s", "50 ms", max(live["delays"]) <= 0.05]
        first, *_, last = live["memory"]
        yield [f"{at}: memory after {live['memory_s'][0]} and {live['memory_s'][-1]} seconds",
               f"{first / MIB:.0f} and {last / MIB:.0f} MiB", "bounded", last <= 1.1 * first]


def curve():
    rows = []
    for row in own["curve"]:
        events = row["events"]
        rows.append([f"`{row['load']}`", f"{events / row['seconds']:,.0f}", f"{row['lost']:,}", f"{row['cpu'] / row['seconds']:.1%}",
                     f"{row['cpu_to_end'] / events * 1e9:.0f}", f"{row['bytes'] / events:.1f}", f"{row['beyond_rings'] / MIB:.0f}"])
    return table(["load", "events/s", "lost", "recorder, of one CPU", "CPU ns per event, to the end", "bytes per event",
                  "MiB beyond the rings"], rows)


def machines(rates):
    shapes = {}
    for name, (rate, low, high) in rates.items():
        shape, _, stage = name.partition(": ")
        shapes.setdefault(shape, {})[stage] = f"{rate:.1f} [{low:.1f}, {high:.1f}]"
    names = list(next(iter(shapes.values())))
    order = sorted(shapes.items(), key=lambda shape: int(shape[0].split()[0]))
    return table(["simulated machine", *(f"{name}, M/s" for name in names)],
                 [[shape, *(stages.get(name, "") for name in names)] for shape, stages in order])


def in_emulator():
    """Measured where there is a test kernel."""
    file = results / "emulated.json"
    if not file.exists():
        return ""
    measured = json.loads(file.read_text())
    machine = measured["machine"]
    tables = "\n".join(compared(measured))
    return f"""## The same in an emulator, by counted instructions

scxtop needs sched_ext, which the kernel of this machine lacks. So this is a virtual machine, emulated (QEMU without hardware
support, Linux {machine['kernel']}, {machine['cpus']} CPUs), where each instruction of any CPU takes one nanosecond. Time is a count of the
instructions of all CPUs: also of what the tracer does in user space meanwhile, on whatever CPU. It knows no caches and no cost of an
interrupt. scxtop records more kinds of events (wakeups, softirqs, IPIs), and for five seconds, of which the load takes a part.

{flags(measured)}

{tables}"""


rates = stages()
machine, kind = tools["machine"], "virtual machine" if tools["machine"]["virtual"] else "machine"
noise = [run["noise"] for run in (tools, own)]
stolen = sum(part["stolen"] for part in noise) / (sum(part["seconds"] for part in noise) * machine["cpus"])
took = [run["took"] for run in tools["workloads"]["pipe"]["runs"]["none"]]
before_curve, after_curve = (part.strip() for part in (here / "steps.md").read_text().split("<!-- curve -->"))
flags = lambda measured: "\n".join(f"- {tool['name']}: {tool['flags']}" for tool in measured["tools"] if tool["flags"])

print(f"""# Performance

What recording and reading cost, measured, beside what other tracers cost. `make bench` measures all of it again and writes
this page; `scripts/bench.sh` with the name of a part measures that part.

**The machine**: a {kind} with {machine['cpus']} CPUs ({machine['model']}), Linux {machine['kernel']}. {machine['perf']}, {machine['bpftrace']},
{machine['runqlat']}.

**The noise**: while this was measured, the hypervisor gave {stolen:.1%} of the CPU time to others. Without any tracer, `perf bench
sched pipe` took {spread(took, '{:.2f}'.format)} s. So tracers alternate, each is compared with the untraced run of its own round, and figures are
medians with the middle half of the runs in brackets; absolute times say little about another machine.

## The figures

{figures(rates['stages'])}

## Beside other tracers

Each round ran each workload under each tracer in turn, {len(took)} rounds. CPU time is that of the tracer's own threads, from when it records
until it has ended, with what the kernel did for them, and not what it took of the traced tasks' time, which is the ratio. Events of different tools are
not the same: schedtrace's include migrations and lifecycles.

{flags(tools)}

""" + "\n".join(compared(tools)) + f"""
{in_emulator()}
## Each stage on one core

Events of a simulated machine with 16 CPUs and 500 tasks, a million at a time, pinned to one core: what has threads of its own, like the
writer, shares that core with them. In brackets the confidence interval of the median (95 %, by criterion).

{table(["stage", "M events/s"], [[name, f"{rate:.1f} [{low:.1f}, {high:.1f}]"] for name, (rate, low, high) in rates['stages'].items()])}

## By CPUs and shards

The same, by the size of the simulated machine: its CPUs share rings by eights, as `--shards auto` has them.

{machines(rates['machines'])}

{before_curve}

{curve()}

{after_curve}""")
