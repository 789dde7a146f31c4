//! Whether explanations are true: threads that something known keeps from running, beside somebody innocent who is
//! busier, recorded by the real command and explained. Then the times of explanations beside those of the kernel, of
//! perf and of runqlat, and what is said of a recording with holes. Needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a module here is as public as the test is")]

mod answer;
mod cgroup;
#[path = "../common/mod.rs"]
mod common;
mod measures;
mod others;
mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use answer::{Answer, Named, WAITS, below, hold, is_one_of, sum};
use cgroup::Quota;
use common::process::{Process, random_name};
use common::procfs;
use common::recording::{Recorder, Recording, number};
use common::threads;
use serde_json::Value;

/// What explanations need.
const EVENTS: &str = "default,irq,block,futex";

/// So many MiB of memory each try has, and so many tries there are. One try may be in vain: the hypervisor takes a CPU
/// away for a while, and nobody sees who is kept from running by that; what else the machine does gets in between, a
/// build for instance; or more events come than there is room for. A mistake of ours comes back every time.
const TRIES: [u32; 3] = [32, 128, 512];

/// Not a test by itself: what the tests record.
#[test]
fn a_process_under_test() {
    workload::main();
}

/// A workload that was recorded, and its subject's explanation.
struct Told {
    recording: Recording,
    window: (u64, u64),
    answer: Answer,
    threads: BTreeMap<&'static str, Named>,
    /// The CPUs of the workload: the subject's is in most of them the last one.
    last: usize,
}

impl Told {
    /// The thread with this role.
    fn the(&self, role: &str) -> &Named {
        &self.threads[role]
    }

    /// How long each had a CPU, in the window.
    fn used(&self) -> BTreeMap<&'static str, u64> {
        let (from, to) = (format!("{}ns", self.window.0), format!("{}ns", self.window.1));
        let report = self.recording.json("report", &["--by", "task", "--top", "100000", "--from", &from, "--to", &to]);
        let rows = report["cpu_time"]["groups"].as_array().unwrap();
        let used = |it: &Named| {
            let of = rows.iter().filter(|row| it.is(&row["group"]));
            of.map(|row| number(&row["cpu_time_ns"])).sum::<u64>()
        };
        self.threads.iter().map(|(role, it)| (*role, used(it))).collect()
    }

    /// Whether one thread used more of the CPUs than another.
    fn busier(&self, one: &str, other: &str) -> Result<(), String> {
        let used = self.used();
        hold(used[one] > used[other], &format!("the {one} was to use more of the CPUs than the {other}: {used:?}"))
    }
}

/// A scenario: a workload, the roles of its threads, what else it needs to know, and who answers for what.
struct Scenario<'a> {
    workload: &'static str,
    /// The subject is the first.
    roles: &'a [&'static str],
    more: &'a str,
    /// Becomes the workload's process.
    command: &'a dyn Fn(&str) -> Command,
}

impl Scenario<'_> {
    fn of(workload: &'static str, roles: &'static [&'static str]) -> Self {
        Self { workload, roles, more: "", command: &threads::command }
    }

    /// Records it and explains it. `prepare` is done before its threads work; what it made is kept until they have
    /// ended.
    fn record<T>(&self, ring_mb: u32, prepare: impl FnOnce(&Process, u32) -> T) -> (Told, u64, T) {
        let names: Vec<String> = self.roles.iter().map(|_| random_name()).collect();
        let asked = [&[self.workload.to_owned()], &names[..], &[self.more.to_owned()]].concat().join(" ");
        let process = Process::of((self.command)(asked.trim()));
        let named = |name: &String| Named { name: name.clone(), tid: process.tid(name), pid: process.id() };
        let threads: BTreeMap<_, _> = self.roles.iter().copied().zip(names.iter().map(named)).collect();
        let subject = process.tid(&names[0]);
        let prepared = prepare(&process, subject);
        // If this fails, it ends before what was prepared for it.
        let mut process = process;
        let recorder = Recorder::of(ring_mb, EVENTS);
        process.work();
        let recording = recorder.stop();
        let missing = recording.missing();
        let told = process.told("window").expect("the subject tells its window");
        let window = (told[0].parse().unwrap(), told[1].parse().unwrap());
        drop(process);
        let answer = Answer::new(&recording, subject, Some(window));
        let last = *threads::cpus().last().unwrap();
        (Told { recording, window, answer, threads, last }, missing, prepared)
    }

    /// Records and explains it until the answer is the right one, but not more often than [`TRIES`] says.
    fn explain<T>(&self, prepare: impl Fn(&Process, u32) -> T, judge: impl Fn(&Told, &T) -> Result<(), String>) {
        let mut whys = Vec::new();
        for ring_mb in TRIES {
            let steal = procfs::steal_ticks();
            let (told, missing, prepared) = self.record(ring_mb, &prepare);
            let steal = procfs::steal_ticks() - steal;
            let judged = told.answer.explained().and_then(|()| judge(&told, &prepared));
            let roles: Vec<String> =
                told.threads.iter().map(|(role, it)| format!("{role} = {}[{}]", it.name, it.tid)).collect();
            let of =
                format!("{}: {}; {missing} events missing, {steal} ticks of steal", self.workload, roles.join(", "));
            match judged {
                Ok(()) => return println!("\n{of}\nnanoseconds on CPUs: {:?}\n{}", told.used(), told.answer.text),
                Err(why) => {
                    println!("\nagain: {why}\n{of}");
                    whys.push(format!("{why}\n{of}\n{}", told.answer.text));
                }
            }
        }
        panic!("{}", whys.join("\n"));
    }
}

