"""A client that asks the MCP server as an agent would, and knows nothing else.

It has the text of a prompt. It makes the calls which that text names, and then those which answers name in `next`, breadth
first; calls that change something are left out. What it believes in the end is read from fields of the answers by one rule,
`Belief.from_answers`, that is the same for every question.
"""

import json
import re
from collections import deque
from dataclasses import dataclass, field
from itertools import takewhile

import mcp

MOST_CALLS = 8
# A cause is one if it took so much of the window at least; what takes less may be anybody.
WORTH_RATIO = 0.1

# How time passes that nobody lost.
NO_DELAY = {"running", "absent", "not_woken", "unknown"}

# `tool` {"argument": 1}, as prompts write calls.
CALL = re.compile(r"`([a-z_]+)`\s*(?=\{)")


def calls_in(text: str) -> list[tuple[str, dict]]:
    """The calls that a text names, in its order: those whose arguments it gives."""
    found = []
    for match in CALL.finditer(text):
        try:
            arguments, _ = json.JSONDecoder().raw_decode(text, match.end())
        except ValueError:
            # `PID` stands for something that is not known yet: a later answer will name it.
            continue
        found.append((match.group(1), arguments))
    return found


@dataclass
class Asked:
    """What was asked, and what came back."""

    calls: list[dict] = field(default_factory=list)
    answers: list[dict] = field(default_factory=list)
    bytes: int = 0

    @property
    def tokens(self) -> int:
        # None is shorter than three bytes of JSON on the average.
        return self.bytes // 3


@dataclass(frozen=True)
class Belief:
    """Whose doing it was: a process, or nobody's; and how the time was spent."""

    pid: int | None
    comm: str | None
    mechanism: str

    @staticmethod
    def from_answers(answers: list[dict]) -> "Belief | None":
        """The rule: whoever took most of the time. An answer with a chain tells how much something kept the subject from
        running, and whose doing that was. Or the time passed along the chain, to somebody who let others wait without being
        kept from anything: then it is with whoever stands at the end."""
        for answer in answers:
            if "chain" not in answer:
                continue
            end, end_ns = along(answer["chain"])
            kept = answer["contention"]
            passed_on = end is not None and end.pid not in (None, answer["target"]["pid"])
            if kept["ratio"] < WORTH_RATIO or (passed_on and end_ns > kept["total_ns"]):
                return end
            task = kept["source"]["task"] or {}
            return Belief(task.get("pid"), task.get("comm"), answer["blocking_mechanism"])
        return None


def along(chain: list[dict]) -> tuple["Belief | None", int]:
    """Who stands at the end of a chain, and for how long: from its link of most time to the link of most time below that, and
    so on."""
    belief, total_ns, level, links = None, 0, 0, chain
    while of_level := [link for link in links if link["level"] == level and link["mechanism"] not in NO_DELAY]:
        link = max(of_level, key=lambda link: link["total_ns"])
        task = link["task"] or {}
        total_ns = link["total_ns"]
        if belief is None or task:
            belief = Belief(task.get("pid"), task.get("comm"), link["mechanism"])
        # What stands behind it and is deeper is what that waited for.
        at = links.index(link) + 1
        level += 1
        links = list(takewhile(lambda below: below["level"] >= level, links[at:]))
    return belief, total_ns


async def ask(client: mcp.Client, prompt: str, arguments: dict[str, str]) -> Asked:
    """Follows a prompt until there is something to believe, or nothing more to ask."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    text = "\n".join(
        message.content.text for message in (await client.get_prompt(prompt, arguments)).messages
    )
    asked = Asked(bytes=len(text))
    waiting = deque(calls_in(text))
    seen = set()
    while waiting and len(asked.calls) < MOST_CALLS and Belief.from_answers(asked.answers) is None:
        name, arguments = waiting.popleft()
        key = (name, json.dumps(arguments, sort_keys=True))
        # Not twice, and nothing that changes anything.
        if key in seen or name not in tools or not tools[name].annotations.read_only_hint:
            continue
        seen.add(key)
        result = await client.call_tool(name, arguments)
        said = "".join(block.text for block in result.content if block.type == "text")
        asked.bytes += len(said) + len(key[1])
        asked.calls.append({"tool": name, "arguments": arguments, "failed": result.is_error, "bytes": len(said)})
        if not result.is_error:
            asked.answers.append(result.structured_content)
            waiting.extend((call["tool"], call["arguments"]) for call in result.structured_content["next"])
    return asked
