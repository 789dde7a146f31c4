#!/usr/bin/env bash
# Asks other engines - DuckDB, polars and pyarrow - for what `schedtrace sql` says of a trace: they read its Parquet files
# as they are, those that `schedtrace export` writes, and those that `schedtrace sql --format parquet` writes, and all
# answers must be equal, to the last digit. What schedtrace makes of the events is made again, in the SQL of DuckDB:
# test-engines.sh TRACE... PROGRAM names a finished command to ask instead of one built here.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

[ $# -gt 0 ] || die "usage: [PROGRAM=COMMAND] scripts/test-engines.sh TRACE..."
traces=()
for trace in "$@"; do
    traces+=("$(realpath "$trace")")
done
if [ -z "${PROGRAM:-}" ]; then
    scripts/setup.sh python3-venv
    cargo build --quiet --locked -p schedtrace
    PROGRAM="$CARGO_TARGET_DIR/debug/schedtrace"
fi
# The engine of polars for old processors reads the same, wherever the other one cannot run.
polars=polars
grep -qm 1 -w avx2 /proc/cpuinfo || polars='polars[rtcompat]'
venv 'duckdb==2.0.0' "$polars==2.1.0" 'pyarrow==26.0.1'
"$python" scripts/test-engines.py "$PROGRAM" "${traces[@]}"
