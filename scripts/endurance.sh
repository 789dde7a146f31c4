#!/usr/bin/env bash
# Records for MINUTES (20) under the highest rate of switches that this machine can make, with a limit of 1 GiB, and
# prints how much memory the recorder took beyond its rings, and how much disk: endurance.sh [MINUTES [SIZE]]
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

is_root || die "recording needs root: run it as root, then try again"
scripts/setup.sh linux-perf python3 util-linux
cargo build --release --locked --quiet -p schedtrace
python3 scripts/bench/run.py "$CARGO_TARGET_DIR/release/schedtrace" "$cache/bench" endurance "${1:-20}" "${2:-1GiB}"
