#!/usr/bin/env bash
# Checks what the command prints with --json against docs/json.schema.json: test-json.sh TRACE. As root it records as well,
# loses events on purpose, and asks as nobody, and then no property of the schema may have stayed unseen.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

trace=$(realpath "${1:?usage: scripts/test-json.sh TRACE}")
scripts/setup.sh python3-venv
venv 'jsonschema>=4.23,<5'
cargo build --quiet --locked -p schedtrace
"$python" scripts/test-json.py "$CARGO_TARGET_DIR/debug/schedtrace" docs/json.schema.json "$trace"
