#!/bin/sh
# In the virtual machine: records every kind of event there is, while a scheduler of sched_ext comes and goes: of the test that
# loads one, which lies beside this.
hostname testhost
schedtrace record --events all --calls 0,1 -o /tmp/events.schedtrace -- ./vm vm_what_a_scheduler --test-threads=1
schedtrace info /tmp/events.schedtrace
cp -r /tmp/events.schedtrace /run/out/result/
