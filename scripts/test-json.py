"""Checks what the command prints with --json against its schema: test-json.py PROGRAM SCHEMA TRACE

As root, it records as well, loses events on purpose, and asks as nobody; then every property that the schema names must have
been seen. Ends with "N passed, N failed".
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jsonschema import Draft202012Validator

from checks import check, finish

NOBODY = 65534
# Switches and new processes, for some seconds.
STORM = """
touch "$0"
yes | head -c 4G >/dev/null &
i=0; while [ $i -lt 3000 ]; do /bin/true; i=$((i+1)); done
wait
"""
# Kinds of groups that no short recording is sure to have: more than 65,536 groups make the first, an identity that was lost
# while the task's events were not makes the second.
RARE = ("others", "unknown")
GROUPS = ("task", "process", "cgroup", "cpu", "llc")
# What these hold takes scx_layered, and a driver that changes frequencies; whether there is any is seen all the same.
OPTIONAL = ("layers", "frequency")
# A trace with every event that there is.
EVERY_EVENT = str(Path(__file__).parent.parent / "crates/schedtrace/tests/every-event/events.schedtrace")
# Writes to a disk, if the folder is on one.
WORK = """
dd if=/dev/zero of="$0" bs=64K count=64 conv=fsync 2>/dev/null
sync
"""

program, schema_file, trace = sys.argv[1:]
schema = json.loads(Path(schema_file).read_text())
Draft202012Validator.check_schema(schema)
seen = set()


def printed(*arguments, **how):
    run = subprocess.run([program, *arguments], stdout=subprocess.PIPE, **how)
    return json.loads(run.stdout)


def resolve(node):
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return node


def look(node, value):
    """Notes which properties of the schema this value has."""
    node = resolve(node)
    for choice in node.get("oneOf", []) + node.get("anyOf", []):
        if Draft202012Validator({**choice, "$defs": schema["$defs"]}).is_valid(value):
            look(choice, value)
    if isinstance(value, dict):
        for name, inner in node.get("properties", {}).items():
            if name in value:
                seen.add(id(inner))
                look(inner, value[name])
    if isinstance(value, list):
        for item in value:
            look(node.get("items", {}), item)


def properties(node, path, found):
    """Every property below a node of the schema, once, with a path to it."""
    node = resolve(node)
    for name, inner in node.get("properties", {}).items():
        if inner.get("const") in RARE:
            continue
        if id(inner) not in found:
            found[id(inner)] = f"{path}.{name}{inner.get('const', '') and '=' + inner['const']}"
            if name in OPTIONAL:
                continue
            properties(inner, f"{path}.{name}", found)
    for inner in node.get("oneOf", []) + node.get("anyOf", []) + [node[key] for key in ("items",) if key in node]:
        properties(inner, path, found)
    return found


def valid(what, name, value):
    definition = {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}
    errors = [f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(definition).iter_errors(value)]
    check(what, not errors, "; ".join(errors[:3]))
    look(definition, value)


def of_trace(what, folder):
    for by in GROUPS:
        valid(f"report by {by} of {what}", "report", printed("report", "--json", "--top", "1000", "--by", by, folder))
        named = printed("report", "--json", "--top", "1000", "--by", by, folder, "all")
        valid(f"all reports by {by} of {what}", "reports", named)
    valid(f"explain of {what}", "explain", printed("explain", "--json", folder))
    valid(f"diff of {what} and the fixture", "diff", printed("diff", "--json", folder, trace))
    for by in ("cpu", "task"):
        valid(f"timeline by {by} of {what}", "timeline", printed("timeline", "--json", "--by", by, folder))
    valid(f"info of {what}", "info", printed("info", "--json", folder))


with tempfile.TemporaryDirectory() as scratch:
    of_trace("the fixture", trace)
    of_trace("every event", EVERY_EVENT)
    valid("diff with itself", "diff", printed("diff", "--json", EVERY_EVENT, EVERY_EVENT))
    valid("doctor", "doctor", printed("doctor", "--json"))
    copy = shutil.copytree(trace, Path(scratch) / "copy.schedtrace")
    valid("repair", "repair", printed("repair", "--json", str(copy)))
    # A definition that no wrong answer fails would be worth nothing.
    spoilt = printed("report", "--json", trace)
    spoilt["window"]["duration"] = spoilt["window"].pop("duration_ns")
    definition = {"$ref": "#/$defs/report", "$defs": schema["$defs"]}
    check("a spoilt report is refused", not Draft202012Validator(definition).is_valid(spoilt))

    if os.geteuid() == 0:
        lossy, begun = (str(Path(scratch) / name) for name in ("lossy.schedtrace", "begun"))
        record = subprocess.Popen(
            [program, "record", "--user", "root", "--ring-mb", "1", "-o", lossy, "--", "sh", "-c", STORM, begun],
            stderr=subprocess.DEVNULL,
        )
        while not Path(begun).exists():
            assert record.poll() is None, "the recorder ended"
            time.sleep(0.01)
        # Its rings overflow meanwhile; those of the identities, too.
        record.send_signal(signal.SIGSTOP)
        time.sleep(3)
        record.send_signal(signal.SIGCONT)
        assert record.wait() == 0, "the recorder failed"
        of_trace("a recording", lossy)
        events, file = (str(Path(scratch) / name) for name in ("events.schedtrace", "file"))
        everything = ["--events", "all", "--calls", "0,1", "-o", events, "--", "sh", "-c", WORK, file]
        subprocess.run([program, "record", "--user", "root", *everything], stderr=subprocess.DEVNULL, check=True)
        of_trace("a recording of all events", events)
        # What fires at once is written, with what fired; and a folder of traces is told as one.
        flights = str(Path(scratch) / "flights")
        flight = ["--flight", "2s", "--trigger", "runqueue_latency > 1us", "--flight-dumps", "1", "-o", flights]
        subprocess.run([program, "record", "--user", "root", *flight, "-d", "2s"], stderr=subprocess.DEVNULL, check=True)
        dumps = sorted(Path(flights).iterdir())
        check("one trace of a flight", len(dumps) == 1, str(dumps))
        of_trace("a flight", str(dumps[0]))
        broken = Path(flights) / "none.schedtrace"
        broken.mkdir()
        (broken / "meta.json").write_text("{")
        valid("info of a folder", "folder", printed("info", "--json", flights))
        os.chmod(scratch, 0o755)
        asked = shutil.copy(program, Path(scratch) / "schedtrace")
        as_nobody = subprocess.run([asked, "doctor", "--json"], stdout=subprocess.PIPE, user=NOBODY, group=NOBODY)
        valid("doctor, as nobody", "doctor", json.loads(as_nobody.stdout))
        named = {}
        for name in ("report", "reports", "explain", "diff", "timeline", "info", "folder", "doctor", "repair"):
            properties(schema["$defs"][name], name, named)
        unseen = [path for inner, path in named.items() if inner not in seen]
        check(f"each of {len(named)} properties was seen", not unseen, ", ".join(unseen))

sys.exit(finish())
