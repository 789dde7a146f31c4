//! What goes missing is told: how much, of which kind, from which ring, and when. Needs root.
//!
//! The kernel itself counts how often each program ran (`run_cnt`, with `kernel.bpf_stats_enabled`); everything here is
//! compared with that.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "`make truth` shows the ledgers")]
#![cfg(feature = "live")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use schedtrace_core::live::{CollectorBuilder, ShardPolicy};
use schedtrace_core::{
    Batch, Error, EventKind, Kind, LossPlace, Meta, OnFull, Pipeline, Result, ShardId, Sink, Source,
};
use support::{Recorded, ping_pong, record, record_by, sleeper};

/// Lets the kernel count the runs of BPF programs for as long as it lives.
struct CountRuns {
    before: String,
}

impl CountRuns {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    fn start() -> Self {
        let before = fs::read_to_string(Self::SWITCH).unwrap();
        fs::write(Self::SWITCH, "1").unwrap();
        Self { before }
    }
}

impl Drop for CountRuns {
    fn drop(&mut self) {
        let _ = fs::write(Self::SWITCH, &self.before);
    }
}

/// What the kernel says of one of this process's programs.
#[derive(Clone, Copy, Debug, Default)]
struct Runs {
    ran: u64,
    skipped: u64,
}

/// The runs of the programs that this process has loaded, in the order in which they were loaded, with their names.
fn runs() -> Vec<(String, Runs)> {
    let names: BTreeMap<u64, String> = libbpf_rs::query::ProgInfoIter::default()
        .map(|program| (program.id.into(), program.name.to_string_lossy().into_owned()))
        .collect();
    let mut runs = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap() {
        let Ok(info) = fs::read_to_string(entry.unwrap().path()) else { continue };
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(ran), Some(skipped)) = (field("prog_id"), field("run_cnt"), field("recursion_misses")) {
            runs.insert(id, (names[&id].clone(), Runs { ran, skipped }));
        }
    }
    runs.into_values().filter(|(name, _)| name != "list_tasks").collect()
}

/// Records with the kernel counting, and checks that every run of every program is accounted for.
fn record_and_balance(
    name: &str,
    builder: CollectorBuilder,
    pace: impl FnMut(usize) + Send,
    work: impl FnOnce(),
) -> Recorded {
    let _counting = CountRuns::start();
    let (recorded, runs, ()) = record_by(builder, pace, |_| runs(), work);
    println!("{name}\n{}", recorded.ledger());
    recorded.assert_balanced();
    recorded.assert_gaps_are_told();
    // They are loaded in the order of their kinds; names are cut to 15 bytes, so that two of them may be equal.
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_default());
    assert_eq!(runs.len(), kinds.clone().count(), "every program was found");
    for (kind, (name, program)) in kinds.zip(runs) {
        assert!(kind.name().starts_with(&name), "{kind}: {name}");
        // Nobody takes a CPU off line here.
        assert!(program.ran > 0 || kind == Kind::HotplugExit, "{kind}: its program is attached");
        let accounts = recorded.meta.accounts.iter().filter(|account| account.kind == kind);
        let counted: u64 = accounts.map(|account| account.emitted + account.passed_over).sum();
        assert_eq!(program.ran, counted, "{kind}: runs by the kernel's count, and by the program's own");
        let nested = recorded.lost.iter().filter(|l| l.place == LossPlace::Nested && l.kind == Some(kind));
        assert_eq!(program.skipped, nested.map(|loss| loss.count).sum::<u64>(), "{kind}: runs that the kernel skipped");
    }
    let (started, ended) = (recorded.meta.started, recorded.meta.ended.unwrap());
    for loss in &recorded.lost {
        assert!(loss.from >= started && loss.from <= loss.until && loss.until <= ended, "{loss:?} in its time");
    }
    recorded
}

fn children(n: usize) {
    for _ in 0..n {
        assert!(Command::new("/bin/true").status().unwrap().success());
    }
}

