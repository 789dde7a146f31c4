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

# bpftool_packages: what has bpftool here. Ubuntu has one for each kernel, and no package of that name.
bpftool_packages() {
    if command -v bpftool >/dev/null && bpftool version >/dev/null 2>&1; then
        return
    elif apt-cache show bpftool >/dev/null 2>&1; then
        echo bpftool
    else
        echo linux-tools-common "linux-tools-$(uname -r)"
    fi
}

# npm_tools: the MCP Inspector and the tools for MCP bundles in the cache, and a Node.js that is new enough for them beside an
# older one; sets $node and $npm_bin. Nothing of them is run while they are installed.
npm_tools() {
    local home="$cache/npm" machine
    case $(uname -m) in
    x86_64) machine=x64 ;;
    aarch64) machine=arm64 ;;
    *) die "there is no package of Node.js 22 for $(uname -m): these checks run on x86_64 and aarch64" ;;
    esac
    # All at once: what is not named would be removed. What is there already is not asked for again.
    local wanted=("node-linux-$machine@22" @modelcontextprotocol/inspector@2.12.0 @anthropic-ai/mcpb@2.1.2)
    if [ "$(cat "$home/installed" 2>/dev/null)" != "${wanted[*]}" ]; then
        command -v npm >/dev/null || scripts/setup.sh npm
        mkdir -p "$home"
        [ -e "$home/package.json" ] || echo '{"private": true}' >"$home/package.json"
        npm install --prefix "$home" --ignore-scripts --no-audit --no-fund --no-save --loglevel=error "${wanted[@]}" >/dev/null ||
            die "npm could not install the tools: see above"
        echo "${wanted[*]}" >"$home/installed"
    fi
    # shellcheck disable=SC2034 # both are used by those that source this
    node="$home/node_modules/node-linux-$machine/bin/node" npm_bin="$home/node_modules/.bin"
}
