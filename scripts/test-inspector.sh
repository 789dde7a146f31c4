#!/usr/bin/env bash
# Asks the MCP server through the MCP Inspector: the schemas of its tools are what every host takes, and both eras are
# served, by the program of its own and by the command. test-inspector.sh TRACE
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

trace=$(realpath "${1:?usage: scripts/test-inspector.sh TRACE}")
scripts/setup.sh
npm_tools
cargo build --quiet --locked -p schedtrace-mcp -p schedtrace
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
passed=0
failed=0

# What it keeps of servers goes where nobody looks again.
inspector() {
    HOME="$home" MCP_CATALOG_PATH="$home/mcp.json" timeout 60 \
        "$node" "$npm_bin/mcp-inspector" --cli "$@" >"$home/out" 2>"$home/err"
}

check() {
    local what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $what"
        tail -c 2000 "$home/err" "$home/out"
    fi
}

# Not even advice is left.
is_clean() {
    inspector "$@" --method tools/list --strict && ! grep -qiE 'portab|warning|error' "$home/err"
}

says() {
    local told=$1
    shift
    inspector "$@" && grep -q "$told" "$home/out"
}

debug="$CARGO_TARGET_DIR/debug"
for server in "$debug/schedtrace mcp" "$debug/schedtrace-mcp"; do
    # Two words where it is the command.
    read -r -a target <<<"$server"
    target+=(--trace "$trace")
    name=$(basename "${target[0]}")
    for powers in "" "--collect"; do
        # shellcheck disable=SC2206 # none or one
        all=("${target[@]}" $powers)
        for era in legacy modern; do
            check "$name $powers, $era: schemas" is_clean "${all[@]}" --protocol-era "$era"
        done
    done
    for era in legacy modern; do
        check "$name, $era: a call" says '"p99_ns"' "${target[@]}" --protocol-era "$era" \
            --method tools/call --tool-name get_scheduler_stats --tool-args-json '{}' --format json -q
        check "$name, $era: a prompt" says 'resolve_causal_chain' "${target[@]}" --protocol-era "$era" \
            --method prompts/get --prompt-name debug_high_latency --prompt-args pid=7 --format json -q
        check "$name, $era: resources" inspector "${target[@]}" --protocol-era "$era" --method resources/list --format json -q
        check "$name, $era: templates" says 'schedtrace://trace/' "${target[@]}" --protocol-era "$era" \
            --method resources/templates/list --format json -q
        check "$name, $era: a report at its address" says 'run_queue' "${target[@]}" --protocol-era "$era" \
            --method resources/read --uri "schedtrace://trace/$(basename "$trace")/overview" --format json -q
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
