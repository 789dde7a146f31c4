#!/usr/bin/env bash
# Builds the MCP server and asks it about a trace through a real client; as root, it collects as well:
# test-mcp.sh TRACE
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

trace=$(realpath "${1:?usage: scripts/test-mcp.sh TRACE}")
scripts/setup.sh python3-venv
venv 'mcp==2.3.0'
cargo build --quiet --locked -p schedtrace-mcp -p schedtrace
sums=$(mktemp)
trap 'rm -f "$sums"' EXIT
test_server() {
    "$python" scripts/test-mcp.py "$trace" "$@" | tee -a "$sums"
}
status=0
test_server "$CARGO_TARGET_DIR/debug/schedtrace-mcp" --trace "$trace" || status=$?
if is_root; then
    scripts/setup.sh bpftool
    PATH=$PATH:/usr/sbin test_server "$CARGO_TARGET_DIR/debug/schedtrace" mcp --trace "$(dirname "$trace")" --collect || status=$?
else
    echo "collecting is not tried: it needs root"
fi
awk '/^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 } END { print passed + 0 " passed, " failed + 0 " failed" }' "$sums"
exit "$status"
