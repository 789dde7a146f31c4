#!/usr/bin/env bash
# Prints the table of truth: records threads whose behaviour is known, and compares what schedtrace says of them with
# what the kernel counts (/proc/TID/schedstat, /proc/TID/status) and with what ftrace shows. Then the books of recorders
# that were starved, stopped and stormed: what was emitted, delivered and lost. Needs root; fails if a row does not hold.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

is_root || die "recording needs root: run it as root, then try again"
scripts/setup.sh rt-tests
for transport in arena ring; do
    if [ "$transport" = arena ] && ! cargo run --quiet --locked -p schedtrace -- doctor | grep -q 'BPF arena, one'; then
        echo "this kernel has no BPF arena for the programs: rings alone"
        continue
    fi
    export SCHEDTRACE_TRANSPORT=$transport
    echo "transport: $transport"
    cargo test --quiet --locked -p schedtrace --test truth -- live_ --nocapture --test-threads=1
    cargo test --quiet --locked -p schedtrace-core --test loss -- live_ --nocapture --test-threads=1
done
