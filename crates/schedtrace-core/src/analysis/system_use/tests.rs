use proptest::prelude::*;

use super::super::question::Answered;
use super::super::tables::testing::{asked, at, named};
use super::*;
use crate::event::{Loadavg, Meminfo, Name, NetDev, Pressure, SchedStats, SystemStat};

/// Numbers by name, each as often as it is told, and the names for the rest of the stream.
#[derive(Default)]
struct Told {
    events: Vec<Event>,
    names: Vec<Name>,
}

impl Told {
    fn id(&mut self, name: &str) -> NameId {
        if let Some(known) = self.names.iter().find(|known| &*known.text == name) {
            return known.id;
        }
        let id = 1 + self.names.len() as u32;
        self.names.push(super::tests::named(id, name));
        NameId(id)
    }

    fn tell<K: Into<EventKind>>(mut self, ts: u64, kind: fn(NameId, i64) -> K, all: &[(&str, i64)]) -> Self {
        for &(name, value) in all {
            let metric = self.id(name);
            self.events.push(at(ts, 0, kind(metric, value)));
        }
        self
    }

    fn ask(self) -> SystemUseReport {
        asked::<SystemUse>(self.events, self.names).answer
    }
}

fn stat(metric: NameId, value: i64) -> SystemStat {
    SystemStat { metric, value }
}
fn meminfo(metric: NameId, value: i64) -> Meminfo {
    Meminfo { metric, value }
}
fn load(metric: NameId, value: i64) -> Loadavg {
    Loadavg { metric, value }
}
fn psi(metric: NameId, value: i64) -> Pressure {
    Pressure { metric, value }
}
fn net(metric: NameId, value: i64) -> NetDev {
    NetDev { metric, value }
}
fn schedstat(metric: NameId, value: i64) -> SchedStats {
    SchedStats { metric, value }
}

fn cpu(name: &str, ticks: [i64; 8]) -> Vec<(String, i64)> {
    let parts = ["user", "nice", "system", "irq", "softirq", "steal", "iowait", "idle"];
    parts.iter().zip(ticks).map(|(part, ticks)| (format!("{name}.{part}"), ticks)).collect()
}

fn some(list: &[(String, i64)]) -> Vec<(&str, i64)> {
    list.iter().map(|(name, value)| (name.as_str(), *value)).collect()
}

#[test]
fn memory_is_told_as_it_was_last_and_between_which_bounds() {
    let report = Told::default()
        .tell(900, meminfo, &[("MemTotal", 100), ("MemAvailable", 1)])
        .tell(1_000, meminfo, &[("MemTotal", 100), ("MemAvailable", 60), ("SwapTotal", 9), ("SwapFree", 9)])
        .tell(1_000, stat, &[("pgfault", 1_000), ("oom_kill", 1)])
        .tell(1_300, meminfo, &[("MemTotal", 100), ("MemAvailable", 20), ("SwapTotal", 8), ("SwapFree", 5)])
        .tell(1_500, meminfo, &[("MemTotal", 100), ("MemAvailable", 40), ("SwapTotal", 8), ("SwapFree", 5)])
        .tell(1_500, stat, &[("pgfault", 1_500), ("oom_kill", 1)])
        .tell(2_000, meminfo, &[("MemTotal", 100), ("MemAvailable", 1)])
        .ask();
    let memory = report.memory.unwrap();
    let kib = |now, min, max| Some(Gauge { now, min, max }.map(|kib: u64| kib * 1_024));
    assert_eq!(memory.at, Samples { samples: 3, first_ns: Nanos(1_000), last_ns: Nanos(1_500) }, "none outside");
    assert_eq!(memory.total_bytes, kib(100, 100, 100));
    assert_eq!(memory.available_bytes, kib(40, 20, 60));
    assert_eq!(memory.in_use_bytes, kib(60, 40, 80));
    assert_eq!((memory.swap_used_bytes, memory.free_bytes), (None, None), "of another whole; not told");
    assert_eq!(memory.growth_bytes, Some(20 * 1_024));
    assert_eq!(memory.page_faults, Some(Counter { now: 1_500, growth: 500, per_second: Some(1e9) }));
    assert_eq!((memory.oom_kills.unwrap().growth, memory.pages_swapped_in), (0, None));
    assert_eq!((report.load, report.network, report.pressure, report.others), (None, None, None, 0));
}

