"""The large trace that questions are measured on."""

import subprocess

EVENTS = 10_000_000


def record(program, folder):
    """A trace of so many events: two tasks on one CPU wake each other, four events each time round, the recorder on the other."""
    trace = folder / "ten.schedtrace"
    # Of one time round not all wakings are told: some find the other task still on its way out.
    loops = EVENTS * 9 // 25
    subprocess.run(["taskset", "-c", "0", program, "record", "--user", "root", "-o", trace, "--",
                    "taskset", "-c", "1", "perf", "bench", "sched", "pipe", "-l", str(loops)],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return trace
