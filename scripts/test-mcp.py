"""Asks schedtrace-mcp about a trace through the MCP SDK's own client, in both eras of the protocol.

Usage: test-mcp.py SERVER TRACE, where SERVER is the program. Needs the package `mcp`. Ends with "N passed, N failed".
"""

import asyncio
import json
import re
import sys

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


async def ask(server, trace, mode):
    async with mcp.Client(StdioServerParameters(command=server), mode=mode, read_timeout_seconds=60) as client:
        era = client.protocol_version >= "2026"
        check(f"{mode}: the era is the one asked for", era == (mode != "legacy"), client.protocol_version)
        # A client that pins a version asks the server nothing about itself.
        if mode in ("legacy", "auto"):
            check(f"{mode}: the server names itself", client.server_info.name == "schedtrace", client.server_info)
            check(f"{mode}: it says what it is for", 0 < len(client.instructions or "") < 2000, client.instructions)

        tools = (await client.list_tools()).tools
        check(f"{mode}: one tool", [tool.name for tool in tools] == ["analyze"], tools)
        tool = tools[0]
        check("the name suits every host", re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name), tool.name)
        check("the description is not cut", len(tool.description) < 2000, tool.description)
        check("it is read-only", tool.annotations.read_only_hint, tool.annotations)
        check_schema(tool.input_schema)
        definition = json.dumps(tool.model_dump(mode="json", by_alias=True, exclude_none=True))
        check("the definition is small", len(definition) < 4000 * 3, len(definition))

        result = await client.call_tool("analyze", {"trace": trace})
        check(f"{mode}: a report", not result.is_error, text_of(result))
        report = result.structured_content or {}
        check("the text is the structured content", json.loads(text_of(result)) == report)
        for key in ("window", "completeness"):
            check(f"the report has its {key}", key in report, list(report))
        # A token is three bytes or more of JSON.
        check("it fits a budget of 5,000 tokens", len(text_of(result)) < 5_000 * 3, len(text_of(result)))

        for by in ("task", "process", "cgroup", "cpu", "llc"):
            result = await client.call_tool("analyze", {"trace": trace, "by": by, "top": 3})
            check(f"a report by {by}", not result.is_error, text_of(result))

        for what, arguments, told in [
            ("no trace", {"trace": "/no/such.schedtrace"}, "/no/such.schedtrace"),
            ("no argument", {}, "trace"),
            ("a wrong group", {"trace": trace, "by": "colour"}, "colour"),
            ("a wrong top", {"trace": trace, "top": -1}, "top"),
            ("an unknown argument", {"trace": trace, "limit": 3}, "limit"),
        ]:
            result = await client.call_tool("analyze", arguments)
            check(f"{what} is an error of the tool", result.is_error, result)
            check(f"{what}: the text says which", told in text_of(result), text_of(result))

        try:
            await client.call_tool("record", {})
            check("an unknown tool is refused", False)
        except mcp.MCPError as error:
            check("an unknown tool is refused", "record" in str(error), error)


async def main(server, trace):
    for mode in ("legacy", "auto", "2026-07-28"):
        await ask(server, trace, mode)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if len(sys.argv) != 3:
    sys.exit(__doc__)
sys.exit(asyncio.run(main(*sys.argv[1:])))