#[test]
fn of_one_look_there_are_no_rates() {
    let report = Told::default()
        .tell(1_500, stat, &some(&cpu("cpu", [5; 8])))
        .tell(1_500, stat, &[("ctxt", 7), ("procs_running", 2)])
        .tell(1_500, net, &[("lo.rx_bytes", 7)])
        .tell(1_500, psi, &[("cpu.some", 7)])
        .tell(1_500, meminfo, &[("MemAvailable", 7)])
        .ask();
    let cpus = report.cpus.unwrap();
    assert_eq!((cpus.total, cpus.context_switches.unwrap()), (None, Counter { now: 7, growth: 0, per_second: None }));
    assert_eq!(cpus.tasks_runnable.unwrap().now, 2);
    let network = report.network.unwrap();
    assert_eq!((network.at.samples, network.interfaces[0].received_bytes.unwrap().per_second), (1, None));
    assert_eq!(report.pressure.unwrap().resources[0].some.unwrap().stalled_ratio, None);
    assert_eq!(report.memory.unwrap().growth_bytes, None);
}

#[test]
fn of_nothing_there_is_nothing() {
    let report = Told::default().tell(500, net, &[("lo.rx_bytes", 7)]).ask();
    let nothing = SystemUseReport { memory: None, cpus: None, load: None, pressure: None, network: None, others: 0 };
    assert_eq!(report, nothing);
}

#[test]
fn what_cpus_did_adds_up_to_one() {
    let report = Told::default()
        .tell(1_000, stat, &some(&cpu("cpu7", [10, 0, 20, 0, 5, 0, 50, 100])))
        .tell(1_000, stat, &[("cpu8.user", 5)])
        .tell(1_000, schedstat, &[("cpu7.running_ns", 0), ("cpu7.waiting_ns", 100), ("cpu7.timeslices", 1)])
        // iowait went back, as it may.
        .tell(1_500, stat, &some(&cpu("cpu7", [20, 10, 30, 0, 15, 0, 49, 160])))
        .tell(1_500, stat, &[("cpu8.user", 9)])
        .tell(1_400, schedstat, &[("cpu7.running_ns", 200), ("cpu7.waiting_ns", 300), ("cpu7.timeslices", 5)])
        .ask();
    let cpus = report.cpus.unwrap();
    let [seven, eight] = &cpus.cpus[..] else { panic!("two") };
    let shares = seven.shares.unwrap();
    assert_eq!((seven.cpu, shares.busy_ratio, shares.user_ratio, shares.idle_ratio), (Cpu(7), 0.4, 0.2, 0.6));
    assert_eq!((shares.iowait_ratio, shares.counted_ns), (0.0, Nanos(1_000_000_000)));
    let queue =
        SampledQueue { running_ratio: 0.5, waiting_mean: 0.5, timeslices_per_second: 1e7, wait_mean_ns: Some(50.0) };
    assert_eq!(seven.queue, Some(queue));
    assert_eq!((eight.cpu, eight.shares, eight.queue), (Cpu(8), None, None), "a part of it says nothing");
}

