"""Everything that the MCP server shows a client, as JSON: mcp-surface.py SERVER...

SERVER is the program with its arguments, which are to let it collect. What it shows without that is told by name.
"""

import json
import subprocess
import sys

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "surface", "version": "1"}}
LISTS = {"tools": "tools", "resources": "resources", "resources/templates": "resourceTemplates", "prompts": "prompts"}


def shown(command):
    asked = [
        {"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": HELLO},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        *({"jsonrpc": "2.0", "id": method, "method": f"{method}/list"} for method in LISTS),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
        server.stdin.writelines(json.dumps(message) + "\n" for message in asked)
        answers = {}
        while len(answers) < len(LISTS) + 1:
            answer = json.loads(server.stdout.readline())
            answers[answer["id"]] = answer["result"]
        server.stdin.close()
    lists = {key: answers[method][key] for method, key in LISTS.items()}
    told = {"instructions": answers["hello"]["instructions"], "capabilities": answers["hello"]["capabilities"]}
    return {**told, **lists}


def main(*server):
    whole = shown(server)
    reading = shown([word for word in server if word not in ("--collect", "--daemon")])
    name = {"tools": "name", "resources": "uri", "resourceTemplates": "uriTemplate", "prompts": "name"}
    whole["without_collect"] = {key: [each[name[key]] for each in reading[key]] for key in name}
    json.dump(whole, sys.stdout, indent=2, ensure_ascii=False)
    print()


if len(sys.argv) < 2:
    sys.exit(__doc__)
main(*sys.argv[1:])
