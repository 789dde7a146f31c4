"""The cases: 25 stories of somebody who is slow, drawn anew for each run.

Each has a culprit - or none, where time is lost to nobody - and a decoy that uses more of the CPUs than the culprit does.
"""

import os
import random
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

from workload import (
    FileLock,
    Pipe,
    Role,
    Scene,
    Semaphore,
    Socket,
    burn,
    file_on_disk,
    forever,
    ms,
    read_blocks,
    spin,
    write_blocks,
)


@dataclass(frozen=True)
class Truth:
    """Whose doing it is: a role; or nobody's, and how the time was spent instead."""

    role: str | None
    mechanisms: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[["Stage"], tuple[dict[str, Role], Truth]]


@dataclass
class Stage:
    """What a case is drawn from, and two CPUs: the one where the subject runs, and another."""

    draw: random.Random
    here: set[int]
    there: set[int]
    scene: Scene

    def between(self, least: float, most: float) -> float:
        return self.draw.uniform(least, most)


# Weights: that of who is in the way, and of who is to have the CPU whenever it wants it.
HEAVY = -10
FIRST = -20


def by(role: str) -> Truth:
    return Truth(role)


def by_nobody(*mechanisms: str) -> Truth:
    return Truth(None, frozenset(mechanisms))


def elsewhere(stage: Stage) -> Role:
    """A decoy that has the other CPU to itself."""
    return Role(spin, stage.there, nice=HEAVY)


def out_of_the_way(stage: Stage) -> Role:
    """A decoy that has the subject's CPU whenever nobody else wants it."""
    return Role(spin, stage.here, policy=os.SCHED_IDLE)


def pauses(work: Callable[[], object], pause: float) -> Callable[[], object]:
    def body() -> None:
        work()
        time.sleep(pause)

    return forever(body)


def wants_the_cpu(stage: Stage, nice: int = 0) -> Role:
    """Somebody who has to run every few milliseconds."""
    work = ms(stage.between(1, 3))
    return Role(pauses(lambda: burn(work), ms(1)), stage.here, nice=nice)


# Who had the CPU.


def hog_of_the_same_weight(stage: Stage):
    return {"subject": wants_the_cpu(stage), "hog": Role(spin, stage.here), "decoy": elsewhere(stage)}, by("hog")


def hog_in_bursts(stage: Stage):
    work, pause = ms(stage.between(12, 25)), ms(stage.between(3, 5))
    hog = Role(pauses(lambda: burn(work), pause), stage.here, nice=HEAVY)
    return {"subject": wants_the_cpu(stage), "hog": hog, "decoy": elsewhere(stage)}, by("hog")


def hog_beside_a_lesser_one(stage: Stage):
    hog, lesser = Role(spin, stage.here, nice=-5), Role(spin, stage.here, nice=5)
    return {"subject": wants_the_cpu(stage), "hog": hog, "lesser": lesser, "decoy": elsewhere(stage)}, by("hog")


def little_weight(stage: Stage):
    subject = wants_the_cpu(stage, nice=stage.draw.randint(8, 12))
    return {"subject": subject, "hog": Role(spin, stage.here, nice=-3), "decoy": elsewhere(stage)}, by("hog")


def confined_beside_half_a_hog(stage: Stage):
    work = ms(stage.between(8, 14))
    hog = Role(pauses(lambda: burn(work), work), stage.here, nice=HEAVY)
    return {"subject": wants_the_cpu(stage), "hog": hog, "decoy": elsewhere(stage)}, by("hog")


def hog_that_roams(stage: Stage):
    here_s, there_s = ms(stage.between(15, 25)), ms(stage.between(3, 8))

    def roam() -> None:
        for cpus, long in ((stage.here, here_s), (stage.there, there_s)):
            os.sched_setaffinity(0, cpus)
            burn(long)

    hog = Role(forever(roam), stage.here, nice=HEAVY)
    return {"subject": wants_the_cpu(stage), "hog": hog, "decoy": elsewhere(stage)}, by("hog")


