#!/usr/bin/env bash
# Makes the pictures of the terminal UI in docs/ anew: pictures.sh [PROGRAM]. A session by scripted keys on a terminal of tmux,
# over the trace that tests replay, is recorded by asciinema (docs/top.cast) and drawn as SVG: whole (docs/top-session.svg), and
# two stills (docs/top.svg, docs/top-timeline.svg). PROGRAM is a built `schedtrace`; without one, it is built here.
set -euo pipefail

program=${1:+$(realpath "$1")}
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

scripts/setup.sh python3-venv tmux
venv 'asciinema==2.4.0' 'pyte==0.8.2'
if [ -z "$program" ]; then
    # Without SQL, whose engine alone takes longer to build than all the rest.
    cargo build --quiet --locked -p schedtrace --no-default-features --features live
    program="$CARGO_TARGET_DIR/debug/schedtrace"
fi
"$python" scripts/pictures.py "$program" crates/schedtrace/tests/fixtures/hackbench.schedtrace docs
