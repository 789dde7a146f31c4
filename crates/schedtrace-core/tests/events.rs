//! Each kind of event that is not recorded by default: provoked, and its values checked against what was done, or against what
//! the kernel says elsewhere. `vm.rs` has those that this takes a machine of its own for. Needs root.
//!
//! Nothing provokes `cpu_frequency`, neither here nor in the emulator: neither has CPUs that change their frequency.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "live")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::futex;
use rustix::thread::{MembarrierCommand, gettid};
#[cfg(feature = "machine")]
use schedtrace_core::analysis::{self, Options, Study, SystemUse};
use schedtrace_core::live::CollectorBuilder;
#[cfg(feature = "machine")]
use schedtrace_core::system::stats::{SystemCpu, SystemMemory, SystemNetwork};
#[cfg(feature = "machine")]
use schedtrace_core::{Batch, MemorySource, Name};
use schedtrace_core::{
    BlockComplete, BlockInsert, BlockIssue, CpuIdle, CredChange, EventGroup, EventKind, FutexWait, FutexWake, IpiEntry,
    IpiSend, IrqEntry, IrqExit, Kind, MajorFault, NameId, Nanos, PrioChange, SoftirqEntry, SoftirqExit, SoftirqRaise,
    Syscall, SyscallFailed, TaskId, Wait, Wakeup, WorkEnd, WorkStart,
};
use support::{Recorded, record};

fn only(kinds: impl IntoIterator<Item = Kind>) -> CollectorBuilder {
    support::collector().events(kinds)
}

fn group(group: EventGroup) -> CollectorBuilder {
    support::collector().events_where_possible(Kind::ALL.into_iter().filter(|kind| kind.group() == group))
}

/// What a closure makes of the events, in their order.
fn of<T>(recorded: &Recorded, what: impl Fn(EventKind) -> Option<T>) -> Vec<T> {
    recorded.events.iter().filter_map(|event| what(event.kind)).collect()
}

fn tid() -> u32 {
    gettid().as_raw_nonzero().get() as u32
}

fn is(recorded: &Recorded, task: TaskId, tid: u32) -> bool {
    recorded.ids(tid).contains(&task)
}

fn name(recorded: &Recorded, id: NameId) -> &str {
    recorded.names.get(&id).map_or("", String::as_str)
}

/// The numbers of system calls on this machine.
#[cfg(target_arch = "x86_64")]
const OPENAT: u32 = 257;
#[cfg(target_arch = "x86_64")]
const CLOCK_NANOSLEEP: u32 = 230;
#[cfg(not(target_arch = "x86_64"))]
const OPENAT: u32 = 56;
#[cfg(not(target_arch = "x86_64"))]
const CLOCK_NANOSLEEP: u32 = 115;

#[test]
fn live_failing_calls_are_told_with_their_errors() {
    let (recorded, me) = record(only([Kind::SyscallFailed]), || {
        for _ in 0..100 {
            assert!(fs::File::open("/no/such/file").is_err());
        }
        assert!(fs::read("/proc/self").is_err());
        tid()
    });
    recorded.assert_balanced();
    let mine = of(&recorded, |kind| match kind {
        EventKind::SyscallFailed(SyscallFailed { task, number, errno }) if is(&recorded, task, me) => {
            Some((number, errno))
        }
        _ => None,
    });
    assert_eq!(mine.iter().filter(|call| **call == (OPENAT, 2)).count(), 100, "ENOENT");
    assert!(mine.iter().any(|(_, errno)| *errno == 21), "EISDIR: {mine:?}");
    assert!(mine.iter().all(|(_, errno)| (1..512).contains(errno)));
}

#[test]
fn live_chosen_calls_are_timed() {
    const SLEEP: Duration = Duration::from_millis(10);
    let (recorded, (me, took)) = record(only([Kind::Syscall]).calls([CLOCK_NANOSLEEP, OPENAT]), || {
        let took = (0..5).map(|_| {
            let began = Instant::now();
            thread::sleep(SLEEP);
            Nanos::from(began.elapsed())
        });
        let took: Vec<_> = took.collect();
        assert!(fs::File::open("/no/such/file").is_err());
        (tid(), took)
    });
    recorded.assert_balanced();
    let calls = of(&recorded, |kind| match kind {
        EventKind::Syscall(Syscall { task, number, result, duration_ns }) if is(&recorded, task, me) => {
            Some((number, result, duration_ns))
        }
        _ => None,
    });
    let slept: Vec<_> = calls.iter().filter(|call| call.0 == CLOCK_NANOSLEEP).collect();
    assert_eq!(slept.len(), 5, "{calls:?}");
    for ((_, result, duration), took) in slept.into_iter().zip(took) {
        assert!(*result == 0 && *duration >= SLEEP.into() && *duration <= took, "{duration} of {took}");
    }
    assert!(calls.iter().any(|call| call.0 == OPENAT && call.1 == -2), "{calls:?}");
    assert!(calls.iter().all(|call| [OPENAT, CLOCK_NANOSLEEP].contains(&call.0)), "nobody asked for others");
}