#[test]
fn interfaces_come_and_go() {
    let report = Told::default()
        .tell(1_000, net, &[("eth0.100.rx_bytes", 50), ("eth0.100.tx_bytes", 0), ("veth.rx_bytes", 1_000)])
        .tell(1_100, net, &[("eth0.100.rx_bytes", 80), ("eth0.100.tx_bytes", 5), ("veth.rx_bytes", 1_040)])
        // It was made anew, another one is gone, and there is a new one.
        .tell(1_200, net, &[("eth0.100.rx_bytes", 10), ("eth0.100.tx_bytes", 0), ("wg.rx_bytes", 7)])
        .tell(1_500, net, &[("eth0.100.rx_bytes", 30), ("eth0.100.tx_bytes", 8), ("wg.rx_bytes", 7)])
        .ask();
    let network = report.network.unwrap();
    assert_eq!((network.at.samples, network.interfaces_total), (4, 3));
    let [eth0, veth, wg] = &network.interfaces[..] else { panic!("three") };
    assert_eq!((&*eth0.name, eth0.resets, eth0.gone, eth0.at.samples), ("eth0.100", 1, false, 4));
    let received = eth0.received_bytes.unwrap();
    assert_eq!((received.now, received.growth, received.per_second), (30, 50, Some(1e8)));
    assert_eq!((eth0.sent_bytes.unwrap().growth, eth0.sent_packets), (13, None));
    let times = Samples { samples: 2, first_ns: Nanos(1_000), last_ns: Nanos(1_100) };
    assert_eq!((&*veth.name, veth.gone, veth.at), ("veth", true, times));
    assert_eq!(veth.received_bytes.unwrap().per_second, Some(4e8), "of the time in which it was there");
    assert_eq!((&*wg.name, wg.gone, wg.at.first_ns), ("wg", false, Nanos(1_200)));
}

#[test]
fn load_and_pressure() {
    let report = Told::default()
        .tell(1_000, load, &[("load1", 50), ("tasks", 300), ("runnable", 4)])
        .tell(1_000, psi, &[("io.some", 1), ("io.full", 0), ("disco.some", 1)])
        .tell(1_001, psi, &[("io.some", 1_000_000)])
        .tell(1_400, load, &[("load1", 150), ("tasks", 200), ("runnable", 1)])
        .ask();
    let load = report.load.unwrap();
    assert_eq!((load.one_minute, load.five_minutes), (Some(Gauge { now: 1.5, min: 0.5, max: 1.5 }), None));
    assert_eq!(load.tasks, Some(Gauge { now: 200, min: 200, max: 300 }));
    let pressure = report.pressure.unwrap();
    let [io] = &pressure.resources[..] else { panic!("one") };
    let some = io.some.unwrap();
    assert_eq!((io.resource, some.stalled_ratio, some.total_ns), ("io", Some(1.0), Nanos(1_000_000_000)));
    assert_eq!(io.full.unwrap().stalled_ratio, None, "told once");
}

#[test]
fn what_cannot_be_told_is_counted() {
    let mut told = Told::default()
        .tell(1_000, net, &[("lo.rx_bytes", -1), ("lo.tx_bytes", i64::MAX)])
        // Before what was told.
        .tell(1_100, net, &[("lo.tx_bytes", 0)])
        .tell(1_050, net, &[("lo.tx_bytes", i64::MAX)]);
    // Of no known name, and two that are called the same.
    told.events.push(at(1_200, 0, net(NameId(77), 5)));
    told.names.push(super::tests::named(78, "lo.tx_bytes"));
    told.events.push(at(1_200, 0, net(NameId(78), 6)));
    let report = told.ask();
    let interface = &report.network.unwrap().interfaces[0];
    assert_eq!((interface.sent_bytes.unwrap().now, interface.received_bytes), (6, None));
    assert_eq!(report.others, 1 + 1 + 1 + 2);
}

#[test]
fn numbers_have_an_end() {
    let events = (0..MAX_NUMBERS as u32 + 9).map(|id| at(1_500, 0, net(NameId(id + 1), 5))).collect();
    let report = asked::<SystemUse>(events, vec![named(1, "lo.rx_bytes")]).answer;
    assert_eq!(report.network.unwrap().interfaces_total, 1);
    assert_eq!(report.others, MAX_NUMBERS as u64 + 8);
}

