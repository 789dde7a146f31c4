"""A session with the MCP server, message by message, as Markdown: mcp-session.py PROGRAM TRACE

The trace's folder is shown as /var/lib/traces, wherever it is. Results stand here once: the server sends them as text, too.
"""

import json
import subprocess
import sys
from pathlib import Path

WIDTH = 120

program, trace = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
server = subprocess.Popen(
    [program, "mcp", "--trace", trace.parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
)
numbers = iter(range(1, 1000))


def pretty(value, depth=0):
    """JSON with whatever fits on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + 2 * depth <= WIDTH or not isinstance(value, (dict, list)):
        return flat
    inside = "  " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {pretty(item, depth + 1)}" for key, item in value.items()]
        begin, end = "{", "}"
    else:
        items = [pretty(item, depth + 1) for item in value]
        begin, end = "[", "]"
    return f"{begin}\n" + ",\n".join(inside + item for item in items) + f"\n{'  ' * depth}{end}"


def show(who, message):
    text = pretty(message).replace(str(trace.parent), "/var/lib/traces")
    print(f"{who}\n\n```json\n{text}\n```\n")


def send(method, params=None, number=None):
    message = {"jsonrpc": "2.0", "method": method}
    if number is not None:
        message["id"] = number
    if params is not None:
        message["params"] = params
    server.stdin.write(json.dumps(message) + "\n")
    show("**The client:**", message)


def ask(method, params=None, shorten=lambda result: result):
    send(method, params, next(numbers))
    answer = json.loads(server.stdout.readline())
    answer["result"] = shorten(answer["result"])
    show("**The server:**", answer)


def call(name, **arguments):
    def once(result):
        # An error has only the text.
        if "structuredContent" in result:
            assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
            result["content"] = "(the same as text)"
        return result

    ask("tools/call", {"name": name, "arguments": arguments}, once)


def names(result):
    result["tools"] = [f"{tool['name']}: {tool['title']}" for tool in result["tools"]]
    return result


print("# A session with the MCP server\n")
print("What a client and `schedtrace mcp --trace /var/lib/traces` say to each other, line by line; the lines are broken here.\n")
print("## They meet\n")
client = {"name": "an agent", "version": "1"}
ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
send("notifications/initialized")
print("Of the tools, only names and titles are shown here.\n")
ask("tools/list", shorten=names)
print("## Which traces are there?\n")
call("list_traces")
print("## How long did tasks wait for a CPU?\n")
call("get_scheduler_stats", trace=trace.name)
print("## Which processes, and behind whom?\n")
call("analyze", trace=trace.name, by="process", top=1)
print("## What is not allowed says what is\n")
call("open_trace", trace="/etc")
server.stdin.close()
assert server.wait() == 0, "the server ends with its client"