#[test]
fn live_who_waits_for_a_futex_and_who_wakes_it_have_one_address() {
    let (recorded, (waiter, waker, address, waited, value)) = record(group(EventGroup::Futex), || {
        let word = Arc::new(AtomicU32::new(0));
        let sleeper = thread::spawn({
            let word = Arc::clone(&word);
            move || {
                let began = Instant::now();
                futex::wait(&word, futex::Flags::PRIVATE, 0, None).unwrap();
                let waited = began.elapsed();
                // It is another one already, and nobody wakes this one.
                assert!(futex::wait(&word, futex::Flags::PRIVATE, 1, None).is_err());
                let short = futex::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                assert!(futex::wait(&word, futex::Flags::PRIVATE, 0, Some(&short)).is_err());
                (tid(), Nanos::from(waited))
            }
        });
        thread::sleep(Duration::from_millis(50));
        let woken = loop {
            match futex::wake(&word, futex::Flags::PRIVATE, 10).unwrap() {
                0 => thread::sleep(Duration::from_millis(1)),
                woken => break woken,
            }
        };
        let (waiter, waited) = sleeper.join().unwrap();
        (waiter, tid(), Arc::as_ptr(&word) as u64, waited, woken)
    });
    recorded.assert_balanced();
    let waits = of(&recorded, |kind| match kind {
        EventKind::FutexWait(FutexWait { task, address: at, duration_ns, result }) if at.0 == address => {
            Some((is(&recorded, task, waiter), duration_ns, result))
        }
        _ => None,
    });
    let wakes = of(&recorded, |kind| match kind {
        EventKind::FutexWake(FutexWake { task, address: at, woken }) if at.0 == address && woken > 0 => {
            Some((is(&recorded, task, waker), woken))
        }
        _ => None,
    });
    assert_eq!(waits.iter().map(|wait| (wait.0, wait.2)).collect::<Vec<_>>(), [(true, 0), (true, -11), (true, -110)]);
    assert!(waits[0].1 >= Nanos(40_000_000) && waits[0].1 <= waited, "{waits:?}, {waited}");
    assert!(waits[2].1 >= Nanos(20_000_000), "{waits:?}");
    assert_eq!((value, wakes), (1, vec![(true, 1)]));
}

#[cfg(target_arch = "x86_64")]
const FUTEX: u32 = 202;
#[cfg(not(target_arch = "x86_64"))]
const FUTEX: u32 = 98;

/// strace writes no decoder of ours, and stops the process at each call: what it counts of threads that wake each other is
/// the truth for both.
#[test]
fn live_futex_calls_are_those_that_strace_counts() {
    let counted = tempfile::NamedTempFile::new().unwrap();
    let kinds = [Kind::Syscall, Kind::FutexWait, Kind::FutexWake];
    let (recorded, pid) = record(only(kinds).calls([FUTEX]), || {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-e", "trace=futex", "-o"]).arg(counted.path());
        let strace = strace.args(["hackbench", "--threads", "-p", "-g", "1", "-f", "4", "-l", "50"]);
        let mut strace = strace.stdout(Stdio::null()).spawn().unwrap();
        let pid = strace.id();
        assert!(strace.wait().unwrap().success());
        pid
    });
    recorded.assert_balanced();
    // The columns are: share, seconds, microseconds a call, calls, errors where there were any, and the name.
    let text = fs::read_to_string(counted.path()).unwrap();
    let row: Vec<_> = text.lines().find(|line| line.ends_with(" futex")).unwrap().split_whitespace().collect();
    let calls: u64 = row[3].parse().unwrap();
    let errors: u64 = if row.len() == 6 { row[4].parse().unwrap() } else { 0 };
    let traced =
        recorded.tasks.iter().find(|task| task.ppid == pid && task.comm.to_string() == "hackbench").unwrap().tgid;
    let is_theirs = |task: TaskId| recorded.tasks.iter().any(|known| known.id == task && known.tgid == traced);
    let seen = of(&recorded, |kind| match kind {
        EventKind::Syscall(Syscall { task, number: FUTEX, result, .. }) if is_theirs(task) => Some(result),
        _ => None,
    });
    // strace takes what is begun again after a signal for an error, too: it is rare.
    assert!(calls > 0 && seen.len() as u64 == calls, "{} calls, and strace says\n{text}", seen.len());
    let failed = seen.iter().filter(|result| **result < 0).count() as u64;
    assert_eq!(failed, errors, "{text}");
    let waits = recorded.count(|event| matches!(event.kind, EventKind::FutexWait(wait) if is_theirs(wait.task)));
    let wakes = recorded.count(|event| matches!(event.kind, EventKind::FutexWake(wake) if is_theirs(wake.task)));
    assert_eq!(waits + wakes, calls, "each is one or the other");
}