fn nothing(_: &Process, _: u32) {}

#[test]
fn live_explain_a_hog_on_the_cpu() {
    Scenario::of("hog", &["subject", "hog", "decoy"]).explain(nothing, |told, ()| {
        told.answer.verdict(&WAITS, Some(told.the("hog")))?;
        told.busier("decoy", "hog")
    });
}

#[test]
fn live_explain_a_lock_holder_that_is_preempted() {
    Scenario::of("lock", &["subject", "holder", "hog", "decoy"]).explain(nothing, |told, ()| {
        told.answer.verdict(&["futex", "preempted", "run_queue"], Some(told.the("hog")))?;
        // The lock's holder, and below it the hog.
        let held = told.answer.steps().filter(|step| step["mechanism"] == "futex");
        let held = held.filter(|step| told.the("holder").is(&step["who"]));
        let waits = held.flat_map(below).filter(|step| is_one_of(step, &WAITS));
        let behind = waits.flat_map(below).filter(|step| told.the("hog").is(&step["who"]));
        let window_ns = told.window.1 - told.window.0;
        hold(sum(behind) > window_ns / 4, "the chain does not go from the lock to its holder to the hog")?;
        told.answer.advises(told.the("holder"))?;
        told.busier("decoy", "hog")
    });
}

#[test]
fn live_explain_a_chain_of_wakeups_with_a_late_link() {
    Scenario::of("chain", &["c", "b", "a", "hog", "decoy"]).explain(nothing, |told, ()| {
        told.answer.verdict(&WAITS, Some(told.the("hog")))?;
        let late = told.answer.steps().filter(|step| step["mechanism"] == "blocked" && told.the("b").is(&step["who"]));
        let waits = late.clone().flat_map(below).filter(|step| is_one_of(step, &WAITS));
        let behind = waits.flat_map(below).filter(|step| told.the("hog").is(&step["who"]));
        let window_ns = told.window.1 - told.window.0;
        hold(sum(behind) > window_ns / 4, "the chain does not go from C to B to the hog")?;
        told.answer.advises(told.the("b"))?;
        // While B slept, it was A's turn.
        let before =
            late.flat_map(below).filter(|step| step["mechanism"] == "blocked" && told.the("a").is(&step["who"]));
        hold(sum(before) > 0, "A is not named below B")?;
        told.busier("decoy", "hog")
    });
}

#[test]
fn live_explain_a_cgroup_without_quota() {
    let limit = |process: &Process, subject: u32| {
        Quota::new(&random_name(), process.id(), subject).expect("live tests need the CPU controller of cgroups")
    };
    Scenario::of("quota", &["subject", "decoy"]).explain(limit, |told, limit| {
        told.answer.verdict(&["throttled"], None)?;
        let cgroup = &told.answer.all["contention_source"]["cgroup"];
        hold(cgroup.as_str() == limit.path(), &format!("{cgroup} is named, and it is {:?}", limit.path()))?;
        told.busier("decoy", "subject")
    });
}

/// The disk under a folder, by the name that its requests have; or why there is none.
fn disk_of(folder: &Path) -> Result<String, String> {
    let device = fs::metadata(folder).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"));
    let path = path.map_err(|_| format!("{} is on no disk of its own ({major}:{minor})", folder.display()))?;
    // Requests are those of the whole disk.
    let disk = if path.join("partition").exists() { path.parent().unwrap() } else { &path };
    let name = disk.file_name().unwrap().to_string_lossy().into_owned();
    let mapped = ["dm-", "md", "loop", "zram"].iter().any(|kind| name.starts_with(kind));
    if mapped { Err(format!("{name} passes requests on to other disks")) } else { Ok(name) }
}

