#!/usr/bin/env bash
# Builds the Python wheel, installs it in a virtual environment of its own, tests it on a trace, checks its types, and
# executes its notebook: test-py.sh TRACE [EXECUTED], where EXECUTED is a file for the notebook with what it shows.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

trace=$(realpath "${1:?usage: scripts/test-py.sh TRACE}")
# The wheel links libelf and zlib statically; these build them.
scripts/setup.sh python3-venv "${vendored_needs[@]}"
venv 'maturin>=1.9,<2' pyarrow polars pandas 'nbclient>=0.10' ipykernel mypy
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"$python" -m maturin build --quiet --locked --manifest-path crates/schedtrace-py/Cargo.toml --out "$wheels"
for wheel in "$wheels"/*.whl; do
    echo "$(basename "$wheel"): $(stat -c %s "$wheel") bytes"
done
"$python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheels"/schedtrace-*.whl
"$python" -m mypy --strict crates/schedtrace-py/python/schedtrace
cat >"$wheels/execute.py" <<'PY'
"""Executes a notebook; fails where a cell does: execute.py NOTEBOOK FOLDER RESULT"""
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
html = sum("text/html" in output.get("data", {}) for output in shown)
assert html >= 4, f"only {html} cells show a table"
nbformat.write(notebook, sys.argv[3])
print(f"the notebook was executed: {len(shown)} results, {html} of them tables")
PY
TRACE=$trace "$python" "$wheels/execute.py" crates/schedtrace-py/notebooks/waits.ipynb . "${2:-$wheels/executed.ipynb}"
"$python" crates/schedtrace-py/tests/test_schedtrace.py "$trace"
