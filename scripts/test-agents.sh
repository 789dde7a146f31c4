#!/usr/bin/env bash
# Records 25 cases with known culprits, and sees how many of them a client finds that knows only a prompt of the MCP server:
# examples/agent-eval. Needs root, and two CPUs. Takes --seed N, --only TEXT, --json FILE.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

# What else happens on a machine may well take more of somebody's time than the culprit of a case: so many may be missed.
may_miss=3
if [ "$(nproc)" -lt 2 ]; then
    echo "skipped: a culprit and a busier decoy take two CPUs, and there is one"
    exit 0
fi
scripts/setup.sh python3-venv
venv 'mcp==2.3.0'
cargo build --quiet --locked -p schedtrace-mcp
as_root "$python" examples/agent-eval/run.py --may-miss "$may_miss" "$@" "$CARGO_TARGET_DIR/debug/schedtrace-mcp"
