//! The times that explanations tell, beside those of others; and a recording with holes.

use std::cell::RefCell;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use schedtrace_core::EventKind;
use serde_json::Value;

use crate::EVENTS;
use crate::answer::{Answer, WAITS};
use crate::common::clock;
use crate::common::compare::{Run, WAKEUP_NS, compare, record};
use crate::common::process::Process;
use crate::common::process::random_name;
use crate::common::recording::{Ours, Recorder, number};
use crate::common::table::Table;
use crate::common::threads::cpus;
use crate::others::{Perf, Runqlat, histogram, perf_row};

/// Others begin a wait when the thread is on a run queue (`sched_wakeup`), and we when somebody sets out to wake it
/// (`sched_waking`). Where it is to run on another CPU, that one puts it there, when an interrupt has come to it; on a
/// virtual machine, and with all tracers at once, that takes so long at most, on average.
const REMOTE_NS: u64 = 50_000;
/// All hang on the same tracepoint at the end of a wait, and read the clock one after the other.
const HOOKS_NS: u64 = 5_000;

#[test]
fn live_explain_waits_as_long_as_reports_and_the_kernel_say() {
    let rows = |run: &Run, table: &mut Table| {
        let unread = clock::unread(&run.trace);
        for ((thread, ours), life) in run.measured.iter().zip(run.ours()).zip(&run.lives) {
            if thread.name == "opener" {
                continue;
            }
            let waits_ns = Answer::new(&run.recording, thread.tid, None).ns(&WAITS);
            table.count(&thread.name, "explain: its waits = report's, ns", waits_ns, ours.wait_ns);
            // The two things that the kernel defines differently: see `truth`.
            let differs = unread.get(life).copied().unwrap_or(0) + WAKEUP_NS * thread.theirs.voluntary;
            table.time(&thread.name, "explain: waits, schedstat, ns", waits_ns, thread.theirs.wait_ns, differs);
        }
    };
    compare("explanations of hogs, sleepers and pairs", |recorder| record("several", recorder), rows);
}

/// Rows of what another tracer says of a thread's waits. It may have missed a few: a wakeup that comes while the thread
/// is on its way to sleep is none for perf, and to lose the CPU on that way is none for runqlat. It cannot have more.
fn of_count(table: &mut Table, thread: &str, tracer: &str, ours: &Ours, theirs: u64) {
    table.time(thread, format!("{tracer}: waits (nearly all of ours)"), ours.waits, theirs, 2);
    table.count(thread, format!("{tracer}: waits (not more than ours)"), ours.waits, ours.waits.max(theirs));
}

#[test]
fn live_explain_as_long_as_perf_and_runqlat_say() {
    if let Err(why) = Perf::start() {
        return println!("skipped: no perf here to compare with: {why}");
    }
    let said = RefCell::new((String::new(), Ok(String::new())));
    let work = |recorder: &dyn Fn() -> Recorder| {
        let mut process = Process::start("several");
        // What the others see we see too: they begin later, and end earlier.
        let recorder = recorder();
        let (perf, runqlat) = (Perf::start().unwrap(), Runqlat::start(process.id()));
        let measured = process.work();
        *said.borrow_mut() = (perf.stop().unwrap(), runqlat.map(Runqlat::stop));
        (measured, recorder.stop())
    };
    let rows = |run: &Run, table: &mut Table| {
        let (perf, runqlat) = &*said.borrow();
        for (thread, ours) in run.measured.iter().zip(run.ours()).filter(|(thread, _)| thread.name != "opener") {
            let (name, woken_ns) = (thread.name.as_str(), REMOTE_NS * thread.theirs.voluntary);
            let hooks_ns = HOOKS_NS * ours.waits;
            let row = perf_row(perf, thread.tid).unwrap_or_default();
            of_count(table, name, "perf", &ours, row.switches);
            // What it missed may have been the longest.
            let missed_ns = ours.waits.saturating_sub(row.switches) * ours.longest_ns;
            let sum_ns = row.mean_ns * row.switches;
            table.time(name, "perf: waits, ns", ours.wait_ns, sum_ns, woken_ns + missed_ns);
            table.time(name, "perf: waits (ours are longer), ns", ours.wait_ns.min(sum_ns), sum_ns, hooks_ns);
            table.time(name, "perf: longest, ns", ours.longest_ns, row.max_ns, REMOTE_NS + missed_ns);
            table.time(
                name,
                "perf: longest (ours is longer), ns",
                ours.longest_ns.min(row.max_ns),
                row.max_ns,
                HOOKS_NS,
            );
            match runqlat {
                Ok(said) => {
                    let histogram = histogram(said, thread.tid).unwrap_or_default();
                    of_count(table, name, "runqlat", &ours, histogram.count());
                    let missed_ns = ours.waits.saturating_sub(histogram.count()) * ours.longest_ns;
                    let (least, most) = histogram.total_ns();
                    table.time(name, "runqlat: waits, at least, ns", ours.wait_ns.min(least), least, hooks_ns);
                    let allowed = woken_ns + missed_ns;
                    table.time(name, "runqlat: waits, at most, ns", ours.wait_ns.max(most), most, allowed);
                }
                Err(why) => table.note(format!("skipped: no runqlat here to compare with: {why}")),
            }
        }
    };
    compare("waits, as perf and runqlat saw them in the same seconds", work, rows);
}

