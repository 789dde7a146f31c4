#!/usr/bin/env bash
# Rebuilds the BPF objects and their skeletons with the pinned clang; `--check` fails instead where they differ.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

version=19.1.7
clang="clang-${version%%.*}"
scripts/setup.sh "$clang"
command -v "$clang" >/dev/null || die "$clang is missing: install clang $version, so that the objects can be compared"
found=$("$clang" -dumpversion)
[ "$found" = "$version" ] ||
    die "$clang is $found, and the objects are built with exactly $version (Debian 12 and 13 have it): another one gives other objects"
cargo run --quiet --locked -p xtask -- bpf "$@"
