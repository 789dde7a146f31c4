#!/usr/bin/env bash
# Builds the MCP server and asks it about a trace through real clients, in both eras of the protocol; as root, it collects as
# well. Then it is treated badly. What it shows clients must be docs/mcp-surface.json, and a session read as in
# docs/mcp-session.md: accept=1 writes both anew. test-mcp.sh TRACE
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

trace=$(realpath "${1:?usage: scripts/test-mcp.sh TRACE}")
# With every kind of event.
other=$(realpath crates/schedtrace/tests/every-event/events.schedtrace)
scripts/setup.sh python3-venv strace
venv 'mcp==2.3.0' 'jsonschema>=4.23,<5'
cargo build --quiet --locked -p schedtrace-mcp -p schedtrace
debug="$CARGO_TARGET_DIR/debug"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sums=$folder/sums

# compare WHAT FILE FOUND: what is found is what the file says.
compare() {
    if [ "${accept:-}" = 1 ]; then
        cp "$3" "$2"
    fi
    diff -u "$2" "$3" || die "$1 reads differently now: look, and accept it with accept=1 scripts/test-mcp.sh TRACE"
}
"$python" scripts/mcp-surface.py "$debug/schedtrace-mcp" --collect >"$folder/surface"
compare "what clients are shown" docs/mcp-surface.json "$folder/surface"
"$python" scripts/mcp-session.py "$debug/schedtrace" "$trace" >"$folder/session"
compare "a session" docs/mcp-session.md "$folder/session"

status=0
try() {
    timeout 1200 "$python" "$@" | tee -a "$sums" || status=1
}
try scripts/test-mcp.py "$trace" "$debug/schedtrace-mcp" --trace "$trace"
try scripts/test-mcp.py "$other" "$debug/schedtrace-mcp" --trace "$other"
if is_root; then
    # shellcheck disable=SC2046 # several, or none
    scripts/setup.sh $(bpftool_packages)
    PATH=$PATH:/usr/sbin try scripts/test-mcp.py "$trace" "$debug/schedtrace" mcp --trace "$(dirname "$trace")" --collect
else
    echo "collecting is not tried: it needs root"
fi
try scripts/test-hostile.py "$trace" "$debug/schedtrace-mcp"
awk '/^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 } END { print passed + 0 " passed, " failed + 0 " failed" }' "$sums"
exit "$status"
