"""Reads an exported Perfetto trace with Perfetto's own schema, does with it what Perfetto does - who had which CPU when,
who waited - and compares that with the same trace's CSV and with the report: test-perfetto.py SCHEDTRACE TRACE [WRITTEN]

WRITTEN is what `record --perfetto` wrote of it meanwhile, to be read in the place of an export."""

import csv
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

BOOTTIME, MONOTONIC, REALTIME = 6, 3, 1
IRQ = {0x08: "hardirq", 0x10: "softirq", 0x40: "nmi"}
COUNTERS = {"cpu_frequency", "cpu_idle", "sched_cpu_perf_set"}
ENDS = {"irq_handler_exit", "softirq_exit", "ipi_exit", "cpuhp_exit", "workqueue_execute_end", "mm_vmscan_direct_reclaim_end"}
LETTERS = {1: "S", 2: "D", 4: "T", 8: "t", 0x10: "X", 0x20: "Z", 0x40: "P", 0x80: "I"}


def letters(state, preempted_state):
    """The state that a switch left a task in; who was preempted is told as 0x100, whatever its state was."""
    return preempted_state if state & 0x100 else LETTERS.get(state, "R")


def read(path):
    """The events as (ts, cpu, kind, ...) in the order of time, and the rest of the packets by name."""
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    assert trace.packet, "no packets"
    assert all(packet.trusted_packet_sequence_id == 1 for packet in trace.packet)
    rest = defaultdict(list)
    raw = []
    lost = Counter()
    kinds = Counter()
    for packet in trace.packet:
        kind = packet.WhichOneof("data")
        # What the schema does not know would be kept as unknown fields, and the data would have no kind.
        assert kind, f"not in the schema: {packet}"
        if kind != "ftrace_events":
            rest[kind].append(packet)
            continue
        bundle = packet.ftrace_events
        lost[bundle.cpu] += bundle.lost_events
        compact = bundle.compact_sched
        names = list(compact.intern_table)
        at = 0
        columns = [compact.switch_timestamp, compact.switch_prev_state, compact.switch_next_pid]
        columns += [compact.switch_next_prio, compact.switch_next_comm_index]
        assert len({len(column) for column in columns}) == 1
        for delta, state, tid, prio, comm in zip(*columns):
            at += delta
            raw.append((at, bundle.cpu, "switch", None, state, tid, prio, names[comm]))
        at = 0
        columns = [compact.waking_timestamp, compact.waking_pid, compact.waking_target_cpu]
        columns += [compact.waking_prio, compact.waking_comm_index, compact.waking_common_flags]
        assert len({len(column) for column in columns}) == 1
        for delta, tid, cpu, prio, comm, flags in zip(*columns):
            at += delta
            raw.append((at, bundle.cpu, "waking", None, tid, cpu, prio, names[comm], flags))
        for event in bundle.event:
            what = event.WhichOneof("event")
            assert what, f"not in the schema: {event}"
            kinds[what] += 1
            one = getattr(event, what)
            if what == "sched_switch":
                raw.append(
                    (event.timestamp, bundle.cpu, "switch", one.prev_pid, one.prev_state, one.next_pid, one.next_prio, one.next_comm)
                )
            elif what == "sched_wakeup_new":
                raw.append((event.timestamp, bundle.cpu, "new", event.pid, one.pid))
            elif what == "sched_waking":
                raw.append(
                    (event.timestamp, bundle.cpu, "waking", event.pid, one.pid, one.target_cpu, one.prio, one.comm, event.common_flags)
                )
    # What is compact says nothing of who left, or woke: that is who had the CPU.
    raw.sort(key=lambda event: (event[0], event[1]))
    current = {}
    events = []
    for event in raw:
        at, cpu, what, who, *rest_of_it = event
        if who is None:
            assert cpu in current, f"the first of CPU {cpu} has to be written in full"
            who = current[cpu]
        if what == "switch":
            current[cpu] = rest_of_it[1]
        events.append((at, cpu, what, who, *rest_of_it))
    return events, rest, lost, kinds


