#!/usr/bin/env bash
# Asks every face of schedtrace - library, command, terminal, MCP server, Python module - for the same reports of a
# trace, and compares what they say, digit by digit: test-faces.sh TRACE. The module must be installed (test-py.sh).
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

trace=$(realpath "${1:?usage: scripts/test-faces.sh TRACE}")
scripts/setup.sh python3-venv
venv 'mcp==2.3.0' 'pyte==0.8.2'
cargo build --quiet --locked -p schedtrace -p schedtrace-core --example report --bins
"$python" scripts/test-faces.py "$CARGO_TARGET_DIR/debug" "$trace"