/// A bit of everything: sleeps, pipes, children, names, and a move from one CPU to another, which otherwise may not happen.
fn mixture() {
    let mover = thread::spawn(|| [0, 1].into_iter().for_each(support::pin));
    mover.join().unwrap();
    let sleepers: Vec<_> = (0..4).map(|n| sleeper(&format!("st-sleep-{n}"), 300)).collect();
    children(20);
    ping_pong(3000);
    for n in 0..50 {
        fs::write("/proc/thread-self/comm", format!("st-name-{n}")).unwrap();
    }
    sleepers.into_iter().for_each(|thread| drop(thread.join()));
}

/// Rings of a few pages, and a reader that comes rarely and is never woken.
fn starved(policy: ShardPolicy) -> CollectorBuilder {
    let bytes = rustix::param::page_size() * 16;
    support::collector().shards(policy).ring_bytes(bytes).drain_interval(Duration::from_secs(1)).wake_at(1.0)
}

/// Little room, and a reader that looks all the time.
fn always_there() -> CollectorBuilder {
    support::collector().ring_bytes(512 << 10).drain_interval(Duration::from_micros(5)).wake_at(0.01)
}

/// A workload whose progress a reader can wait for, so that how much piles up meanwhile is no matter of time.
struct Rounds {
    played: Mutex<u32>,
    changed: Condvar,
}

impl Rounds {
    const ALL: u32 = 40;

    fn new() -> Self {
        Self { played: Mutex::new(0), changed: Condvar::new() }
    }

    fn play(&self) {
        children(5);
        for _ in 0..Self::ALL {
            ping_pong(1000);
            *self.played.lock().unwrap() += 1;
            self.changed.notify_all();
        }
    }

    /// Waits for `n` more rounds, or the last.
    fn wait_for(&self, n: u32) {
        let played = self.played.lock().unwrap();
        let enough = Self::ALL.min(*played + n);
        drop(self.changed.wait_while(played, |played| *played < enough).unwrap());
    }
}

#[test]
fn live_with_room_enough_every_run_arrives() {
    for policy in ShardPolicy::ALL.map(|(_, policy)| policy) {
        let recorded = record_and_balance("room enough", support::collector().shards(policy), |_| (), mixture);
        assert_eq!(recorded.lost, [], "nothing is lost with {policy:?}");
    }
}

#[test]
fn live_a_starved_reader_loses_what_is_told() {
    for policy in [ShardPolicy::PerCpu, ShardPolicy::Single] {
        // Also the ring for lifecycles, which takes some hundred threads at a time.
        let recorded = record_and_balance(
            "a starved reader",
            starved(policy),
            |_| (),
            || {
                mixture();
                (0..3000).for_each(|_| thread::spawn(|| ()).join().unwrap());
            },
        );
        for kind in [Kind::Switch, Kind::Waking, Kind::Fork, Kind::Exit, Kind::Identity] {
            assert!(recorded.lost(kind) > 0, "{kind} is among {:?}", recorded.lost);
        }
        let lifecycle = recorded.lost.iter().any(|loss| loss.place == LossPlace::Ring(ShardId::LIFECYCLE));
        assert!(lifecycle, "the ring for lifecycles overflowed too");
    }
}

#[test]
fn live_a_stopped_reader_loses_what_is_told() {
    let rounds = Rounds::new();
    // Nobody polls for many rounds: chunks pile up before the merge, and then records in the rings.
    let pace = |turn| {
        if turn == 5 {
            rounds.wait_for(Rounds::ALL - 5);
        }
    };
    let builder = support::collector().ring_bytes(256 << 10).drain_interval(Duration::from_millis(20));
    let recorded = record_and_balance("a stopped reader", builder, pace, || rounds.play());
    assert!(recorded.lost(Kind::Switch) > 0, "{:?}", recorded.lost);
}

#[test]
fn live_a_slow_reader_loses_what_is_told() {
    let rounds = Rounds::new();
    let builder = support::collector().ring_bytes(256 << 10).drain_interval(Duration::from_millis(5));
    let recorded = record_and_balance("a slow reader", builder, |_| rounds.wait_for(5), || rounds.play());
    assert!(recorded.lost(Kind::Switch) > 0, "{:?}", recorded.lost);
}