def read_csv(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows


def compare_events(events, rows, offset):
    ours = Counter()
    for row in rows:
        at, cpu = int(row["ts_ns"]) + offset, int(row["cpu"])
        if row["event"] == "sched_switch":
            state = 0x100 if row["state"].endswith("+") else {v: k for k, v in LETTERS.items()}.get(row["state"], 0)
            ours[(at, cpu, "switch", int(row["by_tid"]), state, int(row["tid"]), int(row["prio"]), row["comm"])] += 1
        elif row["event"] == "sched_waking":
            flags = {v: k for k, v in IRQ.items()}.get(row["context"], 0)
            ours[
                (at, cpu, "waking", int(row["by_tid"]), int(row["tid"]), int(row["from_cpu"]), int(row["prio"]), row["comm"], flags)
            ] += 1
    theirs = Counter(event for event in events if event[2] != "new")
    only_ours, only_theirs = ours - theirs, theirs - ours
    assert not only_ours and not only_theirs, (
        f"{sum(only_ours.values())} events in the CSV alone, {sum(only_theirs.values())} in Perfetto alone: "
        f"{list(only_ours)[:3]} {list(only_theirs)[:3]}"
    )
    return sum(ours.values())


def text(annotation):
    """An argument of a slice, as the CSV has it."""
    kind = annotation.WhichOneof("value")
    value = getattr(annotation, kind)
    if kind == "bool_value":
        return "true" if value else "false"
    return hex(value) if kind == "pointer_value" else str(value)


def compare_track_events(packets, tracks, rows, offset):
    """All that lasts, happens or is sampled beyond what everybody records: at its time, with its fields."""
    theirs, counters, ends = Counter(), Counter(), 0
    for packet in packets:
        event = packet.track_event
        track = tracks[event.track_uuid]
        if event.type == 4:
            counters[(packet.timestamp, track.name, event.counter_value)] += 1
        elif event.type == 2:
            ends += 1
        else:
            fields = tuple(f"{a.name}={text(a)}" for a in event.debug_annotations if a.name != "task")
            theirs[(packet.timestamp, fields)] += 1
    ours, samples, lasting = Counter(), Counter(), 0
    for row in rows:
        if not row["details"] and row["event"] not in ("sched_process_hang",):
            continue
        at, name = int(row["ts_ns"]) + offset, row["event"]
        fields = dict(field.split("=", 1) for field in row["details"].split(" "))
        if name in COUNTERS or list(fields) == ["metric", "value"]:
            what, value = list(fields.values())
            samples[(at, f"{name} {what}" if "metric" in fields else f"{name} CPU {what}", int(value))] += 1
            continue
        span = fields.get("duration_ns") or fields.get("latency_ns")
        lasting += span is not None
        if name in ENDS:
            lasting += 1
            continue
        ours[(at - int(span or 0), tuple(row["details"].split(" ")))] += 1
    assert ours == theirs, f"{list(ours - theirs)[:3]} in the CSV alone, {list(theirs - ours)[:3]} in Perfetto alone"
    assert samples == counters, f"{list(samples - counters)[:3]} and {list(counters - samples)[:3]}"
    assert lasting == ends, f"{lasting} slices have to end, and {ends} do"
    return sum(ours.values()) + sum(samples.values()) + lasting


def states(events):
    """How long each thread had a CPU, how often, and its waits, as a reader of the events finds them."""
    ran, runs, waits = Counter(), Counter(), defaultdict(list)
    on, waiting, awake, held, tentative = {}, {}, set(), set(), set()
    for at, cpu, what, who, *rest in events:
        if what == "switch":
            state, next_tid = rest[0], rest[1]
            if cpu in on and on[cpu][0] == who:
                ran[who] += at - on[cpu][1]
                runs[who] += 1
            on[cpu] = (next_tid, at)
            if who:
                awake.discard(who)
                runnable = state == 0 or state & 0x100
                if runnable or who in held:
                    waiting[who] = at
                    # It was woken while it had the CPU still, and slept all the same: another waking tells whether it
                    # waits since now.
                    (tentative.discard if runnable else tentative.add)(who)
                held.discard(who)
            if next_tid:
                if next_tid in waiting:
                    waits[next_tid].append(at - waiting.pop(next_tid))
                awake.add(next_tid)
        else:
            tid = rest[0]
            if tid in awake:
                held.add(tid)
            elif tid not in waiting or tid in tentative:
                waiting[tid] = at
                tentative.discard(tid)
    return ran, runs, waits


def main():
    schedtrace, trace, *written = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        files = {to: Path(folder) / f"run.{to}" for to in ("perfetto", "csv")}
        for to, path in files.items():
            subprocess.run([schedtrace, "export", trace, "--to", to, "-o", path], check=True)
        perfetto = Path(written[0]) if written else files["perfetto"]
        events, rest, lost, kinds = read(perfetto)
        rows = read_csv(files["csv"])
        size = perfetto.stat().st_size
    meta = json.loads((Path(trace) / "meta.json").read_text())["meta"]
    run = lambda *args: json.loads(subprocess.run([schedtrace, *args, "--json"], check=True, stdout=subprocess.PIPE).stdout)
    info = run("info", trace)
    report = run("report", trace, "--by", "task", "--top", "1000000", "--include-recorder")

    first = meta["clocks"][0]
    offset = first["boottime_ns"] - first["monotonic_ns"]
    compared = compare_events(events, rows, offset)

    # All other kinds are there as often as in the trace.
    counts = report["events"]
    names = {"sched_wakeup_new", "sched_migrate_task", "sched_process_fork", "sched_process_exec", "sched_process_exit"}
    names |= {"sched_process_free", "task_rename"}
    for name in names:
        assert kinds[name] == counts.get(name, 0), f"{name}: {kinds[name]} of {counts.get(name)}"
    assert kinds["task_newtask"] == counts.get("sched_process_fork", 0)

    # Clocks, topology and names.
    clocks = [{c.clock_id: c.timestamp for c in packet.clock_snapshot.clocks} for packet in rest["clock_snapshot"]]
    assert clocks[0] == {
        BOOTTIME: first["boottime_ns"],
        MONOTONIC: first["monotonic_ns"],
        REALTIME: first["realtime_ns"],
    }
    assert len(clocks) == min(len(meta["clocks"]), 2)
    (system,), (cpus,) = rest["system_info"], rest["cpu_info"]
    assert system.system_info.utsname.release == meta["host"]["kernel"]
    for cpu in meta["topology"]["cpus"]:
        name = f"core {cpu['core']}, LLC {cpu['llc']}, node {cpu['node']}"
        assert cpus.cpu_info.cpus[cpu["cpu"]].processor == name
    announced = {thread.tid for packet in rest["process_tree"] for thread in packet.process_tree.threads}
    seen = {row["tid"] for row in rows} - {"0", ""}
    assert {int(tid) for tid in seen} <= announced, "every thread is announced"

    # Loss is told, on the CPUs and on a track.
    tracks = {p.track_descriptor.uuid: p.track_descriptor for p in rest["track_descriptor"]}
    told = Counter()
    is_ours = lambda packet: packet.track_event.categories[:1] in (["loss"], []) and (
        tracks[packet.track_event.track_uuid].name.startswith("lost ")
        or tracks[packet.track_event.track_uuid].name.endswith(" waiting tasks")
    )
    others = [packet for packet in rest["track_event"] if not is_ours(packet)]
    more = compare_track_events(others, tracks, rows, offset)
    for packet in filter(is_ours, rest["track_event"]):
        event = packet.track_event
        track = tracks[event.track_uuid]
        if event.type == 1:
            assert track.name.startswith("lost "), track.name
            told[track.name] += int(event.name.split()[0])
        elif event.type == 4:
            assert track.name.endswith(" waiting tasks") and event.counter_value >= 0
    expected = Counter()
    for row in info["completeness"]["lost"]:
        if row["place"] != "late":
            expected[f"lost {row['kind'] or 'events'} ({row['place']})"] += row["count"]
    assert told == expected, f"{told} instead of {expected}"
    # The kinds that are recorded by default are in bundles.
    default = names | {"sched_switch", "sched_waking", "identity", None}
    in_bundles = any(row["kind"] in default for row in info["completeness"]["lost"] if row["place"] != "late")
    assert bool(sum(lost.values())) == in_bundles, f"bundles behind a loss: {lost}"
    depths = [p for p in rest["track_event"] if p.track_event.type == 4 and is_ours(p)]
    assert depths, "no run queue has a depth"

    if not expected:
        ran, runs, waits = states(events)
        mine = {row["group"]["tid"]: row for row in report["cpu_time"]["groups"] if row["group"]["kind"] == "task"}
        reused = Counter(row["group"].get("tid") for row in report["cpu_time"]["groups"])
        began = {cpu: min(e[0] for e in events if e[1] == cpu and e[2] == "switch") for cpu in {e[1] for e in events}}
        checked = 0
        for tid, row in mine.items():
            # What it ran before the first switch and after the last one, a reader of switches cannot know.
            if reused[tid] == 1 and tid and row["runs"] == runs[tid]:
                assert row["cpu_time_ns"] == ran[tid], f"{tid}: {row['cpu_time_ns']} instead of {ran[tid]}"
                checked += 1
        assert checked * 10 >= len(mine) * 8, f"{checked} of {len(mine)} threads ran as often"
        queues = {row["group"]["tid"]: row for row in report["run_queue"]["groups"] if row["group"]["kind"] == "task"}
        same = [tid for tid, row in queues.items() if row["wait"]["total_ns"] == sum(waits[tid])]
        assert len(same) * 10 >= len(queues) * 8, f"{len(same)} of {len(queues)} threads waited as long"
        print(f"  {checked} of {len(mine)} threads: the same runs and CPU time; {len(same)} of {len(queues)}: the same waits")
        assert began
    total = sum(counts.get(name, 0) for name in names | {"sched_switch", "sched_waking"})
    if more:
        print(f"  {more} slices, moments and samples of other events are the same")
    print(f"  {compared} switches and wakings are the same; {size} bytes, {size / total:.1f} per event")
    print("ok")


main()