/// All rows of a report's run queue section, and the sum of them.
fn waits_of(report: &Value) -> impl Iterator<Item = &Value> {
    let section = &report["run_queue"];
    section["groups"].as_array().unwrap().iter().chain([&section["total"]])
}

#[test]
fn live_explain_what_was_lost_is_not_explained() {
    let (subject, hog) = (random_name(), random_name());
    let mut process = Process::start(&format!("storm {subject} {hog}"));
    let tid = process.tid(&subject);
    let recorder = Recorder::of(1, EVENTS);
    // For a while, nobody takes from the rings what a storm of switches puts there: it begins and ends meanwhile.
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(350));
            recorder.signal(Signal::STOP);
            thread::sleep(Duration::from_millis(600));
            recorder.signal(Signal::CONT);
        });
        process.work();
    });
    let recording = recorder.stop();
    let told = process.told("window").expect("the subject tells its window");
    let window: (u64, u64) = (told[0].parse().unwrap(), told[1].parse().unwrap());
    drop(process);

    // The longest time in which nothing is told of the subject's CPU, where there was a switch every few milliseconds,
    // and in the storm one every few microseconds.
    let cpu = u32::try_from(*cpus().last().unwrap()).unwrap();
    let events = recording.read().events;
    let of_cpu =
        events.iter().filter(|event| u32::from(event.cpu.0) == cpu && matches!(event.kind, EventKind::Switch(_)));
    let switches: Vec<u64> = of_cpu.map(|event| event.ts.0.clamp(window.0, window.1)).collect();
    let gap_ns = switches.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    let answer = Answer::new(&recording, tid, Some(window));
    let report = recording.json("report", &["--by", "task", "--top", "100000"]);
    println!("{gap_ns} ns without events\n{}", answer.text);

    for what in [&answer.all, &report] {
        let completeness = &what["completeness"];
        assert!(number(&completeness["lost_total"]) > 0, "{completeness}");
        assert!(number(&completeness["in_loss"]) > 0, "{completeness}");
    }
    // Nothing is told of a thread on that CPU in the gap: no wait that spans it is among the samples.
    for row in waits_of(&report) {
        assert!(number(&row["wait"]["max_ns"]) < gap_ns, "nothing is known of {gap_ns} ns: {row}");
    }
    let in_loss = &report["run_queue"]["total"]["in_loss"];
    assert!(number(&in_loss["longest_ns"]) >= gap_ns, "the hog, or the storm, waited when it began: {in_loss}");
    let unexplained = number(&answer.all["unexplained_ns"]);
    let window_ns = window.1 - window.0;
    assert!(
        (gap_ns..window_ns).contains(&unexplained),
        "{unexplained} ns are not explained, {gap_ns} ns are not known"
    );
    let ratio = unexplained as f64 / window_ns as f64;
    assert!((answer.all["unexplained_ratio"].as_f64().unwrap() - ratio).abs() < 1e-6, "{ratio}");
    assert!(answer.text.contains("of the window is not explained"), "{}", answer.text);
}
