#!/usr/bin/env bash
# Records anew a trace that the tests replay, on the test kernel with 8 CPUs: fixture.sh [hackbench|events] (vm/fixture.sh
# and vm/fixture-events.sh say what). Every accepted report, screen and answer is of the first: accept those anew, too, and read
# what changed.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

result=$(mktemp -d)
trap 'rm -rf "$result"' EXIT
scripts/setup.sh rt-tests binutils
mkdir "$result/run"
which=${1:-hackbench}
case $which in
hackbench)
    fixtures=crates/schedtrace/tests/fixtures
    cp scripts/vm/fixture.sh "$result/run/run"
    ;;
events)
    # Apart: the accepted session of the MCP server lists all that lies beside the other.
    fixtures=crates/schedtrace/tests/every-event
    cp scripts/vm/fixture-events.sh "$result/run/run"
    binary=$(cargo test --quiet --locked -p schedtrace-core --test vm --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    strip -o "$result/run/vm" "$binary"
    ;;
*) die "no trace is called $which: hackbench or events" ;;
esac
VM_RUN=$result/run VM_RESULT=$result scripts/vm-test.sh
[ -d "$result/$which.schedtrace" ] || die "nothing was recorded: see above"
rm -rf "$fixtures/$which.schedtrace"
cp -r "$result/$which.schedtrace" "$fixtures/"
