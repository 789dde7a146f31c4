"""Explains what the Linux scheduler did: reads schedtrace traces, and records them.

    import schedtrace

    trace = schedtrace.open("run.schedtrace")
    report = trace.report(by="process", top=5)
    print(report.run_queue.total.wait.p99_ns)
    switches = pyarrow.table(trace.table("sched_switch"))      # or polars.DataFrame, duckdb.sql

    with schedtrace.record("mine.schedtrace", pids=[os.getpid()]) as recording:
        ...                                                    # what is to be seen
    recording.trace.report()
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from os import PathLike, fspath
from types import TracebackType
from typing import Literal

from . import _native
from ._native import TraceError, __version__
from .reports import Info, Report

__all__ = ["GroupBy", "Info", "Recording", "Report", "Table", "Trace", "TraceError", "__version__", "open", "record"]

GroupBy = Literal["task", "process", "cgroup", "cpu", "llc"]


class Table:
    """One table of a trace, by the Arrow PyCapsule interface: `pyarrow.table(t)`, `polars.DataFrame(t)`, or DuckDB's SQL
    take it as it is, and read it without a copy. Nothing is read before. Columns are those of the trace's Parquet files.
    """

    def __init__(self, trace: _native.Trace, name: str) -> None:
        self._trace, self.name = trace, name
        # A wrong name is told here, and not in the midst of another library.
        trace.stream(name)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The rows, as an Arrow stream; they come as they are, whatever schema is asked for."""
        return self._trace.stream(self.name)

    def __repr__(self) -> str:
        return f"<schedtrace.Table {self.name!r}>"


class Trace:
    """A trace on disk. It is read anew for each question, so that one that is being recorded grows."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = fspath(path)
        self._native = _native.Trace(self.path)

    @property
    def info(self) -> Info:
        """What is in the trace, and how complete it is: looks at no row."""
        return Info.from_json(self._native.info())

    @property
    def tables(self) -> list[str]:
        """The names that `table` takes."""
        return [table.name for table in self.info.tables]

    def table(self, name: str) -> Table:
        """One of its tables, for pyarrow, polars, pandas or DuckDB. Raises ValueError if there is none of this name."""
        return Table(self._native, name)

    def report(self, *, by: GroupBy = "task", top: int = 20, include_recorder: bool = False) -> Report:
        """Why tasks waited for a CPU, who held it meanwhile, and what else the scheduler did.

        `by` is what a row is, `top` how many rows there are at most. Times end in `_ns`, shares in `_ratio`;
        `completeness` says what is known to be missing.
        """
        return Report.from_json(self._native.report(by, top, include_recorder))

    def __repr__(self) -> str:
        return f"<schedtrace.Trace {self.path!r}>"

    def _repr_html_(self) -> str:
        return self.info._repr_html_()


def open(path: str | PathLike[str]) -> Trace:
    """Opens a trace: the directory that `schedtrace record -o` wrote.

    Raises TraceError if it is none or is damaged, and OSError (FileNotFoundError, PermissionError) if it cannot be read.
    """
    return Trace(path)


class Recording:
    """A recording that goes on: `record` begins one, and `stop`, the end of a `with`, or its time end it."""

    def __init__(self, path: str, recorder: _native.Recorder) -> None:
        self.path, self._recorder = path, recorder
        self.events: int | None = None
        """How many events there were, once it has ended."""
        self.lost: int | None = None
        """How many of them are known to be lost, once it has ended."""

    @property
    def trace(self) -> Trace:
        """What was recorded so far, to the second; all of it once it has ended."""
        return Trace(self.path)

    def stop(self) -> Trace:
        """Ends it: everything until now is in the trace, and nothing of it is left in the kernel."""
        if self.events is None:
            summary = json.loads(self._recorder.stop())
            self.events, self.lost = summary["events"], summary["lost"]
        return self.trace

    def wait(self, at_most: float | timedelta | None = None) -> Trace:
        """Waits until its time is over, or for so many seconds, and ends it. Ctrl-C ends it too: what was recorded is kept,
        and KeyboardInterrupt is raised.
        """
        try:
            self._recorder.wait(_span(at_most))
        finally:
            self.stop()
        return self.trace

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "goes on" if self.events is None else f"{self.events} events, {self.lost} lost"
        return f"<schedtrace.Recording {self.path!r}: {state}>"


def _span(seconds: float | timedelta | None) -> timedelta | None:
    return timedelta(seconds=seconds) if isinstance(seconds, (int, float)) else seconds


def record(
    path: str | PathLike[str],
    duration: float | timedelta | None = None,
    *,
    pids: Iterable[int] = (),
    events: Iterable[str] = ("default",),
    ring_mb: int = 32,
    max_bytes: int | None = None,
) -> Recording:
    """Begins to record the running machine into a new trace, for `duration` seconds at most; of `pids` and what they start,
    or of all tasks. `events` are names of events and of groups, as `schedtrace record --events help` lists them:
    `events=("default", "irq", "futex")`; each has a table of its own. `ring_mb` is the memory between kernel and recorder, `max_bytes` what the trace may take on disk, of
    which the oldest part goes first.

    Needs CAP_BPF and CAP_PERFMON: raises PermissionError without. It records on threads of its own, while Python goes on:

        schedtrace.record("run.schedtrace", duration=5).wait()
    """
    if not hasattr(_native, "Recorder"):
        raise RuntimeError("this schedtrace was built without `live`: it only reads traces")
    path = fspath(path)
    recorder = _native.Recorder(path, _span(duration), list(pids), list(events), ring_mb << 20, max_bytes)
    return Recording(path, recorder)
