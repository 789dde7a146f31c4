#!/usr/bin/env bash
# Kills 50 recorders at random moments, and prints what was found of each and how it was finished. Needs root.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

scripts/setup.sh rt-tests
cargo test --quiet --locked -p schedtrace --test crash live_kills -- --nocapture --test-threads=1