/// Sums of `/proc/softirqs`, by their names.
fn softirqs() -> BTreeMap<String, u64> {
    let text = fs::read_to_string("/proc/softirqs").unwrap();
    let line = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        Some((name.trim().to_owned(), counts.split_whitespace().map(|count| count.parse::<u64>().unwrap()).sum()))
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn live_softirqs_are_those_that_the_kernel_counts() {
    let before = softirqs();
    let (recorded, (inner_before, inner_after)) = record(group(EventGroup::Irq), || {
        let inner = softirqs();
        support::datagrams(200);
        (inner, softirqs())
    });
    let after = softirqs();
    recorded.assert_balanced();
    assert_eq!(recorded.lost(Kind::SoftirqEntry), 0);
    let mut begun: BTreeMap<String, u64> = BTreeMap::new();
    let (mut ended, mut raised) = (begun.clone(), begun.clone());
    for event in &recorded.events {
        let (counts, vector) = match event.kind {
            EventKind::SoftirqEntry(SoftirqEntry { vector }) => (&mut begun, vector),
            EventKind::SoftirqExit(SoftirqExit { vector }) => (&mut ended, vector),
            EventKind::SoftirqRaise(SoftirqRaise { vector }) => (&mut raised, vector),
            _ => continue,
        };
        *counts.entry(vector.name().expect("none is beyond the list").to_owned()).or_default() += 1;
    }
    assert!(begun["NET_RX"] >= 200 && begun.contains_key("TIMER") && raised["NET_RX"] >= 200, "{begun:?} {raised:?}");
    for (name, &count) in &begun {
        let least = inner_after[name] - inner_before[name];
        let most = after[name] - before[name];
        // On some virtual machines no tracer sees what a CPU does while a thread of process 1 is current: now and then one.
        let seen = count + 2 + least / 100;
        assert!(seen >= least && count <= most, "{name}: {count}, and /proc/softirqs says {least} to {most}");
        assert!(count.abs_diff(ended[name]) <= 2 * 512, "{name}: each ends, but for those at the edges");
    }
    // On each CPU they begin and end in turn.
    let mut open: BTreeMap<_, bool> = BTreeMap::new();
    for event in &recorded.events {
        match event.kind {
            EventKind::SoftirqEntry(_) => assert!(open.insert(event.cpu, true) != Some(true), "{event:?}"),
            EventKind::SoftirqExit(_) => {
                open.insert(event.cpu, false);
            }
            _ => {}
        }
    }
}

/// Counts of `/proc/interrupts` over all CPUs, by number, with what its line ends with.
fn interrupts() -> BTreeMap<u32, (u64, String)> {
    let text = fs::read_to_string("/proc/interrupts").unwrap();
    let line = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let number = number.trim().parse().ok()?;
        let counts = rest.split_whitespace().map_while(|word| word.parse::<u64>().ok()).sum();
        Some((number, (counts, rest.trim().to_owned())))
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn live_interrupts_are_those_that_the_kernel_counts_and_names() {
    let before = interrupts();
    let (recorded, ()) = record(group(EventGroup::Irq), || {
        // Whatever the programs come from, it is not all in memory.
        for file in fs::read_dir("/usr/bin").unwrap().take(200) {
            let _ = fs::File::open(file.unwrap().path()).and_then(|mut file| file.read(&mut [0; 64]));
        }
        let mut file = scratch();
        file.write_all(&[1; 4096]).unwrap();
        let _ = file.sync_all();
        thread::sleep(Duration::from_millis(500));
    });
    let after = interrupts();
    recorded.assert_balanced();
    let mut seen: BTreeMap<u32, (u64, String)> = BTreeMap::new();
    for event in &recorded.events {
        if let EventKind::IrqEntry(IrqEntry { irq, action }) = event.kind {
            let line = seen.entry(irq).or_default();
            line.0 += 1;
            line.1 = name(&recorded, action).to_owned();
        }
    }
    let exits = recorded.count(|event| matches!(event.kind, EventKind::IrqExit(IrqExit { handled: true, .. })));
    assert!(!seen.is_empty() && exits > 0, "a machine has interrupts");
    for (irq, (count, action)) in seen {
        let (most, line) = (after[&irq].0 - before.get(&irq).map_or(0, |line| line.0), &after[&irq].1);
        assert!(
            line.ends_with(&action) || line.contains(&format!(" {action},")),
            "{irq} is {action:?}, and not {line:?}"
        );
        // A shared one runs each of its handlers.
        let handlers = line.split(',').count() as u64;
        assert!(count > 0 && count <= most * handlers, "{irq} {action}: {count}, and /proc/interrupts says {most}");
    }
}

#[test]
fn live_interrupts_between_cpus_are_sent_and_come() {
    rustix::thread::membarrier(MembarrierCommand::RegisterPrivateExpedited).unwrap();
    let (recorded, ()) = record(group(EventGroup::Irq), || {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                support::pin(1);
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            support::pin(0);
            thread::sleep(Duration::from_millis(20));
            // The kernel interrupts whichever CPU runs a thread of this process. Again and again: now and then somebody else
            // has that CPU for a while.
            for _ in 0..20 {
                (0..20).for_each(|_| rustix::thread::membarrier(MembarrierCommand::PrivateExpedited).unwrap());
                thread::sleep(Duration::from_millis(2));
            }
            over.store(true, Ordering::Relaxed);
        });
    });
    recorded.assert_balanced();
    let came = recorded.count(|event| {
        matches!(event.kind, EventKind::IpiEntry(IpiEntry { ipi }) if ipi.name().is_some_and(|name| name.starts_with("call")))
            && event.cpu.0 == 1
    });
    assert!(came >= 50, "{came} came to CPU 1");
    // Linux 6.1 has no tracepoint where they are sent.
    if recorded.meta.probes.iter().any(|probe| probe.kind == Kind::IpiSend && probe.on) {
        let sent = of(&recorded, |kind| match kind {
            EventKind::IpiSend(IpiSend { callback, target_cpu, targets }) if targets > 0 => {
                Some((name(&recorded, callback).to_owned(), target_cpu.0, targets))
            }
            _ => None,
        });
        let there = sent.iter().filter(|(function, cpu, targets)| !function.is_empty() && *cpu == 1 && *targets >= 1);
        assert!(there.count() >= 50, "{sent:?}");
    }
}

