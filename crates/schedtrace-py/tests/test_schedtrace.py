"""Tests the installed module on a trace: `python test_schedtrace.py TRACE`. Ends with "N passed, N failed"."""

import json
import sys
import tempfile
import traceback
from pathlib import Path

import schedtrace

TRACE = sys.argv[1]


def test_version():
    assert schedtrace.__version__.count(".") == 2, schedtrace.__version__


def test_info_says_what_is_in_the_trace():
    info = schedtrace.open(TRACE).info()
    assert info["window"]["until_ns"] - info["window"]["from_ns"] == info["window"]["duration_ns"]
    rows = {table["name"]: table["rows"] for table in info["tables"]}
    assert rows["sched_switch"] > 0, rows


def test_paths_are_taken_as_they_come():
    assert schedtrace.open(Path(TRACE)).info() == schedtrace.open(TRACE).info()


def test_report_is_made_of_plain_values():
    report = schedtrace.open(TRACE).report()
    assert json.loads(json.dumps(report)) == report
    assert report["window"]["duration_ns"] > 0
    assert report["events"]["sched_switch"] > 0


def test_report_by_every_group():
    trace = schedtrace.open(TRACE)
    for by in ["task", "process", "cgroup", "cpu", "llc"]:
        assert trace.report(by=by, top=1)["window"] == trace.report()["window"]


def test_a_trace_is_read_as_often_as_one_likes():
    trace = schedtrace.open(TRACE)
    assert trace.report() == trace.report()


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
