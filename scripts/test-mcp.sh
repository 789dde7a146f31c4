#!/usr/bin/env bash
# Builds the MCP server and asks it about a trace through a real client: test-mcp.sh TRACE
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

trace=${1:?usage: scripts/test-mcp.sh TRACE}
scripts/setup.sh python3-venv
venv 'mcp==2.3.0'
cargo build --quiet --locked -p schedtrace-mcp
"$python" scripts/test-mcp.py "$CARGO_TARGET_DIR/debug/schedtrace-mcp" "$trace"
