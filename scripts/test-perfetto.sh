#!/usr/bin/env bash
# Exports a trace for Perfetto and as CSV, reads the first back with Perfetto's own schema, and compares the two with
# each other and with the report: test-perfetto.sh TRACE... As root, the same with a recording of this machine, and with
# what `record --perfetto` writes of it.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

[ $# -gt 0 ] || die "usage: scripts/test-perfetto.sh TRACE..."
scripts/setup.sh python3-venv
venv 'perfetto==0.59.1' 'protobuf>=6,<8'
cargo build --quiet --locked -p schedtrace
for trace in "$@"; do
    "$python" scripts/test-perfetto.py "$CARGO_TARGET_DIR/debug/schedtrace" "$trace"
done
is_root || exit 0
scripts/setup.sh rt-tests
live=$(mktemp -d)
trap 'rm -rf "$live"' EXIT
"$CARGO_TARGET_DIR/debug/schedtrace" record --user root -o "$live/run.schedtrace" --perfetto "$live/run.pftrace" -- \
    hackbench -p -g 1 -f 5 -l 2000
"$CARGO_TARGET_DIR/debug/schedtrace" record --user root -o "$live/all.schedtrace" --events all --calls 0,1 -- \
    hackbench -p -g 1 -f 5 -l 500
"$python" scripts/test-perfetto.py "$CARGO_TARGET_DIR/debug/schedtrace" "$live/all.schedtrace"
for written in "" "$live/run.pftrace"; do
    "$python" scripts/test-perfetto.py "$CARGO_TARGET_DIR/debug/schedtrace" "$live/run.schedtrace" ${written:+"$written"}
done