/// The values of one number in the window, in order.
fn values(events: &[Event], metric: NameId) -> Vec<(u64, u64)> {
    let all = events.iter().filter(|event| (1_000..2_000).contains(&event.ts.0));
    let all = all.filter_map(|event| match event.kind {
        EventKind::NetDev(it) if it.metric == metric => Some((event.ts.0, it.value as u64)),
        EventKind::Meminfo(it) if it.metric == metric => Some((event.ts.0, it.value as u64)),
        _ => None,
    });
    all.collect()
}

proptest! {
    #[test]
    fn it_is_what_one_finds_by_hand(
        mut steps in prop::collection::vec((900..2_100_u64, 0..3_u32, prop_oneof![0..50_i64, 0..=i64::MAX]), 0..60),
    ) {
        steps.sort_by_key(|step| step.0);
        let names = ["", "lo.rx_bytes", "eth0.tx_bytes", "MemFree"];
        let names = || (1..=3_u32).map(|id| named(id, names[id as usize])).collect::<Vec<_>>();
        let events: Vec<_> = steps.iter().map(|&(ts, which, value)| match NameId(which + 1) {
            metric @ NameId(3) => at(ts, 0, meminfo(metric, value)),
            metric => at(ts, 0, net(metric, value)),
        }).collect();
        let Answered { answer, .. } = asked::<SystemUse>(events.clone(), names());
        let network = answer.network.unwrap_or_default();
        for (id, name) in [(1, "lo"), (2, "eth0")] {
            let values = values(&events, NameId(id));
            let row = network.interfaces.iter().find(|row| row.name == name);
            prop_assert_eq!(row.is_some(), !values.is_empty());
            let Some(row) = row else { continue };
            let counter = row.received_bytes.or(row.sent_bytes).unwrap();
            let growth = values.windows(2).map(|two| u128::from(two[1].1.saturating_sub(two[0].1))).sum::<u128>();
            let growth = u64::try_from(growth).unwrap_or(u64::MAX);
            let (first, last) = (values[0], values[values.len() - 1]);
            prop_assert_eq!((counter.now, counter.growth), (last.1, growth));
            prop_assert_eq!((row.at.first_ns, row.at.last_ns), (Nanos(first.0), Nanos(last.0)));
            prop_assert_eq!(row.at.samples, values.len() as u64);
            prop_assert_eq!(row.resets, values.windows(2).filter(|two| two[1].1 < two[0].1).count() as u64);
            let rate = (last.0 > first.0).then(|| growth as f64 / ((last.0 - first.0) as f64 / 1e9));
            let (told, found) = (counter.per_second.unwrap_or(-1.0), rate.unwrap_or(-1.0));
            prop_assert!((told - found).abs() <= found.abs() * 1e-12, "{} {}", told, found);
        }
        let free = answer.memory.and_then(|memory| memory.free_bytes);
        let values: Vec<_> = values(&events, NameId(3)).iter().map(|value| value.1.saturating_mul(1_024)).collect();
        let ends = values.iter().min().zip(values.iter().max()).zip(values.last());
        prop_assert_eq!(free, ends.map(|((&min, &max), &now)| Gauge { now, min, max }));
    }
}

