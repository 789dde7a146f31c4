#!/usr/bin/env bash
# What is checked without running a test: formatting, clippy, documentation, the rules of the house, licences, and the
# scripts. With arguments, only these checks; `features`, `msrv`, `examples` and `api` are there as well, and fetch tools of
# their own.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

fmt() {
    cargo fmt --all --check
}

# Core alone with each of its features as well: what one of them needs, another must not bring.
clippy() {
    cargo clippy --locked --workspace --all-targets -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features live -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features machine -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features trace -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features csv -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features perfetto -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features synthetic -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features sql -- -D warnings
    cargo clippy --locked -p schedtrace --all-targets --no-default-features -- -D warnings
}

doc() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --workspace
}

house() {
    cargo run --quiet --locked -p xtask -- house
    cargo run --quiet --locked -p xtask -- mistakes --check
}

# tool NAME VERSION: builds a cargo tool into the cache, once, which takes minutes.
tool() {
    PATH="$cache/tools/bin:$PATH"
    if ! command -v "$1" >/dev/null || ! "$1" "${1#cargo-}" --version 2>/dev/null | grep -qF "$2"; then
        CARGO_TARGET_DIR="$cache/tools/target" cargo install --quiet --locked --force --root "$cache/tools" "$1" --version "$2"
    fi
}

# toolchain NAME: the toolchain, by rustup.
toolchain() {
    command -v rustup >/dev/null || die "rustup is missing, which gives the toolchain $1: https://rustup.rs"
    rustup toolchain list | grep -q "^$1-" || rustup --quiet toolchain install "$1" --profile minimal
}

deny() {
    tool cargo-deny 0.20.2
    cargo deny --locked check licenses bans sources
}

# Any two features of the library together, and each feature of the others.
features() {
    tool cargo-hack 0.6.46
    # `sql` with each of the others would build the engine again each time; alone, clippy has looked at it.
    cargo hack check --quiet --no-dev-deps --feature-powerset --depth 2 --exclude-features vendored,sql -p schedtrace-core
    cargo hack check --quiet --no-dev-deps --each-feature -p schedtrace -p schedtrace-mcp -p schedtrace-tui
}

# The oldest Rust that the manifests promise: that of the workspace without `sql`, and that of the two programs with it.
msrv() {
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    toolchain "$version"
    cargo "+$version" check --quiet --locked --workspace --exclude schedtrace --exclude schedtrace-mcp --all-targets
    cargo "+$version" check --quiet --locked --ignore-rust-version -p schedtrace -p schedtrace-mcp --all-targets --no-default-features --features live
    version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' crates/schedtrace/Cargo.toml)
    toolchain "$version"
    cargo "+$version" check --quiet --locked -p schedtrace -p schedtrace-mcp
}

# What only this rustdoc tells: it is nightly's alone.
nightly="nightly-2026-10-30"

# Every public item of the library has an example (fields and variants are part of theirs).
examples() {
    local lint=rustdoc::missing_doc_code_examples
    scripts/setup.sh "${vendored_needs[@]}"
    toolchain "$nightly"
    RUSTDOCFLAGS="-Z unstable-options -Z crate-attr=feature(rustdoc_missing_doc_code_examples) -D $lint" \
        cargo "+$nightly" doc --quiet --locked --no-deps --all-features -p schedtrace-core
}

# The public API, as crates/schedtrace-core/public-api.txt has it; accept=1 writes it anew.
api() {
    local file=crates/schedtrace-core/public-api.txt now
    scripts/setup.sh "${vendored_needs[@]}"
    toolchain "$nightly"
    tool cargo-public-api 0.52.0
    now=$(mktemp)
    cargo "+$nightly" public-api -p schedtrace-core --all-features -sss --color=never >"$now" 2>/dev/null ||
        die "the public API cannot be told: run cargo +$nightly public-api -p schedtrace-core --all-features"
    if [ "${accept:-}" = 1 ]; then
        cp "$now" "$file"
    fi
    diff -u "$file" "$now" || die "the public API has changed: look at it, and accept it with accept=1 scripts/lint.sh api"
    rm "$now"
}

shell() {
    scripts/setup.sh shellcheck
    if command -v shellcheck >/dev/null; then
        shellcheck -x scripts/*.sh .ci/run
    else
        echo "shellcheck is missing: the scripts are not checked"
    fi
}

for check in "${@:-fmt clippy doc house deny shell}"; do
    for one in $check; do
        "$one"
    done
done
