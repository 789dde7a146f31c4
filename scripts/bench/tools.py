"""Tracers, each run with its best documented flags: how it is started, and what it saw when it has ended."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

TRACER_CPU, WORK_CPU = 0, 1
EVENTS = ("sched:sched_switch", "sched:sched_waking")
TRACING = Path("/sys/kernel/tracing")
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """What a process and those of its children that have ended took so far: in user space, and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, child_user, child_system = (int(ticks) / TICKS for ticks in fields[11:15])
    return user + child_user, system + child_system


def beyond_rings(pid):
    """Bytes resident in all of a process but the rings that it maps."""
    kib, is_ring = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_ring = "bpf-map" in line
        elif line.startswith("Rss:") and not is_ring:
            kib += int(line.split()[1])
    return kib << 10


def on_disk(trace):
    """Bytes of the files of a trace, which come and go while they are counted."""
    size = 0
    for file in trace.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


class Tool:
    """A tracer. `name` and `flags` stand in the table."""

    name = flags = ""
    #: Whether it keeps every event, so that bytes and CPU time per event mean something.
    keeps = True

    def __init__(self, program, pinned):
        self.program, self.pinned = program, pinned
        self.process, self.before, self.user, self.system, self.peak = None, (0.0, 0.0), 0.0, 0.0, 0

    def start(self, folder):
        """Starts it; returns once it records."""

    def stop(self):
        """Ends it, and waits until what it saw is on the disk."""
        # Of the process's own memory: getrusage's may be that of whoever started it.
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        self.peak = int(re.search(r"^VmHWM:\s+(\d+)", status, re.M)[1]) << 10
        self.end()
        self.said = self.process.stderr.read()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        self.ended(os.waitstatus_to_exitcode(status))
        self.user, self.system = usage.ru_utime - self.before[0], usage.ru_stime - self.before[1]

    def end(self):
        # Not through Popen, which would take the exit status, and with it what the process used, from wait4.
        os.kill(self.process.pid, signal.SIGINT)

    def ended(self, code):
        """Most tracers take the signal that ends them for a failure."""

    def kill(self):
        """Ends what has not ended: a tracer that goes on would disturb all that is measured after it."""
        if self.process and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def seen(self):
        """How many events it has, how many it knows it lost, and how many bytes on the disk."""
        return 0, 0, 0

    def spawn(self, *command, **how):
        pin = ["taskset", "-c", str(TRACER_CPU)] if self.pinned else []
        how = {"stdout": subprocess.DEVNULL, **how}
        self.process = subprocess.Popen(
            [*pin, *map(str, command)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True, **how)

    def until(self, ready):
        """Waits for the tracer to record."""
        end = time.monotonic() + 60
        while not ready():
            assert self.process.poll() is None, f"{self.name} ended: {self.process.stderr.read()}"
            assert time.monotonic() < end, f"{self.name} does not begin"
            time.sleep(0.01)
        self.begins()

    def begins(self):
        """What it took so far is no cost of an event."""
        self.before = cpu_seconds(self.process.pid)


class Nothing(Tool):
    name = "none"

    def stop(self):
        pass


class Schedtrace(Tool):
    name = "schedtrace"
    flags = "`schedtrace record -o DIR`: every switch, waking, migration and lifecycle"
    options = ()

    def start(self, folder):
        self.trace = folder / "run.schedtrace"
        self.spawn(self.program, "record", "--user", "root", "-o", self.trace, *self.options)
        self.until(lambda: (self.trace / "commit.json").exists())

    def ended(self, code):
        assert code == 0, f"the recorder ended with {code}: {self.said}"

    def info(self):
        said = subprocess.run([self.program, "info", "--json", self.trace], stdout=subprocess.PIPE, check=True)
        return json.loads(said.stdout)

    def seen(self):
        info = self.info()
        lost = sum(row["count"] for row in info["completeness"]["lost"] if row["place"] != "late")
        return info["completeness"]["events"], lost, info["bytes"]


class SchedtraceRings(Schedtrace):
    name = "schedtrace, ring buffers"
    flags = "`schedtrace record --transport ring -o DIR`: what it does on a kernel without BPF arenas"
    options = ("--transport", "ring")


class Perf(Tool):
    name = "perf sched record"
    flags = (
        "`perf record -a -R -c 1 -m 16M -e sched:sched_switch -e sched:sched_waking`: what `perf sched record` runs, with"
        " only these two events and a larger buffer"
    )

    def start(self, folder):
        self.file = folder / "perf.data"
        events = [word for event in EVENTS for word in ("-e", event)]
        ctl, ack = folder / "ctl", folder / "ack"
        for fifo in (ctl, ack):
            os.mkfifo(fifo)
        self.spawn("perf", "record", "-a", "-R", "-c", "1", "-m", "16M", *events, "--delay=-1",
                   f"--control=fifo:{ctl},{ack}", "-o", self.file)
        with open(ctl, "w") as told, open(ack) as done:
            told.write("enable\n")
            told.flush()
            done.read(4)
        self.begins()

    def seen(self):
        stats = subprocess.run(["perf", "report", "-i", self.file, "--stats"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True).stdout
        total = stats.partition("sched:")[0]
        count = lambda what: sum(int(n) for n in re.findall(rf"^\s*{what} events:\s+(\d+)", total, re.M))
        # A LOST event stands for a chunk of which only its own record tells the size.
        return count("SAMPLE"), count("LOST_SAMPLES") + count("LOST"), self.file.stat().st_size


class Ftrace(Tool):
    name = "ftrace"
    flags = (
        "`sched_switch` and `sched_waking` of a tracefs instance, 16 MiB a CPU, `trace_pipe_raw` of each CPU spliced into a"
        " file, as `trace-cmd record` does"
    )
    #: Copies pages from a file to another, each pair on a thread, until it is interrupted.
    copy = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.SIG_DFL)
def copy(source, target):
    reading, writing = os.pipe()
    source, target = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT)
    while count := os.splice(source, writing, 1 << 16):
        while count:
            count -= os.splice(reading, target, count)
