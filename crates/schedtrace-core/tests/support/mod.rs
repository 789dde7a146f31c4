//! What the tests that record the running kernel have in common.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};
use schedtrace_core::live::{Collector, CollectorBuilder};
use schedtrace_core::{
    Account, Cpu, Event, EventKind, FieldType, Kind, Loss, LossPlace, Meta, NameId, Nanos, Poll, Source, Task, TaskId,
};

/// Recordings one at a time: each is a load on the others.
pub(crate) static ONE: Mutex<()> = Mutex::new(());

/// A collector with the transport that this run of the tests is for: `SCHEDTRACE_TRANSPORT`, or the best there is.
pub(crate) fn collector() -> CollectorBuilder {
    match std::env::var("SCHEDTRACE_TRANSPORT") {
        Ok(transport) => Collector::builder().transport(transport.parse().expect("SCHEDTRACE_TRANSPORT")),
        Err(_) => Collector::builder(),
    }
}

/// All that a recording gave.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) events: Vec<Event>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) names: BTreeMap<NameId, String>,
    pub(crate) lost: Vec<Loss>,
    pub(crate) late: usize,
    pub(crate) meta: Meta,
}

/// Records while `workload` runs.
pub(crate) fn record<T>(builder: CollectorBuilder, workload: impl FnOnce() -> T) -> (Recorded, T) {
    let (recorded, (), result) = record_by(builder, |_| (), |_| (), workload);
    (recorded, result)
}

/// Records while `workload` runs. The reader calls `pace` before each poll, and `at_end` when nothing more comes, while
/// the programs are still loaded.
pub(crate) fn record_by<T, E: Send>(
    builder: CollectorBuilder,
    mut pace: impl FnMut(usize) + Send,
    at_end: impl FnOnce(&Collector) -> E + Send,
    workload: impl FnOnce() -> T,
) -> (Recorded, E, T) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut collector = builder.start().expect("live tests need root: run `make test` as root");
    let stopper = collector.stopper();
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut recorded = Recorded::default();
            let mut until = Nanos::ZERO;
            for turn in 0.. {
                pace(turn);
                match collector.poll(Instant::now() + Duration::from_millis(50)).unwrap() {
                    Poll::Batch(batch) => {
                        assert!(batch.until >= until, "time went back");
                        recorded.names.extend(batch.names.iter().map(|name| (name.id, name.text.to_string())));
                        for event in &batch.events {
                            assert!(names_of(event).all(|id| recorded.names.contains_key(&id)), "{event:?}: its names");
                            assert!(event.ts >= until && event.ts < batch.until, "{event:?} not in its batch");
                        }
                        assert!(batch.events.is_sorted_by_key(|event| event.ts));
                        until = batch.until;
                        recorded.late += batch.late.len();
                        recorded.events.extend(batch.events);
                        recorded.events.extend(batch.late);
                        recorded.tasks.extend(batch.tasks);
                        recorded.lost.extend(batch.lost);
                    }
                    Poll::Idle => {}
                    Poll::End => break,
                }
            }
            let end = at_end(&collector);
            recorded.meta = collector.meta().clone();
            (recorded, end)
        });
        let result = workload();
        stopper.stop();
        let (recorded, end) = reader.join().unwrap();
        (recorded, end, result)
    })
}

/// The names that an event bears.
fn names_of(event: &Event) -> impl Iterator<Item = NameId> {
    let values = event.kind.values();
    let fields = event.kind.kind().fields().iter().enumerate();
    let names: Vec<_> = fields.filter(|(_, field)| field.ty == FieldType::Name).map(|(at, _)| values[at]).collect();
    names.into_iter().map(|id| NameId(id as u32)).filter(|id| *id != NameId::NONE)
}

