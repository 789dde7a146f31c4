#!/usr/bin/env bash
# Writes an initial RAM disk for a kernel that has virtio and 9p as modules: it inserts them, takes the host's root file
# system, and goes on with INIT there: initrd.sh MODULES INIT >FILE
#
# MODULES is lib/modules/RELEASE of that kernel, with its modules.dep.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/../env.sh"

modules=$(realpath "${1:?"a folder of modules"}")
init=${2:?"the first program"}
release=${modules##*/}
base=${modules%/lib/modules/"$release"}
[ "$base" != "$modules" ] || die "$modules is no folder lib/modules/RELEASE: MODULES takes one"
[ -e "$modules/modules.dep" ] || die "$modules has no modules.dep: run depmod -b $base $release"
scripts/setup.sh busybox-static cpio kmod xz-utils zstd >&2

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,dev,proc,sys,modules,new}
cp "$(command -v busybox)" "$tree/bin/busybox"
# In the order in which they have to be inserted; what is built in needs no file.
for module in virtio_pci 9pnet_virtio 9p; do
    /sbin/modprobe -d "$base" -S "$release" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$tree/paths"
while read -r path; do
    name=${path##*/}
    case $path in
        *.xz) xz -dc "$path" ;;
        *.zst) zstd -qdc "$path" ;;
        *.gz) gzip -dc "$path" ;;
        *) cat "$path" ;;
    esac >"$tree/modules/${name%%.ko*}.ko"
    echo "${name%%.ko*}.ko" >>"$tree/modules/order"
done <"$tree/paths"
rm "$tree/paths"
cat >"$tree/init" <<SH
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do
    /bin/busybox insmod /modules/\$module
done </modules/order
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144 /dev/root /new || /bin/busybox poweroff -f
/bin/busybox umount /proc /dev
exec /bin/busybox switch_root /new $init
SH
chmod +x "$tree/init"
(cd "$tree" && find . | cpio --quiet -o -H newc) | gzip -1