def real_time(policy: int):
    def make(stage: Stage):
        work, pause = ms(stage.between(5, 9)), ms(stage.between(5, 9))
        urgent = Role(pauses(lambda: burn(work), pause), stage.here, policy=policy, priority=stage.draw.randint(1, 50))
        return {"subject": wants_the_cpu(stage), "urgent": urgent, "decoy": elsewhere(stage)}, by("urgent")

    return make


# Who had the lock.


def waits_for(lock, stage: Stage, nice: int = FIRST) -> Role:
    def body() -> None:
        with lock.held():
            pass
        time.sleep(ms(0.2))

    return Role(forever(body), stage.here, nice=nice)


def holds(lock, stage: Stage, meanwhile: Callable[[], object]) -> Role:
    def body() -> None:
        with lock.held():
            meanwhile()
        time.sleep(ms(0.4))

    return Role(forever(body), stage.there)


def lock_of_one_who(works: bool, kind: type):
    def make(stage: Stage):
        lock, long = kind(), ms(stage.between(4, 9))
        holder = holds(lock, stage, (lambda: burn(long)) if works else (lambda: time.sleep(long)))
        return {"subject": waits_for(lock, stage), "holder": holder, "decoy": out_of_the_way(stage)}, by("holder")

    return make


def lock_of_one_without_a_cpu(stage: Stage):
    lock, long, burst = Semaphore(), ms(stage.between(2, 4)), ms(stage.between(15, 25))
    return {
        "subject": waits_for(lock, stage),
        "holder": holds(lock, stage, lambda: burn(long)),
        "hog": Role(pauses(lambda: burn(burst), ms(4)), stage.there, nice=HEAVY),
        "decoy": Role(spin, stage.here, nice=HEAVY),
    }, by("hog")


# Who had to answer.


def asks(ask, answered, stage: Stage) -> Role:
    def body() -> None:
        ask.send()
        answered.wait()
        burn(ms(0.1))

    return Role(forever(body), stage.here, nice=FIRST)


def answers(ask, answered, cpus: set[int], first: Callable[[], object], nice: int = 0) -> Role:
    def body() -> None:
        ask.wait()
        first()
        answered.send()

    return Role(forever(body), cpus, nice=nice)


def peer_that(works: bool, channel: type):
    def make(stage: Stage):
        ask, answered, long = channel(), channel(), ms(stage.between(3, 7))
        first = (lambda: burn(long)) if works else (lambda: time.sleep(long))
        peer = answers(ask, answered, stage.there, first)
        return {"subject": asks(ask, answered, stage), "peer": peer, "decoy": out_of_the_way(stage)}, by("peer")

    return make


def peer_without_a_cpu(stage: Stage):
    ask, answered, burst = Pipe(), Pipe(), ms(stage.between(15, 25))
    return {
        "subject": asks(ask, answered, stage),
        "peer": answers(ask, answered, stage.there, lambda: burn(ms(0.3))),
        "hog": Role(pauses(lambda: burn(burst), ms(4)), stage.there, nice=HEAVY),
        "decoy": Role(spin, stage.here, nice=HEAVY),
    }, by("hog")


def reader_that_is_behind(stage: Stage):
    pipe, long = Pipe(), ms(stage.between(1.5, 3))
    chunk = b"x" * (32 << 10)

    def read() -> None:
        os.read(pipe.reads, 4096)
        burn(long)

    return {
        "subject": Role(forever(lambda: os.write(pipe.writes, chunk)), stage.here, nice=FIRST),
        "reader": Role(forever(read), stage.there),
        "decoy": out_of_the_way(stage),
    }, by("reader")


