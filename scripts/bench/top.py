"""Measures the terminal UI on a terminal of its own: top.py PROGRAM RESULTS [ROUNDS [TRACE]]

On a recorded trace of ten million events: from the start of the program until its first screen has figures, and from a key that seeks
until the screen shows the other time. Live, at about 100,000 events/s, and while two tasks wake each other as fast as they
can: the CPU time that it takes, how long a key takes until the screen changes, and its memory from minute to minute. Needs the package `pyte`, which reads the
screen. Leaves top.json in RESULTS, of which page.py makes rows.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pyte
from ten_million import EVENTS, record

program, results = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 5
COLUMNS, LINES = 160, 50
SEEKS, KEYS = 10, 40
# Long enough for the window that is kept, of thirty seconds, to be full before memory is looked at.
LIVE_S, MEMORY_S = 20, [60, 90, 120]
PATIENCE_S = 120
# Two tasks on one CPU that wake each other: a switch and a waking each time, so many times a second, and as often as they can.
LOADS = {"steady": ["stress-ng", "--quiet", "--switch", "1", "--switch-freq", "25000", "--taskset", "1"],
         "most": ["taskset", "-c", "1", "perf", "bench", "sched", "pipe", "-l", "1000000000"]}
# Threads that take events from the kernel and bring them in order, as `schedtrace record` has them.
COLLECTING = ("st-lifecycle", "st-merge", "st-shard")
WINDOW = re.compile(r" from ([0-9.]+) s to ([0-9.]+) s")


class Screen:
    """The program on a terminal of its own."""

    def __init__(self, *arguments):
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)
        home = tempfile.mkdtemp(dir=os.environ.get("TMPDIR"))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "HOME": home, "LC_ALL": "C.UTF-8"}
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "NO_COLOR"):
            environment.pop(name, None)
        self.began = time.monotonic()
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execve(program, ["schedtrace", "top", *map(str, arguments)], environment)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def read(self, seconds):
        """Whether something came within this time; it is on the screen then."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return False
        try:
            self.stream.feed(os.read(self.terminal, 1 << 16))
        except OSError:
            sys.exit("schedtrace top ended:\n" + self.text())
        return True

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def until(self, shows):
        """How long it takes until the screen shows this."""
        began = time.monotonic()
        while not shows(self.text()):
            if time.monotonic() > began + PATIENCE_S or not self.read(PATIENCE_S):
                sys.exit("the screen does not come to show it:\n" + self.text())
        return time.monotonic() - began

    def press(self, keys):
        os.write(self.terminal, keys.encode())

    def status(self, name):
        line = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.M)
        return int(line[1]) * 1024

    def cpu_s(self):
        """CPU time of all its threads, also of those that have ended, and of those that collect."""
        def of(stat):
            fields = stat.read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        own = Path(f"/proc/{self.pid}")
        collecting = [task for task in own.glob("task/*") if (task / "comm").read_text().startswith(COLLECTING)]
        return of(own / "stat"), sum(of(task / "stat") for task in collecting)

    def end(self):
        self.press("q")
        while True:
            try:
                if not os.read(self.terminal, 1 << 16):
                    break
            except OSError:
                break
        os.close(self.terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == 0


def has_figures(text):
    return re.search(r"[1-9]\d* waits for a CPU", text) is not None


def replay(trace):
    told = {"first": [], "seek": [], "peak": []}
    for _ in range(ROUNDS):
        screen = Screen(trace)
        screen.until(has_figures)
        told["first"].append(time.monotonic() - screen.began)
        # A second of it, at its beginning; then from second to second.
        screen.press(" ")
        screen.until(WINDOW.search)
        screen.press(" ")
        while screen.read(1):
            pass
        for _ in range(SEEKS):
            shown = WINDOW.search(screen.text())[0]
            began = time.monotonic()
            screen.press("}")
            screen.until(lambda text, shown=shown: (now := WINDOW.search(text)) and now[0] != shown)
            told["seek"].append(time.monotonic() - began)
        told["peak"].append(screen.status("VmHWM"))
        screen.end()
    return told


def switches():
    """Of all CPUs since the boot; each is an event, as are wakings, which are not counted here."""
    return int(re.search(r"^ctxt (\d+)$", Path("/proc/stat").read_text(), re.M)[1])


def live(command):
    load = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            start_new_session=True)
    screen = None
    try:
        screen = Screen("--user", "root")
        screen.until(has_figures)
        settle = time.monotonic() + 5
        while time.monotonic() < settle:
            screen.read(0.1)
        before, switched, began = screen.cpu_s(), switches(), time.monotonic()
        while time.monotonic() < began + LIVE_S:
            screen.read(0.1)
        seconds, after, switched = time.monotonic() - began, screen.cpu_s(), switches() - switched
        cpu, collecting = ((now - then) / seconds for now, then in zip(after, before))
        shown = screen.text()
        delays = []
        for key in range(KEYS):
            # Between two pictures of what goes on: what comes is the key's.
            while screen.read(0.15):
                pass
            began = time.monotonic()
            screen.press("\t" if key % 2 == 0 else "\x1b[Z")
            if screen.read(5):
                delays.append(time.monotonic() - began)
        memory = []
        for at in MEMORY_S:
            while time.monotonic() < screen.began + at:
                screen.read(0.1)
            memory.append(screen.status("VmRSS"))
        screen.end()
        screen = None
    finally:
        # All of its processes.
        os.killpg(load.pid, signal.SIGKILL)
        load.wait()
        if screen:
            os.kill(screen.pid, signal.SIGKILL)
    return {"seconds": seconds, "switches": switched, "cpu": cpu, "collecting": collecting, "delays": delays, "memory": memory,
            "memory_s": MEMORY_S, "screen": shown}


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        trace = Path(sys.argv[4]).resolve() if len(sys.argv) > 4 else record(program, Path(folder))
        info = json.loads(subprocess.run([program, "info", "--json", trace], stdout=subprocess.PIPE, check=True).stdout)
        events = sum(table["rows"] for table in info["tables"])
        if events < EVENTS:
            sys.exit(f"{trace} has {events:,} events and not {EVENTS:,}: nothing is measured of it")
        told = {"events": events, "replay": replay(trace)}
    told["live"] = {name: live(command) for name, command in LOADS.items()}
    results.mkdir(parents=True, exist_ok=True)
    (results / "top.json").write_text(json.dumps(told, indent=1))
    middle = {name: statistics.median(values) for name, values in told["replay"].items()}
    print(middle)
    for name, figures in told["live"].items():
        print(name, {key: value for key, value in figures.items() if key not in ("delays", "screen")})
        print("keys:", statistics.median(figures["delays"]), max(figures["delays"]))
        print(figures["screen"])


main()
