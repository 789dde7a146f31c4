#!/usr/bin/env bash
# Tries every kernel there is to try, one after the other, and writes docs/kernels.md: Debian's 6.1 and 6.12, the newest
# test kernel with 8 and with 16 CPUs, and the one that runs here. Needs root; takes half an hour.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

is_root || die "recording needs root: run it as root, then try again"
scripts/setup.sh rt-tests
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# Tests that fail are told in the table.
VM_RESULT=$results/1 KERNEL=debian-6.1 scripts/vm-test.sh || true
VM_RESULT=$results/2 KERNEL=debian-6.12 scripts/vm-test.sh || true
VM_RESULT=$results/3 scripts/vm-test.sh || true
VM_RESULT=$results/4 CPUS=16 scripts/vm-test.sh || true

mkdir "$results/5"
kernel=$(uname -r)
printf '%s\n' "${kernel%%-*}" "$(nproc) CPUs" >"$results/5/machine"
cargo run --quiet --locked -p schedtrace -- doctor --json >"$results/5/doctor.json" || true
{
    for test in live ends loss; do
        echo "     Running $test live_"
        cargo test --quiet --locked -p schedtrace-core --test "$test" -- live_ --test-threads=1 || true
    done
    echo "     Running schedtrace_core live_"
    cargo test --quiet --locked -p schedtrace-core --lib -- live_ --test-threads=1 || true
    echo finished
} 2>&1 | tee "$results/5/output"

cargo run --quiet --locked -p xtask -- kernels "$results"/[1-5] >"$results/page"
cp "$results/page" docs/kernels.md
