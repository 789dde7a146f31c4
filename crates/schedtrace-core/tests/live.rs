//! Loads the programs on the running kernel and traces threads whose behaviour is known. Needs root.
//!
//! Counts are compared with what the kernel itself says in `/proc/TID/status`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "live")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use schedtrace_core::live::{Aspect, Collector, CollectorBuilder, ShardPolicy, State};
use schedtrace_core::{Comm, Context, Cpu, Event, EventKind, Kind, Nanos, Pipeline, Source, TaskId, Transport, Waker};
use support::{
    InKernel, ONE, Recorded, Truth, assert_switches, datagrams, monotonic, ping_pong, record, sleeper, truth,
};

#[test]
fn live_switches_are_those_that_the_kernel_counts() {
    for policy in ShardPolicy::ALL.map(|(_, policy)| policy) {
        let (recorded, truths) = record(support::collector().shards(policy), || {
            let sleeper = sleeper("st-sleeper", 100);
            let (ping, pong) = ping_pong(500);
            [sleeper.join().unwrap(), ping, pong]
        });
        recorded.assert_balanced();
        assert_eq!(recorded.lost, [], "nothing is lost with {policy:?}");
        for truth in truths {
            // Which of the two it is depends on who preempts whom at a wakeup.
            assert!(truth.voluntary + truth.involuntary >= 50, "{truth:?}");
            assert_switches(&recorded, truth);
        }
    }
}

#[test]
fn live_wakers_are_the_thread_or_the_interrupt() {
    let (recorded, (sleeper, (ping, pong), receiver)) =
        record(support::collector(), || (sleeper("st-sleeper", 50).join().unwrap(), ping_pong(2000), datagrams(50)));
    // How often one sleeps at all depends on who is faster; a lock of the kernel is waited for now and then.
    let ends = ends_of_sleep(&recorded, sleeper);
    let by_timer = ends.iter().filter(|waker| **waker == Some(Waker::Interrupt(Context::Hardirq))).count();
    assert!(by_timer >= 25 && by_timer + 5 >= ends.len(), "a high-resolution timer fires in a hardirq: {ends:?}");
    let ends = ends_of_sleep(&recorded, receiver);
    let by_network = ends.iter().filter(|waker| **waker == Some(Waker::Interrupt(Context::Softirq))).count();
    assert!(by_network >= 25, "the loopback device delivers in a softirq: {ends:?}");
    let ping_id = recorded.ids(ping.tid)[0];
    let ends = ends_of_sleep(&recorded, pong);
    let by_ping = ends.iter().filter(|waker| **waker == Some(Waker::Task(ping_id))).count();
    assert!(by_ping > 0 && by_ping + 5 >= ends.len(), "a writer wakes the reader of its pipe: {ends:?}");
}

/// Who ended each sleep of a thread from which it was seen to come back. On some virtual machines no tracer sees what a CPU
/// does while a thread of process 1 is current: a timer that fires then leaves no waking, and its sleeper's switch no event.
fn ends_of_sleep(recorded: &Recorded, truth: Truth) -> Vec<Option<Waker>> {
    let ids = recorded.ids(truth.tid);
    let (mut asleep, mut waker, mut ends) = (false, None, Vec::new());
    for event in recorded.events.iter().filter(|event| event.ts < truth.until) {
        match event.kind {
            EventKind::Switch(switch) if ids.contains(&switch.prev) => asleep = switch.voluntary(),
            EventKind::Switch(switch) if ids.contains(&switch.next) => {
                if asleep {
                    ends.push(waker);
                }
                waker = None;
            }
            EventKind::Waking(waking) if ids.contains(&waking.task) => waker = Some(waking.waker()),
            _ => {}
        }
    }
    ends
}

