#!/usr/bin/env bash
# Fetches Debian's newest kernel of a version, 6.1 or 6.12 say, into the cache, and prints its image and its folder of
# modules: debian.sh VERSION
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/../env.sh"

version=${1:?"a version, such as 6.1"}
scripts/setup.sh kmod >&2
newest() {
    apt-cache search --names-only "^linux-image-${version//./\\.}[.+-][0-9.+a-z-]*-amd64$" |
        cut -d ' ' -f 1 | grep -vE -- '-(cloud|rt|unsigned)' | sort -V | tail -n 1
}
package=$(newest)
if [ -z "$package" ]; then
    as_root apt-get -qq update
    package=$(newest)
fi
[ -n "$package" ] ||
    die "no package of Debian's Linux $version in the sources of apt here: add the suite that has it, or name an image (KERNEL=bzImage MODULES=lib/modules/RELEASE)"
release=${package#linux-image-}
folder=$cache/kernels/$release
if [ ! -e "$folder/lib/modules/$release/modules.dep" ]; then
    fetched=$(mktemp -d)
    trap 'rm -rf "$fetched"' EXIT
    # As root, because apt's own user cannot write here.
    (cd "$fetched" && apt-get -qq -o APT::Sandbox::User=root download "$package") >&2
    rm -rf "$folder"
    mkdir -p "$folder"
    dpkg -x "$fetched"/*.deb "$folder"
    /sbin/depmod -b "$folder" "$release"
fi
echo "$folder/boot/vmlinuz-$release $folder/lib/modules/$release"
