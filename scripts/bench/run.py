"""Measures on this machine, as root: run.py PROGRAM RESULTS compare [ROUNDS [WORKLOAD...]] | figures | reports | emulated | endurance MINUTES SIZE

`compare` runs each workload under each tracer in turn, round by round, so that whatever else the machine does meets them
all. `figures` measures schedtrace alone: an idle machine, the highest rate, rates in between, and reports. Both leave a JSON
file in RESULTS, which page.py makes a page of. `emulated` is `compare` where a virtual machine's time is a count of
instructions, with the tracers that run there. `endurance MINUTES SIZE` records the highest rate for so long within a limit.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools import EMULATED, TOOLS, WORK_CPU, Schedtrace, beyond_rings, cpu_seconds, on_disk

program, results = Path(sys.argv[1]).resolve(), Path(sys.argv[2])


def timed(*command):
    def run():
        begun = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        return time.monotonic() - begun

    return run


PIPE = ("taskset", "-c", str(WORK_CPU), "perf", "bench", "-f", "simple", "sched", "pipe", "-l")


def pipe(loops):
    def run():
        ran = subprocess.run([*PIPE, str(loops)], stdout=subprocess.PIPE, check=True, text=True)
        return float(ran.stdout.split()[-1])

    return run


def build():
    source = next((Path.home() / ".cargo/registry/src").glob("*/libbpf-sys-*/libbpf/src"))
    with tempfile.TemporaryDirectory() as made:
        jobs = f"-j{os.cpu_count()}"
        return timed("make", jobs, "-C", str(source), "BUILD_STATIC_ONLY=1", f"OBJDIR={made}", f"{made}/libbpf.a")()


def idle():
    time.sleep(5)
    return 5.0


#: Name: what it is, its command, and whether work and tracer are kept on different CPUs.
WORKLOADS = {
    "pipe": ("`perf bench sched pipe -l 200000` on one CPU, the tracer on the other", pipe(200_000), True),
    "processes": ("`hackbench -g 4 -f 5 -l 10000`: processes, sockets",
                  timed("hackbench", "-g", "4", "-f", "5", "-l", "10000"), False),
    "threads": ("`hackbench -T -p -g 4 -f 5 -l 30000`: threads, pipes",
                timed("hackbench", "-T", "-p", "-g", "4", "-f", "5", "-l", "30000"), False),
    "switch": ("`stress-ng --switch 2 --switch-ops 500000`", timed("stress-ng", "--switch", "2", "--switch-ops", "500000"), False),
    "build": ("a build: libbpf, `make -j`", build, False),
    "idle": ("an idle machine, 5 s", idle, False),
}


EMULATED_WORKLOADS = {
    "pipe": ("`perf bench sched pipe -l 20000` on one CPU, the tracer on another", pipe(20_000), True),
}


def once(make, workload, pinned):
    with tempfile.TemporaryDirectory() as scratch:
        tool = make(program, pinned)
        try:
            tool.start(Path(scratch))
            took = workload()
            tool.stop()
        finally:
            tool.kill()
        events, lost, size = tool.seen()
        return {"took": took, "events": events, "lost": lost, "bytes": size,
                "cpu": tool.user + tool.system, "peak": tool.peak}


def compare(rounds, wanted, workloads=WORKLOADS, tools=TOOLS):
    table = {}
    for name, (title, workload, pinned) in workloads.items():
        if wanted and name not in wanted:
            continue
        runs = {tool.name: [] for tool in tools}
        for at in range(rounds):
            for tool in tools[at % len(tools):] + tools[: at % len(tools)]:
                runs[tool.name].append(once(tool, workload, pinned))
                print(f"{name}, round {at + 1}: {tool.name} {runs[tool.name][-1]}", file=sys.stderr)
        table[name] = {"title": title, "runs": runs}
    if wanted and (results / "compare.json").exists():
        # The others are as they were measured last.
        before = json.loads((results / "compare.json").read_text())["workloads"]
        table = {name: table.get(name) or before.get(name) for name in WORKLOADS if name in table or name in before}
    told = [{"name": tool.name, "flags": tool.flags, "keeps": tool.keeps} for tool in tools]
    return {"tools": told, "workloads": table}


class Load:
    """Work that goes on until it is ended."""

    def __init__(self, *commands):
        self.processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                           start_new_session=True) for command in commands]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def recorded(load, seconds, options=(), pinned=False):
    """Records a load for so long; what the recorder took meanwhile, until it was told to end."""
    with tempfile.TemporaryDirectory() as scratch:
        tool = Schedtrace(program, pinned)
        tool.options = options
        tool.start(Path(scratch))
        with Load(*load):
            begun, before, most, disk = time.monotonic(), sum(cpu_seconds(tool.process.pid)), 0, 0
            while time.monotonic() - begun < seconds:
                time.sleep(0.25)
                most, disk = max(most, beyond_rings(tool.process.pid)), max(disk, on_disk(tool.trace))
            took, cpu = time.monotonic() - begun, sum(cpu_seconds(tool.process.pid)) - before
        tool.stop()
        events, lost, size = tool.seen()
        row = {"seconds": took, "events": events, "lost": lost, "bytes": size, "cpu": cpu, "user_to_end": tool.user,
               "cpu_to_end": tool.user + tool.system, "beyond_rings": most, "disk": disk}
        print(f"{' '.join(load[0]) if load else 'idle'}: {row}", file=sys.stderr)
        return row


def saturated():
    """Two pairs on every CPU that wake each other as fast as they can."""
    return [("taskset", "-c", str(cpu), *PIPE[3:], "100000000") for cpu in range(os.cpu_count()) for _ in range(2)]


def curve():
    """Rates from low to high."""
    rows = []
    for freq in (500, 2_000, 10_000, 40_000):
        load = [("stress-ng", "--switch", str(os.cpu_count()), "--switch-freq", str(freq), "--timeout", "100")]
        rows.append({"load": f"stress-ng --switch {os.cpu_count()} --switch-freq {freq}", **recorded(load, 6)})
    for pairs in (1, 2):
        load = [("taskset", "-c", str(cpu), *PIPE[3:], "100000000") for cpu in range(pairs)]
        rows.append({"load": f"perf bench sched pipe on {pairs} CPU(s)", **recorded(load, 6)})
    rows.append({"load": "two of it on every CPU", **recorded(saturated(), 6)})
    return rows


def report():
    """Opens a trace of 10 million events and prints the full report."""
    with tempfile.TemporaryDirectory() as scratch:
        trace, rows = Path(scratch) / "ten.schedtrace", []
        with Load(*saturated()):
            recorder = subprocess.Popen([program, "record", "--user", "root", "-o", trace], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
            events = lambda: int(json.loads((trace / "commit.json").read_text())["totals"]["rows"]["sched_switch"])
            while not (trace / "commit.json").exists() or events() < 6_600_000:
                time.sleep(0.1)
            recorder.send_signal(signal.SIGINT)
            recorder.wait()
        info = json.loads(subprocess.run([program, "info", "--json", trace], stdout=subprocess.PIPE, check=True).stdout)
        # A second in its midst, of a thread that ran then.
        window = info["window"]
        at = (window["from_ns"] + window["until_ns"]) // 2
        second = ("--from", f"{at}ns", "--to", f"{at + 10**9}ns")
        busy = json.loads(subprocess.run([program, "report", trace, "--json", "--top", "1", *second], stdout=subprocess.PIPE, check=True).stdout)
        tid = busy["cpu_time"]["groups"][0]["group"]["tid"]
        for _ in range(5):
            everything, peak = timed_with_peak(program, "report", trace, "all", "--json")
            rows.append({
                "events": info["completeness"]["events"],
                "took": timed(program, "report", trace)(),
                "all": everything, "all_peak": peak,
                "explain": timed(program, "explain", trace, "--tid", str(tid), *second, "--json")(),
            })
            print(f"report: {rows[-1]}", file=sys.stderr)
        return rows


def timed_with_peak(*command):
    """Seconds, and bytes of memory at most."""
    begun = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command} ended with {child.returncode}")
    return time.monotonic() - begun, usage.ru_maxrss * 1024


def figures():
    starved = [("nice", "-n", "-10", *command) for command in saturated()]
    return {
        "idle": recorded([], 30),
        "highest": recorded(saturated(), 20, ("--ring-mb", "16")),
        "highest_rings": recorded(saturated(), 20, ("--ring-mb", "16", "--transport", "ring")),
        "starved": recorded(starved, 10, ("--ring-mb", "16")),
        "curve": curve(),
        "report": report(),
    }


def machine():
    cpuinfo = Path("/proc/cpuinfo").read_text()
    virtual = "hypervisor" in cpuinfo
    model = re.search(r"^model name\s*: (.*)", cpuinfo, re.M)
    version = lambda *command: subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout.split("\n")[0]
    return {
        "cpus": os.cpu_count(), "model": model[1] if model else os.uname().machine, "virtual": virtual,
        "kernel": os.uname().release.partition("-")[0],
        "perf": version("perf", "--version"), "bpftrace": version("bpftrace", "--version"),
        "runqlat": version("dpkg-query", "-W", "-f", "libbpf-tools ${Version}\n", "libbpf-tools"),
    }


def stolen():
    """Seconds that the hypervisor had given to others so far, over all CPUs."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


what, rest = sys.argv[3], sys.argv[4:]
begun, steal = time.monotonic(), stolen()
if what == "compare":
    measured = compare(int(rest[0]) if rest else 5, rest[1:])
elif what == "emulated":
    measured = compare(3, [], EMULATED_WORKLOADS, EMULATED)
elif what == "endurance":
    measured = recorded(saturated(), 60 * float(rest[0]), ("--max-size", rest[1]))
    print(f"memory beyond the rings, at most: {measured['beyond_rings'] >> 20} MiB")
    print(f"disk, at most:                    {measured['disk'] >> 20} MiB")
    print(f"lost:                             {measured['lost']:,}, while {measured['events']:,} are kept")
elif what == "reports":
    measured = {"report": report()}
else:
    measured = figures()
noise = {"seconds": time.monotonic() - begun, "stolen": stolen() - steal}
results.mkdir(parents=True, exist_ok=True)
(results / f"{what}.json").write_text(json.dumps({"machine": machine(), "noise": noise, **measured}, indent=1))
