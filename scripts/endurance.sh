#!/usr/bin/env bash
# Records for MINUTES (20) under the highest rate of switches that this machine can make, with a limit of 1 GiB, and
# prints how much memory the recorder took beyond its rings, and how much disk: endurance.sh [MINUTES [SIZE]]
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

minutes=${1:-20}
size=${2:-1GiB}
scripts/setup.sh rt-tests
cargo build --release --locked --quiet -p schedtrace
trace=$(mktemp -d)/endurance.schedtrace
load=()
# shellcheck disable=SC2317 # called by trap
cleanup() {
    # Each is a session of its own, so that what it started goes with it.
    for pid in "${load[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
    if [ -n "${recorder:-}" ] && kill "$recorder" 2>/dev/null; then wait "$recorder" || true; fi
    rm -rf "$(dirname "$trace")"
}
trap cleanup EXIT

"$CARGO_TARGET_DIR/release/schedtrace" record -o "$trace" --max-size "$size" -d "${minutes}m" &
recorder=$!
# Attaching takes long on a machine that is busy.
while [ ! -e "$trace/meta.json" ] && kill -0 "$recorder" 2>/dev/null; do sleep 0.1; done
# Two pairs that wake each other on every CPU, as fast as they can; perf's are the faster ones.
pairs='perf bench sched pipe -l 100000000 & perf bench sched pipe -l 100000000'
command -v perf >/dev/null || pairs='while :; do hackbench -p -g 1 -f 2 -l 100000; done'
for cpu in $(seq 0 $(($(nproc) - 1))); do
    setsid taskset -c "$cpu" bash -c "$pairs" >/dev/null 2>&1 &
    load+=($!)
done

# KiB resident in the rings, and in all else.
resident() {
    awk '/^[0-9a-f]+-[0-9a-f]+ / { ring = /bpf-map/ }
        /^Rss:/ { if (ring) rings += $2; else other += $2 }
        END { print rings + 0, other + 0 }' "/proc/$recorder/smaps"
}
most=0 disk_most=0 told=$SECONDS
while kill -0 "$recorder" 2>/dev/null; do
    read -r _ other < <(resident 2>/dev/null) || break
    # Files come and go while they are counted, which du takes for a failure.
    disk=$({ du -sk "$trace" 2>/dev/null || true; } | cut -f1)
    most=$((other > most ? other : most)) disk_most=$((${disk:-0} > disk_most ? disk : disk_most))
    if [ $((SECONDS - told)) -ge 60 ]; then
        told=$SECONDS
        printf 'now %d MiB beyond the rings, %d MiB of disk\n' $((other / 1024)) $((disk / 1024)) >&2
    fi
    sleep 2
done
status=0
wait "$recorder" || status=$?
printf 'memory beyond the rings, at most: %d MiB\n' $((most / 1024))
printf 'disk, at most:                    %d MiB\n' $((disk_most / 1024))
exit "$status"