def two_hops(last: str):
    """The subject asks a relay, and the relay asks another one, which works, sleeps, or is kept from its CPU."""

    def make(stage: Stage):
        ask, on, back, answered = Pipe(), Pipe(), Pipe(), Pipe()
        long, burst = ms(stage.between(3, 7)), ms(stage.between(15, 25))

        def relay() -> None:
            ask.wait()
            on.send()
            back.wait()
            answered.send()

        starved = last == "starved"
        first = {"works": lambda: burn(long), "sleeps": lambda: time.sleep(long), "starved": lambda: burn(ms(0.3))}
        roles = {
            "subject": asks(ask, answered, stage),
            "relay": Role(forever(relay), stage.here if starved else stage.there, nice=FIRST),
            "last": answers(on, back, stage.there, first[last]),
            "decoy": Role(spin, stage.here, nice=HEAVY) if starved else out_of_the_way(stage),
        }
        if starved:
            roles["hog"] = Role(pauses(lambda: burn(burst), ms(4)), stage.there, nice=HEAVY)
        return roles, by("hog" if starved else "last")

    return make


# Nobody's doing.


def throttled(runs_ms: tuple[int, int], period_ms: int):
    def make(stage: Stage):
        subject = Role(spin, stage.here, quota=(stage.draw.randint(*runs_ms), period_ms))
        return {"subject": subject, "decoy": Role(spin, stage.here)}, by_nobody("throttled")

    return make


def timer(wait: Callable[[float], object]):
    def make(stage: Stage):
        pause = ms(stage.between(3, 9))

        def body() -> None:
            wait(pause)
            burn(ms(0.3))

        subject = Role(forever(body), stage.here, nice=FIRST)
        decoys = {"decoy": out_of_the_way(stage), "other": elsewhere(stage)}
        return {"subject": subject, **decoys}, by_nobody("sleep")

    return make


def poll(seconds: float) -> None:
    select.poll().poll(seconds * 1000)


def disk(of: Callable[[str], Callable[[], object]]):
    def make(stage: Stage):
        path = stage.scene.closing.enter_context(file_on_disk())
        subject = Role(of(path), stage.here, nice=FIRST)
        return {"subject": subject, "decoy": out_of_the_way(stage)}, by_nobody("io")

    return make


CASES = [
    Case("a hog of the same weight", hog_of_the_same_weight),
    Case("a hog in bursts", hog_in_bursts),
    Case("a hog beside a lesser one", hog_beside_a_lesser_one),
    Case("a subject of little weight", little_weight),
    Case("confined beside half a hog", confined_beside_half_a_hog),
    Case("a hog that roams", hog_that_roams),
    Case("a real-time task, first in first out", real_time(os.SCHED_FIFO)),
    Case("a real-time task, round robin", real_time(os.SCHED_RR)),
    Case("a lock in memory whose holder works", lock_of_one_who(works=True, kind=Semaphore)),
    Case("a lock in memory whose holder sleeps", lock_of_one_who(works=False, kind=Semaphore)),
    Case("a file lock whose holder works", lock_of_one_who(works=True, kind=FileLock)),
    Case("a lock whose holder gets no CPU", lock_of_one_without_a_cpu),
    Case("a peer on a pipe that works", peer_that(works=True, channel=Pipe)),
    Case("a peer on a socket that sleeps", peer_that(works=False, channel=Socket)),
    Case("a peer that gets no CPU", peer_without_a_cpu),
    Case("a reader that is behind", reader_that_is_behind),
    Case("two hops, the last one works", two_hops("works")),
    Case("two hops, the last one sleeps", two_hops("sleeps")),
    Case("two hops, the last one gets no CPU", two_hops("starved")),
    Case("a quota of a long period", throttled((15, 30), 100)),
    Case("a quota of a short period", throttled((3, 6), 20)),
    Case("a timer", timer(time.sleep)),
    Case("a poll that times out", timer(poll)),
    Case("reads from a disk", disk(read_blocks)),
    Case("writes to a disk", disk(write_blocks)),
]