for pair in zip(sys.argv[1::2], sys.argv[2::2]):
    threading.Thread(target=copy, args=pair).start()
"""

    def start(self, folder):
        self.instance = TRACING / "instances" / f"bench-{os.getpid()}"
        self.instance.mkdir()
        (self.instance / "buffer_size_kb").write_text(str(16 << 10))
        self.files = [folder / f"cpu{cpu}.raw" for cpu in range(os.cpu_count())]
        pairs = [(f"{self.instance}/per_cpu/cpu{cpu}/trace_pipe_raw", file) for cpu, file in enumerate(self.files)]
        self.spawn(sys.executable, "-c", self.copy, *(path for pair in pairs for path in pair))
        time.sleep(0.3)
        for event in EVENTS:
            (self.instance / "events" / event.replace(":", "/") / "enable").write_text("1")
        self.begins()

    def stop(self):
        (self.instance / "tracing_on").write_text("0")
        time.sleep(0.3)
        super().stop()
        # It waits for half a buffer, so there is more.
        for cpu, file in enumerate(self.files):
            rest = os.open(self.instance / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
            with file.open("ab") as out:
                try:
                    while page := os.read(rest, 1 << 16):
                        out.write(page)
                except BlockingIOError:
                    pass
            os.close(rest)
        self.entries = self.lost = 0
        for cpu in range(os.cpu_count()):
            stats = (self.instance / "per_cpu" / f"cpu{cpu}" / "stats").read_text()
            number = lambda what: int(re.search(rf"^{what}: (\d+)", stats, re.M)[1])
            self.entries += number("entries") + number("read events")
            self.lost += number("overrun") + number("dropped events")

    def kill(self):
        super().kill()
        if self.process:
            self.process.wait()
        with contextlib.suppress(FileNotFoundError):
            self.instance.rmdir()

    def seen(self):
        return self.entries, self.lost, sum(file.stat().st_size for file in self.files)


class BpftraceWrites(Tool):
    name = "bpftrace, writing"
    flags = "`BPFTRACE_PERF_RB_PAGES=4096 bpftrace -o FILE`: prints each switch and each waking on a line"
    body = (
        'tracepoint:sched:sched_switch{printf("%llu %d %d %d\\n",nsecs,cpu,args->prev_pid,args->next_pid)} '
        'tracepoint:sched:sched_waking{printf("%llu %d %d\\n",nsecs,cpu,args->pid)}'
    )

    def start(self, folder):
        self.file = folder / "bpftrace.out"
        self.spawn("bpftrace", "-o", self.file, "-e", self.body, env={**os.environ, "BPFTRACE_PERF_RB_PAGES": "4096"})
        # It says that it has begun into a buffer.
        time.sleep(2)
        self.begins()

    def stop(self):
        # It may miss a signal that comes while it attaches or prints.
        again = threading.Timer(5, os.kill, (self.process.pid, signal.SIGINT))
        again.start()
        super().stop()
        again.cancel()

    def seen(self):
        events, lost = 0, sum(int(n) for n in re.findall(r"Lost (\d+) events", self.said))
        with self.file.open(errors="replace") as lines:
            for line in lines:
                events += line[:1].isdigit()
                if line.startswith("Lost "):
                    lost += int(line.split()[1])
        return events, lost, self.file.stat().st_size


class BpftraceCounts(BpftraceWrites):
    name = "bpftrace, counting"
    flags = "`@s=count()` at each switch, `@w=count()` at each waking"
    keeps = False
    body = "tracepoint:sched:sched_switch{@s=count()} tracepoint:sched:sched_waking{@w=count()}"

    def seen(self):
        return sum(int(n) for n in re.findall(r"@[sw]: (\d+)", self.file.read_text())), 0, 0


class Runqlat(Tool):
    name = "libbpf-tools runqlat"
    flags = "`runqlat`: a histogram of run-queue latency in the kernel; its events are waits"
    keeps = False

    def start(self, folder):
        self.file = folder / "runqlat.out"
        self.spawn("runqlat", stdout=self.file.open("w"))
        time.sleep(2)
        self.begins()

    def seen(self):
        return sum(int(n) for n in re.findall(r"->\s+\d+\s*:\s*(\d+)", self.file.read_text())), 0, 0


class Scxtop(Tool):
    """Needs sched_ext; its path is in SCXTOP."""

    name = "scxtop trace"
    flags = "`scxtop trace -d 5000 -o FILE` (1.1.4)"

    def start(self, folder):
        self.file = folder / "trace.pftrace"
        self.log = folder / "scxtop.log"
        with self.log.open("w") as log:
            self.spawn(os.environ["SCXTOP"], "trace", "-d", "5000", "-o", self.file, stdout=log)
        self.until(lambda: "waiting for trace duration" in self.log.read_text())

    def end(self):
        """It ends by itself, and takes a signal for a reason to leave without its trace."""

    def seen(self):
        said = self.log.read_text() + self.said
        lost = sum(map(int, re.findall(r"dropped\w*: (\d+)", said)))
        return int(re.search(r"collected (\d+) events", said)[1]), lost, self.file.stat().st_size


EMULATED = [Nothing, Schedtrace, SchedtraceRings, Perf, Scxtop]
TOOLS = [Nothing, Schedtrace, SchedtraceRings, Perf, Ftrace, BpftraceWrites, BpftraceCounts, Runqlat]
