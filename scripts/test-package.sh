#!/usr/bin/env bash
# Does what a stranger does: takes the packaged crates, outside of this repository, and builds the README's first example
# on them, without clang; as root it is run too.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

scripts/setup.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Nothing here was published yet, so what is packaged comes from the files; a working tree need not be clean for that.
cargo package --quiet --locked --no-verify --allow-dirty --target-dir "$work/target" -p schedtrace-bpf -p schedtrace-core
mkdir -p "$work/crates" "$work/clang" "$work/example/src"
for crate in "$work"/target/package/*.crate; do
    tar -xzf "$crate" -C "$work/crates"
    echo "$(basename "$crate"): $(stat -c %s "$crate") bytes, $(tar -tzf "$crate" | wc -l) files"
done
for tool in clang bpftool llvm-strip; do
    printf '#!/bin/sh\necho "%s was called, which nobody should need" >&2\nexit 1\n' "$tool" >"$work/clang/$tool"
    chmod +x "$work/clang/$tool"
done

awk '/^```rust/ { inside = 1; next } /^```/ && inside { exit } inside' README.md >"$work/example/src/main.rs"
cat >"$work/example/Cargo.toml" <<TOML
[package]
name = "example"
version = "0.0.0"
edition = "2024"

[dependencies]
schedtrace-core = "0.1"

[workspace]

[patch.crates-io]
schedtrace-core = { path = "$(echo "$work"/crates/schedtrace-core-*)" }
schedtrace-bpf = { path = "$(echo "$work"/crates/schedtrace-bpf-*)" }
TOML
# The versions that are tried here; what the example does not need goes.
cp Cargo.lock "$work/example/Cargo.lock"
begun=$SECONDS
PATH="$work/clang:$PATH" cargo build --quiet --manifest-path "$work/example/Cargo.toml"
echo "built in $((SECONDS - begun)) s, with $(grep -c '^name = ' "$work/example/Cargo.lock") crates"
if is_root; then
    "$CARGO_TARGET_DIR/debug/example" | tee "$work/output"
    grep -Eq '^example\[[0-9]+\]: [0-9]+ waits, p99 [0-9]+ ns$' "$work/output" ||
        die "the example told nothing of its own threads"
else
    echo "the example was not run: recording needs root"
fi
