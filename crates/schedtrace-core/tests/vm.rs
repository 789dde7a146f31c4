//! What this machine cannot show: several caches and nodes, CPUs that come and go, other kernels. These run in a virtual
//! machine that `make vm-test` boots, as root, with 8 CPUs or more, two last-level caches and two nodes.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "live")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use libbpf_rs::{MapCore, ObjectBuilder};
use schedtrace_core::analysis::{self, Explain, Mechanism, Options, Subject};
use schedtrace_core::live::{Aspect, Collector, ShardPolicy, State};
use schedtrace_core::system::{Locality, Topology};
use schedtrace_core::{
    Cpu, EventKind, HotplugEnter, HotplugExit, Kind, OomKill, ReclaimBegin, ReclaimEnd, ScxCpuperf, ScxDispatch,
    ScxInsert, ScxLoad, ScxMove, ScxUnload, ShardId, TaskId,
};
use support::{Recorded, assert_switches, ping_pong, record, sleeper};

/// These tests take CPUs away, and memory: no other machine than one of its own is to be used for that.
fn in_the_emulator() {
    assert!(std::env::var_os("SCHEDTRACE_VM").is_some(), "this needs a machine of its own: run scripts/vm-test.sh");
}

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
    in_the_emulator();
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

/// A process that spins in a cgroup of its own, with a fifth of a CPU; both go with it.
struct Throttled(Child);

const QUOTA: &str = "/sys/fs/cgroup/schedtrace-quota";

impl Throttled {
    fn start() -> Self {
        fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu").unwrap();
        fs::create_dir(QUOTA).unwrap();
        fs::write(format!("{QUOTA}/cpu.max"), "20000 100000").unwrap();
        let spin = format!("echo $$ > {QUOTA}/cgroup.procs; while :; do :; done");
        let child = Self(Command::new("sh").args(["-c", &spin]).spawn().unwrap());
        while fs::read_to_string(format!("{QUOTA}/cgroup.procs")).unwrap().is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        child
    }
}

impl Drop for Throttled {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_dir(QUOTA);
    }
}

/// Linux 6.18 throttles tasks, and tests on such a kernel see that; kernels before it throttle a queue with all that is on it.
#[test]
fn vm_a_cpu_quota_is_told_as_one() {
    in_the_emulator();
    let throttled = Throttled::start();
    let mut collector = support::collector().duration(Duration::from_secs(2)).start().unwrap();
    let subject = Subject::Process(throttled.0.id());
    let report = analysis::run(&mut collector, Explain::study(subject, Options::default())).unwrap();
    let told = fs::read_to_string(format!("{QUOTA}/cpu.stat")).unwrap();
    drop(throttled);
    let answer = report.answer;
    assert_eq!(answer.mechanism, Some(Mechanism::Throttled), "{told}\n{answer:#?}");
    assert_eq!(answer.contention_source.unwrap().cgroup.as_deref(), Some("/schedtrace-quota"));
    let share = answer.steps.iter().find(|step| step.mechanism == Mechanism::Throttled).unwrap().share_ratio;
    assert!(share > 0.5, "{share} of the window, of which four fifths have no quota");
}

#[test]
fn vm_cpus_go_off_and_come_back_while_recording() {
    in_the_emulator();
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
    in_the_emulator();
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
    in_the_emulator();
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
        let tracepoint = has(&format!("__tracepoint_{}", probe.kind));
        // Others may be recorded by something of another name.
        assert!(probe.on == tracepoint || probe.on && !probe.kind.is_default(), "{probe:?}");
        assert!(probe.on || probe.why.is_some(), "{probe:?}");
    }
}

#[test]
fn vm_the_steps_of_a_cpu_that_goes_and_comes_are_told() {
    in_the_emulator();
    let kinds = [Kind::HotplugEnter, Kind::HotplugExit];
    let (recorded, ()) = record(support::collector().events(kinds), || drop(Offline::take(&[6])));
    recorded.assert_balanced();
    let mut begun = Vec::new();
    let (mut down, mut up, mut names) = (0, 0, BTreeSet::new());
    for event in &recorded.events {
        match event.kind {
            EventKind::HotplugEnter(HotplugEnter { target_cpu, target_state, step, function }) => {
                assert_eq!(target_cpu, Cpu(6));
                // `CPUHP_OFFLINE` is 0.
                *(if target_state == 0 { &mut down } else { &mut up }) += 1;
                names.insert(recorded.names.get(&function).cloned().unwrap_or_default());
                begun.push(step);
            }
            EventKind::HotplugExit(HotplugExit { target_cpu, step, result, .. }) => {
                assert_eq!((target_cpu, result), (Cpu(6), 0), "{event:?}");
                let at = begun.iter().rposition(|begun| *begun == step);
                begun.remove(at.unwrap_or_else(|| panic!("{event:?} had begun")));
            }
            _ => {}
        }
    }
    assert!(down > 10 && up > 10 && begun.is_empty(), "{down} steps down, {up} up, and {begun:?} did not end");
    // `cpuhp_hp_states` in kernel/cpu.c names them.
    assert!(names.contains("sched_cpu_activate") && names.contains("takedown_cpu"), "{names:?}");
}

