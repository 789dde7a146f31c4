"""Tests the installed module on a trace: `python test_schedtrace.py TRACE`. Ends with "N passed, N failed"."""

import dataclasses
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import schedtrace

TRACE = sys.argv[1]


def test_version():
    assert schedtrace.__version__.count(".") == 2, schedtrace.__version__


def test_info_says_what_is_in_the_trace():
    info = schedtrace.open(TRACE).info
    assert info.window.until_ns - info.window.from_ns == info.window.duration_ns
    rows = {table.name: table.rows for table in info.tables}
    assert rows["sched_switch"] > 0, rows
    assert info.to_dict()["host"]["kernel"] == info.host.kernel
    assert info.host.kernel in repr(info) and info.host.kernel in info._repr_html_()


def test_paths_are_taken_as_they_come():
    assert schedtrace.open(Path(TRACE)).info == schedtrace.open(TRACE).info


def typed_as_plain(typed, plain, path=""):
    """What a typed object says is what the JSON says, and nothing of the JSON is missing."""
    if dataclasses.is_dataclass(typed):
        told = {field.name for field in dataclasses.fields(typed)}
        assert told >= set(plain), (path, set(plain) - told)
        for name in told:
            typed_as_plain(getattr(typed, name), plain.get(name), f"{path}.{name}")
    elif isinstance(typed, list):
        assert len(typed) == len(plain), path
        for at, (a, b) in enumerate(zip(typed, plain)):
            typed_as_plain(a, b, f"{path}[{at}]")
    else:
        assert typed == plain, (path, typed, plain)


def test_a_report_is_typed_and_says_what_the_json_says():
    for by in ["task", "process", "cgroup", "cpu", "llc"]:
        report = schedtrace.open(TRACE).report(by=by, top=100)
        plain = report.to_dict()
        assert json.loads(json.dumps(plain)) == plain
        typed_as_plain(report, plain)
        assert report.window.duration_ns > 0 and report.events["sched_switch"] > 0
        assert "waits took up to" in repr(report)


def test_a_report_is_shown_with_its_names_as_text():
    trace = schedtrace.open(TRACE)
    # Of a table that was cut, what is not in it is not nothing.
    few = trace.report(top=2)
    assert few.run_queue.groups[0].group not in {row.group for row in few.cpu_time.groups}
    assert "≤" in few._repr_html_()
    assert "≤" not in trace.report(top=1000)._repr_html_()
    shown = trace.report()._repr_html_()
    assert "Why tasks waited for a CPU" in shown and "rcu_preempt[18]" in shown, shown
    from schedtrace import reports

    assert "<script>" not in reports._table("a", ["b"], [["<script>"]])


def test_a_trace_is_read_as_often_as_one_likes():
    trace = schedtrace.open(TRACE)
    assert trace.report() == trace.report()


def test_tables_go_to_pyarrow_polars_and_pandas():
    import polars
    import pyarrow

    trace = schedtrace.open(TRACE)
    rows = {table.name: table.rows for table in trace.info.tables}
    assert trace.tables == list(rows)
    for name, count in rows.items():
        table = pyarrow.table(trace.table(name))
        assert table.num_rows == count, (name, table.num_rows, count)
        files = sorted((Path(TRACE) / "events" / name).glob("*.parquet")) or sorted((Path(TRACE) / name).glob("*.parquet"))
        import pyarrow.parquet

        on_disk = pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files])
        assert table.equals(on_disk.cast(table.schema)), name
        frame = polars.DataFrame(trace.table(name))
        assert frame.shape == table.shape, name
        assert frame.to_pandas().shape == table.shape, name
    told = raised(ValueError, lambda: trace.table("nonsense"))
    assert "sched_switch" in told, told


def test_recording():
    folder = tempfile.mkdtemp()
    path = f"{folder}/run.schedtrace"
    if os.geteuid() != 0:
        told = raised(PermissionError, lambda: schedtrace.record(path))
        assert "CAP_BPF" in told, told
        return
    ticks = 0
    with schedtrace.record(path) as recording:
        # Python goes on meanwhile.
        for _ in range(20):
            time.sleep(0.01)
            ticks += 1
    assert ticks == 20 and recording.events > 20, recording
    trace = recording.trace
    assert trace.info.state == "finished"
    assert sum(trace.report().events.values()) == recording.events
    raised(ValueError, lambda: schedtrace.record(path))

    raised(ValueError, lambda: schedtrace.record(f"{folder}/odd.schedtrace", events=["dream"]))
    timed = schedtrace.record(f"{folder}/timed.schedtrace", duration=0.3, events=["default", "softirq"])
    assert timed.wait().info.state == "finished"
    assert any(table.name == "softirq_entry" and table.rows > 0 for table in timed.trace.info.tables)
    assert "events" in repr(timed)

    # Ctrl-C ends the wait; what was recorded is kept. A shell that starts us in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted = schedtrace.record(f"{folder}/interrupted.schedtrace")
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    raised(KeyboardInterrupt, interrupted.wait)
    assert interrupted.trace.info.state == "finished" and interrupted.events > 0

    # One that nobody stopped ends with its object.
    dropped = schedtrace.record(f"{folder}/dropped.schedtrace")
    del dropped
    assert schedtrace.open(f"{folder}/dropped.schedtrace").info.state == "finished"


def raised(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def test_a_missing_trace_is_an_error_that_names_it():
    told = raised((FileNotFoundError, schedtrace.TraceError), lambda: schedtrace.open("/no/such.schedtrace"))
    assert "/no/such.schedtrace" in told, told


def test_what_is_no_trace_is_an_error_that_names_it():
    with tempfile.TemporaryDirectory() as folder:
        assert folder in raised(schedtrace.TraceError, lambda: schedtrace.open(folder))


def test_an_unknown_group_is_an_error_that_lists_them():
    told = raised(ValueError, lambda: schedtrace.open(TRACE).report(by="colour"))
    assert "colour" in told and "process" in told, told


def test_a_negative_top_is_refused():
    raised((OverflowError, ValueError), lambda: schedtrace.open(TRACE).report(top=-1))


passed = failed = 0
for name, test in sorted(globals().items()):
    if name.startswith("test_"):
        try:
            test()
            passed += 1
        except Exception:
            failed += 1
            print(f"FAILED: {name}")
            traceback.print_exc(file=sys.stdout)
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