#[test]
fn live_filters_pass_over_what_they_leave_out() {
    let mut child = Command::new("/bin/sleep").arg("0.2").spawn().unwrap();
    let builder = support::collector().pid(child.id());
    let recorded = record_and_balance(
        "a filter",
        builder,
        |_| (),
        || {
            mixture();
            child.wait().unwrap();
        },
    );
    let passed_over: u64 = recorded.meta.accounts.iter().map(|account| account.passed_over).sum();
    assert!(passed_over > 1000, "{:?}", recorded.meta.accounts);
}

#[test]
fn live_tasks_without_storage_are_accounted_for() {
    record_and_balance("no task storage", support::collector().fail_ids_every(2), |_| (), mixture);
    record_and_balance(
        "no task storage, a starved reader",
        starved(ShardPolicy::Auto).fail_ids_every(1),
        |_| (),
        mixture,
    );
}

/// Everything at once, and all of it on each CPU: timers and packets that interrupt, wakings from every context, and
/// switches in between.
fn storm() {
    let cpus = 0..thread::available_parallelism().unwrap().get();
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        for cpu in cpus {
            for _ in 0..6 {
                scope.spawn(move || {
                    support::pin(cpu);
                    while !stop.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_micros(20));
                    }
                });
            }
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let address = receiver.local_addr().unwrap();
            scope.spawn(move || {
                support::pin(cpu);
                while !stop.load(Ordering::Relaxed) {
                    let _ = receiver.recv(&mut [0; 8]);
                }
            });
            scope.spawn(move || {
                support::pin(cpu);
                let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let _ = sender.send_to(&[1], address);
                    thread::yield_now();
                }
            });
        }
        // For so long, and not for so many: nobody says how little a slow machine gets done in a storm.
        thread::sleep(Duration::from_secs(1));
        children(5);
        stop.store(true, Ordering::Relaxed);
    });
    // The structures of ended tasks are given back after a grace period, for which a storm may leave no room.
    thread::sleep(Duration::from_millis(300));
}

#[test]
fn live_a_storm_of_interrupts_and_wakings_is_accounted_for() {
    let recorded = record_and_balance("a storm", support::collector(), |_| (), storm);
    let by_interrupt = recorded.count(
        |event| matches!(event.kind, EventKind::Waking(waking) if waking.context != schedtrace_core::Context::Task),
    );
    assert!(by_interrupt > 100, "{by_interrupt} wakings from interrupts");
    record_and_balance("a storm, a starved reader", starved(ShardPolicy::Auto), |_| (), storm);
    // It meets records that are not complete yet, and the little room is written over and over.
    let late = always_there().late_every(7);
    let recorded = record_and_balance("a storm, a reader that is always there", late, |_| (), storm);
    assert!(recorded.count(|event| event.kind.kind() == Kind::Switch) > 20_000, "many laps");
    let weak = always_there().weak_order(true);
    record_and_balance("a storm, committed as where stores are not seen in order", weak, |_| (), storm);
}

#[test]
fn live_cpus_that_share_a_log_lose_and_double_nothing() {
    let shared = |builder: CollectorBuilder| builder.one_log(true).shards(ShardPolicy::Single);
    let recorded = record_and_balance("one log for all CPUs", shared(support::collector()), |_| (), storm);
    assert_eq!(recorded.lost, []);
    let little = shared(always_there()).late_every(7);
    record_and_balance("one log for all CPUs, and little room", little, |_| (), storm);
}

/// Counts, and does its worst after some batches.
struct Bad<'a> {
    batches: &'a AtomicU64,
    after: u64,
    panics: bool,
}

impl Sink for Bad<'_> {
    fn batch(&mut self, _: &Batch) -> Result<()> {
        let batches = self.batches.fetch_add(1, Ordering::Relaxed);
        assert!(batches < self.after || !self.panics, "it had enough");
        if batches < self.after { Ok(()) } else { Err(Error::Invalid("it had enough".into())) }
    }
}

