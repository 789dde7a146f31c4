"""Asks schedtrace-mcp about a trace through the MCP SDK's own client, in both eras of the protocol.

Usage: test-mcp.py TRACE SERVER..., where SERVER is the program with its arguments. Needs the packages `mcp` and `jsonschema`.
Every tool, with every value of each argument that has a list of them, every resource, template, prompt and completion is tried.
With `--collect` among the arguments, it collects from the running kernel too, as root, and looks with bpftool at what is loaded.
Ends with "N passed, N failed".
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import warnings
from pathlib import Path

import jsonschema
import mcp
from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp_types import PromptReference, ResourceTemplateReference

from checks import check, finish

# Both eras are spoken on purpose.
warnings.simplefilter("ignore", mcp.MCPDeprecationWarning)


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


SURFACE = json.loads((Path(__file__).parent.parent / "docs/mcp-surface.json").read_text())
# What tools need beside what their schemas say: of the trace, or of any machine.
SQL = "SELECT cpu, count(*) AS switches FROM sched_switch GROUP BY cpu ORDER BY cpu"
# These need what not every machine and trace has: then they say what to do about it.
MAY_FAIL = {"ebpf_map_dump", "ebpf_trace_errors", "stats://aggregated/dsq", "stats://scheduler/raw", "events://kprobe", "events://perf"}
MAY_FAIL |= {"bpf://programs", "list_events"} if os.geteuid() != 0 else set()
# What a host cuts off has no use: a token is three bytes or more of JSON.
MOST_BYTES = 5_000 * 3


async def answer(client, name, arguments, *keys):
    """Calls a tool that is to succeed; what it says."""
    result = await client.call_tool(name, arguments)
    check(f"{name} {arguments} answers", not result.is_error, text_of(result))
    if result.is_error:
        return {"next": []}
    told = result.structured_content or {}
    check(f"{name}: the text is the structured content", json.loads(text_of(result)) == told)
    for key in (*keys, "summary", "next"):
        check(f"{name} tells {key}", told.get(key) is not None, list(told))
    # A token is three bytes or more of JSON.
    check(f"{name} fits a budget of 5,000 tokens", len(text_of(result).encode()) <= MOST_BYTES, len(text_of(result)))
    check_against(f"{name} is what its schema says", told, SCHEMAS[name])
    return told


def check_against(what, value, schema):
    wrong = next(jsonschema.Draft202012Validator(schema).iter_errors(value), None)
    check(what, wrong is None, wrong)


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
    UPDATED.clear()
    async with mcp.Client(parameters, mode=mode, read_timeout_seconds=60, message_handler=heard) as client:
        era = client.protocol_version >= "2026"
        check(f"{mode}: the era is the one asked for", era == (mode != "legacy"), client.protocol_version)
        # A client that pins a version asks the server nothing about itself.
        if mode in ("legacy", "auto"):
            check(f"{mode}: the server names itself", client.server_info.name == "schedtrace", client.server_info)
            check(f"{mode}: it says what it is for", 0 < len(client.instructions or "") < 2000, client.instructions)

        collects = "--collect" in server
        tools = (await client.list_tools()).tools
        names = [tool.name for tool in tools]
        whole = [tool["name"] for tool in SURFACE["tools"]]
        check(f"{mode}: its tools", names == (whole if collects else SURFACE["without_collect"]["tools"]), names)
        for tool in tools:
            SCHEMAS[tool.name] = tool.output_schema
            check("the name suits every host", re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name), tool.name)
            check("the description is not cut", len(tool.description) < 2000, tool.description)
            changes = tool.name not in SURFACE["without_collect"]["tools"]
            check("who reads says so", tool.annotations.read_only_hint == (not changes), tool.annotations)
            check_schema(tool.input_schema)
            check_schema(tool.output_schema, "outputSchema")
        # What hosts give to a model: a token of that is three bytes or more.
        given = [{"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema} for tool in tools]
        definitions = json.dumps(given, separators=(",", ":"))
        check("the definitions are small", len(definitions) < (8_000 if collects else 4_000) * 3, len(definitions))

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
        if mode != "auto":
            await every_tool(client, tools, trace)
            await every_resource(client, trace, collects)
            await every_prompt(client)
        if collects:
            await collect(client, others := loaded())
            await record(client, mode, others)
            await listen(client, era, others)
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


def some(schema, name, about):
    """Arguments that a schema demands."""
    return about[name] if name in about else {"integer": 1, "number": 1, "boolean": True}.get(schema["type"], "1")


async def every_tool(client, tools, trace):
    """Each tool that only reads, with each value of each argument of which the values are known."""
    found = await answer(client, "analyze", {"trace": trace, "by": "process", "top": 1})
    pid = found["run_queue"]["groups"][0]["group"]["pid"]
    about = {"pid": pid, "target_pid": pid, "sql": SQL, "before": trace, "after": trace, "subsystem": "sched", "trace": trace}
    for tool in tools:
        if not tool.annotations.read_only_hint:
            continue
        properties = tool.input_schema["properties"]
        needed = {name: some(properties[name], name, about) for name in tool.input_schema.get("required", [])}
        if "trace" in properties:
            needed["trace"] = trace
        if tool.name == "compare_traces":
            # Two windows of one trace.
            needed |= {"before_until": "700ms", "after_from": "700ms"}
        asked = [needed]
        for name, schema in properties.items():
            values = schema.get("enum", [True, False] if schema["type"] == "boolean" else [])
            asked.extend({**needed, name: value} for value in values)
        for arguments in asked:
            await tried(client, tool.name, arguments)


async def tried(client, name, arguments, depth=1):
    """Calls a tool; the calls that its answer names work as well."""
    if name in MAY_FAIL or arguments.get("uri") in MAY_FAIL:
        result = await client.call_tool(name, arguments)
        if result.is_error:
            check(f"{name} {arguments} says what to do", re.search("`|record|root|CAP_|collect", text_of(result)), text_of(result))
            return
    told = await answer(client, name, arguments)
    check(f"{name} {arguments} names few calls", 0 <= len(told["next"]) <= 3, told["next"])
    if depth > 0:
        for call in told["next"]:
            if call["tool"] in SURFACE["without_collect"]["tools"]:
                await tried(client, call["tool"], call["arguments"], depth - 1)
            else:
                check(f"{name} names calls that there are", call["tool"] in SCHEMAS, call)


async def every_resource(client, trace, collects):
    resources = (await client.list_resources()).resources
    whole = [resource["uri"] for resource in SURFACE["resources"]]
    expected = whole if collects else SURFACE["without_collect"]["resources"]
    check("its resources", [str(resource.uri) for resource in resources] == expected, resources)
    for resource in resources:
        check(f"{resource.uri} says what it is", resource.description and resource.mime_type, resource)
        await read(client, str(resource.uri), resource.mime_type)
    templates = (await client.list_resource_templates()).resource_templates
    check("its templates", [each.uri_template for each in templates] == SURFACE["without_collect"]["resourceTemplates"], templates)
    for template in templates:
        values = {}
        reference = ResourceTemplateReference(type="ref/resource", uri=template.uri_template)
        for part in re.findall(r"{(\w+)}", template.uri_template):
            completion = (await client.complete(reference, {"name": part, "value": ""})).completion
            values[part] = completion.values
            check(f"{template.uri_template}: values of {part} are known", completion.values, completion)
            begun = (await client.complete(reference, {"name": part, "value": completion.values[0][:2]})).completion
            check("what is begun is completed", completion.values[0] in begun.values, begun)
            none = (await client.complete(reference, {"name": part, "value": "\x00"})).completion
            check("what is unknown is not", none.values == [], none)
        name = next(name for name in values["id"] if trace.endswith(name))
        for report in values["report"]:
            uri = f"schedtrace://trace/{urllib.parse.quote(name, safe='')}/{report}"
            await read(client, uri, "application/json")
    for uri in ("schedtrace://nothing", "stats://system/colour", "file:///etc/passwd"):
        try:
            await client.read_resource(uri)
            check(f"{uri} is refused", False)
        except mcp.MCPError as error:
            check(f"{uri} is refused", "use one of" in str(error), error)


async def read(client, uri, mime_type):
    try:
        contents = (await client.read_resource(uri)).contents
    except mcp.MCPError as error:
        may = uri in MAY_FAIL or uri.split("?")[0] in MAY_FAIL
        check(f"{uri} can be read, or says what to do", may and re.search("`|record|root|CAP_|collect", str(error)), error)
        return None
    check(f"{uri} is one text of its kind", len(contents) == 1 and contents[0].mime_type == mime_type, contents)
    text = contents[0].text
    check(f"{uri} fits a budget of 5,000 tokens", len(text.encode()) <= MOST_BYTES, len(text))
    if mime_type == "application/json":
        told = json.loads(text)
        for key in ("summary", "units", "next"):
            check(f"{uri} tells {key}", key in told, list(told))
        return told
    return [json.loads(line) for line in text.splitlines()]


async def every_prompt(client):
    prompts = (await client.list_prompts()).prompts
    check("its prompts", [prompt.name for prompt in prompts] == SURFACE["without_collect"]["prompts"], prompts)
    for prompt in prompts:
        given = [{}]
        for argument in prompt.arguments or []:
            reference = PromptReference(type="ref/prompt", name=prompt.name)
            known = (await client.complete(reference, {"name": argument.name, "value": ""})).completion.values
            given.extend({argument.name: value} for value in known or ["1"])
        for arguments in given:
            got = await client.get_prompt(prompt.name, arguments)
            text = "".join(message.content.text for message in got.messages)
            check(f"{prompt.name} {arguments} says when to stop", "Stop" in text, text)
            check(f"{prompt.name} {arguments} is short", len(text) < 3_000, len(text))
            for tool in re.findall(r"`([a-z_]+)` *\{", text):
                check(f"{prompt.name} names tools that there are", tool in SCHEMAS, tool)
    try:
        await client.get_prompt("colour", {})
        check("an unknown prompt is refused", False)
    except mcp.MCPError as error:
        check("an unknown prompt is refused", "use one of" in str(error), error)


async def unloaded(others):
    """Waits until nothing of the server is in the kernel."""
    for _ in range(50):
        if loaded() <= others:
            return True
        await asyncio.sleep(0.2)
    return False


async def record(client, mode, others):
    """Recordings with a handle: how far they are, and that they end when nobody waits for them."""
    begun = await answer(client, "record_trace", {"duration_s": 60, "events": ["default", "irq"]}, "handle", "trace")
    handle = begun["handle"]
    await asyncio.sleep(1.5)
    status = await answer(client, "record_trace", {"action": "status", "handle": handle}, "state")
    check("it is recording", status["state"] == "recording", status)
    while_on = await answer(client, "get_scheduler_stats", {"trace": handle}, "window")
    check("it can be asked meanwhile", while_on["switches"]["switches"] > 0, while_on)
    stopped = await answer(client, "record_trace", {"action": "stop", "handle": handle}, "state")
    check("it is finished", stopped["state"] == "finished" and stopped["events"] > 0, stopped)
    for tool in ("open_trace", "analyze", "get_timeline"):
        await answer(client, tool, {"trace": handle})
    check("its programs are unloaded", await unloaded(others), loaded() - others)
    await fails(client, "an unknown handle", "record_trace", {"action": "stop", "handle": "rec-999"}, "rec-999")
    await fails(client, "too long", "record_trace", {"duration_s": 100_000}, "duration_s")

    told = []

    async def progress(part, total, message):
        told.append((part, total, message))

    waited = await client.call_tool("record_trace", {"duration_s": 3, "wait": True}, progress_callback=progress)
    check("a call that waits answers", not waited.is_error, text_of(waited))
    check(f"{mode}: it tells how far it is", len(told) >= 2, told)
    parts = [part for part, _, _ in told]
    check("and that only grows", parts == sorted(parts) and all(total == 1 for _, total, _ in told), told)

    call = asyncio.ensure_future(client.call_tool("record_trace", {"duration_s": 20, "wait": True}))
    await asyncio.sleep(2)
    check("it is loaded while somebody waits", loaded() - others, loaded())
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    check(f"{mode}: it ends when nobody waits any more", await unloaded(others), loaded() - others)
    await answer(client, "list_traces", {})


async def listen(client, era, others):
    """A subscription: what happens arrives, and what was loaded for it goes with it."""
    uri = "events://stream?kind=sched_switch&limit=20"
    if era:
        async with client.listen(resource_subscriptions=[uri]) as subscription:
            check("the subscription is honoured", uri in (subscription.honored.resource_subscriptions or []), subscription.honored)
            event = await asyncio.wait_for(anext(aiter(subscription)), 30)
            check("it is told of", event.uri == uri, event)
            await stream(client, uri)
    else:
        await client.subscribe_resource(uri)
        for _ in range(100):
            if UPDATED:
                break
            await asyncio.sleep(0.1)
        check("it is told of", uri in UPDATED, UPDATED)
        await stream(client, uri)
        await client.unsubscribe_resource(uri)
    check("what was loaded for a subscription goes with it", await unloaded(others), loaded() - others)


async def stream(client, uri):
    lines = await read(client, uri, "application/x-ndjson")
    switches = [line for line in lines if line["event"] == "sched_switch"]
    check("there are switches", 0 < len(switches) <= 20, lines)
    check("and what was asked for alone", all(line["event"] in ("sched_switch", "lost", "page_end") for line in lines), lines)
    check("the last line says what is left", lines[-1]["event"] == "page_end" and "left" in lines[-1], lines[-1])
    seqs = [line["seq"] for line in switches]
    check("in order", seqs == sorted(set(seqs)), seqs)
    again = await read(client, uri, "application/x-ndjson")
    check("what was read does not come again", all(line.get("seq", 1 << 62) > seqs[-1] for line in again[:-1]), again)


async def heard(message):
    """What the server tells without being asked, in the older era."""
    if getattr(message, "method", None) == "notifications/resources/updated":
        UPDATED.add(str(message.params.uri))


async def session(server):
    """The older client of the SDK, which speaks the older era alone."""
    parameters = StdioServerParameters(command=server[0], args=server[1:])
    async with stdio_client(parameters) as streams, ClientSession(*streams) as client:
        said = await client.initialize()
        check("ClientSession: the server names itself", said.server_info.name == "schedtrace", said)
        check("ClientSession: its tools", (await client.list_tools()).tools)
        result = await client.call_tool("list_traces", {})
        check("ClientSession: an answer", not result.is_error and result.structured_content["total"] >= 1, result)
        check("ClientSession: resources", (await client.list_resources()).resources)
        check("ClientSession: templates", (await client.list_resource_templates()).resource_templates)
        check("ClientSession: a prompt", (await client.get_prompt("summarize_system")).messages)
        check("ClientSession: a ping", await client.send_ping() is not None)


async def main(trace, *server):
    for mode in ("legacy", "auto", "2026-07-28"):
        await ask(list(server), trace, mode)
    await session(list(server))
    return finish()


# By tool, what its answers hold; and the streams that the server told of.
SCHEMAS = {}
UPDATED = set()


if len(sys.argv) < 3:
    sys.exit(__doc__)
sys.exit(asyncio.run(main(*sys.argv[1:])))
