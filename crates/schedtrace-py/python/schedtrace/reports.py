"""Reports as typed objects. Times end in `_ns`, shares in `_ratio`; docs/json.md says what each field is."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from html import escape
from typing import Any, TypeVar

T = TypeVar("T")


def _build(kind: Any, data: Any) -> Any:
    """Makes an object of a type of plain values; what a later version adds is left to `to_dict`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return [_build(arguments[0], item) for item in data]
    if origin is dict:
        return dict(data)
    if origin in (types.UnionType, typing.Union):
        return None if data is None else _build(arguments[0], data)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = (field for field in dataclasses.fields(kind) if not field.name.startswith("_"))
        return kind(**{field.name: _build(hints[field.name], data.get(field.name)) for field in fields})
    return data


def span(ns: int) -> str:
    """A time with a unit, to three digits: `17.4ms`."""
    if ns < 1_000:
        return f"{ns}ns"
    value, unit = (ns / 1e3, "us") if ns < 999_500 else (ns / 1e6, "ms") if ns < 999_500_000 else (ns / 1e9, "s")
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"


def _table(title: str, header: list[str], rows: list[list[str]]) -> str:
    """Names were chosen by the programs that were traced: nothing of them is markup."""
    head = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in header)
    cells = ("".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<p><b>{escape(title)}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class Window:
    from_ns: int
    until_ns: int
    duration_ns: int


@dataclass(frozen=True)
class Group:
    """What a row speaks of: a task, a process, a cgroup, a CPU or a last-level cache. What does not apply is None."""

    kind: str
    task: int | None
    tid: int | None
    pid: int | None
    comm: str | None
    id: int | None
    path: str | None
    cpu: int | None
    llc: int | None

    def __str__(self) -> str:
        match self.kind:
            case "task":
                return f"{self.comm}[{self.tid}]"
            case "process":
                return f"{self.comm}[{self.pid}]"
            case "cgroup":
                return self.path or f"<cgroup {self.id}>"
            case "cpu":
                return f"CPU {self.cpu}"
            case "llc":
                return f"LLC {'?' if self.llc is None else self.llc}"
        return f"<{self.kind}>"


@dataclass(frozen=True)
class Who:
    """One life of one thread."""

    task: int
    tid: int
    pid: int
    comm: str

    def __str__(self) -> str:
        return f"{self.comm}[{self.tid}]"


# What a row speaks of stands first in it, before what it has in common with the total.


@dataclass(frozen=True)
class _OfGroup:
    group: Group


@dataclass(frozen=True)
class _OfCpu:
    cpu: int


@dataclass(frozen=True)
class _OfCause:
    cause: str


@dataclass(frozen=True)
class Summary:
    """A distribution of times."""

    count: int
    min_ns: int
    mean_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    p99_9_ns: int
    p99_99_ns: int
    max_ns: int
    total_ns: int


@dataclass(frozen=True)
class WaitCounts:
    """Waits that are counted, but are no samples of the latency."""

    waits: int
    wait_ns: int
    longest_ns: int


@dataclass(frozen=True)
class RunQueueStats:
    wait: Summary
    censored: WaitCounts
    in_loss: WaitCounts
    migrated: int


@dataclass(frozen=True)
class CauseRow:
    cause: str
    wait: Summary


@dataclass(frozen=True)
class CauseCounts(WaitCounts, _OfCause):
    pass


@dataclass(frozen=True)
class RunQueueRow(RunQueueStats, _OfGroup):
    causes: list[CauseCounts]


@dataclass(frozen=True)
class HolderOfWait:
    who: Who | None
    held_ns: int


@dataclass(frozen=True)
class WorstWait:
    task: Who
    from_ns: int
    wait_ns: int
    censored: bool
    cpu: int
    migrated: bool
    cause: str
    by: Who | None
    by_interrupt: str | None
    held_by: list[HolderOfWait]


@dataclass(frozen=True)
class Bucket:
    """Waits of at least `from_ns`, and less than `until_ns`."""

    from_ns: int
    until_ns: int
    count: int


@dataclass(frozen=True)
class RunQueue:
    total: RunQueueStats
    histogram: list[Bucket]
    causes: list[CauseRow]
    groups: list[RunQueueRow]
    groups_total: int
    worst: list[WorstWait]


@dataclass(frozen=True)
class Holder:
    group: Group
    held_ns: int
    share_ratio: float


@dataclass(frozen=True)
class HeldBy:
    waits: int
    wait_ns: int
    holders: list[Holder]
    others_ns: int
    idle_ns: int
    idle_ratio: float
    unknown_ns: int
    unknown_ratio: float


@dataclass(frozen=True)
class HoldersRow(HeldBy, _OfGroup):
    pass


def _behind(held: HeldBy) -> list[tuple[float, str]]:
    """Who had the CPU during waits, and for which part of them, the largest first."""
    shares = [(holder.share_ratio, str(holder.group)) for holder in held.holders]
    others = held.others_ns / held.wait_ns if held.wait_ns else 0.0
    shares += [(others, "others"), (held.idle_ratio, "idle CPU"), (held.unknown_ratio, "unknown")]
    return sorted(shares, key=lambda share: -share[0])


@dataclass(frozen=True)
class Holders:
    total: HeldBy
    groups: list[HoldersRow]
    groups_total: int


@dataclass(frozen=True)
class CpuUse:
    busy_ns: int
    idle_ns: int
    unknown_ns: int
    in_loss_ns: int
    utilisation_ratio: float


@dataclass(frozen=True)
class CpuRow(CpuUse, _OfCpu):
    pass


@dataclass(frozen=True)
class CpuTimeRow:
    group: Group
    cpu_time_ns: int
    share_ratio: float
    runs: int
    longest_run_ns: int
    in_loss_ns: int


@dataclass(frozen=True)
class CpuTime:
    total: CpuUse
    recorder_ns: int
    cpus: list[CpuRow]
    groups: list[CpuTimeRow]
    groups_total: int


@dataclass(frozen=True)
class SwitchCounts:
    switches: int
    voluntary: int
    involuntary: int
    preempted_in_kernel: int


@dataclass(frozen=True)
class SwitchCpuRow(SwitchCounts, _OfCpu):
    from_idle: int


@dataclass(frozen=True)
class SwitchRow(SwitchCounts, _OfGroup):
    pass


@dataclass(frozen=True)
class Switches:
    total: SwitchCounts
    cpus: list[SwitchCpuRow]
    groups: list[SwitchRow]
    groups_total: int


@dataclass(frozen=True)
class WakeupCounts:
    wakeups: int
    while_runnable: int
    from_interrupt: int
    new_tasks: int


@dataclass(frozen=True)
class WakeupRow(WakeupCounts, _OfGroup):
    pass


@dataclass(frozen=True)
class WakeupPair:
    waker: dict[str, Any]
    wakee: Group
    wakeups: int


@dataclass(frozen=True)
class Wakeups:
    total: WakeupCounts
    groups: list[WakeupRow]
    groups_total: int
    pairs: list[WakeupPair]
    pairs_total: int


@dataclass(frozen=True)
class MigrationCounts:
    migrations: int
    at_wakeup: int
    core: int
    llc: int
    node: int
    cross_node: int
    unknown: int


@dataclass(frozen=True)
class MigrationRow(MigrationCounts, _OfGroup):
    pass


@dataclass(frozen=True)
class Migrations:
    total: MigrationCounts
    groups: list[MigrationRow]
    groups_total: int


@dataclass(frozen=True)
class Lost:
    """So many events are missing, and where they went."""

    place: str
    kind: str | None
    count: int


@dataclass(frozen=True)
class Completeness:
    """What is missing from a report."""

    lost: list[Lost]
    lost_total: int
    late: int
    filtered: bool
    recorder_left_out: bool
    censored_waits: int
    in_loss: int
    unseen_starts: int

    def __str__(self) -> str:
        if self.lost_total:
            return f"{self.lost_total} events are known to be missing: counts are too low"
        return "no event is known to be missing"


class _Plain:
    """What was made of JSON, and goes back to it."""

    _data: dict[str, Any]

    @classmethod
    def from_json(cls: type[T], text: str) -> T:
        data = json.loads(text)
        made: T = _build(cls, data)
        object.__setattr__(made, "_data", data)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Dicts, lists, strings and numbers, as `schedtrace report --json` prints them."""
        plain: dict[str, Any] = json.loads(json.dumps(self._data))
        return plain


@dataclass(frozen=True, repr=False)
class Report(_Plain):
    """Why tasks waited for a CPU, who held it meanwhile, and what else the scheduler did in one window."""

    window: Window
    by: str
    events: dict[str, int]
    completeness: Completeness
    run_queue: RunQueue
    holders: Holders
    cpu_time: CpuTime
    switches: Switches
    wakeups: Wakeups
    migrations: Migrations

    def _sentence(self) -> str:
        wait = self.run_queue.total.wait
        return (
            f"In {span(self.window.duration_ns)}, tasks waited for a CPU {wait.count:,} times, {span(wait.total_ns)} in all: "
            f"half of the waits took up to {span(wait.p50_ns)}, 99% up to {span(wait.p99_ns)}, the longest "
            f"{span(wait.max_ns)}; {self.completeness}."
        )

    def __repr__(self) -> str:
        return f"<schedtrace.Report by {self.by}: {self._sentence()}>"

    def _repr_html_(self) -> str:
        held = {row.group: row for row in self.holders.groups}
        used = {row.group: span(row.cpu_time_ns) for row in self.cpu_time.groups}
        # Those with most are listed: who is not has no more than the last of them.
        cut = self.cpu_time.groups_total > len(self.cpu_time.groups)
        others = f"≤\u00a0{span(self.cpu_time.groups[-1].cpu_time_ns)}" if cut and self.cpu_time.groups else span(0)
        rows = []
        for row in self.run_queue.groups:
            shares = _behind(held[row.group]) if row.group in held else []
            wait = row.wait
            figures = [span(ns) for ns in (wait.total_ns, wait.p50_ns, wait.p99_ns, wait.max_ns)]
            told = ", ".join(f"{who} {share:.0%}" for share, who in shares[:3] if share >= 0.005)
            rows.append([str(row.group), f"{wait.count:,}", *figures, used.get(row.group, others), told])
        header = [self.by, "waits", "waited", "p50", "p99", "longest", "CPU time", "behind"]
        waits = _table("Why tasks waited for a CPU", header, rows)
        cpus = [
            [str(row.cpu), f"{row.utilisation_ratio:.0%}", span(row.busy_ns), span(row.idle_ns)] for row in self.cpu_time.cpus
        ]
        cpus_table = _table("The CPUs", ["CPU", "busy", "busy time", "idle time"], cpus)
        return f"<p>{escape(self._sentence())}</p>{waits}{cpus_table}"


@dataclass(frozen=True)
class Host:
    hostname: str
    kernel: str
    machine: str


@dataclass(frozen=True)
class TableInfo:
    name: str
    rows: int
    bytes: int
    segments: int


@dataclass(frozen=True)
class Removed:
    """The oldest part, which went to keep to a limit."""

    segments: int
    rows: int
    until_ns: int


@dataclass(frozen=True)
class TraceCompleteness:
    events: int
    late: int
    lost: list[Lost]
    removed: Removed
    ends_at_last_commit: bool
    complete: bool


@dataclass(frozen=True, repr=False)
class Info(_Plain):
    """What is in a trace, and how complete it is."""

    path: str
    state: str
    host: Host
    window: Window
    tables: list[TableInfo]
    bytes: int
    completeness: TraceCompleteness

    def _sentence(self) -> str:
        complete = "nothing is known to be missing" if self.completeness.complete else "something is missing"
        host = f"{self.host.hostname} (Linux {self.host.kernel})"
        return f"{span(self.window.duration_ns)} of {host}, {self.state}: {self.completeness.events:,} events; {complete}"

    def __repr__(self) -> str:
        return f"<schedtrace.Info {self.path!r}: {self._sentence()}>"

    def _repr_html_(self) -> str:
        rows = [[table.name, f"{table.rows:,}", f"{table.bytes:,}"] for table in self.tables]
        return f"<p>{escape(self._sentence())}</p>{_table(self.path, ['table', 'rows', 'bytes'], rows)}"