#[test]
fn live_a_remote_waker_is_the_thread_that_woke() {
    if thread::available_parallelism().unwrap().get() < 2 {
        println!("one CPU: there is no remote one");
        return;
    }
    // A machine that has other things to do leaves no CPU idle.
    let idle_wakeups = (0..30).map(|_| wakeups_of_an_idle_cpu()).find(|wakeups| wakeups.len() >= 20);
    let wakeups = idle_wakeups.expect("CPU 1 is idle now and then");
    let wrong = wakeups.iter().filter(|by_waker| !**by_waker).count();
    assert_eq!(wrong, 0, "of {} wakeups of CPU 1 by the thread on CPU 0", wakeups.len());
}

/// Wakes a thread on CPU 1 from one on CPU 0, and tells of each wakeup that found CPU 1 idle whether it says so. Such a
/// CPU does the rest of the wakeup itself (`ttwu_queue_wakelist()`), so that `sched_wakeup` comes from there.
fn wakeups_of_an_idle_cpu() -> Vec<bool> {
    let (recorded, (waker, sleeper)) = record(support::collector(), || {
        let (mut read, mut write) = std::io::pipe().unwrap();
        let sleeper = thread::spawn(move || {
            support::pin(1);
            // Before that, it was woken by the thread that moved it here.
            let here = truth();
            while std::io::Read::read(&mut read, &mut [0]).unwrap() > 0 {}
            here
        });
        let waker = thread::spawn(move || {
            support::pin(0);
            let tid = truth().tid;
            for _ in 0..100 {
                thread::sleep(Duration::from_millis(1));
                write.write_all(&[1]).unwrap();
            }
            tid
        });
        (waker.join().unwrap(), sleeper.join().unwrap())
    });
    let (waker, since, sleeper) = (recorded.ids(waker)[0], sleeper.until, recorded.ids(sleeper.tid)[0]);
    let (mut idle, mut wakeups) = (false, Vec::new());
    for event in &recorded.events {
        match event.kind {
            EventKind::Switch(switch) if event.cpu == Cpu(1) => idle = switch.next.is_idle(),
            EventKind::Waking(waking) if idle && waking.task == sleeper && event.ts > since => {
                wakeups.push(event.cpu == Cpu(0) && waking.waker() == Waker::Task(waker));
            }
            _ => {}
        }
    }
    wakeups
}

#[test]
fn live_a_process_is_followed_from_fork_to_free() {
    let (recorded, pid) = record(support::collector(), || {
        let mut child = Command::new("/bin/sleep").arg("0.05").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        // The kernel frees a task's structure only after a grace period.
        thread::sleep(Duration::from_millis(300));
        pid
    });
    let ids = recorded.ids(pid);
    assert_eq!(ids.len(), 1, "one life, one id");
    let id = ids[0];
    let mut lives: Vec<&str> = Vec::new();
    for event in &recorded.events {
        match event.kind {
            EventKind::Fork(fork) if fork.child == id => lives.push("fork"),
            EventKind::WakeupNew(new) if new.task == id => lives.push("new"),
            EventKind::Exec(exec) if exec.task == id => lives.push("exec"),
            EventKind::Exit(exit) if exit.task == id => {
                assert!(exit.group_dead, "it had one thread");
                lives.push("exit");
            }
            EventKind::Switch(switch) if switch.prev == id && switch.prev_ends() => lives.push("dead"),
            EventKind::Free { task } if task == id => lives.push("free"),
            _ => {}
        }
    }
    assert_eq!(lives, ["fork", "new", "exec", "exit", "dead", "free"]);
    let names: Vec<_> = recorded.tasks.iter().filter(|task| task.id == id).map(|task| task.comm.to_string()).collect();
    assert_eq!(names.last().map(String::as_str), Some("sleep"), "{names:?}");
    assert!(recorded.tasks.iter().filter(|task| task.id == id).all(|task| task.ppid == std::process::id()));
}

