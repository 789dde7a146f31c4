#!/usr/bin/env bash
# Builds the MCP server and asks it about a trace through a real client; as root, it collects as well. The session that
# docs/mcp-session.md shows must be what is said: accept=1 writes it anew. test-mcp.sh TRACE
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

trace=$(realpath "${1:?usage: scripts/test-mcp.sh TRACE}")
scripts/setup.sh python3-venv
venv 'mcp==2.3.0'
cargo build --quiet --locked -p schedtrace-mcp -p schedtrace
sums=$(mktemp)
session=$(mktemp)
trap 'rm -f "$sums" "$session"' EXIT
"$python" scripts/mcp-session.py "$CARGO_TARGET_DIR/debug/schedtrace" "$trace" >"$session"
if [ "${accept:-}" = 1 ]; then
    cp "$session" docs/mcp-session.md
fi
diff -u docs/mcp-session.md "$session" || die "a session reads differently now: look, and accept it with accept=1 scripts/test-mcp.sh TRACE"
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
