#!/bin/sh
# In the virtual machine: records the trace that the tests replay. One group of hackbench, beside a task that never sleeps.
hostname testhost
sh -c 'while :; do :; done' &
hog=$!
schedtrace record -o /tmp/hackbench.schedtrace -- hackbench -p -g 1 -f 4 -l 30
kill "$hog"
schedtrace info /tmp/hackbench.schedtrace
cp -r /tmp/hackbench.schedtrace /run/out/result/
