#!/usr/bin/env bash
# Builds the Python wheel, installs it in a virtual environment of its own, and tests it on a trace: test-py.sh TRACE
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

trace=${1:?usage: scripts/test-py.sh TRACE}
scripts/setup.sh python3-venv
venv 'maturin>=1.9,<2'
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"$python" -m maturin build --quiet --locked --manifest-path crates/schedtrace-py/Cargo.toml --out "$wheels"
"$python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheels"/schedtrace-*.whl
"$python" crates/schedtrace-py/tests/test_schedtrace.py "$trace"
