//! What this machine cannot show: several caches and nodes, CPUs that come and go, other kernels. These run in a virtual
//! machine that `make vm-test` boots, as root, with 8 CPUs or more, two last-level caches and two nodes.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "live")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use schedtrace_core::live::{Aspect, Collector, ShardPolicy, State};
use schedtrace_core::system::{Locality, Topology};
use schedtrace_core::{Cpu, EventKind, Kind, ShardId};
use support::{Recorded, assert_switches, ping_pong, record, sleeper};

fn topology() -> Topology {
    Topology::read(Path::new("/sys")).unwrap()
}

/// Takes a CPU off line, or brings it back.
fn set_online(cpu: u16, online: bool) {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    fs::write(&path, if online { "1" } else { "0" }).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Brings CPUs back whatever happens.
struct Offline(&'static [u16]);

impl Offline {
    fn take(cpus: &'static [u16]) -> Self {
        cpus.iter().for_each(|&cpu| set_online(cpu, false));
        Self(cpus)
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        for cpu in self.0 {
            let _ = fs::write(format!("/sys/devices/system/cpu/cpu{cpu}/online"), "1");
        }
    }
}

/// Work on one CPU, until it is over.
fn work_on(cpu: u16) {
    let work = move || {
        support::pin(cpu.into());
        (0..50).for_each(|_| thread::sleep(Duration::from_micros(200)));
    };
    thread::spawn(work).join().unwrap();
}

fn cpus_seen(recorded: &Recorded) -> BTreeSet<Cpu> {
    let switches = recorded.events.iter().filter(|event| matches!(event.kind, EventKind::Switch(_)));
    switches.map(|event| event.cpu).collect()
}

#[test]
fn vm_shards_follow_caches_and_nodes() {
    let topology = topology();
    let online: Vec<_> = topology.online().into_iter().collect();
    assert!(online.len() >= 8, "{}", topology.shape());
    let (llcs, nodes) = (topology.llcs(), topology.group_by(|info| info.node));
    assert_eq!((llcs.len(), nodes.len()), (2, 2), "{}", topology.shape());
    assert_eq!(topology.locality(online[0], *online.last().unwrap()), Locality::CrossNode);
    let groups = |policy| -> Vec<Vec<Cpu>> {
        match policy {
            // At most 8 CPUs of a cache share a ring.
            ShardPolicy::Auto => llcs.values().flat_map(|cpus| cpus.chunks(8).map(<[Cpu]>::to_vec)).collect(),
            ShardPolicy::PerLlc => llcs.values().cloned().collect(),
            ShardPolicy::PerNode => nodes.values().cloned().collect(),
            ShardPolicy::PerCpu => online.iter().map(|&cpu| vec![cpu]).collect(),
            ShardPolicy::Single => vec![online.clone()],
        }
    };
    for (name, policy) in ShardPolicy::ALL {
        let (recorded, ()) = record(support::collector().shards(policy), || {
            online.iter().for_each(|cpu| work_on(cpu.0));
        });
        let rings = recorded.meta.rings.iter().filter(|ring| ring.shard != ShardId::LIFECYCLE);
        let rings: Vec<Vec<Cpu>> = rings.map(|ring| ring.cpus.clone()).collect();
        assert_eq!(rings, groups(policy), "{name}");
        assert_eq!(cpus_seen(&recorded), online.iter().copied().collect(), "{name}: all CPUs are seen");
        recorded.assert_balanced();
        recorded.assert_gaps_are_told();
        // What a CPU emitted went through the ring of its own shard.
        for (ring, cpus) in recorded.meta.rings.iter().zip(&rings) {
            let on = recorded.count(|event| matches!(event.kind, EventKind::Switch(_)) && cpus.contains(&event.cpu));
            let account =
                recorded.meta.accounts.iter().find(|a| a.shard == ring.shard && a.kind == Kind::Switch).unwrap();
            assert_eq!(on, account.delivered, "{name}: {ring:?}");
        }
    }
}

#[test]
fn vm_cpus_go_off_and_come_back_while_recording() {
    let (recorded, truths) = record(support::collector(), || {
        let sleepers: Vec<_> = (0..4).map(|n| sleeper(&format!("st-sleep-{n}"), 2000)).collect();
        for cpu in [3, 6] {
            work_on(cpu);
            let offline = Offline::take(if cpu == 3 { &[3] } else { &[6] });
            ping_pong(200);
            drop(offline);
            work_on(cpu);
        }
        sleepers.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(recorded.lost, []);
    recorded.assert_balanced();
    recorded.assert_gaps_are_told();
    truths.into_iter().for_each(|truth| assert_switches(&recorded, truth));
}

#[test]
fn vm_cpu_ids_may_have_gaps_and_new_ones_may_come() {
    let offline = Offline::take(&[1, 2, 5]);
    assert_eq!(topology().online().to_string(), format!("0,3-4,6-{}", topology().cpus.len() - 1));
    for policy in ShardPolicy::ALL.map(|(_, policy)| policy) {
        let (recorded, truths) = record(support::collector().shards(policy), || {
            work_on(7);
            // It was not there when the recording began.
            set_online(5, true);
            work_on(5);
            let truths = ping_pong(200);
            set_online(5, false);
            truths
        });
        let seen = cpus_seen(&recorded);
        assert!(seen.contains(&Cpu(5)) && seen.contains(&Cpu(7)), "{seen:?}");
        assert!(!seen.contains(&Cpu(1)) && !seen.contains(&Cpu(2)), "{seen:?}");
        assert_eq!(recorded.lost, []);
        recorded.assert_balanced();
        recorded.assert_gaps_are_told();
        [truths.0, truths.1].into_iter().for_each(|truth| assert_switches(&recorded, truth));
    }
    drop(offline);
}

#[test]
fn vm_what_the_kernel_has_is_told() {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    let has = |name: &str| symbols.lines().any(|line| line.split(' ').nth(2) == Some(name));
    let capabilities = Collector::capabilities();
    assert!(capabilities.can_record(), "{capabilities:#?}");
    let state = |aspect| capabilities.checks.iter().find(|check| check.aspect == aspect).unwrap().state;
    let expected = |there| if there { State::Ok } else { State::Absent };
    assert_eq!(state(Aspect::SchedExt), expected(has("ext_sched_class")));
    assert_eq!(state(Aspect::Kprobes), expected(has("register_kprobe")));
    assert_eq!(state(Aspect::PidNamespace), State::Ok);
    for probe in &capabilities.probes {
        assert_eq!(probe.on, has(&format!("__tracepoint_{}", probe.kind)), "{probe:?}");
    }
}
