#!/usr/bin/env bash
# Everything that is checked without running a test. With an argument, only that check.
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
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features trace -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features csv -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features perfetto -- -D warnings
    cargo clippy --locked -p schedtrace-core --all-targets --no-default-features --features synthetic -- -D warnings
    cargo clippy --locked -p schedtrace --all-targets --no-default-features -- -D warnings
}

doc() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --workspace
}

house() {
    cargo run --quiet --locked -p xtask -- house
    cargo run --quiet --locked -p xtask -- mistakes --check
}

deny() {
    if ! command -v cargo-deny >/dev/null; then
        PATH="$cache/tools/bin:$PATH"
        # It takes minutes to build; once.
        command -v cargo-deny >/dev/null ||
            cargo install --quiet --locked --root "$cache/tools" cargo-deny --version 0.20.2
    fi
    cargo deny --locked check licenses bans sources
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
