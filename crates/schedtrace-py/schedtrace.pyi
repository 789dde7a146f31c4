"""Explains what the Linux scheduler did: reads schedtrace traces.

    import schedtrace

    report = schedtrace.open("run.schedtrace").report(by="process", top=5)
    print(report["run_queue"]["total"]["wait"]["p99_ns"])
"""

from os import PathLike
from typing import Any, Literal, final

__version__: str

class TraceError(Exception):
    """A trace that cannot be read: the message says why."""

@final
class Trace:
    """A trace on disk. It is read anew for each question, so that one that is being recorded grows."""

    def info(self) -> dict[str, Any]:
        """What is in the trace, and how complete it is: `state`, `host`, `window`, `tables`, `bytes`, `completeness`."""

    def report(
        self, *, by: Literal["task", "process", "cgroup", "cpu", "llc"] = "task", top: int = 20
    ) -> dict[str, Any]:
        """Why tasks waited for a CPU, who held it meanwhile, and what else the scheduler did.

        `by` is what a row is, `top` how many rows there are at most. Times end in `_ns`, shares in `_ratio`;
        `completeness` says what is known to be missing.
        """

def open(path: str | PathLike[str]) -> Trace:
    """Opens a trace: the directory that `schedtrace record -o` wrote.

    Raises TraceError if it is none or is damaged, and OSError (FileNotFoundError, PermissionError) if it cannot be read.
    """