#[test]
fn live_a_new_name_holds_from_when_it_was_given() {
    let (recorded, (tid, before, after)) = record(support::collector(), || {
        let body = || {
            thread::sleep(Duration::from_millis(5));
            let before = monotonic();
            fs::write("/proc/thread-self/comm", "st-new-name").unwrap();
            let after = monotonic();
            thread::sleep(Duration::from_millis(5));
            (truth().tid, before, after)
        };
        thread::Builder::new().name("st-old-name".into()).spawn(body).unwrap().join().unwrap()
    });
    let id = recorded.ids(tid)[0];
    let named: Vec<_> = recorded.tasks.iter().filter(|task| task.id == id && task.since > before).collect();
    assert_eq!(named.len(), 1);
    assert!(named[0].comm == Comm::new("st-new-name") && named[0].since < after, "{named:?}");
    assert!(recorded.events.iter().any(|e| e.kind == EventKind::Rename { task: id } && e.ts > before && e.ts < after));
}

/// Not a test by itself: what `live_exec_by_a_thread_that_is_not_the_leader` runs as another process.
#[test]
fn child_that_execs_from_a_thread() {
    if std::env::var_os("SCHEDTRACE_EXEC_FROM_THREAD").is_some() {
        let thread = thread::spawn(|| {
            thread::sleep(Duration::from_millis(20));
            Command::new("/bin/sleep").arg("0.02").exec()
        });
        let error = thread.join().unwrap();
        panic!("exec came back: {error}");
    }
}

#[test]
fn live_exec_by_a_thread_that_is_not_the_leader() {
    let (recorded, pid) = record(support::collector(), || {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_execs_from_a_thread", "--test-threads=1"])
            .env("SCHEDTRACE_EXEC_FROM_THREAD", "1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        pid
    });
    let ids = recorded.ids(pid);
    let exec = recorded.events.iter().find_map(|event| match event.kind {
        EventKind::Exec(exec) if ids.contains(&exec.task) && exec.old_tid != pid => Some((event.ts, exec)),
        _ => None,
    });
    let (ts, exec) = exec.expect("an exec that changes the thread id");
    let before =
        recorded.tasks.iter().rfind(|task| task.id == exec.task && task.since < ts && task.tid == exec.old_tid);
    assert!(before.is_some(), "the thread was known by its old id");
    let now = recorded.tasks.iter().find(|task| task.id == exec.task && task.tid == pid).expect("and by its new one");
    assert_eq!(now.tgid, pid);
}

#[test]
fn live_tasks_without_an_id_are_known_by_pointer_and_tid() {
    let (recorded, truths) = record(support::collector().fail_ids_every(3), || {
        let sleeper = sleeper("st-sleeper", 200);
        let (ping, pong) = ping_pong(500);
        [sleeper.join().unwrap(), ping, pong]
    });
    recorded.assert_balanced();
    for event in &recorded.events {
        if let EventKind::Switch(switch) = event.kind {
            assert!(switch.prev != TaskId(0) && switch.next != TaskId(0), "{event:?}");
        }
    }
    for truth in truths {
        assert_switches(&recorded, truth);
    }
}

#[test]
fn live_a_process_filter_follows_children_and_leaves_others_out() {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "read go; for i in 1 2 3; do sleep 0.02; done"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = shell.id();
    let (recorded, _) = record(support::collector().pid(pid), || {
        let other = sleeper("st-other", 50);
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
        other.join().unwrap();
    });
    let of = |id: TaskId| recorded.tasks.iter().rfind(|task| task.id == id);
    let selected = |id: TaskId| of(id).is_some_and(|task| task.tgid == pid || task.ppid == pid);
    for event in &recorded.events {
        let within = match event.kind {
            EventKind::Switch(switch) => selected(switch.prev) || selected(switch.next),
            EventKind::Waking(waking) => selected(waking.task) || selected(waking.current),
            EventKind::WakeupNew(new) => selected(new.task) || selected(new.parent),
            EventKind::Migrate(migrate) => selected(migrate.task),
            _ => true,
        };
        assert!(within, "{event:?}");
    }
    let children = recorded.count(|event| matches!(event.kind, EventKind::Exec(_)));
    assert_eq!(children, 3, "the shell's three children are followed");
    assert_eq!(recorded.meta.filters.pids, [pid]);
}

#[test]
fn live_a_process_filter_takes_descendants_that_were_there_before() {
    // A shell, and its child, which says that it is there and waits to be told to go on.
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "sh -c 'echo $$; read go; for i in 1 2 3 4 5; do sleep 0.02; done; true'; true"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.stdout.take().unwrap()), &mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();
    assert_ne!(child, shell.id());
    let (recorded, _) = record(support::collector().pid(shell.id()), || {
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap()
    });
    let ids = recorded.ids(child);
    let slept = |e: &Event| matches!(e.kind, EventKind::Switch(s) if ids.contains(&s.prev) && s.voluntary());
    assert!(recorded.count(slept) >= 5, "the child waits for each of its five own");
}