#[test]
fn live_idle_states_are_entered_and_left_in_turn() {
    let (recorded, ()) = record(only([Kind::CpuIdle]), || thread::sleep(Duration::from_millis(300)));
    recorded.assert_balanced();
    let mut last = BTreeMap::new();
    for event in &recorded.events {
        let EventKind::CpuIdle(CpuIdle { target_cpu, state }) = event.kind else { continue };
        assert_eq!(target_cpu, event.cpu);
        if let Some(before) = last.insert(target_cpu, state) {
            assert!((before == -1) != (state == -1), "CPU {target_cpu} went from {before} to {state}");
        }
    }
    assert!(!last.is_empty(), "some CPU was idle");
}

#[test]
fn live_kernel_threads_work_has_a_name_and_an_end() {
    let (recorded, ()) = record(only([Kind::WorkStart, Kind::WorkEnd]), || thread::sleep(Duration::from_millis(2500)));
    recorded.assert_balanced();
    let mut open = BTreeMap::new();
    let mut whole = 0;
    for event in &recorded.events {
        match event.kind {
            EventKind::WorkStart(WorkStart { task, function }) => assert_eq!(open.insert(task, function), None),
            EventKind::WorkEnd(WorkEnd { task, function }) => {
                if let Some(begun) = open.remove(&task) {
                    assert_eq!(name(&recorded, begun), name(&recorded, function));
                    whole += 1;
                }
            }
            _ => {}
        }
    }
    // `vmstat_update()` runs every second or two on every CPU that is not idle all the time.
    assert!(whole > 0, "{} events", recorded.events.len());
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    let known = recorded
        .names
        .values()
        .filter(|name| symbols.contains(&format!(" {name}\n")) || symbols.contains(&format!(" {name}\t")));
    assert!(known.count() > 0 && recorded.names.values().all(|name| !name.starts_with("0x")), "{:?}", recorded.names);
}

#[test]
fn live_a_wakeup_names_the_cpu_that_the_task_waits_for() {
    let (recorded, (ping, _)) = record(only([Kind::Wakeup, Kind::Waking]), || support::ping_pong(100));
    recorded.assert_balanced();
    let woken = |event: &schedtrace_core::Event| match event.kind {
        EventKind::Wakeup(Wakeup { task, prio, target_cpu }) => {
            is(&recorded, task, ping.tid) && prio == 120 && recorded.meta.topology.online().contains(target_cpu)
        }
        _ => false,
    };
    let wakings =
        recorded.count(|event| matches!(event.kind, EventKind::Waking(waking) if is(&recorded, waking.task, ping.tid)));
    let wakeups = recorded.count(woken);
    assert!(wakeups >= 10 && wakeups.abs_diff(wakings) <= 1, "{wakeups} wakeups, {wakings} wakings");
}