/// A recording with samples of everything, against its events one by one.
#[cfg(feature = "trace")]
#[test]
fn of_a_recording_it_is_what_its_events_say() {
    use std::time::{Duration, Instant};

    use crate::analysis::{Options, Study};
    use crate::trace::TraceReader;
    use crate::{Poll, Source};

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../schedtrace/tests/every-event/events.schedtrace");
    let open = || TraceReader::open(path).unwrap();
    let mut reader = open();
    let (mut names, mut told) = (BTreeMap::new(), Vec::new());
    loop {
        match reader.poll(Instant::now() + Duration::from_secs(5)).unwrap() {
            Poll::Batch(batch) => {
                names.extend(batch.names.iter().map(|name| (name.id, name.text.to_string())));
                let sampled = batch.events.iter().filter(|event| event.kind.kind().is_sampled());
                told.extend(sampled.filter(|event| event.kind.values().len() == 2).map(|event| {
                    let values = event.kind.values();
                    (event.kind.kind(), NameId(values[0] as u32), event.ts, values[1])
                }));
            }
            Poll::End => break,
            _ => {}
        }
    }
    // From the second sample to the last but one, and of all of it.
    let looks: Vec<Nanos> = told.iter().filter(|it| it.0 == Kind::NetDev).map(|it| it.2).collect();
    let (first, last) = (looks[0], looks[looks.len() - 1]);
    for (from, until) in [(Nanos(0), Nanos::MAX), (first + Nanos(1), last)] {
        let options = Options { from: Some(from), until: Some(until), ..Options::default() };
        let report = crate::analysis::run(&mut open(), Study::<SystemUse>::new(options)).unwrap().answer;
        let of = |kind: Kind, name: &str| -> Vec<(Nanos, u64)> {
            let all = told.iter().filter(|it| it.0 == kind && names.get(&it.1).is_some_and(|known| known == name));
            all.filter(|it| (from..until).contains(&it.2)).map(|it| (it.2, it.3)).collect()
        };
        let ends = |kind, name| {
            let all = of(kind, name);
            assert!(all.len() > 2, "{kind} {name}");
            (all[0], all[all.len() - 1])
        };
        let memory = report.memory.unwrap();
        let free: Vec<u64> = of(Kind::Meminfo, "MemFree").iter().map(|it| it.1 * 1_024).collect();
        let (min, max) = (*free.iter().min().unwrap(), *free.iter().max().unwrap());
        assert_eq!(memory.free_bytes, Some(Gauge { now: free[free.len() - 1], min, max }));
        assert_eq!((memory.page_faults, memory.at.samples), (None, free.len() as u64), "it is older than that");
        let cpus = report.cpus.unwrap();
        let (then, now) = ends(Kind::SystemStat, "ctxt");
        let switches = cpus.context_switches.unwrap();
        let seconds = (now.0 - then.0).as_secs_f64();
        assert_eq!((switches.now, switches.growth), (now.1, now.1 - then.1));
        assert_eq!(switches.per_second, Some((now.1 - then.1) as f64 / seconds));
        let idle = ends(Kind::SystemStat, "cpu.idle");
        let total = cpus.total.unwrap();
        let ticks = total.idle_ratio * total.counted_ns.0 as f64 / 1e7;
        assert!((ticks - (idle.1.1 - idle.0.1) as f64).abs() < 1e-6, "{ticks} {idle:?}");
        let (then, now) = ends(Kind::SchedStats, "cpu1.waiting_ns");
        let queue = cpus.cpus.iter().find(|row| row.cpu == Cpu(1)).unwrap().queue.unwrap();
        assert_eq!(queue.waiting_mean, (now.1 - then.1) as f64 / (now.0 - then.0).0 as f64);
        let network = report.network.unwrap();
        let (then, now) = ends(Kind::NetDev, "lo.rx_bytes");
        let lo = network.interfaces.iter().find(|row| row.name == "lo").unwrap();
        let (first_ns, last_ns) = (then.0, now.0);
        assert_eq!(lo.at, Samples { samples: of(Kind::NetDev, "lo.rx_bytes").len() as u64, first_ns, last_ns });
        assert_eq!(lo.received_bytes.unwrap().now, now.1);
        let (_, now) = ends(Kind::Loadavg, "load1");
        assert_eq!(report.load.unwrap().one_minute.unwrap().now, now.1 as f64 / 100.0);
        assert_eq!(report.others, 0);
    }
}
