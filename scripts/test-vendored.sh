#!/usr/bin/env bash
# Builds the command with libelf and zlib linked statically, and sees that it needs no library of the distribution.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

scripts/setup.sh "${vendored_needs[@]}"
cargo build --quiet --locked -p schedtrace --no-default-features --features vendored
needed=$(ldd "$CARGO_TARGET_DIR/debug/schedtrace" | awk '{ print $1 }')
echo "$needed"
if grep -E 'libelf|libz|libbpf' <<<"$needed"; then
    die "these should have been linked statically"
fi