#[test]
fn vm_want_of_memory_is_told() {
    in_the_emulator();
    let kinds = [Kind::ReclaimBegin, Kind::ReclaimEnd, Kind::OomKill];
    let (recorded, victim) = record(support::collector().events(kinds), || {
        // It keeps what it reads in memory, as it looks for the end of the first line.
        let glutton = std::process::Command::new("choom").args(["-n", "1000", "--", "tail", "/dev/zero"]).spawn();
        let mut glutton = glutton.unwrap();
        let id = glutton.id();
        assert!(!glutton.wait().unwrap().success(), "it was killed");
        id
    });
    recorded.assert_balanced();
    let mut looking = std::collections::BTreeMap::<TaskId, u32>::new();
    let (mut found, mut killed) = (0, Vec::new());
    for event in &recorded.events {
        match event.kind {
            EventKind::ReclaimBegin(ReclaimBegin { task, order }) => assert_eq!(looking.insert(task, order), None),
            EventKind::ReclaimEnd(ReclaimEnd { task, pages }) => {
                assert!(looking.remove(&task).is_some(), "{event:?} had begun");
                found += pages;
            }
            EventKind::OomKill(OomKill { victim_pid, .. }) => killed.push(victim_pid),
            _ => {}
        }
    }
    assert!(found > 0 && killed.contains(&victim), "{found} pages found, {killed:?} killed, of them {victim}");
}

/// `tests/sched_ext/two_queues.bpf.c`
const SCHEDULER: &[u8] = include_bytes!("sched_ext/two_queues.bpf.o");

#[test]
fn vm_what_a_scheduler_of_sched_ext_does_is_told() {
    in_the_emulator();
    if !Path::new("/sys/kernel/sched_ext").exists() {
        println!("this kernel has no sched_ext: CONFIG_SCHED_CLASS_EXT, Linux 6.12");
        return;
    }
    const SLICE_NS: u32 = 5_000_000;
    let mut scheduler = ObjectBuilder::default().open_memory(SCHEDULER).unwrap().load().unwrap();
    let mut map = scheduler.maps_mut().find(|map| map.name() == "two_queues").unwrap();
    let link = map.attach_struct_ops().unwrap();
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.group() == schedtrace_core::EventGroup::SchedExt);
    let (recorded, (ping, pong)) = record(support::collector().events(kinds), || {
        let both = ping_pong(300);
        drop(link);
        // Whoever samples looks at least five times a second.
        thread::sleep(Duration::from_millis(600));
        both
    });
    recorded.assert_balanced();
    let of = |wanted: Kind| recorded.events.iter().filter(move |event| event.kind.kind() == wanted);
    let (mut inserted, mut ran, mut moved, mut set) = ([0; 2], [0; 2], [0; 2], 0);
    for event in &recorded.events {
        match event.kind {
            EventKind::ScxInsert(ScxInsert { task, dsq_id, slice_ns, vtime }) if [7, 8].contains(&dsq_id.0) => {
                let known = recorded.tasks.iter().find(|known| known.id == task).unwrap();
                assert_eq!((dsq_id.0, slice_ns), (7 + u64::from(known.tid % 2), SLICE_NS), "{event:?} of {known:?}");
                assert_eq!(vtime > 0, dsq_id.0 == 8, "{event:?}");
                inserted[dsq_id.0 as usize - 7] += 1;
            }
            EventKind::ScxDispatch(ScxDispatch { dsq_id, latency_ns, layer, .. }) if [7, 8].contains(&dsq_id.0) => {
                assert!(latency_ns.0 > 0, "{event:?}");
                assert_eq!(layer, 3, "{event:?}");
                ran[dsq_id.0 as usize - 7] += 1;
            }
            EventKind::ScxMove(ScxMove { dsq_id, moved: true }) => moved[dsq_id.0 as usize - 7] += 1,
            EventKind::ScxCpuperf(ScxCpuperf { target_cpu, performance }) => {
                assert_eq!((target_cpu, performance), (event.cpu, 512));
                set += 1;
            }
            _ => {}
        }
    }
    // Both threads waited in the queues, and one of each pair of neighbours has an odd number.
    let (pings, pongs) = (recorded.ids(ping.tid), recorded.ids(pong.tid));
    let waits = of(Kind::ScxInsert)
        .filter(|event| event.kind.task().is_some_and(|task| pings.contains(&task) || pongs.contains(&task)));
    let waits = waits.count();
    assert!(waits >= 100, "{waits} waits of the two");
    for queue in 0..2 {
        let (inserted, ran, moved) = (inserted[queue], ran[queue], moved[queue]);
        assert!(inserted > 0 && ran > 0 && moved > 0, "queue {queue}: {inserted} inserted, {moved} moved, {ran} ran");
        assert!(ran <= inserted + 64, "nobody runs from a queue that was not put there");
    }
    assert!(set > 100, "{set}");
    let scheduler = |kind: EventKind| match kind {
        EventKind::ScxLoad(ScxLoad { scheduler }) => Some((true, scheduler)),
        EventKind::ScxUnload(ScxUnload { scheduler }) => Some((false, scheduler)),
        _ => None,
    };
    let told: Vec<_> = recorded.events.iter().filter_map(|event| scheduler(event.kind)).collect();
    let told: Vec<_> = told.into_iter().map(|(load, name)| (load, recorded.names[&name].as_str())).collect();
    assert_eq!(told, [(true, "two_queues"), (false, "two_queues")]);
}
