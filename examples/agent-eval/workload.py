"""Processes with known trouble: who is slow, whose doing it is, and somebody innocent who is busier.

A `Scene` has roles, each a process of its own with a name drawn at random. `Scene.start` makes them; they work until
`Scene.end`. Nothing in a name, an order or a number says which role it is.
"""

import contextlib
import fcntl
import mmap
import multiprocessing
import os
import random
import signal
import socket
import string
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# Whatever goes wrong, no role outlives this.
LIFETIME_S = 120
AUTOGROUP = Path("/proc/self/autogroup")
# Bytes that O_DIRECT reads at once, and of the file.
BLOCK = 64 << 10
FILE_BLOCKS = 512

Body = Callable[[], object]


def drawn_name(draw: random.Random) -> str:
    """A name as the kernel keeps it, of at most 15 bytes, that says nothing."""
    return "".join(draw.choices(string.ascii_lowercase, k=draw.randint(6, 12)))


def ms(n: float) -> float:
    return n / 1000


def burn(seconds: float) -> None:
    """Uses the CPU for so long, however long that takes."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def spin() -> None:
    while True:
        pass


def forever(work: Body) -> Body:
    def body() -> None:
        while True:
            work()

    return body


@dataclass
class Role:
    """One process: what it does, on which CPUs, and how much it matters to the kernel."""

    body: Body
    cpus: set[int]
    nice: int = 0
    policy: int | None = None
    priority: int = 0
    # Of its CPU quota: milliseconds to run of each period of so many.
    quota: tuple[int, int] | None = None


@dataclass
class Scene:
    """Roles by what they are in the story. `subject` is the one that is slow."""

    roles: dict[str, Role]
    pids: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    used_s: dict[str, float] = field(default_factory=dict)
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start(self, draw: random.Random) -> None:
        self.names = {role: drawn_name(draw) for role in self.roles}
        # The order of process ids says nothing either.
        order = sorted(self.roles)
        draw.shuffle(order)
        for role in order:
            self.pids[role] = become(self.roles[role], self.names[role])
        for role, of in self.roles.items():
            if of.quota:
                self.closing.enter_context(quota(self.names[role], self.pids[role], *of.quota))

    def end(self) -> None:
        # How much each used of the CPUs.
        self.used_s = {role: cpu_seconds(pid) for role, pid in self.pids.items()}
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
        for pid in self.pids.values():
            os.waitpid(pid, 0)
        self.closing.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def become(role: Role, name: str) -> int:
    """A process that plays it."""
    if pid := os.fork():
        return pid
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(LIFETIME_S)
        Path("/proc/self/comm").write_text(name)
        os.sched_setaffinity(0, role.cpus)
        if role.policy is None:
            os.setpriority(os.PRIO_PROCESS, 0, role.nice)
        else:
            os.sched_setscheduler(0, role.policy, os.sched_param(role.priority))
        role.body()
    finally:
        # Not what the parent does at its end.
        os._exit(1)


def outweigh_other_sessions() -> None:
    """What else the machine does, a build for instance, is not to be the answer: where sessions are scheduled as groups,
    this one gets eighty times the usual weight."""
    with contextlib.suppress(OSError):
        os.setsid()
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text("-20")


def cpu_controller() -> tuple[int, Path]:
    """Where cgroups with the CPU controller are: their version, and the root."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for _, at, kind, options, *_ in mounts:
        if kind == "cgroup" and "cpu" in options.split(","):
            return 1, Path(at)
    for _, at, kind, *_ in mounts:
        if kind == "cgroup2" and "cpu" in Path(at, "cgroup.controllers").read_text().split():
            return 2, Path(at)
    raise OSError("no hierarchy of cgroups with the CPU controller is mounted")


@contextlib.contextmanager
def quota(name: str, pid: int, runs_ms: int, period_ms: int):
    """A cgroup with this quota, and one process in it; it goes when the process has gone."""
    version, root = cpu_controller()
    group = root / name
    if version == 2:
        (root / "cgroup.subtree_control").write_text("+cpu")
    group.mkdir()
    try:
        # As long as it may run, it does.
        if version == 1:
            (group / "cpu.cfs_period_us").write_text(str(period_ms * 1000))
            (group / "cpu.cfs_quota_us").write_text(str(runs_ms * 1000))
            (group / "cpu.shares").write_text("200000")
        else:
            (group / "cpu.max").write_text(f"{runs_ms * 1000} {period_ms * 1000}")
            (group / "cpu.weight").write_text("10000")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.02)


class Pipe:
    """A byte that one process sends another."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()

    def send(self) -> None:
        os.write(self.writes, b"x")

    def wait(self) -> None:
        os.read(self.reads, 1)


class Socket:
    """The same through a pair of sockets."""

    def __init__(self) -> None:
        self.one, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def send(self) -> None:
        self.one.send(b"x")

    def wait(self) -> None:
        self.other.recv(1)


class FileLock:
    """A lock that the kernel keeps at a file."""

    def __init__(self) -> None:
        # It has no name, so nobody has to remove it.
        self.file = tempfile.TemporaryFile()

    @contextlib.contextmanager
    def held(self):
        # Each process opens it: what is inherited would be one owner.
        mine = self.__dict__.setdefault(os.getpid(), None) or os.open(f"/proc/self/fd/{self.file.fileno()}", os.O_RDWR)
        self.__dict__[os.getpid()] = mine
        fcntl.flock(mine, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(mine, fcntl.LOCK_UN)


class Semaphore:
    """A lock in memory that processes share: a futex."""

    def __init__(self) -> None:
        self.lock = multiprocessing.get_context("fork").Lock()

    @contextlib.contextmanager
    def held(self):
        with self.lock:
            yield


@contextlib.contextmanager
def file_on_disk():
    """A file that is read and written past the page cache; OSError where there is no such disk."""
    for folder in (tempfile.gettempdir(), "/var/tmp"):
        device = os.stat(folder).st_dev
        where = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        if not where.exists():
            continue
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            for _ in range(FILE_BLOCKS):
                file.write(os.urandom(BLOCK))
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(OSError):
                os.close(os.open(file.name, os.O_RDONLY | os.O_DIRECT))
                yield file.name
                return
    raise OSError("no file here is read from a disk of its own")


def read_blocks(path: str) -> Body:
    """Reads blocks of a file that do not follow each other."""

    def body() -> None:
        memory = mmap.mmap(-1, BLOCK)
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        at = 0
        while True:
            at = (at + 97) % FILE_BLOCKS
            os.preadv(file, [memory], at * BLOCK)

    return body


def write_blocks(path: str) -> Body:
    """Writes blocks of a file, each through to the disk."""

    def body() -> None:
        file = os.open(path, os.O_WRONLY)
        block = os.urandom(4096)
        at = 0
        while True:
            at = (at + 97) % FILE_BLOCKS
            os.pwrite(file, block, at * BLOCK)
            os.fdatasync(file)

    return body
