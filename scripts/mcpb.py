"""Writes the registry's entry for a bundle, and checks both: mcpb.py BUNDLE_FOLDER PACKED VERSION REGISTRY_FOLDER INTO

The bundle's manifest must name what is in it, for the version that the workspace has. The packed file is unpacked again, and
the server in it must answer.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import jsonschema

folder, packed, version, registry, into = (Path(each) if n != 2 else each for n, each in enumerate(sys.argv[1:]))
manifest = json.loads((folder / "manifest.json").read_text())
entry = json.loads((registry / "server.json").read_text())
for name, found in (("manifest.json", manifest["version"]), ("server.json", entry["version"])):
    assert found == version, f"{name} is of version {found}, and the workspace of {version}"
assert manifest["description"] == entry["description"], "the manifest and the registry say the same"

with tempfile.TemporaryDirectory() as unpacked:
    with zipfile.ZipFile(packed) as archive:
        assert manifest["server"]["entry_point"] in archive.namelist(), archive.namelist()
        archive.extractall(unpacked)
    program = Path(unpacked, manifest["server"]["entry_point"])
    program.chmod(0o755)
    # As a host fills it in.
    config = manifest["server"]["mcp_config"]
    filled = {"${__dirname}": unpacked, "${user_config.traces}": unpacked}
    command = [config["command"], *config["args"]]
    for name, value in filled.items():
        command = [word.replace(name, value) for word in command]
    assert not any("${" in word for word in command), command
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "pack", "version": "1"}}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}) + "\n"
    answer = subprocess.run(command, input=line, capture_output=True, text=True, timeout=60, check=True).stdout
    assert json.loads(answer)["result"]["serverInfo"]["version"] == version, answer

address = f"{entry['repository']['url']}/releases/download/v{version}/{packed.name}"
digest = hashlib.sha256(packed.read_bytes()).hexdigest()
entry["packages"] = [
    {"registryType": "mcpb", "identifier": address, "fileSha256": digest, "transport": {"type": "stdio"}}
]
schema = json.loads((registry / "server.schema.json").read_text())
jsonschema.Draft7Validator.check_schema(schema)
jsonschema.validate(entry, schema, jsonschema.Draft7Validator)
into.write_text(json.dumps(entry, indent=2) + "\n")
print(f"{packed.name}: {packed.stat().st_size >> 10} KiB, sha256 {digest}")