#[test]
fn live_a_cgroup_filter_takes_the_tasks_below_it() {
    use schedtrace_core::system::Cgroups;
    let cgroups = Cgroups::find(std::path::Path::new("/")).unwrap();
    let parent = cgroups.mount().join(format!("schedtrace-test-{}", std::process::id()));
    let inner = parent.join("inner");
    fs::create_dir_all(&inner).unwrap();
    let mut shell =
        Command::new("/bin/sh").args(["-c", "read go; sleep 0.02; sleep 0.02"]).stdin(Stdio::piped()).spawn().unwrap();
    fs::write(inner.join("cgroup.procs"), shell.id().to_string()).unwrap();
    let expected = cgroups.resolve(&inner).unwrap();
    let (recorded, _) = record(support::collector().cgroup(&parent), || {
        let other = sleeper("st-other", 50);
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
        other.join().unwrap();
    });
    fs::remove_dir(&inner).unwrap();
    fs::remove_dir(&parent).unwrap();
    let in_it = |id: TaskId| recorded.tasks.iter().any(|task| task.id == id && task.cgroup == expected.id);
    let switches = recorded.count(|event| matches!(event.kind, EventKind::Switch(_)));
    assert!(switches > 4);
    for event in &recorded.events {
        if let EventKind::Switch(switch) = event.kind {
            assert!(in_it(switch.prev) || in_it(switch.next), "{event:?}");
        }
    }
}

#[test]
fn live_a_cpu_filter_takes_its_switches_only() {
    let (recorded, _) = record(support::collector().cpus([Cpu(0)]), || {
        ping_pong(200);
        for cpu in 0..thread::available_parallelism().unwrap().get() {
            let sleeper = thread::spawn(move || {
                support::pin(cpu);
                (0..20).for_each(|_| thread::sleep(Duration::from_micros(300)));
            });
            sleeper.join().unwrap();
        }
    });
    let switches = |cpu: &dyn Fn(Cpu) -> bool| {
        recorded.count(|event| matches!(event.kind, EventKind::Switch(_)) && cpu(event.cpu))
    };
    assert_eq!(switches(&|cpu| cpu != Cpu(0)), 0);
    assert!(switches(&|cpu| cpu == Cpu(0)) >= 20);
}

#[test]
fn live_only_selected_events_come() {
    let (recorded, truth) = record(support::collector().events([Kind::Switch]), || {
        assert!(Command::new("/bin/true").status().unwrap().success());
        sleeper("st-sleeper", 20).join().unwrap()
    });
    assert!(recorded.events.iter().all(|e| matches!(e.kind.kind(), Kind::Switch | Kind::Snapshot)));
    assert_switches(&recorded, truth);
    let on: Vec<_> = recorded.meta.probes.iter().filter(|probe| probe.on).map(|probe| probe.kind).collect();
    assert_eq!(on, [Kind::Switch]);
}

#[test]
fn live_the_snapshot_says_who_was_running() {
    let mut hog = Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let (recorded, _) = record(support::collector(), || thread::sleep(Duration::from_millis(50)));
    hog.kill().unwrap();
    hog.wait().unwrap();
    let id = recorded.ids(hog.id())[0];
    let seen = recorded.events.iter().any(|e| matches!(e.kind, EventKind::Snapshot(s) if s.task == id));
    assert!(seen, "a spinning process is running or runnable when the recording begins");
}

