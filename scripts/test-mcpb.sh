#!/usr/bin/env bash
# Packs the MCP server as it is built for tests, and checks the bundle and the registry's entry for it.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

cargo build --quiet --locked -p schedtrace-mcp
into=$(mktemp -d)
trap 'rm -rf "$into"' EXIT
scripts/mcpb.sh "$CARGO_TARGET_DIR/debug/schedtrace-mcp" "$into"
