#!/bin/sh
# The first process of the virtual machine that scripts/vm-test.sh boots: runs what lies in the shared folder, tests or a script,
# writes what they say there, and turns the machine off. The root is the host's, read-only.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t debugfs debug /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t tmpfs vartmp /var/tmp
mkdir /run/out
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 out /run/out || poweroff -f
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp RUST_BACKTRACE=0 SCHEDTRACE_VM=1
ip link set lo up
cd /tmp || poweroff -f
{
    uname -r
    /run/out/schedtrace doctor --json >/run/out/doctor.json
    /run/out/schedtrace doctor
    [ ! -e /run/out/run ] || (cd /run/out/run && PATH=/run/out:$PATH sh -e ./run)
    # A line for each, if there are any: the binary, and what is to be run of it.
    while read -r binary filters && [ -n "$binary" ]; do
        echo "     Running $binary $filters"
        cp "/run/out/$binary" /tmp/
        # shellcheck disable=SC2086 # several filters
        "/tmp/$binary" $filters --test-threads=1 2>&1
        rm "/tmp/$binary"
    done </run/out/tests
    echo finished
} >/run/out/output 2>&1
sync
poweroff -f
