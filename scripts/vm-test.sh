#!/usr/bin/env bash
# Boots a kernel in a virtual machine of CPUS (8) CPUs, two last-level caches and two NUMA nodes, runs the live tests in
# it, and ends with one line that sums up: vm-test.sh [KERNEL]
#
# KERNEL is a bzImage that has 9p, virtio and BTF built in, by default the newest in ../shared/kernel. For one that has
# them as modules, MODULES names its folder of modules (lib/modules/RELEASE). debian-6.1, debian-6.12 and so on fetch
# Debian's own. VM=skip leaves all of this out; VM_RESULT names a folder for what the machine said. VM_RUN names a folder
# whose script "run" is run in place of the tests, with schedtrace at hand; what it leaves in /run/out/result goes to
# VM_RESULT, too. With VM_CLOCK=instructions, time there is a count of instructions, one a nanosecond.
set -euo pipefail
here=$PWD
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

if [ "${VM:-}" = skip ]; then
    echo "tests in virtual machines left out (VM=skip)"
    exit
fi
kernel=${1:-${KERNEL:-$(find ../shared/kernel -maxdepth 1 -name 'bzImage-*' 2>/dev/null | sort -V | tail -n 1)}}
[ -n "$kernel" ] || die "no test kernel: there is no ../shared/kernel/bzImage-*; name one (make vm-test KERNEL=bzImage), or leave these tests out (VM=skip)"
if [[ $kernel == debian-* ]]; then
    fetched=$(scripts/vm/debian.sh "${kernel#debian-}")
    read -r kernel MODULES <<<"$fetched"
fi
[ -e "$kernel" ] || kernel=$here/$kernel
[ -z "${MODULES:-}" ] || [ -e "$MODULES" ] || MODULES=$here/$MODULES
[ -r "$kernel" ] || die "$kernel cannot be read: name a kernel image (make vm-test KERNEL=bzImage)"
kernel=$(realpath "$kernel")
cpus=${CPUS:-8}
[[ $cpus =~ ^(8|16|32|64)$ ]] || die "CPUS is $cpus: 8, 16, 32 or 64"
is_root || die "the virtual machine reads this machine's root file system: run as root"
scripts/setup.sh qemu-system-x86 iproute2 binutils strace rt-tests tmux util-linux

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cp scripts/vm/init.sh "$out/"
# name, then what is to be run of it.
if [ -n "${VM_RUN:-}" ]; then
    tests=()
    cp -rL "$VM_RUN" "$out/run"
elif [ "$cpus" = 8 ]; then
    tests=("schedtrace_core live_" "live live_" "ends live_" "loss reader room tail" "events live_" "vm vm_" "mcp-vm vm_" "tui-vm vm_")
else
    tests=("vm vm_")
fi
cargo build --quiet --locked -p schedtrace
# crate PACKAGE [OPTION...]: its test programs, a line for each, with their names.
crate() {
    cargo test --quiet --locked -p "$@" --no-run --message-format=json |
        sed -n 's/.*"kind":\["\(lib\|test\)"\].*"name":"\([a-z_-]*\)".*"executable":"\([^"]*\)".*/\2 \3/p'
}
[ -n "${VM_RUN:-}" ] || {
    crate schedtrace-core
    crate schedtrace-mcp | sed 's/^/mcp-/'
    crate schedtrace-tui --features live | sed 's/^/tui-/'
} >"$out/binaries"
strip -o "$out/schedtrace" "$CARGO_TARGET_DIR/debug/schedtrace"
cargo build --quiet --locked -p schedtrace-core --features live --example two_queues
strip -o "$out/two_queues" "$CARGO_TARGET_DIR/debug/examples/two_queues"
for test in "${tests[@]}"; do
    name=${test%% *}
    binary=$(awk -v name="$name" '$1 == name { print $2 }' "$out/binaries" | tail -n 1)
    [ -n "$binary" ] || die "cargo made no test binary for $name"
    strip -o "$out/$name" "$binary"
done
printf '%s\n' "${tests[@]}" >"$out/tests"
mkdir "$out/result"

half=$((cpus / 2))
clock=()
[ "${VM_CLOCK:-}" != instructions ] || clock=(-icount "shift=0,sleep=off")
append="console=ttyS0 panic=-1 loglevel=4 init=$out/init.sh"
boot=()
if [ -n "${MODULES:-}" ]; then
    boot=(-initrd "$out/initrd")
    scripts/vm/initrd.sh "$(realpath "$MODULES")" "$out/init.sh" >"$out/initrd"
else
    append+=" root=/dev/root rootfstype=9p rootflags=trans=virtio,version=9p2000.L,msize=262144 ro"
fi
echo "$(basename "$kernel") with $cpus CPUs, emulated"
# One thread: with several, the guest dies when its kernel patches its own code, which attaching a program does.
timeout "${VM_SECONDS:-1500}" qemu-system-x86_64 -accel tcg,thread=single "${clock[@]}" -cpu EPYC-Rome,topoext=on -m 3G \
    -smp "$cpus,sockets=2,dies=1,cores=$((half / 2)),threads=2" \
    -object memory-backend-ram,id=m0,size=1536M -object memory-backend-ram,id=m1,size=1536M \
    -numa "node,nodeid=0,cpus=0-$((half - 1)),memdev=m0" -numa "node,nodeid=1,cpus=$half-$((cpus - 1)),memdev=m1" \
    -nographic -no-reboot -kernel "$kernel" "${boot[@]}" \
    -fsdev local,id=root,path=/,security_model=none,multidevs=remap,readonly=on \
    -device virtio-9p-pci,fsdev=root,mount_tag=/dev/root \
    -fsdev "local,id=out,path=$out,security_model=none,multidevs=remap" -device virtio-9p-pci,fsdev=out,mount_tag=out \
    -append "$append" </dev/null >"$out/console" 2>&1 || echo "the virtual machine ended with $?"
if [ ! -s "$out/output" ]; then
    tail -n 40 "$out/console"
    die "the virtual machine said nothing: see its console above"
fi
cat "$out/output"
read -r passed failed empty < <(awk '
    /^test result: / { passed += $4; failed += $6; empty += $4 + $6 == 0 }
    END { print passed + 0, failed + 0, empty + 0 }' "$out/output")
if [ "$empty" != 0 ]; then
    echo "$empty of the programs had no test to run: was a feature left out?"
    failed=$((failed + empty))
fi
if ! grep -qx finished "$out/output"; then
    tail -n 20 "$out/console"
    echo "the virtual machine did not come to the end of its tests"
    failed=$((failed + 1))
fi
if [ -n "${VM_RESULT:-}" ]; then
    mkdir -p "$VM_RESULT"
    cp -r "$out/output" "$out/doctor.json" "$out/result/." "$VM_RESULT/"
    printf '%s\n' "$(basename "$kernel" | sed 's/^[a-zA-Z]*-//')" "$cpus CPUs, 2 LLCs, 2 nodes, emulated" >"$VM_RESULT/machine"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && { [ "$passed" != 0 ] || [ -n "${VM_RUN:-}" ]; }
