#!/usr/bin/env bash
# What each build takes, from nothing: crates, seconds, and the size of what comes out. A table in Markdown.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

scripts/setup.sh python3-venv "${vendored_needs[@]}"
venv 'maturin>=1.9,<2'
cargo fetch --quiet --locked
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# row WHAT FILE COMMAND...: runs a build that tells of its artifacts in JSON; FILE, below the build's folder, came out of it.
row() {
    local what=$1 file=$2 begun=$SECONDS crates size=
    shift 2
    export CARGO_TARGET_DIR="$work/target"
    "$@" >"$work/messages" 2>"$work/errors" || die "$what: $(tail -3 "$work/errors")"
    crates=$(sed -n 's/^{"reason":"compiler-artifact","package_id":"\([^"]*\)".*/\1/p' "$work/messages" | sort -u | wc -l)
    if [ "$crates" = 0 ]; then
        # maturin keeps cargo's messages to itself, but leaves a fingerprint of every crate behind.
        crates=$(find "$CARGO_TARGET_DIR/release/.fingerprint" -mindepth 1 -maxdepth 1 | sed 's,.*/,,; s/-[0-9a-f]*$//' | sort -u | wc -l)
    fi
    if [ -n "$file" ]; then
        size=$(find "$CARGO_TARGET_DIR" -path "$CARGO_TARGET_DIR/$file" -printf %s | numfmt --to=iec-i --suffix=B --format=%.1f)
    fi
    printf '| %s | %s | %s | %s |\n' "$what" "$crates" "$((SECONDS - begun))" "$size"
    rm -rf "$CARGO_TARGET_DIR"
}

library() {
    cargo build --locked --message-format=json -p schedtrace-core "$@"
}

command() {
    cargo build --locked --message-format=json --release -p schedtrace "$@"
}

wheel() {
    "$python" -m maturin build --quiet --locked --release --manifest-path crates/schedtrace-py/Cargo.toml --out "$CARGO_TARGET_DIR"
}

echo "$(nproc) CPUs, $(rustc --version)"
echo
echo "| build | crates | seconds | size |"
echo "|---|---|---|---|"
row "library, no features" "" library --no-default-features
row "library, \`live\`" "" library --no-default-features --features live
row "library, \`trace\`" "" library --no-default-features --features trace
row "library, default features" "" library
row "command, release" release/schedtrace command
row "command, release, \`vendored\`" release/schedtrace command --features vendored
row "wheel, release" "schedtrace-*.whl" wheel