#[test]
fn live_a_parent_waits_for_its_child() {
    let (recorded, (me, child)) = record(only([Kind::Wait, Kind::Fork]), || {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        (tid(), pid)
    });
    let waited = of(&recorded, |kind| match kind {
        EventKind::Wait(Wait { task, pid }) if is(&recorded, task, me) => Some(pid),
        _ => None,
    });
    assert_eq!(waited, [child]);
}

#[test]
fn live_priorities_that_are_set_are_told() {
    let (recorded, (setter, sleeper)) = record(only([Kind::PrioChange]), || {
        let mut sleeper = Command::new("sleep").arg("9").spawn().unwrap();
        let pid = sleeper.id().to_string();
        let setter = Command::new("renice").args(["-n", "7", "-p", &pid]).stdout(Stdio::null()).spawn().unwrap();
        let id = setter.id();
        assert!(setter.wait_with_output().unwrap().status.success());
        assert!(Command::new("chrt").args(["--batch", "-p", "0", &pid]).status().unwrap().success());
        let (id, pid) = (id, sleeper.id());
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        (id, pid)
    });
    recorded.assert_balanced();
    let changes = of(&recorded, |kind| match kind {
        EventKind::PrioChange(PrioChange { task, tid, prio, policy }) if tid == sleeper => {
            Some((is(&recorded, task, setter), prio, policy.name()))
        }
        _ => None,
    });
    // Linux 6.1 lets no program look another task up by its number.
    if !changes.is_empty() || fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().as_str() >= "6.2" {
        assert_eq!(changes, [(true, 127, Some("other")), (false, 127, Some("batch"))]);
    }
}

#[test]
fn live_a_task_that_holds_a_lock_is_lent_the_priority_of_who_waits() {
    let (recorded, (holder, waiter)) = record(only([Kind::PiSetprio, Kind::Switch]), || {
        let lock = Arc::new(AtomicU32::new(0));
        let (held, holds) = std::sync::mpsc::sync_channel(1);
        let holder = thread::spawn({
            let lock = Arc::clone(&lock);
            move || {
                futex::lock_pi(&lock, futex::Flags::PRIVATE, None).unwrap();
                held.send(()).unwrap();
                // Until somebody waits: the kernel notes that in the word.
                while lock.load(Ordering::Relaxed) & futex::WAITERS == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                futex::unlock_pi(&lock, futex::Flags::PRIVATE).unwrap();
                tid()
            }
        });
        holds.recv().unwrap();
        let waiter = thread::spawn(move || {
            let me = tid().to_string();
            assert!(Command::new("chrt").args(["--fifo", "-p", "10", &me]).status().unwrap().success());
            futex::lock_pi(&lock, futex::Flags::PRIVATE, None).unwrap();
            futex::unlock_pi(&lock, futex::Flags::PRIVATE).unwrap();
            tid()
        });
        (holder.join().unwrap(), waiter.join().unwrap())
    });
    recorded.assert_balanced();
    let loans = of(&recorded, |kind| match kind {
        EventKind::PiSetprio(loan) if is(&recorded, loan.task, holder) => {
            Some((loan.booster_tid, loan.old_prio, loan.new_prio))
        }
        _ => None,
    });
    // 99 - 10, and back.
    assert_eq!(loans, [(waiter, 120, 89), (0, 89, 120)]);
}

#[test]
fn live_whoever_becomes_another_user_is_told_with_its_ancestors() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let raised = folder.path().join("raised");
    fs::copy("/bin/true", &raised).unwrap();
    fs::set_permissions(&raised, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let (recorded, (me, child)) = record(only([Kind::CredChange]), || {
        let mut child = Command::new("setpriv");
        let mut child =
            child.args(["--reuid", "65534", "--clear-groups", "--regid", "65534"]).arg(&raised).spawn().unwrap();
        let id = child.id();
        assert!(child.wait().unwrap().success());
        (std::process::id(), id)
    });
    recorded.assert_balanced();
    let changes = of(&recorded, |kind| match kind {
        EventKind::CredChange(CredChange { task, uid, euid, capabilities, .. }) if is(&recorded, task, child) => {
            Some((uid, euid, capabilities.0 != 0))
        }
        _ => None,
    });
    // By setresuid(2), and then by the program's file. A file system that is mounted nosuid gives nothing.
    assert!(changes.contains(&(65534, 65534, false)), "{changes:?}");
    let nosuid = fs::read_to_string("/proc/mounts").unwrap();
    let nosuid = nosuid.lines().any(|line| line.split(' ').nth(1) == Some("/tmp") && line.contains("nosuid"));
    assert!(nosuid || changes.last() == Some(&(65534, 0, true)), "{changes:?}");
    // From parent to parent, each of which is known, to this process and on to the first.
    let parent = recorded.tasks.iter().find(|task| task.tid == child).unwrap().ppid;
    assert_eq!(parent, me);
    let mut at = me;
    while at > 1 {
        at = recorded.tasks.iter().find(|task| task.tid == at).unwrap_or_else(|| panic!("{at} is known")).ppid;
    }
}

