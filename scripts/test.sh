#!/usr/bin/env bash
# Runs every test and ends with one line that sums up. Tests whose names begin with `live_` record the running kernel:
# they need root and hackbench (some of them mkfs.ext4 and setcap too), and are left out by name, with a line that says
# so, where one of the two is missing. Those that begin with `vm_` need a machine of their own: scripts/vm-test.sh.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

if is_root; then
    # shellcheck disable=SC2046 # several, or none
    scripts/setup.sh tmux util-linux rt-tests e2fsprogs libcap2-bin strace $(bpftool_packages)
else
    # Terminals are made by these.
    scripts/setup.sh tmux util-linux
fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0

run() {
    "$@" 2>&1 | tee -a "$output" || status=$?
}

run cargo test --workspace --locked --no-fail-fast -- --skip live_ --skip vm_
why=
if ! is_root; then
    why="they need root"
elif ! command -v hackbench >/dev/null; then
    why="they need hackbench (Debian and Ubuntu: rt-tests)"
fi
if [ -z "$why" ]; then
    # One at a time: each looks at the whole machine.
    run cargo test --workspace --locked --no-fail-fast -- live_ --test-threads=1
    # Those that depend on it once more with the transport that every kernel has: by itself, a new one takes the arena.
    export SCHEDTRACE_TRANSPORT=ring
    run cargo test --workspace --locked --no-fail-fast --lib --test live --test loss --test truth --test explain -- live_ --test-threads=1
    unset SCHEDTRACE_TRANSPORT
else
    echo "live tests left out (--skip live_): $why"
fi

# test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.00s
read -r passed failed < <(awk '
    /^test result: / { passed += $4; failed += $6 }
    END { print passed + 0, failed + 0 }' "$output")
# What did not compile, or crashed, has no line of its own.
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
    failed=1
fi
if [ "$passed" = 0 ] && [ "$failed" = 0 ]; then
    echo "no test ran" >&2
    status=1
fi
echo "$passed passed, $failed failed"
[ "$status" = 0 ] && [ "$failed" = 0 ]