#[test]
fn live_a_bad_sink_is_told_once_and_affects_nobody_else() {
    let _one = support::ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut collector = support::collector().drain_interval(Duration::from_millis(5)).start().unwrap();
    let stopper = collector.stopper();
    let (failed, panicked) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut failing = Bad { batches: &failed, after: 3, panics: false };
    let mut panicking = Bad { batches: &panicked, after: 5, panics: true };
    let (mut whole, mut seen, mut told) = (0, 0, 0);
    let mut recorder = |batch: &Batch| whole += (batch.events.len() + batch.late.len()) as u64;
    let mut slow = |batch: &Batch| {
        thread::sleep(Duration::from_millis(30));
        seen += (batch.events.len() + batch.late.len()) as u64;
        let queue = LossPlace::Queue("slow".into());
        told += batch.lost.iter().filter(|loss| loss.place == queue).map(|loss| loss.count).sum::<u64>();
    };
    let summary = thread::scope(|scope| {
        let run = scope.spawn(|| {
            Pipeline::new()
                .depth(4)
                .sink("recorder", OnFull::Block, &mut recorder)
                .sink("slow", OnFull::DropNewest, &mut slow)
                .sink("failing", OnFull::Block, &mut failing)
                .sink("panicking", OnFull::Block, &mut panicking)
                .run(&mut collector)
                .unwrap()
        });
        for _ in 0..20 {
            ping_pong(500);
        }
        stopper.stop();
        run.join().unwrap()
    });
    let meta: &Meta = collector.meta();
    let came: u64 = meta.accounts.iter().filter(|a| a.kind != Kind::Identity).map(|a| a.delivered).sum();
    let snapshots = summary.events.get(&Kind::Snapshot).copied().unwrap_or(0);
    assert_eq!((whole, summary.lost_total), (came + snapshots, 0), "the recorder has everything");
    assert_eq!(seen + told, whole, "what the slow one missed, it was told");
    let outcome = |name: &str| summary.sinks.iter().find(|sink| sink.name == name).unwrap();
    assert!(told > 0 && outcome("slow").dropped == told);
    assert_eq!((failed.into_inner(), panicked.into_inner()), (4, 6), "who failed is asked no more");
    let error = |name: &str| outcome(name).error.as_ref().map(ToString::to_string);
    assert_eq!(error("failing").as_deref(), Some("the failing sink failed: it had enough"));
    assert!(error("panicking").unwrap().contains("it panicked: it had enough"));
    assert_eq!((error("recorder"), error("slow")), (None, None));
}

#[test]
fn live_the_tail_is_complete() {
    // Nothing is read before the end: all of it is in the rings when the recording is stopped.
    let builder = support::collector().drain_interval(Duration::from_secs(60)).wake_at(1.0);
    let (recorded, tid) = record(builder, || {
        let truth = thread::spawn(|| {
            (0..50).for_each(|_| thread::sleep(Duration::from_micros(100)));
            support::truth()
        });
        truth.join().unwrap()
    });
    support::assert_switches(&recorded, tid);
    recorded.assert_balanced();
    assert_eq!(recorded.lost, []);
    let last = recorded.events.iter().map(|event| event.ts).max().unwrap();
    assert!(last > tid.until, "events after the thread's last word are there too");
}

#[test]
fn live_a_flood_of_switches_does_not_push_lifecycles_out() {
    let page = rustix::param::page_size();
    // The ring is full long before it is read for the first time, and the children come after that.
    let starved = support::collector().ring_bytes(page * 64).drain_interval(Duration::from_secs(2)).wake_at(1.0);
    let (recorded, children) = record(starved, || {
        ping_pong(20_000);
        let child = || {
            let mut child = Command::new("/bin/true").spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        (0..10).map(|_| child()).collect::<Vec<u32>>()
    });
    assert!(recorded.lost(Kind::Switch) > 0, "the shard's ring overflowed");
    for child in children {
        let ids = recorded.ids(child);
        assert!(recorded.events.iter().any(|e| matches!(e.kind, EventKind::Exec(exec) if ids.contains(&exec.task))));
    }
    recorded.assert_balanced();
}
