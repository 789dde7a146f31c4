# shellcheck shell=bash
# What the scripts here share; sourced by them.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

cache="${XDG_CACHE_HOME:-$HOME/.cache}/schedtrace"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"

# What builds libelf and zlib, for the feature `vendored`.
# shellcheck disable=SC2034 # used by those that source this
vendored_needs=(autoconf automake autopoint bison flex gawk gettext libtool)

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

is_root() {
    [ "$(id -u)" = 0 ]
}

# as_root COMMAND...: as it is for root, else with sudo.
as_root() {
    if is_root; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root is needed for \`$*\`, and there is no sudo: run it as root, then try again"
    fi
}

# venv PACKAGE...: a Python virtual environment in the cache that has these packages; sets $python.
venv() {
    local home="$cache/venv"
    command -v python3 >/dev/null || die "python3 is missing: sudo apt-get install python3 python3-venv"
    [ -x "$home/bin/python" ] || python3 -m venv "$home" ||
        die "python3 cannot make a virtual environment: sudo apt-get install python3-venv"
    python="$home/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check "$@"
}
