#!/usr/bin/env bash
# Prints what schedtrace reports beside what the kernel says of the same threads, and the books of starved recorders; ends
# with status 0 if they agree. Needs root.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

scripts/setup.sh rt-tests
cargo test --quiet --locked -p schedtrace --test truth -- --nocapture --test-threads=1
cargo test --quiet --locked -p schedtrace-core --test loss -- --nocapture --test-threads=1