#[test]
fn live_a_duration_ends_the_recording_by_itself() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let duration = Duration::from_millis(200);
    let mut collector = support::collector().duration(duration).start().unwrap();
    let summary = Pipeline::new().run(&mut collector).unwrap();
    let meta = collector.meta();
    let recorded = meta.ended.unwrap() - meta.started;
    assert!(recorded >= Nanos(duration.as_nanos() as u64), "{recorded} of it");
    assert!(summary.total_events() > 0);
    assert!(support::collector().duration(Duration::MAX).start().unwrap().ends().is_none(), "no clock shows that time");
}

#[test]
fn live_nothing_is_left_behind() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (files, before) = (open(), InKernel::now());
    for _ in 0..3 {
        let mut collector = support::collector().start().unwrap();
        let _ = collector.poll(Instant::now() + Duration::from_millis(100)).unwrap();
        assert!(before.new_since().iter().all(|new| *new > 0), "it has programs, maps and links");
        drop(collector);
        assert_eq!(open(), files, "open files");
    }
    drop(support::collector().load().unwrap());
    assert_eq!(open(), files, "open files");
    before.assert_nothing_new_remains("a collector");
}

#[test]
fn live_the_transport_is_the_one_asked_for_or_the_best_that_the_kernel_takes() {
    // What the arena takes came to x86 with the function that tells the JIT's atomic operations there (Linux 6.10).
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    let has = |name: &str| symbols.lines().any(|line| line.split(' ').nth(2) == Some(name));
    let arena = has("bpf_arena_alloc_pages") && has("bpf_jit_supports_insn");
    let used = |builder: CollectorBuilder| {
        let (recorded, truths) = record(builder, || ping_pong(300));
        recorded.assert_balanced();
        recorded.assert_gaps_are_told();
        if recorded.lost.is_empty() {
            [truths.0, truths.1].into_iter().for_each(|truth| assert_switches(&recorded, truth));
        }
        recorded.meta.transport.unwrap()
    };
    let best = if arena { Transport::Arena } else { Transport::Ring };
    assert_eq!(used(Collector::builder()), best);
    assert_eq!(used(Collector::builder().transport(Transport::Ring)), Transport::Ring);
    let forced = Collector::builder().transport(Transport::Arena);
    match arena {
        true => assert_eq!(used(forced), Transport::Arena),
        false => {
            let line = forced.start().map(drop).unwrap_err().to_string();
            assert!(line.contains("arena") && line.contains("Linux 6.10") && !line.contains('\n'), "{line}");
        }
    }
    let told = Collector::capabilities();
    let told = told.checks.iter().find(|check| check.aspect == Aspect::Transport).unwrap();
    assert_eq!(told.state, if arena { State::Ok } else { State::Absent }, "{told:?}");
    // Room for a ring, and none for a log of each CPU.
    let little = Collector::builder().ring_bytes(2 * rustix::param::page_size()).shards(ShardPolicy::Single);
    assert_eq!(used(little.clone()), Transport::Ring);
    if arena {
        let line = little.transport(Transport::Arena).start().map(drop).unwrap_err().to_string();
        assert!(line.contains("too few") && line.contains("`ring`") && !line.contains('\n'), "{line}");
    }
}

#[test]
fn live_what_does_not_exist_is_refused_in_a_line() {
    let error = |builder: CollectorBuilder| builder.start().map(drop).unwrap_err().to_string();
    let line = error(support::collector().pid(4_194_303));
    assert!(line.contains("4194303") && !line.contains('\n'), "{line}");
    let line = error(support::collector().cgroup("/no/such/cgroup"));
    assert!(line.contains("/no/such/cgroup"), "{line}");
    let line = error(support::collector().cpus([Cpu(60_000)]));
    assert!(line.contains("CPU 60000"), "{line}");
    let line = error(support::collector().ring_bytes(100));
    assert!(line.contains("100 bytes"), "{line}");
}
