"""Asks schedtrace-mcp about a trace through the MCP SDK's own client, in both eras of the protocol.

Usage: test-mcp.py TRACE SERVER..., where SERVER is the program with its arguments. Needs the package `mcp`. With
`--collect` among the arguments, it collects from the running kernel too, as root, and looks with bpftool at what is
loaded. Ends with "N passed, N failed".
"""

import asyncio
import json
import re
import subprocess
import sys
import time

import mcp
from mcp import StdioServerParameters

passed = failed = 0


def check(what, holds, told=""):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {what}: {str(told)[:2000]}")


def check_schema(schema, path="inputSchema"):
    """Plain JSON Schema: some hosts drop a tool with anything else."""
    if isinstance(schema, dict):
        check(f"{path}: one type", isinstance(schema.get("type", ""), str) or path.endswith("properties"), schema)
        check(f"{path}: no integer format", "format" not in schema or path.endswith("properties"), schema)
        for name, below in schema.items():
            check_schema(below, f"{path}.{name}")
    elif isinstance(schema, list):
        for at, below in enumerate(schema):
            check_schema(below, f"{path}[{at}]")


def text_of(result):
    return "\n".join(block.text for block in result.content if block.type == "text")


READING = ["analyze", "get_scheduler_stats", "get_topology", "list_traces", "open_trace"]
COLLECTING = ["enable_collection", "disable_collection"]


async def answer(client, name, arguments, *keys):
    """Calls a tool that is to succeed; what it says."""
    result = await client.call_tool(name, arguments)
    check(f"{name} answers", not result.is_error, text_of(result))
    told = result.structured_content or {}
    check(f"{name}: the text is the structured content", json.loads(text_of(result)) == told)
    for key in (*keys, "summary", "next"):
        check(f"{name} tells {key}", told.get(key) is not None, list(told))
    # A token is three bytes or more of JSON.
    check(f"{name} fits a budget of 5,000 tokens", len(text_of(result)) < 5_000 * 3, len(text_of(result)))
    return told


async def fails(client, what, name, arguments, told):
    result = await client.call_tool(name, arguments)
    check(f"{what} is an error of the tool", result.is_error, result)
    check(f"{what}: the text says which", told in text_of(result), text_of(result))


def loaded():
    """Tracing programs in the kernel, by bpftool."""
    shown = subprocess.run(["bpftool", "prog", "show", "-j"], check=True, stdout=subprocess.PIPE).stdout
    return {program["id"] for program in json.loads(shown) if program["type"] == "tracing"}


async def ask(server, trace, mode):
    parameters = StdioServerParameters(command=server[0], args=server[1:])
    async with mcp.Client(parameters, mode=mode, read_timeout_seconds=60) as client:
        era = client.protocol_version >= "2026"
        check(f"{mode}: the era is the one asked for", era == (mode != "legacy"), client.protocol_version)
        # A client that pins a version asks the server nothing about itself.
        if mode in ("legacy", "auto"):
            check(f"{mode}: the server names itself", client.server_info.name == "schedtrace", client.server_info)
            check(f"{mode}: it says what it is for", 0 < len(client.instructions or "") < 2000, client.instructions)

        collects = "--collect" in server
        tools = (await client.list_tools()).tools
        expected = READING + (COLLECTING if collects else [])
        check(f"{mode}: its tools", [tool.name for tool in tools] == expected, tools)
        for tool in tools:
            check("the name suits every host", re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name), tool.name)
            check("the description is not cut", len(tool.description) < 2000, tool.description)
            check("who reads says so", tool.annotations.read_only_hint == (tool.name in READING), tool.annotations)
            check_schema(tool.input_schema)
        definitions = json.dumps([tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools])
        check("the definitions are small", len(definitions) < 4000 * 3, len(definitions))

        report = await answer(client, "analyze", {"trace": trace}, "window", "completeness", "run_queue", "holders")
        for by in ("task", "process", "cgroup", "cpu", "llc"):
            await answer(client, "analyze", {"trace": trace, "by": by, "top": 3}, "window")
        stats = await answer(client, "get_scheduler_stats", {"trace": trace}, "window", "completeness")
        check("the totals are the report's", stats["run_queue"]["total"] == report["run_queue"]["total"], stats)
        opened = await answer(client, "open_trace", {"trace": trace}, "tables", "window", "completeness")
        events = opened["completeness"]["events"]
        check("both count the same events", sum(report["events"].values()) == events, (report["events"], events))
        await answer(client, "get_topology", {"trace": trace}, "llcs", "online")
        await answer(client, "get_topology", {}, "llcs", "online")
        listed = await answer(client, "list_traces", {}, "traces", "total")
        check("the trace is listed", any(trace.endswith(line["trace"].split("/")[-1]) for line in listed["traces"]), listed)

        await fails(client, "no trace", "analyze", {"trace": "/no/such.schedtrace"}, "/no/such.schedtrace")
        await fails(client, "a wrong group", "analyze", {"trace": trace, "by": "colour"}, "colour")
        await fails(client, "a wrong top", "analyze", {"trace": trace, "top": -1}, "top")
        await fails(client, "an unknown argument", "analyze", {"trace": trace, "limit": 3}, "limit")
        try:
            await client.call_tool("record", {})
            check("an unknown tool is refused", False)
        except mcp.MCPError as error:
            check("an unknown tool is refused", "record" in str(error), error)
        if collects:
            await collect(client, others := loaded())
            await answer(client, "enable_collection", {}, "trace")
    if collects:
        # It was collecting when the client went away.
        check("nothing of it stays in the kernel", loaded() <= others, loaded() - others)


async def collect(client, others):
    await fails(client, "what was not begun", "disable_collection", {}, "enable_collection")
    begun = await answer(client, "enable_collection", {"duration_s": 120}, "trace", "duration_s")
    check("the programs are loaded", len(loaded() - others) >= 9, loaded())
    await fails(client, "a second collection", "enable_collection", {}, "disable_collection")
    subprocess.run(["sh", "-c", "for n in 1 2 3 4 5; do sleep 0.1; done"], check=True)
    # What was recorded is readable a second later at the latest.
    for _ in range(30):
        stats = await answer(client, "get_scheduler_stats", {}, "window", "completeness")
        if stats["switches"]["switches"] > 0:
            break
        time.sleep(0.2)
    check("it sees what happens", stats["switches"]["switches"] > 0, stats)
    check("it is being recorded", stats["trace"]["state"] == "recording", stats["trace"])
    ended = await answer(client, "disable_collection", {}, "trace", "events")
    check("there were events", ended["events"] > 0, ended)
    check("the programs are unloaded", loaded() <= others, loaded() - others)
    report = await answer(client, "analyze", {}, "window", "completeness")
    check("all of them are in the report", sum(report["events"].values()) == ended["events"], (report["events"], ended))
    check("the trace is the one that it said", report["trace"]["path"] == begun["trace"] and report["trace"]["state"] == "finished", report["trace"])


async def main(trace, *server):
    for mode in ("legacy", "auto", "2026-07-28"):
        await ask(list(server), trace, mode)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if len(sys.argv) < 3:
    sys.exit(__doc__)
sys.exit(asyncio.run(main(*sys.argv[1:])))
