#!/usr/bin/env bash
# Installs what a build here needs and this machine lacks: a C compiler, make, pkg-config, libelf and zlib, and the
# packages named as arguments. Checks the Rust toolchain. Changes nothing else.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

packages=(gcc libc6-dev make pkg-config libelf-dev zlib1g-dev "$@")
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    missing=()
    for package in "${packages[@]}"; do
        is_installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        echo "installing ${missing[*]}"
        log=$(mktemp)
        # Lists may be absent or stale on a fresh machine: update only where installing without it fails.
        apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}")
        if ! as_root "${apt[@]}" >"$log" 2>&1 &&
            ! { as_root apt-get -qq update && as_root "${apt[@]}"; } >"$log" 2>&1; then
            cat "$log" >&2
            rm -f "$log"
            die "apt-get could not install ${missing[*]}: see above"
        fi
        rm -f "$log"
    fi
else
    echo "no apt-get here: install the equivalents of ${packages[*]} yourself, if a build asks for them"
fi

needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null; then
    die "Rust is missing: install $needed or later, with rustup (https://rustup.rs) or your distribution's package (apt-get install cargo, where it is that new)"
fi
found=$(cargo --version | cut -d ' ' -f 2)
if [ "$(printf '%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1)" != "$needed" ]; then
    die "Rust $found is too old: install $needed or later, with rustup (rustup update stable; https://rustup.rs) or your distribution's package"
fi
