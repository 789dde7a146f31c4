#!/usr/bin/env bash
# Builds schedtrace, records this machine for five seconds, whatever it is doing, and reports why tasks waited.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

scripts/setup.sh
# Without SQL, whose engine alone takes longer to build than all the rest, and needs a newer Rust.
cargo build --release --locked --ignore-rust-version -p schedtrace --no-default-features --features live
schedtrace="$CARGO_TARGET_DIR/release/schedtrace"
trace="$(mktemp -d)/demo.schedtrace"

as_root "$schedtrace" record -d 5s -o "$trace"
as_root "$schedtrace" report "$trace"
echo "the trace is in $trace"
