#!/usr/bin/env bash
# Measures what recording and reading cost, here and beside other tracers, and writes docs/performance.md: as root, in about
# half an hour. bench.sh [PART [ROUNDS [WORKLOAD...]]]: one part alone is stages (simulated machines, by criterion), programs
# (the BPF side), compare (other tracers), emulated (scxtop among them, on the test kernel in an emulator; if scxtop is not
# there, that builds it for a quarter of an hour), figures (schedtrace alone), reports (of figures, only those), sql
# (statements, beside DuckDB), mcp (answers to agents, and streams to them), top (the terminal UI), events (each kind of events, for docs/events.md) or page (from what was measured last).
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

part=${1:-all}
rounds=${2:-5}
workloads=("${@:3}")
results="$cache/bench"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$results"

bench() {
    cargo bench --quiet --locked -p schedtrace-core --features csv,perfetto,synthetic --bench "$@"
}

# Where sched_ext is, which this machine's kernel may lack, and where time is a count of instructions.
emulated() {
    if [ "${VM:-}" = skip ]; then
        echo "the emulator is left out (VM=skip)"
        return
    fi
    if [ ! -x "$cache/scxtop/bin/scxtop" ]; then
        scripts/setup.sh clang-19
        BPF_CLANG=clang-19 CARGO_TARGET_DIR="$work/scxtop" cargo install --quiet scxtop --version 1.1.4 --root "$cache/scxtop"
    fi
    mkdir "$work/run"
    cp "$program" "$cache/scxtop/bin/scxtop" scripts/bench/*.py "$work/run/"
    echo 'SCXTOP=./scxtop python3 run.py ./schedtrace /run/out/result emulated' >"$work/run/run"
    VM_CLOCK=instructions VM_RUN=$work/run VM_RESULT=$work/emulated scripts/vm-test.sh
    cp "$work/emulated/emulated.json" "$results/"
}

is_wanted() {
    [ "$part" = all ] || [ "$part" = "$1" ]
}

[[ $part =~ ^(all|stages|programs|compare|emulated|figures|reports|sql|mcp|top|events|page)$ ]] || die "bench.sh has no part called $part: stages, programs, compare, emulated, figures, reports, sql, mcp, top, events or page"
is_root || [[ $part =~ ^(stages|page)$ ]] || die "recording needs root: run it as root, then try again"
scripts/setup.sh util-linux python3
if is_wanted stages; then
    # Of an earlier run, nothing that has no bench any more.
    rm -rf "$CARGO_TARGET_DIR/criterion"
    bench stages --no-run
    (
        taskset -pc "$(($(nproc) - 1))" "$BASHPID" >/dev/null
        bench stages
    )
fi
if is_wanted programs; then
    scripts/setup.sh clang-19 linux-perf
    clang-19 -O2 -g -target bpf -c scripts/bench/empty.bpf.c -o "$work/empty.bpf.o"
    bench programs -- "$work/empty.bpf.o" "$rounds" | tee "$work/programs.jsonl"
    mv "$work/programs.jsonl" "$results/"
fi
if is_wanted compare || is_wanted emulated || is_wanted figures || [ "$part" = reports ]; then
    scripts/setup.sh linux-perf bpftrace libbpf-tools rt-tests stress-ng
    cargo build --release --locked --quiet -p schedtrace
    program="$CARGO_TARGET_DIR/release/schedtrace"
    ! is_wanted compare || TMPDIR=$work python3 scripts/bench/run.py "$program" "$results" compare "$rounds" "${workloads[@]}"
    ! is_wanted emulated || emulated
    [ "$part" != reports ] || TMPDIR=$work python3 scripts/bench/run.py "$program" "$results" reports
    ! is_wanted figures || TMPDIR=$work python3 scripts/bench/run.py "$program" "$results" figures
fi
if is_wanted sql; then
    scripts/setup.sh linux-perf python3-venv
    venv 'duckdb==2.0.0'
    cargo build --release --locked --quiet -p schedtrace
    TMPDIR=$work "$python" scripts/bench/sql.py "$CARGO_TARGET_DIR/release/schedtrace" "$results" "$rounds"
fi
if is_wanted mcp; then
    scripts/setup.sh linux-perf
    cargo build --release --locked --quiet -p schedtrace -p schedtrace-mcp
    TMPDIR=$work python3 scripts/bench/mcp.py "$CARGO_TARGET_DIR/release/schedtrace-mcp" "$CARGO_TARGET_DIR/release/schedtrace" \
        "$results" "$rounds"
fi
if is_wanted top; then
    scripts/setup.sh linux-perf stress-ng python3-venv
    venv 'pyte==0.8.2'
    cargo bench --quiet --locked -p schedtrace-tui --bench frame
    cargo build --release --locked --quiet -p schedtrace
    TMPDIR=$work "$python" scripts/bench/top.py "$CARGO_TARGET_DIR/release/schedtrace" "$results" "$rounds"
fi
if is_wanted events; then
    scripts/setup.sh rt-tests
    bench events -- "$work/events" "$PWD" "$PWD/docs/events.md"
    echo "docs/events.md is written"
fi
if is_wanted page; then
    python3 scripts/bench/page.py "$results" "$CARGO_TARGET_DIR/criterion" >"$work/page"
    cp "$work/page" docs/performance.md
    echo "docs/performance.md is written"
fi
