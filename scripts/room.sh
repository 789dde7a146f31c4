#!/usr/bin/env bash
# Room on the disk for what all checks build. Each clone's crates go to the shared cache under names of their own, and
# nothing else ever takes those of an earlier clone away.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

# GiB: what one whole run leaves of its own crates, and what of all.
ours=20
all=40

free() {
    df --output=avail -BG "$CARGO_TARGET_DIR" | tail -n 1 | tr -dc 0-9
}

mkdir -p "$CARGO_TARGET_DIR"
if [ "$(free)" -lt "$all" ]; then
    echo "$(free) GiB are free: taking away what earlier clones built"
    cargo clean --workspace
fi
if [ "$(free)" -lt "$ours" ]; then
    echo "$(free) GiB are free: taking away all that was built"
    cargo clean
fi
[ "$(free)" -ge "$ours" ] ||
    die "the checks need $all GiB under $CARGO_TARGET_DIR, and $(free) are free: make room, or set CARGO_TARGET_DIR to another disk"
echo "$(free) GiB are free under $CARGO_TARGET_DIR"
