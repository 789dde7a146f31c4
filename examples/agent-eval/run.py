"""Records 25 cases through the MCP server, and asks it about each: run.py [--seed N] [--only TEXT] [--json FILE] SERVER...

SERVER is `schedtrace-mcp`, or `schedtrace mcp`. Needs root, two CPUs, and the package `mcp`. Ends with "N passed, N failed",
where those passed are the cases whose culprit was found; up to --may-miss of the others are told and do not count.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import mcp
from mcp import StdioServerParameters

from agent import Asked, Belief, ask
from cases import CASES, Case, Stage, Truth
from workload import Scene, outweigh_other_sessions

# So long do the processes of a case work.
SCENE_S = 1.5
# What explains locks, disks and interrupts beside waits for a CPU.
EVENTS = ["default", "irq", "block", "futex"]
# The server has to get CPUs beside a case: it is a session of its own, and gets the weight of ours.
WITH_WEIGHT = ["sh", "-c", 'echo -20 >/proc/self/autogroup 2>/dev/null; exec "$@"', "server"]


def server_of(command: list[str], *more: str) -> StdioServerParameters:
    whole = [*WITH_WEIGHT, *command, *more]
    return StdioServerParameters(command=whole[0], args=whole[1:])


async def tell(client: mcp.Client, tool: str, **arguments) -> dict:
    """What a tool says that has to succeed."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise RuntimeError(f"{tool} {arguments}: " + "".join(block.text for block in result.content))
    return result.structured_content


async def record(client: mcp.Client, case: Case, draw: random.Random) -> tuple[Scene, Truth]:
    """Plays a case while the server records. The server is the only one that loads programs, before and after it."""
    cpus = sorted(os.sched_getaffinity(0))
    here, there = draw.sample(cpus, 2)
    scene = Scene({})
    scene.roles, truth = case.make(Stage(draw, {here}, {there}, scene))
    started = await tell(client, "record_trace", action="start", duration_s=60, events=EVENTS)
    try:
        scene.start(draw)
        await asyncio.sleep(SCENE_S)
    finally:
        scene.end()
        # What happened last is there a moment later.
        await asyncio.sleep(0.3)
        await tell(client, "record_trace", action="stop", handle=started["handle"])
    return scene, truth


def judge(scene: Scene, truth: Truth, belief: Belief | None) -> tuple[bool, str]:
    """Whether that is so; and what is believed, by the roles."""
    if belief is None:
        return False, "nothing"
    roles = {pid: role for role, pid in scene.pids.items()}
    culprit = roles.get(belief.pid, belief.comm)
    if truth.role is None:
        found = belief.mechanism in truth.mechanisms and belief.pid in (None, scene.pids["subject"])
    else:
        found = belief.pid == scene.pids[truth.role]
    return found, f"{belief.mechanism} by {culprit or 'nobody'}"


async def try_case(case: Case, seed: int, server: list[str]) -> dict:
    draw = random.Random(seed)
    line = {"case": case.name, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        parameters = server_of(server, "--trace", folder, "--collect")
        async with mcp.Client(parameters, read_timeout_seconds=120) as client:
            try:
                scene, truth = await record(client, case, draw)
            except OSError as why:
                # No disk, no controller of cgroups: the machine cannot play it.
                return {**line, "skipped": str(why)}
            begun = time.monotonic()
            asked: Asked = await ask(client, "debug_high_latency", {"pid": str(scene.pids["subject"])})
            seconds = time.monotonic() - begun
    found, believed = judge(scene, truth, Belief.from_answers(asked.answers))
    culprit = scene.used_s[truth.role or "subject"]
    return {
        **line,
        "found": found,
        "decoy_used_s": scene.used_s["decoy"],
        "culprit_used_s": culprit,
        "believed": believed,
        "truth": truth.role or " or ".join(sorted(truth.mechanisms)),
        "calls": [call["tool"] for call in asked.calls],
        "failed_calls": [call for call in asked.calls if call["failed"]],
        "tokens": asked.tokens,
        "seconds": round(seconds, 2),
    }


def told(line: dict) -> str:
    if "skipped" in line:
        return f"skipped  {line['case']}: {line['skipped']}"
    found = "found   " if line["found"] else "MISSED  "
    calls = f"{len(line['calls'])} calls, {line['tokens']:5} tokens, {line['seconds']:5.2f} s"
    return f"{found} {line['case']:40} {calls}  {line['believed']}; it was {line['truth']} (seed {line['seed']})"


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="draw the same cases again")
    parser.add_argument("--only", default="", help="the cases whose names hold this")
    parser.add_argument("--may-miss", type=int, default=0, help="how many need not be found")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("server", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.server:
        parser.error("which server? give its program and arguments")
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("a culprit and a busier decoy take two CPUs")
    outweigh_other_sessions()
    lines = []
    for number, case in enumerate(CASES):
        if options.only in case.name:
            lines.append(await try_case(case, options.seed + number, options.server))
            print(told(lines[-1]), flush=True)
    tried = [line for line in lines if "skipped" not in line]
    found = [line for line in tried if line["found"]]
    if tried:
        calls = statistics.median(len(line["calls"]) for line in tried)
        tokens = statistics.median(line["tokens"] for line in tried)
        busier = sum(line["decoy_used_s"] > line["culprit_used_s"] for line in tried)
        totals = {"found": len(found), "of": len(tried), "decoy_busier": busier, "calls_median": calls, "tokens_median": tokens}
        print(f"the decoy used more of the CPUs than the culprit in {busier} of {len(tried)}")
        print(f"{len(found)} of {len(tried)} found; calls: {calls:g} median, tokens: {tokens:g} median")
        if options.json:
            options.json.write_text(json.dumps({"seed": options.seed, "totals": totals, "cases": lines}, indent=2) + "\n")
    missed = len(tried) - len(found)
    enough = missed <= options.may_miss
    if missed:
        print(f"{missed} of {len(tried)} missed; {options.may_miss} may be")
    print(f"{len(found)} passed, {0 if enough else missed} failed")
    return 0 if enough and found else 1


with contextlib.suppress(KeyboardInterrupt):
    sys.exit(asyncio.run(main()))
