"""Treats the MCP server badly, and sees that it answers: test-hostile.py TRACE SERVER...

SERVER is the program with its arguments, without traces: it is given a folder with a copy of TRACE. Speaks plain lines to it,
so that it can say what no client says. As root and with --collect, it records a process with a hostile name as well. Needs
strace. Ends with "N passed, N failed".
"""

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from checks import check, finish

PATIENCE_S = 60
# An answer to more than is told by default, with its text twice (as text and as structure), escaped.
MOST_BYTES = 200_000
# What the server may need in all, with debug information or not.
MOST_RSS = 600 << 20

# The host of a trace that it was not given.
SECRET = "a-secret-host"

BEGUN = time.time()


def hello():
    told = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "hostile", "version": "1"}}
    return {"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": told}


class Server:
    """The server as a process; what it says is read at once, unless it is told not to listen."""

    def __init__(self, command, listen=True, before=()):
        self.process = subprocess.Popen(
            [*before, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        self.answers = queue.Queue()
        self.errors = []
        self.number = 0
        threading.Thread(target=self.read_errors, daemon=True).start()
        if listen:
            self.listen()
        self.say(hello())
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        if listen:
            self.answer("hello")

    def read_errors(self):
        for line in self.process.stderr:
            self.errors.append(line.decode(errors="replace"))

    def listen(self):
        def read():
            for line in self.process.stdout:
                self.answers.put(line)
            self.answers.put(None)

        threading.Thread(target=read, daemon=True).start()

    def say(self, message):
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def next_answer(self):
        line = self.answers.get(timeout=PATIENCE_S)
        if line is None:
            raise EOFError(f"the server ended: {self.process.wait()}, {self.errors[-3:]}")
        return json.loads(line)

    def answer(self, number):
        """The answer with this id; others, to what was asked before, are passed over."""
        while (message := self.next_answer()).get("id") != number:
            pass
        return message

    def ask(self, method, params=None):
        self.number += 1
        message = {"jsonrpc": "2.0", "id": self.number, "method": method}
        if params is not None:
            message["params"] = params
        self.say(message)
        return self.answer(self.number)

    def call(self, tool, arguments):
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def rss(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) << 10

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        """Goes away as clients do; the server's exit status."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            return self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None


def is_well(server, what):
    """It answers still."""
    try:
        found = server.ask("tools/list")
        check(f"{what}: it answers afterwards", found.get("result", {}).get("tools"), found)
    except (EOFError, OSError, queue.Empty) as why:
        check(f"{what}: it answers afterwards", False, repr(why))
        return False
    return True


def text_of(answer):
    if "error" in answer:
        return answer["error"]["message"]
    return "\n".join(block.get("text", "") for block in answer["result"].get("content", []))


def is_error(answer):
    return "error" in answer or bool(answer["result"].get("isError"))


def lines_that_are_no_messages():
    deep = b"[" * 200_000
    call = {"jsonrpc": "2.0", "id": 5, "method": "tools/call"}
    yield "words", b"how are you?"
    yield "nothing", b""
    yield "blanks", b"   \t  "
    yield "half a message", b'{"jsonrpc": "2.0", "id": 1, "method": "tools/'
    yield "bytes", bytes(range(256)).replace(b"\n", b"")
    yield "text that is not UTF-8", b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}'
    yield "half a surrogate", b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\\ud800","arguments":{}}}'
    yield "a zero byte", b'{"jsonrpc":"2.0","id":1,"method":"tools\\u0000/list"}'
    yield "brackets", deep
    yield "braces", b'{"a":' * 100_000
    yield "a deep argument", b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"analyze","arguments":{"by":' + deep + b"]" * 200_000 + b"}}}"
    yield "a number", b"17"
    yield "a text", b'"tools/list"'
    yield "a list", b"[]"
    yield "a batch", json.dumps([{"jsonrpc": "2.0", "id": n, "method": "ping"} for n in range(3)]).encode()
    yield "a method that is a number", json.dumps({"jsonrpc": "2.0", "id": 1, "method": 5}).encode()
    yield "no method", json.dumps({"jsonrpc": "2.0", "id": 1}).encode()
    yield "another protocol", json.dumps({"jsonrpc": "1.0", "id": 1, "method": "ping"}).encode()
    yield "an unknown method", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "shell/exec", "params": {"command": "id"}}).encode()
    yield "an id that is an object", json.dumps({"jsonrpc": "2.0", "id": {}, "method": "ping"}).encode()
    yield "no parameters", json.dumps(call).encode()
    yield "parameters that are a list", json.dumps({**call, "params": []}).encode()
    yield "a name that is a number", json.dumps({**call, "params": {"name": 5}}).encode()
    yield "arguments that are a text", json.dumps({**call, "params": {"name": "analyze", "arguments": "all"}}).encode()
    yield "an answer to nothing", json.dumps({"jsonrpc": "2.0", "id": 999, "result": {}}).encode()
    yield "an error to nothing", json.dumps({"jsonrpc": "2.0", "id": 999, "error": {"code": 1, "message": "x"}}).encode()
    yield "a second hello", json.dumps(hello()).encode()
    yield "a cancellation of nothing", json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 77}}).encode()
    yield "a line of 32 MiB", b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"analyze","arguments":{"by":"' + b"x" * (32 << 20) + b'"}}}'
    yield "a line of 32 MiB of nothing", b"x" * (32 << 20)


def try_malformed(command):
    server = Server(command)
    for what, line in lines_that_are_no_messages():
        try:
            server.say(line)
        except OSError as why:
            check(f"{what}: it can be said", False, why)
        if not is_well(server, what):
            server.end()
            server = Server(command)
    check("after all of that it has not grown", server.rss() < MOST_RSS, server.rss())
    check("and ends as it should", server.end() == 0)


def escapes(folder, outside):
    name = next(path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return [
        "..",
        "../..",
        "../" * 40 + "etc",
        "/",
        "/etc",
        "/etc/passwd",
        "/proc/self/root/etc",
        "/proc/self/fd/0",
        "/dev/stdin",
        str(outside),
        f"{name}/../../{outside.parent.name}/{outside.name}",
        "link",
        "link/" + outside.name,
        f"{name}\0",
        "\0",
        "~root",
        "$HOME",
        "file:///etc/passwd",
        "%2e%2e%2f",
        "x" * 100_000,
        "\u202e../etc",
    ]


def try_paths(server, tools, folder, outside):
    takes_text = [
        (tool["name"], argument)
        for tool in tools
        for argument in ("trace", "before", "after")
        if argument in tool["inputSchema"]["properties"]
    ]
    required = {tool["name"]: tool["inputSchema"].get("required", []) for tool in tools}
    fill = {"pid": 1, "target_pid": 1, "sql": "SELECT 1", "before": None, "after": None}
    for tool, argument in takes_text:
        told = set()
        for path in escapes(folder, outside):
            others = {name: fill.get(name, "1") for name in required[tool] if name != argument}
            others = {name: path if value is None else value for name, value in others.items()}
            answer = server.call(tool, {**others, argument: path})
            text = text_of(answer)
            check(f"{tool} {argument}={path[:40]!r} is refused", is_error(answer), text)
            check(f"{tool} {argument}={path[:40]!r} tells nothing of it", SECRET not in text, text)
            check(f"{tool} {argument}={path[:40]!r} is told briefly", len(text) <= 2_100, len(text))
            told.add(re.sub(r"\W", "", text.replace(path, "")))
    name = next(path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    for uri in (
        "schedtrace://trace/..%2f..%2fetc/latency",
        "schedtrace://trace/%2fetc/latency",
        f"schedtrace://trace/{name}%2f..%2f../latency",
        "schedtrace://trace/link/latency",
        "schedtrace://trace/%00/latency",
        f"schedtrace://trace/{name}/../../etc",
        f"schedtrace://trace/{name}/latency?top=99999999999999999999",
        f"schedtrace://trace/{name}/latency?trace=/etc",
        "file:///etc/passwd",
        "events://stream?where=%00%00",
        "x" * 100_000,
        "",
    ):
        answer = server.ask("resources/read", {"uri": uri})
        check(f"{uri[:60]!r} is refused", is_error(answer), answer)
    is_well(server, "paths")


def hostile_traces(folder, trace):
    """Traces from strangers: what they are, and their folders."""

    def make(name):
        shutil.copytree(trace, folder / name)
        return folder / name

    linked = make("linked.schedtrace")
    (linked / "meta.json").unlink()
    (linked / "meta.json").symlink_to("/etc/passwd")
    yield "a link for its metadata", linked
    linked = make("linked-table.schedtrace")
    shutil.rmtree(linked / "events/sched_switch")
    (linked / "events/sched_switch").symlink_to("/etc")
    yield "a link for a table", linked
    pipe = make("pipe.schedtrace")
    (pipe / "meta.json").unlink()
    os.mkfifo(pipe / "meta.json")
    yield "a pipe for its metadata", pipe
    for what, content in (
        ("no metadata", b""),
        ("metadata that is a bomb", b"[" * (1 << 20)),
        ("metadata of another format", b'{"schema": 99999999999999999999999}'),
        ("metadata without end", b'{"schema": 1, "writer": "' + b"x" * (64 << 20) + b'"}'),
    ):
        damaged = make(what.replace(" ", "-") + ".schedtrace")
        (damaged / "meta.json").write_bytes(content)
        yield what, damaged
    damaged = make("noise.schedtrace")
    for file in damaged.rglob("*.parquet"):
        file.write_bytes(os.urandom(4096))
    yield "noise for tables", damaged
    damaged = make("cut.schedtrace")
    for file in damaged.rglob("*.parquet"):
        os.truncate(file, file.stat().st_size // 2)
    yield "half of its tables", damaged


def try_traces(command, folder, trace):
    for what, path in hostile_traces(folder, trace):
        server = Server(command)
        for tool in ("open_trace", "get_scheduler_stats", "analyze"):
            answer = server.call(tool, {"trace": path.name})
            check(f"a trace with {what}: {tool} refuses it", is_error(answer), answer)
            check(f"a trace with {what}: {tool} says which", path.name in text_of(answer) and len(text_of(answer)) < 2_100, text_of(answer))
            check(f"a trace with {what}: {tool} tells nothing of what it leads to", "root:" not in text_of(answer), text_of(answer))
        answer = server.call("list_traces", {})
        check(f"a trace with {what}: the list is told", not is_error(answer), answer)
        is_well(server, f"a trace with {what}")
        check(f"a trace with {what} takes no memory", server.rss() < MOST_RSS, server.rss())
        server.end()
        shutil.rmtree(path)


def extremes(schema):
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return [0, -1, 1.5, 1e308, 2**31, 2**53, 2**63, 2**64, 10**40, "7", None, [], {}]
    if kind == "string":
        return ["", "x" * 1_000_000, "\x1b[2J", "\0", 5, None, [], "'; DROP TABLE x; --"]
    if kind == "array":
        return [[], [None], [[]], list(range(100_000)), ["x" * 100_000], "x", -1, [-1], [2**64]]
    return ["x", 5, [], {}, None]


def try_extremes(server, tools):
    fill = {"pid": 1, "target_pid": 1, "sql": "SELECT 1", "before": ".", "after": "."}
    for tool in tools:
        if not tool["annotations"]["readOnlyHint"]:
            continue
        schema = tool["inputSchema"]
        required = {name: fill.get(name, "1") for name in schema.get("required", [])}
        for name, of in schema["properties"].items():
            for value in extremes(of):
                answer = server.call(tool["name"], {**required, name: value})
                size = len(json.dumps(answer))
                short = repr(value)[:40]
                check(f"{tool['name']} {name}={short} is answered within bounds", size < MOST_BYTES, size)
                if "error" in answer:
                    check(f"{tool['name']} {name}={short} is an error of the tool", False, answer)
        answer = server.call(tool["name"], {**required, "x" * 100_000: 1})
        check(f"{tool['name']} takes nothing that it does not know", is_error(answer) and len(text_of(answer)) < 2_100, answer)
    is_well(server, "extremes")


SQL_THAT_IS_NOT_ASKING = [
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM \"/etc/passwd\"",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "COPY (SELECT 1) TO '/tmp/schedtrace-was-here.csv'",
    "INSERT INTO sched_switch SELECT * FROM sched_switch",
    "DROP TABLE sched_switch",
    "DELETE FROM sched_switch",
    "SET datafusion.execution.batch_size = 1",
    "SELECT 1; SELECT 2",
    "SELECT * FROM information_schema.df_settings; DROP TABLE x",
    "LOAD 'x'",
    "INSTALL httpfs",
    "PRAGMA database_list",
    "ATTACH '/etc/passwd' AS x",
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "SELECT " + " + ".join(["1"] * 50_000),
    "SELECT * FROM " + ", ".join(f"sched_switch AS t{n}" for n in range(200)),
    "\0",
    "SELECT '",
    "",
]
# These are allowed, and would take for ever, or all memory: they are ended.
SQL_WITHOUT_END = [
    "SELECT count(*) FROM sched_switch a, sched_switch b, sched_switch c, sched_switch d, sched_switch e",
    "SELECT repeat('x', 1000000000)",
    "SELECT * FROM generate_series(1, 1000000000000)",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
]


def try_sql(server, tools):
    if not any(tool["name"] == "query_sql" for tool in tools):
        return
    for statement in SQL_THAT_IS_NOT_ASKING:
        answer = server.call("query_sql", {"sql": statement})
        check(f"{statement[:60]!r} is refused", is_error(answer) and "error" not in answer, answer)
        check(f"{statement[:60]!r} reads no file", "root:" not in text_of(answer), text_of(answer))
    check("nothing was written", not Path("/tmp/schedtrace-was-here.csv").exists())
    for statement in SQL_WITHOUT_END:
        begun = time.monotonic()
        answer = server.call("query_sql", {"sql": statement})
        seconds = time.monotonic() - begun
        check(f"{statement[:60]!r} is answered in bounded room", len(json.dumps(answer)) < MOST_BYTES, len(json.dumps(answer)))
        # Hosts give up after a minute.
        check(f"{statement[:60]!r} ends", seconds < PATIENCE_S, seconds)
        check(f"{statement[:60]!r} takes no more memory than it may", server.rss() < 2 * MOST_RSS, server.rss())
    # Whoever asks for a late page waits for those before it, and they go as they come.
    some = "(SELECT ts_ns FROM sched_switch LIMIT 2000)"
    wide = f"SELECT a.ts_ns, repeat('x', 1000) AS wide FROM {some} a, {some} b"
    for cursor in ("400000", "1000000"):
        answer = server.call("query_sql", {"sql": wide, "cursor": cursor, "limit": 1000})
        told = answer.get("result", {}).get("structuredContent", {})
        check(f"a page at {cursor} is told, and the next one named", len(told.get("rows", ())) >= 1 and told["truncated"], text_of(answer)[:300])
        check(f"a page at {cursor} takes no more memory than it may", server.rss() < MOST_RSS, server.rss())
    is_well(server, "SQL")


def try_many(command):
    """A thousand calls at once, and a client that does not read for a while."""
    server = Server(command, listen=False)
    before = server.rss()
    calls = range(1000)
    asked = b"".join(
        json.dumps(
            {"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": "get_scheduler_stats", "arguments": {}}}
        ).encode()
        + b"\n"
        for n in calls
    )
    # The server may stop reading while nobody reads what it says: this must not wait for it.
    writer = threading.Thread(target=lambda: (server.process.stdin.write(asked), server.process.stdin.flush()), daemon=True)
    writer.start()
    time.sleep(5)
    grown = server.rss() - before
    check("nobody reads, and it does not grow without bound", grown < MOST_RSS, grown)
    time.sleep(3)
    used = server.cpu_s()
    time.sleep(1)
    print(f"nobody read for 9 s: the server grew by {grown >> 20} MiB, and used {server.cpu_s() - used:.2f} s of CPU in the last one")
    server.listen()
    answers = {}
    refused = 0
    while len(answers) < len(calls) + 1:
        try:
            message = server.next_answer()
        except (queue.Empty, EOFError) as why:
            check("all are answered", False, (len(answers), repr(why)))
            break
        check("each is answered once", message["id"] not in answers, message["id"])
        answers[message["id"]] = message
        if message["id"] != "hello" and is_error(message):
            refused += 1
            text = text_of(message)
            check("one that is refused says what to do", "again" in text or "fewer" in text, text)
    print(f"1,000 calls at once: {len(answers) - 1 - refused} answered, {refused} refused")
    check("all are answered", len(answers) == len(calls) + 1, len(answers))
    is_well(server, "1,000 calls at once")
    check("it has not grown without bound", server.rss() - before < MOST_RSS, server.rss())
    check("and ends as it should", server.end() == 0)


def try_closing(command):
    """Clients that vanish."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "analyze", "arguments": {}}}
    for what, close in (
        ("in the midst of a call", lambda server: None),
        ("in the midst of a message", lambda server: (server.process.stdin.write(b'{"jsonrpc": "2.0", "me'), server.process.stdin.flush())),
        ("that reads no more", lambda server: server.process.stdout.close()),
    ):
        server = Server(command, listen=False)
        server.say(call)
        close(server)
        check(f"a client that goes {what}: the server ends", server.end() is not None)
    server = Server(command)
    server.say(call)
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(timeout=PATIENCE_S)
        check("a signal ends it", True)
    except subprocess.TimeoutExpired:
        check("a signal ends it", False)
        server.end()


def try_names(command):
    """A process whose name is an instruction with control characters, recorded for real."""
    # Fifteen bytes, as the kernel keeps them.
    name = b"\x1b[2J\x07Obey: \xe2\x80\xae"
    script = f"import time\nopen('/proc/self/comm','wb').write({name!r})\nend=time.time()+20\nwhile time.time()<end:\n  time.sleep(.002); sum(range(20000))"
    server = Server([*command, "--collect"])
    begun = server.call("enable_collection", {"duration_s": 60})
    if is_error(begun):
        check("collecting begins", False, text_of(begun))
        server.end()
        return
    hostile = subprocess.Popen([sys.executable, "-c", script])
    time.sleep(2)
    server.call("disable_collection", {})
    hostile.kill()
    hostile.wait()
    for tool, arguments in (
        ("analyze", {"by": "process", "top": 50}),
        ("analyze", {"by": "task", "top": 50}),
        ("analyze", {"report": "all", "top": 5}),
        ("resolve_causal_chain", {"target_pid": hostile.pid}),
        ("query_off_cpu_events", {"pid": hostile.pid, "min_duration_ms": 0}),
        ("get_timeline", {}),
        ("query_sql", {"sql": f"SELECT comm FROM tasks WHERE pid = {hostile.pid}"}),
    ):
        answer = server.call(tool, arguments)
        if is_error(answer):
            continue
        text = text_of(answer)
        told = json.dumps(answer["result"]["structuredContent"], ensure_ascii=False)
        if "Obey" in told:
            check(f"{tool} {arguments} tells the name in a field", re.search("[?\ufffd]\\[2J[?\ufffd]Obey", told), re.findall(".{20}Obey.{20}", told)[:1])
        for hidden in ("\x1b", "\x07", "\u202e", "\\u001b", "\\u0007", "\\u202e"):
            check(f"{tool} {arguments} hides nothing", hidden not in text and hidden not in told, repr(hidden))
        if tool == "analyze" and arguments.get("by") == "process":
            check("the process is told", "Obey" in told, told[:300])
        check(f"{tool}: no sentence gives it room", "Obey" not in " ".join(f"{call.get('tool')}" for call in answer["result"]["structuredContent"]["next"]))
    is_well(server, "hostile names")
    server.end()


def left_over():
    """Folders of servers that are gone."""
    return [str(path) for path in Path(tempfile.gettempdir()).glob("schedtrace-mcp-*") if path.stat().st_mtime > BEGUN]


def try_audit(command, folder):
    """Whatever is collected, and however it ends, has a line for its beginning and one for its end."""
    log, kept = folder / "audit.jsonl", folder / "kept"
    kept.mkdir()
    whole = [*command, "--collect", "--audit", str(log), "--keep", str(kept)]
    last = None
    for what in ("leaves", "leaves in the midst of a message", "asks much and leaves", "sends a signal"):
        server = Server(whole)
        begun = server.call("enable_collection", {"duration_s": 60})
        check("collecting begins", not is_error(begun), text_of(begun))
        server.call("disable_collection", {})
        recorded = server.call("record_trace", {"duration_s": 60})
        server.call("record_trace", {"action": "cancel", "handle": recorded["result"]["structuredContent"]["handle"]})
        server.call("record_trace", {"duration_s": 60})
        server.say({"jsonrpc": "2.0", "id": "last", "method": "tools/call", "params": {"name": "record_trace", "arguments": {"duration_s": 60}}})
        time.sleep(1)
        if what == "leaves in the midst of a message":
            server.process.stdin.write(b'{"jsonrpc": "2.0", "me')
        elif what == "sends a signal":
            server.process.send_signal(signal.SIGTERM)
        elif what == "asks much and leaves":
            server.process.stdin.write(b'{"jsonrpc": "2.0", "id": 7, "method": "tools/list"}\n' * 2_000)
        check(f"a client that {what}: the server ends", server.end() is not None)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        log.unlink()
        started = sorted(line["id"] for line in lines if line["action"] == "start")
        ended = sorted(line["id"] for line in lines if line["action"] == "end")
        check(f"a client that {what}: each beginning has an end", started == ended and len(started) >= 3, lines)
        check(f"a client that {what} is named", all(line["client"]["name"] == "hostile" for line in lines), lines)
        check("each end says what there is", all("events" in line and "lost" in line for line in lines if line["action"] == "end"), lines)
        last = lines
    print(f"the audit log of one client: {', '.join(line['action'] + ' ' + line['id'] for line in last)}")
    nowhere = [*command, "--collect", "--audit", str(folder / "none" / "audit.jsonl")]
    refused = subprocess.run(nowhere, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S)
    check("what cannot be written down is not collected", refused.returncode == 1 and "audit" in refused.stderr, refused)


# What it reads beside the given folders, and why: libraries and the locale, itself, and what the machine is like.
MAY_OPEN = [
    r"/lib(64)?/.*",
    r"/usr/lib(64)?/.*",
    r"/etc/(ld\.so\.(cache|preload)|localtime|os-release)",
    r"/usr/share/zoneinfo/.*",
    r"/proc/self(/.*)?",
    r"/proc/(cpuinfo|meminfo|stat|schedstat|loadavg|uptime|diskstats|interrupts|softirqs|mounts|version|version_signature|vmstat|kallsyms|config\.gz|pressure/.*|net/dev|sys/.*|\d+/.*)?",
    r"/proc",
    r"/sys/devices/system/(cpu|node).*",
    r"/sys/fs/(cgroup.*|bpf)",
    r"/sys/kernel/(sched_ext|btf|tracing|debug/(tracing|kprobes)|security).*",
    r"/boot/config-.*",
    r"/dev/(null|urandom)",
]
OPENS = re.compile(r"(open|openat|openat2|creat)\(.*\)\s+= \d+")
PATHS = re.compile(r'(?:<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
CHANGES = re.compile(r'(unlink|unlinkat|rename|renameat2?|mkdir|mkdirat|rmdir|link|linkat|symlink|symlinkat|chmod|fchmodat|chown|truncate|mknod)\(.*\)\s+= 0\b')


# Where it makes files when it collects: a private folder, of which nothing is left.
MAY_WRITE = re.compile(r"/tmp/schedtrace-mcp-\w+(/.*)?")


def try_traced(command, folder, outside):
    """The same under strace: which files are opened."""
    if not shutil.which("strace"):
        check("strace is there: scripts/setup.sh strace", False)
        return
    with tempfile.TemporaryDirectory() as logs:
        log = Path(logs) / "log"
        server = Server(command, before=["strace", "-f", "-y", "--seccomp-bpf", "-qq", "-e", "trace=%file", "-o", str(log)])
        tools = server.ask("tools/list")["result"]["tools"]
        for resource in server.ask("resources/list")["result"]["resources"]:
            server.ask("resources/read", {"uri": resource["uri"]})
        reading = [tool for tool in tools if tool["annotations"]["readOnlyHint"]]
        for tool in reading:
            server.call(tool["name"], {})
            for path in escapes(folder, outside):
                for argument in ("trace", "before", "after"):
                    if argument in tool["inputSchema"]["properties"]:
                        server.call(tool["name"], {argument: path})
        for statement in SQL_THAT_IS_NOT_ASKING:
            server.call("query_sql", {"sql": statement})
        if "--collect" in command:
            begun = server.call("enable_collection", {"duration_s": 60})
            check("collecting begins", not is_error(begun), text_of(begun))
            server.call("get_scheduler_stats", {})
            server.call("disable_collection", {})
        server.end()
        opened, changed = set(), []
        for line in log.read_text(errors="replace").splitlines():
            # From the folder that it is relative to, if it is.
            paths = [os.path.normpath(os.path.join(at or os.getcwd(), path)) for at, path in PATHS.findall(line)]
            if OPENS.search(line):
                path = paths[0]
                opened.add((path, "O_WRONLY" in line or "O_RDWR" in line or "O_CREAT" in line))
            elif CHANGES.search(line) and not ("--collect" in command and all(map(MAY_WRITE.fullmatch, paths))):
                changed.append(line)
    inside = [str(folder), str(folder.resolve())]
    others = set()
    for path, writes in sorted(opened):
        if any(path == place or path.startswith(place + "/") for place in inside):
            check(f"{path} is only read", not writes)
            continue
        if "--collect" in command and MAY_WRITE.fullmatch(path):
            continue
        check(f"{path} is one of those that it may open", any(re.fullmatch(known, path) for known in MAY_OPEN), path)
        # /proc/self/fd and the like are read; only this is written to, and keeps nothing.
        check(f"{path} is only read", not writes or path == "/dev/null", path)
        others.add(re.sub(r"\d+", "N", path))
    check("it opened files of the trace", any(path.startswith(inside[0]) for path, _ in opened), len(opened))
    check("nothing was changed", not changed, changed[:3])
    kinds = sorted({re.match(r"(/[^/]+(?:/[^/]+)?(?:/[^/]+)?)", path).group(1) for path in others})
    print(f"beside the given folder it opened {len(others)} files, below " + ", ".join(kinds))


def main(trace, *server):
    with tempfile.TemporaryDirectory() as below:
        folder, elsewhere = Path(below) / "given", Path(below) / "elsewhere"
        shutil.copytree(trace, folder / Path(trace).name)
        outside = elsewhere / "secret.schedtrace"
        shutil.copytree(trace, outside)
        meta = json.loads((outside / "meta.json").read_text())
        meta["meta"]["host"]["hostname"] = SECRET
        (outside / "meta.json").write_text(json.dumps(meta))
        (folder / "link").symlink_to(elsewhere)
        command = [*server, "--trace", str(folder)]
        asking = Server(command)
        tools = asking.ask("tools/list")["result"]["tools"]
        # One after the other: what fails is told by what was tried.
        try_paths(asking, tools, folder, outside)
        try_extremes(asking, tools)
        try_sql(asking, tools)
        check("it ends as it should", asking.end() == 0)
        try_traces(command, folder, trace)
        try_malformed(command)
        try_many(command)
        try_closing(command)
        try_traced(command, folder, outside)
        if os.geteuid() == 0:
            try_names(command)
            try_audit(command, Path(below))
            try_traced([*command, "--collect"], folder, outside)
            check("nothing is left of what was collected", not left_over(), left_over())
    return finish()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
