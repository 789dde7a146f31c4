#!/usr/bin/env bash
# Packs a schedtrace-mcp binary into an MCP bundle, with the entry that the MCP registry takes for it; both are checked
# against what their formats ask. mcpb.sh BINARY FOLDER writes schedtrace-VERSION-linux-MACHINE.mcpb and server.json there.
set -euo pipefail
usage="usage: scripts/mcpb.sh BINARY FOLDER"
binary=$(realpath "${1:?$usage}")
mkdir -p "${2:?$usage}"
into=$(realpath "$2")
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

scripts/setup.sh python3-venv
npm_tools
venv 'jsonschema>=4.23,<5'
bundle=$(mktemp -d)
trap 'rm -rf "$bundle"' EXIT
mkdir "$bundle/server"
cp packaging/mcpb/manifest.json LICENSE-MIT LICENSE-APACHE "$bundle"
# Debug information is not for users.
strip -o "$bundle/server/schedtrace-mcp" "$binary"
chmod 755 "$bundle/server/schedtrace-mcp"
"$node" "$npm_bin/mcpb" validate "$bundle/manifest.json"
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
packed="$into/schedtrace-$version-linux-$(uname -m).mcpb"
rm -f "$packed"
"$node" "$npm_bin/mcpb" pack "$bundle" "$packed" >/dev/null
"$python" scripts/mcpb.py "$bundle" "$packed" "$version" packaging/mcp-registry "$into/server.json"
