#!/usr/bin/env bash
# Puts each known mistake back into a copy of what is committed, and sees the test that guards against it fail.
# With --check, sees only that each can still be put back.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

if [ "${1-}" != --check ]; then
    scripts/setup.sh
    scripts/bpf.sh --check
fi
cargo run --quiet --locked -p xtask -- mistakes "$@"