/// A file on a disk that can be read without the page cache, and the disk's name; or why there is none.
fn on_disk() -> Result<(tempfile::TempDir, PathBuf, String), String> {
    let mut whys = Vec::new();
    for folder in [std::env::temp_dir(), PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from("/var/tmp")] {
        let made = || {
            let disk = disk_of(&folder)?;
            let dir = tempfile::tempdir_in(&folder).map_err(|error| error.to_string())?;
            let path = dir.path().join("file");
            let mut file = fs::File::create(&path).map_err(|error| error.to_string())?;
            let block: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            for _ in 0..workload::FILE_BYTES >> 20 {
                file.write_all(&block).map_err(|error| error.to_string())?;
            }
            file.sync_all().map_err(|error| error.to_string())?;
            let read = workload::open_direct(&path).and_then(|file| workload::read_direct(&file, 0));
            read.map_err(|error| format!("no O_DIRECT in {}: {error}", folder.display()))?;
            Ok((dir, path, disk))
        };
        match made() {
            Ok(made) => return Ok(made),
            Err(why) => whys.push(why),
        }
    }
    Err(whys.into_iter().fold(String::new(), |all: String, why: String| all + &why + "; "))
}

#[test]
fn live_explain_a_disk() {
    let (_dir, path, disk) = match on_disk() {
        Ok(made) => made,
        Err(why) => return println!("skipped: no file here is read from a disk: {why}"),
    };
    let scenario = Scenario { more: path.to_str().unwrap(), ..Scenario::of("disk", &["subject", "decoy"]) };
    scenario.explain(nothing, |told, ()| {
        told.answer.verdict(&["io"], None)?;
        let what = &told.answer.all["contention_source"]["what"];
        let names = what.as_str().is_some_and(|what| what.split(' ').any(|word| word == disk) && what.contains("read"));
        hold(names, &format!("{what} does not name reads of {disk}"))?;
        told.busier("decoy", "subject")
    });
}

/// A command in a network of its own, in which /sys shows that network.
fn in_a_network_of_its_own(workload: &str) -> Command {
    let inner = threads::command(workload);
    let mut command = unshared("exec \"$@\"");
    command.arg("sh").arg(inner.get_program()).args(inner.get_args());
    inner.get_envs().for_each(|(key, value)| {
        command.env(key, value.unwrap_or_default());
    });
    command
}

/// Makes the network, and goes on with this.
fn unshared(then: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-ec", &format!("{}\n{then}", workload::network())]);
    command
}

#[test]
fn live_explain_a_softirq() {
    let able = unshared("").output();
    if threads::cpus().len() < 2 || !able.as_ref().is_ok_and(|output| output.status.success()) {
        return println!(
            "skipped: this takes two CPUs, unshare, ip, and a kernel with CONFIG_VETH and CONFIG_RPS: {able:?}"
        );
    }
    let roles = &["subject", "sender", "decoy", "filler"];
    let scenario = Scenario { command: &in_a_network_of_its_own, ..Scenario::of("softirq", roles) };
    scenario.explain(nothing, |told, ()| {
        // Softirqs that come faster than they can be served go on in a thread of that CPU.
        let ksoftirqd = format!("ksoftirqd/{}", told.last);
        let served = |step: &&Value| step["what"] == "softirq NET_RX" || step["who"]["comm"] == ksoftirqd.as_str();
        let by_others = |step: &&Value| is_one_of(step, &["interrupted", "held_by"]);
        let waits = told.answer.steps().filter(|step| is_one_of(step, &WAITS)).flat_map(below);
        let all: Vec<&Value> = told.answer.steps().chain(waits).filter(by_others).collect();
        let greatest = all.iter().copied().max_by_key(|step| number(&step["total_ns"]));
        let why = || format!("it was {}", greatest.map_or("nothing", |step| step["sentence"].as_str().unwrap()));
        hold(greatest.as_ref().is_some_and(served), &why())?;
        let source = &told.answer.all["contention_source"];
        let is_source = source["what"] == "softirq NET_RX" || source["task"]["comm"] == ksoftirqd.as_str();
        hold(is_source, &format!("it was the doing of {source}"))
    });
}
