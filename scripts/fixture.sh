#!/usr/bin/env bash
# Records anew the trace that the tests replay, on the test kernel with 8 CPUs (vm/fixture.sh says what). Every accepted
# report, screen and answer is of this trace: accept those anew, too, and read what changed.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

fixtures=crates/schedtrace/tests/fixtures
result=$(mktemp -d)
trap 'rm -rf "$result"' EXIT
scripts/setup.sh rt-tests
mkdir "$result/run"
cp scripts/vm/fixture.sh "$result/run/run"
VM_RUN=$result/run VM_RESULT=$result scripts/vm-test.sh
[ -d "$result/hackbench.schedtrace" ] || die "nothing was recorded: see above"
rm -rf "$fixtures/hackbench.schedtrace"
cp -r "$result/hackbench.schedtrace" "$fixtures/"