/// A file on a disk; in the emulator, where none can be written, in memory.
fn scratch() -> fs::File {
    tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap_or_else(|_| tempfile::tempfile().unwrap())
}

/// Major faults of this thread, as the kernel counts them: the 12th field.
fn major_faults() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(9).unwrap().parse().unwrap()
}

#[test]
fn live_major_faults_are_those_that_the_kernel_counts() {
    let mut file = scratch();
    file.write_all(&vec![1; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faulty");
    // A program whose pages are not in memory has to be read where it faults. In the emulator, no page is.
    let program = fs::copy("/usr/bin/stat", &copy).map_or_else(|_| "/usr/bin/stat".into(), |_| copy.clone());
    let (recorded, (me, counted, child)) = record(only([Kind::MajorFault]), || {
        let before = major_faults();
        file.rewind().unwrap();
        rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut byte = [0];
        file.read_exact(&mut byte).unwrap();
        let counted = major_faults() - before;
        let pages = fs::File::open(&program).unwrap();
        let _ = pages.sync_all();
        rustix::fs::fadvise(pages.as_fd(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut child = Command::new(&program).arg("/").stdout(Stdio::null()).spawn().unwrap();
        let id = child.id();
        assert!(child.wait().unwrap().success());
        (tid(), counted, id)
    });
    let _ = fs::remove_file(&copy);
    recorded.assert_balanced();
    let of_task = |tid| {
        recorded.count(
            |event| matches!(event.kind, EventKind::MajorFault(MajorFault { task, .. }) if is(&recorded, task, tid)),
        )
    };
    assert_eq!(of_task(me), counted);
    assert!(of_task(child) > 0, "its program had to be read");
}

/// `/sys/block/DISK/stat`: requests and sectors read, and those written (Documentation/block/stat.rst).
fn disk_stat(disk: &str) -> [u64; 4] {
    let text = fs::read_to_string(format!("/sys/block/{disk}/stat")).unwrap();
    let fields: Vec<u64> = text.split_whitespace().map(|field| field.parse().unwrap()).collect();
    [fields[0], fields[2], fields[4], fields[6]]
}

/// The disk below a folder.
fn disk_of(path: &str) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(path).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let link = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // Of a partition, the disk.
    let link = if link.join("partition").exists() { link.parent()?.to_owned() } else { link };
    Some(link.file_name()?.to_str()?.to_owned())
}

#[test]
fn live_what_a_disk_does_is_what_the_kernel_counts() {
    // In an emulator there is no disk at all.
    let Some(disk) = disk_of(env!("CARGO_TARGET_TMPDIR")) else { return };
    rustix::fs::sync();
    let before = disk_stat(&disk);
    let (recorded, (me, inner)) = record(group(EventGroup::Block), || {
        let before = disk_stat(&disk);
        let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for _ in 0..20 {
            file.write_all(&[1; 64 << 10]).unwrap();
            file.sync_all().unwrap();
        }
        file.rewind().unwrap();
        rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 20 * (64 << 10));
        let after = disk_stat(&disk);
        (tid(), std::array::from_fn::<u64, 4, _>(|at| after[at] - before[at]))
    });
    let after = disk_stat(&disk);
    recorded.assert_balanced();
    let mut counted = [0; 4];
    let mut issued = Vec::new();
    let (mut mine, mut flushes, mut latest) = (0, 0, Nanos::ZERO);
    for event in &recorded.events {
        match event.kind {
            EventKind::BlockInsert(BlockInsert { device, size_bytes, .. }) => {
                assert!(!name(&recorded, device).is_empty() && size_bytes % 512 == 0);
            }
            EventKind::BlockIssue(BlockIssue { task, device, sector, size_bytes, operation }) => {
                mine += u64::from(is(&recorded, task, me));
                if name(&recorded, device) == disk {
                    issued.push((event.ts, size_bytes, operation, sector));
                }
            }
            EventKind::BlockComplete(BlockComplete { device, size_bytes, operation, status, latency_ns, .. }) => {
                if name(&recorded, device) != disk {
                    continue;
                }
                assert!(status == 0 && latency_ns > Nanos::ZERO);
                latest = latest.max(latency_ns);
                let at = match operation.name() {
                    Some("read") => 0,
                    Some("write") => 2,
                    Some("flush") => {
                        flushes += 1;
                        continue;
                    }
                    _ => continue,
                };
                counted[at] += 1;
                counted[at + 1] += u64::from(size_bytes) / 512;
                // It was issued so long ago, as it says.
                let begun = event.ts - latency_ns;
                let found = issued.iter().any(|issue| {
                    issue.2 == operation && issue.0.0.abs_diff(begun.0) < 1_000_000 && issue.1 >= size_bytes
                });
                assert!(found, "{event:?}, issued at {begun}");
            }
            _ => {}
        }
    }
    assert!(mine > 0 && latest > Nanos::ZERO, "some were issued by this thread");
    for at in 0..4 {
        let most = after[at] - before[at];
        // A flush stands there as a write of nothing as well, which the device never gets (`blk_insert_flush()`).
        let asked = if at == 2 { counted[at] + flushes } else { counted[at] };
        assert!(
            asked >= inner[at] && counted[at] <= most,
            "{counted:?}, {flushes} flushes, and /sys/block/{disk}/stat says {inner:?} to {most} at {at}"
        );
    }
}

#[test]
fn live_samples_are_what_procfs_says() {
    let stat = |name: &str| -> i64 {
        let text = fs::read_to_string("/proc/stat").unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    let before = stat("ctxt ");
    let builder = group(EventGroup::System).sample_interval(Duration::from_millis(100));
    let (recorded, ()) = record(builder, || thread::sleep(Duration::from_millis(650)));
    let after = stat("ctxt ");
    let metric = |wanted: Kind, of: &str| -> Vec<(Nanos, i64)> {
        let value = |event: &schedtrace_core::Event| {
            let values = event.kind.values();
            if event.kind.kind() != wanted {
                return None;
            }
            let id = NameId(values[0] as u32);
            (name(&recorded, id) == of).then(|| (event.ts, values[1] as i64))
        };
        recorded.events.iter().filter_map(value).collect()
    };
    let switches = metric(Kind::SystemStat, "ctxt");
    assert!((5..=12).contains(&switches.len()), "{switches:?}");
    assert!(
        switches.is_sorted_by_key(|sample| sample.1) && switches[0].1 >= before && switches.last().unwrap().1 <= after
    );
    assert!(metric(Kind::Meminfo, "MemTotal").iter().all(|sample| sample.1 > 100_000));
    assert_eq!(metric(Kind::Loadavg, "load1").len(), switches.len());
    assert!(metric(Kind::NetDev, "lo.rx_bytes").len() == switches.len());
    let resident = metric(Kind::RecorderStat, "resident_bytes");
    assert!(resident.iter().all(|sample| sample.1 > 1 << 20), "{resident:?}");
    for probe in recorded.meta.probes.iter().filter(|probe| probe.on && probe.kind.group() == EventGroup::System) {
        assert!(recorded.count(|event| event.kind.kind() == probe.kind) > 0, "{} came", probe.kind);
    }
    // The first event and the last one are the beginning and the end.
    let (first, last) = (recorded.events.first().unwrap(), recorded.events.last().unwrap());
    assert_eq!((first.kind.kind(), first.ts), (Kind::TraceStarted, recorded.meta.started));
    assert_eq!((last.kind.kind(), Some(last.ts + Nanos(1))), (Kind::TraceStopped, recorded.meta.ended));
}

#[cfg(feature = "machine")]
#[test]
fn live_what_the_machine_counted_is_what_procfs_says() {
    let read = || (SystemNetwork::read(Path::new("/")).unwrap(), SystemMemory::read(Path::new("/")).unwrap());
    let lo = |network: &SystemNetwork| network.interfaces.iter().find(|one| one.name == "lo").unwrap().clone();
    let (before, memory) = read();
    let builder = group(EventGroup::System).sample_interval(Duration::from_millis(100));
    let (recorded, ()) = record(builder, || {
        thread::sleep(Duration::from_millis(250));
        // Onto the loopback interface, and from there back.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            socket.send_to(&[7; 1_000], socket.local_addr().unwrap()).unwrap();
        }
        thread::sleep(Duration::from_millis(400));
    });
    let (after, memory_after) = read();
    let names = recorded.names.iter().map(|(&id, text)| Name::new(id, Nanos::ZERO, text.as_bytes())).collect();
    let until = recorded.meta.ended.unwrap();
    let batch = Batch { until, events: recorded.events.clone(), names, ..Batch::default() };
    let mut source = MemorySource::new(recorded.meta.clone(), [batch]);
    let report = analysis::run(&mut source, Study::<SystemUse>::new(Options::default())).unwrap().answer;
    assert_eq!(report.others, 0);

    let used = report.memory.unwrap();
    assert_eq!(used.total_bytes.unwrap().now, memory.total_bytes);
    let faults = used.page_faults.unwrap();
    assert!((memory.page_faults..=memory_after.page_faults).contains(&faults.now), "{faults:?}");
    let network = report.network.unwrap();
    assert!(network.at.samples >= 5, "{:?}", network.at);
    let row = network.interfaces.iter().find(|one| one.name == "lo").unwrap();
    let (received, sent) = (row.received_bytes.unwrap(), row.sent_packets.unwrap());
    let (before, after) = (lo(&before), lo(&after));
    assert!((before.received_bytes..=after.received_bytes).contains(&received.now), "{received:?}");
    assert!((before.sent_packets..=after.sent_packets).contains(&sent.now), "{sent:?}");
    assert!(received.growth >= 100_000 && received.growth <= after.received_bytes - before.received_bytes);
    assert!(sent.growth >= 100 && (row.gone, row.resets) == (false, 0), "{row:?}");

    let cpus = report.cpus.unwrap();
    assert_eq!(cpus.cpus.len(), SystemCpu::read(Path::new("/")).unwrap().cpus.len());
    let total = cpus.total.unwrap();
    assert!((0.0..=1.0).contains(&total.busy_ratio) && total.counted_ns > Nanos::ZERO, "{total:?}");
    assert!(cpus.context_switches.unwrap().growth > 0 && report.load.unwrap().tasks.unwrap().now > 1);
}

#[test]
fn live_only_who_is_followed_is_recorded() {
    let mut sleeper = Command::new("sh");
    let sleeper = sleeper.args(["-c", "while :; do cat /no/such/file; sleep 0.02; done"]);
    let mut sleeper = sleeper.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let builder = only([Kind::SyscallFailed, Kind::SoftirqEntry, Kind::FutexWake]).pid(sleeper.id());
    let (recorded, ()) = record(builder, || {
        for _ in 0..50 {
            assert!(fs::File::open("/no/such/file").is_err());
            thread::sleep(Duration::from_millis(5));
        }
    });
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    recorded.assert_balanced();
    let whose = of(&recorded, |kind| kind.task());
    assert!(!whose.is_empty() && whose.iter().all(|&task| !is(&recorded, task, tid())), "{} events", whose.len());
    let passed: u64 =
        recorded.meta.accounts.iter().filter(|a| a.kind == Kind::SyscallFailed).map(|a| a.passed_over).sum();
    assert!(passed >= 50, "{passed} calls of others were passed over");
}

#[test]
fn live_every_kind_keeps_its_books_at_once() {
    let all = Kind::selectable();
    // A look-up that fails now and then: such records are longer.
    for fail_ids_every in [0, 7] {
        let builder = support::collector().events_where_possible(all.clone()).fail_ids_every(fail_ids_every);
        let (recorded, _) = record(builder, || {
            support::ping_pong(500);
            support::datagrams(50);
            let _ = Command::new("sh").args(["-c", "cat /no/such/file; true"]).stderr(Stdio::null()).status();
        });
        println!("{}", recorded.ledger());
        recorded.assert_balanced();
        let known: std::collections::BTreeSet<_> = recorded.tasks.iter().map(|task| task.id).collect();
        for event in &recorded.events {
            if let Some(task) = event.kind.task() {
                assert!(task != TaskId(0) && (task.is_idle() || known.contains(&task)), "{event:?} is somebody's");
            }
        }
    }
}

/// A file system that is frozen, whoever writes to which does not wake up for any signal.
struct Frozen(std::path::PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status();
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn live_a_task_that_hangs_is_told() {
    const TIMEOUT: &str = "/proc/sys/kernel/hung_task_timeout_secs";
    // Not every kernel looks for such tasks.
    let Ok(before) = fs::read_to_string(TIMEOUT) else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).or_else(|_| tempfile::tempdir()).unwrap();
    let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
    fs::create_dir(&mount).unwrap();
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let run = |program: &str, args: &[&std::ffi::OsStr]| {
        let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    // Without a driver for loops there is nothing to freeze.
    let made = run("mkfs.ext4", &["-q".as_ref(), image.as_os_str()]);
    if !made || !run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), mount.as_os_str()]) {
        return;
    }
    let frozen = Frozen(mount.clone());
    assert!(run("fsfreeze", &["--freeze".as_ref(), mount.as_os_str()]));
    fs::write(TIMEOUT, "1").unwrap();
    let (recorded, writer) = record(only([Kind::Hang]), || {
        let file = mount.join("file");
        let writer = thread::spawn(move || fs::write(file, "late"));
        thread::sleep(Duration::from_millis(3500));
        drop(frozen);
        writer.join().unwrap().unwrap();
        std::process::id()
    });
    fs::write(TIMEOUT, before.trim()).unwrap();
    recorded.assert_balanced();
    let hung = of(&recorded, |kind| kind.task());
    let of_ours = |id: &TaskId| recorded.tasks.iter().any(|task| task.id == *id && task.tgid == writer);
    assert!(hung.iter().any(of_ours), "{hung:?}");
}
