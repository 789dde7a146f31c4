"""Measures the MCP server on a recorded trace of ten million events, and its stream of live ones: mcp.py SERVER RECORDER RESULTS [ROUNDS [TRACE]]

Each question is asked of a server of its own, round by round: from its start to its answer. Then one server collects the running
machine while two tasks wake each other as fast as they can, for a client that subscribes to everything, three times, and never reads
it: its memory, how long it takes meanwhile to answer something else, and what it says was lost. Leaves mcp.json in RESULTS, of which
page.py makes rows.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ten_million import EVENTS, record

server, recorder, results = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), Path(sys.argv[3])
ROUNDS = int(sys.argv[4]) if len(sys.argv) > 4 else 5
STREAM_S = 20
STREAMS = ["events://stream", "events://stream?kind=sched_switch", "events://stream?kind=sched_waking"]
# What is asked with no more than a name; the rest follows from what was answered.
QUESTIONS = [
    ("open_trace", {}),
    ("get_scheduler_stats", {}),
    ("analyze", {}),
    ("analyze", {"from": "0s"}),
    ("query_off_cpu_events", None),
    ("resolve_causal_chain", None),
    ("get_timeline", {}),
    ("query_sql", {"sql": "select count(*), avg(dur) from sched_slice"}),
]


class Server:
    def __init__(self, *arguments):
        self.process = subprocess.Popen([server, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.asked = 0
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        self.answer("initialize", hello)
        self.send({"method": "notifications/initialized"})

    def send(self, message):
        self.process.stdin.write((json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode())
        self.process.stdin.flush()

    def answer(self, method, params):
        self.asked += 1
        self.send({"id": self.asked, "method": method, "params": params})
        while line := self.process.stdout.readline():
            message = json.loads(line)
            if message.get("id") == self.asked:
                assert "error" not in message, message
                return message["result"]
        sys.exit(f"{method}: the server ended with {self.process.wait()}")

    def call(self, tool, arguments):
        result = self.answer("tools/call", {"name": tool, "arguments": arguments})
        assert not result.get("isError"), result["content"][0]["text"]
        return result["structuredContent"]

    def rss(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return {name: int(line.split()[1]) * 1024 for line in status.splitlines() for name in ("VmRSS", "VmHWM") if line.startswith(name)}

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0


def from_start(trace, tool, arguments):
    began = time.monotonic()
    asked = Server("--trace", trace)
    told = asked.call(tool, arguments)
    wall = time.monotonic() - began
    peak = asked.rss()["VmHWM"]
    asked.end()
    return {"wall": wall, "peak": peak, "bytes": len(json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode())}, told


def ask(trace):
    """Each question, round by round; those about a process ask about the one that `analyze` names."""
    named = next(call for call in from_start(trace, "analyze", {})[1]["next"] if call["tool"] == "resolve_causal_chain")
    of_process = {
        "resolve_causal_chain": named["arguments"],
        "query_off_cpu_events": {"pid": named["arguments"]["target_pid"], "min_duration_ms": 0.1},
    }
    questions = [(tool, of_process[tool] if arguments is None else arguments) for tool, arguments in QUESTIONS]
    told = [{"tool": tool, "arguments": arguments, "rounds": []} for tool, arguments in questions]
    for _ in range(ROUNDS):
        for one in told:
            one["rounds"].append(from_start(trace, one["tool"], one["arguments"])[0])
    return told


def stream():
    """What a client costs that subscribes and does not read what comes."""
    live = Server("--collect")
    for uri in STREAMS:
        live.answer("resources/subscribe", {"uri": uri})
    before, delays, peak = live.rss()["VmRSS"], [], 0
    load = subprocess.Popen(["perf", "bench", "sched", "pipe", "-l", "100000000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began = time.monotonic()
    try:
        while time.monotonic() < began + STREAM_S:
            asked = time.monotonic()
            live.call("get_topology", {})
            delays.append(time.monotonic() - asked)
            peak = max(peak, live.rss()["VmRSS"])
            time.sleep(0.25)
    finally:
        load.kill()
        load.wait()
    seconds = time.monotonic() - began
    told = live.call("get_scheduler_stats", {})
    lines = live.answer("resources/read", {"uri": STREAMS[0]})["contents"][0]["text"].splitlines()
    end = json.loads(lines[-1])
    live.end()
    return {"seconds": seconds, "before": before, "peak": peak, "delays": delays, "events": end["seq"], "end": end,
            "completeness": told["completeness"]}


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        trace = Path(sys.argv[5]).resolve() if len(sys.argv) > 5 else record(recorder, Path(folder))
        # It lies on the disk, and in memory, before the first question.
        events = from_start(trace, "open_trace", {})[1]["completeness"]["events"]
        if events < EVENTS:
            sys.exit(f"{trace} has {events:,} events and not {EVENTS:,}: nothing is measured of it")
        told = {"events": events, "questions": ask(trace)}
    told["stream"] = stream()
    results.mkdir(parents=True, exist_ok=True)
    (results / "mcp.json").write_text(json.dumps(told, indent=1))
    for one in told["questions"]:
        walls = [row["wall"] for row in one["rounds"]]
        print(f"{statistics.median(walls):.3f} s, {one['rounds'][0]['bytes']:6} bytes  {one['tool']} {json.dumps(one['arguments'])}")
    print({key: value for key, value in told["stream"].items() if key != "delays"}, max(told["stream"]["delays"]))


main()