impl Recorded {
    /// The ids of a thread; more than one where the kernel could not always give it the same.
    pub(crate) fn ids(&self, tid: u32) -> Vec<TaskId> {
        let mut ids: Vec<_> = self.tasks.iter().filter(|task| task.tid == tid).map(|task| task.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    pub(crate) fn count(&self, mut what: impl FnMut(&Event) -> bool) -> u64 {
        self.events.iter().filter(|event| what(event)).count() as u64
    }

    pub(crate) fn lost(&self, kind: Kind) -> u64 {
        self.lost.iter().filter(|loss| loss.kind == Some(kind)).map(|loss| loss.count).sum()
    }

    /// Every event is accounted for, ring by ring and kind by kind, and what was read from the rings came out.
    pub(crate) fn assert_balanced(&self) {
        let count = |what: &mut dyn FnMut(Kind) -> u64| Kind::ALL.map(|kind| (kind, what(kind)));
        let mut events: BTreeMap<Kind, u64> = BTreeMap::new();
        self.events.iter().for_each(|event| *events.entry(event.kind.kind()).or_default() += 1);
        let accounts = &self.meta.accounts;
        assert!(accounts.iter().any(|account| account.emitted > 0), "the counters were read");
        for account in accounts {
            assert_eq!(account.unaccounted(), 0, "{account:?}");
            let told = self
                .lost
                .iter()
                .filter(|loss| loss.place == LossPlace::Ring(account.shard) && loss.kind == Some(account.kind));
            assert_eq!(told.map(|loss| loss.count).sum::<u64>(), account.lost, "told of {account:?}");
        }
        let of = |kind: Kind| accounts.iter().filter(move |account| account.kind == kind);
        for (kind, delivered) in count(&mut |kind| of(kind).map(|account| account.delivered).sum()) {
            if kind.is_selectable() && !kind.is_sampled() {
                assert_eq!(events.get(&kind).copied().unwrap_or(0), delivered, "{kind} events came out");
            }
        }
    }

    /// Whoever a CPU switched to is who leaves it next, unless something is known to be missing in between.
    pub(crate) fn assert_gaps_are_told(&self) {
        let ring_of = |cpu: Cpu| self.meta.rings.iter().find(|ring| ring.cpus.contains(&cpu)).unwrap().shard;
        // On some virtual machines no tracer sees what a CPU does while a thread of process 1 is current.
        let known: BTreeMap<_, _> = self.tasks.iter().map(|task| (task.id, task.tgid)).collect();
        let nameless = self.lost(Kind::Identity) > 0;
        let blind = |id: TaskId| known.get(&id).map_or(nameless && !id.is_idle(), |&tgid| tgid == 1);
        // A life that the kernel could not always name has two ids.
        let life =
            |id: TaskId| self.tasks.iter().find(|task| task.id == id).map(|task| (task.tid, task.start)).ok_or(id);
        // Tracepoints are silent on a CPU that goes off line (`cpu_online()` in include/linux/tracepoint.h), and with them
        // its last switch, from the thread that stops it to the idle task.
        let stopper = |id: TaskId, cpu: Cpu| {
            let name = format!("migration/{cpu}");
            self.tasks.iter().any(|task| task.id == id && task.comm.to_string() == name)
        };
        let mut current: BTreeMap<Cpu, (Nanos, TaskId)> = BTreeMap::new();
        let mut events = self.events.clone();
        events.sort_by_key(|event| event.ts);
        for event in &events {
            let EventKind::Switch(switch) = event.kind else { continue };
            if let Some((since, next)) = current.insert(event.cpu, (event.ts, switch.next))
                && next != switch.prev
                && life(next) != life(switch.prev)
                && !blind(next)
                && !(switch.prev.is_idle() && stopper(next, event.cpu))
            {
                let told = self.lost.iter().any(|loss| {
                    let here =
                        matches!(loss.place, LossPlace::Nested) || loss.place == LossPlace::Ring(ring_of(event.cpu));
                    here && loss.kind == Some(Kind::Switch) && loss.from <= event.ts && loss.until >= since
                });
                assert!(
                    told,
                    "CPU {}: {next:?} came at {since:?}, and at {:?} left {:?}",
                    event.cpu, event.ts, switch.prev
                );
            }
        }
    }

    /// The books as a table: what was emitted, delivered and lost, by ring and kind.
    pub(crate) fn ledger(&self) -> String {
        let mut text = format!(
            "{:<10} {:<20} {:>10} {:>10} {:>10} {:>11}\n",
            "ring", "kind", "emitted", "delivered", "lost", "unaccounted"
        );
        for Account { shard, kind, emitted, delivered, lost, .. } in &self.meta.accounts {
            let unaccounted = i128::from(*emitted) - i128::from(*delivered) - i128::from(*lost);
            text += &format!(
                "{:<10} {kind:<20} {emitted:>10} {delivered:>10} {lost:>10} {unaccounted:>11}\n",
                shard.to_string()
            );
        }
        text
    }
}

/// What somebody has added to tracefs: kprobes, uprobes and the like.
fn added_to_tracefs() -> String {
    const EVENTS: &str = "/sys/kernel/tracing/dynamic_events";
    if !std::path::Path::new(EVENTS).exists() {
        let mount = std::process::Command::new("mount").args(["-t", "tracefs", "none", "/sys/kernel/tracing"]).status();
        assert!(mount.is_ok_and(|mount| mount.success()), "tracefs cannot be looked at");
    }
    fs::read_to_string(EVENTS).unwrap_or_default()
}

/// The ids of the programs, maps and links in the kernel, which gives none twice in a row.
pub(crate) struct InKernel([BTreeSet<u32>; 3]);

impl InKernel {
    pub(crate) fn now() -> Self {
        Self([
            ProgInfoIter::default().map(|program| program.id).collect(),
            MapInfoIter::default().map(|map| map.id).collect(),
            LinkInfoIter::default().map(|link| link.id).collect(),
        ])
    }

    /// How many programs, maps and links are there that were not there then. Those of then may go at any time: the
    /// kernel frees them some time after the process that had them.
    pub(crate) fn new_since(&self) -> [usize; 3] {
        let Self(now) = Self::now();
        std::array::from_fn(|what| now[what].difference(&self.0[what]).count())
    }

    pub(crate) fn assert_nothing_new_remains(&self, who: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.new_since() != [0; 3] {
            assert!(Instant::now() < deadline, "{who} left {:?} programs, maps and links", self.new_since());
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(added_to_tracefs(), "", "{who} left something in tracefs");
    }
}

/// A thread's switches as the kernel counts them, and a time up to which they are counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Truth {
    pub(crate) tid: u32,
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
    pub(crate) until: Nanos,
}

pub(crate) fn monotonic() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn switches_in_status() -> (u32, u64, u64) {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    (field("Pid:") as u32, field("voluntary_ctxt_switches:"), field("nonvoluntary_ctxt_switches:"))
}

/// What the kernel says of the calling thread now.
pub(crate) fn truth() -> Truth {
    loop {
        let before = switches_in_status();
        let until = monotonic();
        if before == switches_in_status() {
            let (tid, voluntary, involuntary) = before;
            return Truth { tid, voluntary, involuntary, until };
        }
    }
}

pub(crate) fn assert_switches(recorded: &Recorded, truth: Truth) {
    let ids = recorded.ids(truth.tid);
    assert!(!ids.is_empty(), "thread {} was announced", truth.tid);
    let mut counted = (0, 0);
    for event in recorded.events.iter().filter(|event| event.ts < truth.until) {
        if let EventKind::Switch(switch) = event.kind
            && ids.contains(&switch.prev)
        {
            if switch.voluntary() { counted.0 += 1 } else { counted.1 += 1 }
        }
    }
    assert_eq!(counted, (truth.voluntary, truth.involuntary), "switches of {truth:?}, by (voluntary, involuntary)");
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

/// A thread that sleeps `n` times; tells what the kernel counted of it at its end.
pub(crate) fn sleeper(name: &str, n: u32) -> thread::JoinHandle<Truth> {
    let body = move || {
        for _ in 0..n {
            thread::sleep(Duration::from_micros(300));
        }
        truth()
    };
    thread::Builder::new().name(name.into()).spawn(body).unwrap()
}

/// Two threads that wake each other `n` times through pipes; the first one's end tells both.
pub(crate) fn ping_pong(n: u32) -> (Truth, Truth) {
    let (mut ping_read, mut ping_write) = std::io::pipe().unwrap();
    let (mut pong_read, mut pong_write) = std::io::pipe().unwrap();
    let pong = thread::Builder::new().name("st-pong".into());
    let pong = pong.spawn(move || {
        let mut byte = [0];
        for _ in 0..n {
            ping_read.read_exact(&mut byte).unwrap();
            pong_write.write_all(&byte).unwrap();
        }
        truth()
    });
    let ping = thread::Builder::new().name("st-ping".into());
    let ping = ping.spawn(move || {
        let mut byte = [0];
        for _ in 0..n {
            ping_write.write_all(&byte).unwrap();
            pong_read.read_exact(&mut byte).unwrap();
        }
        truth()
    });
    (ping.unwrap().join().unwrap(), pong.unwrap().join().unwrap())
}

/// A thread that receives `n` datagrams over loopback, sent with pauses in which it goes to sleep.
pub(crate) fn datagrams(n: u32) -> Truth {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let receiver = thread::spawn(move || {
        (0..n).for_each(|_| assert_eq!(socket.recv(&mut [0]).unwrap(), 1));
        truth()
    });
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..n {
        thread::sleep(Duration::from_millis(1));
        sender.send_to(&[1], address).unwrap();
    }
    receiver.join().unwrap()
}
