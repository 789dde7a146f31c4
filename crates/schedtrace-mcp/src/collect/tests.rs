use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use schedtrace_core::KindFilters;
use schedtrace_core::trace::TraceReader;

use super::*;
use crate::tests::write_trace;

fn collections(settings: Settings) -> Arc<Collections> {
    Arc::new(Collections::new(&Settings { collect: true, ..settings }))
}

#[test]
fn what_goes_beyond_the_limits_is_refused_before_anything_is_loaded() {
    let limits = Limits { max_duration: Duration::from_secs(30), max_bytes: 8 << 20, ..Limits::default() };
    let collections = collections(Settings { limits, ..Settings::default() });
    let refuse = |asked: Asked| collections.record(asked, Client::default()).unwrap_err();
    let none = Asked::default;
    for (asked, told) in [
        (Asked { duration_s: Some(0), ..none() }, "use 1 to 30"),
        (Asked { duration_s: Some(31), ..none() }, "use 1 to 30"),
        (Asked { max_bytes: Some(1), ..none() }, "use 1048576 to 8388608"),
        (Asked { max_bytes: Some(9 << 20), ..none() }, "use 1048576 to 8388608"),
        (Asked { events: vec!["dream".into()], ..none() }, "`dream` is none: Groups: default, all, sched, irq,"),
        (Asked { events: vec!["sched_swich".into()], ..none() }, "do you mean `sched_switch`? Groups:"),
        (Asked { events: vec!["futx".into()], ..none() }, ", syscall_failed, "),
    ] {
        let why = refuse(asked.clone());
        assert!(why.contains(told), "{asked:?}: {why}");
    }
    assert!(collections.traces().is_empty());
    assert!(collections.trace(None).is_none());
    assert!(collections.disable().unwrap_err().contains("enable_collection first"));
    assert!(collections.look(Some("rec-1"), |_| ()).unwrap_err().contains("record_trace first"));
    assert!(collections.cancel("rec-\u{1b}").unwrap_err().contains("rec-\u{fffd}"));
}

#[test]
fn none_at_once_is_none_at_all() {
    let limits = Limits { max_at_once: 0, ..Limits::default() };
    let collections = collections(Settings { limits, ..Settings::default() });
    let why = collections.enable(Asked::default(), Client::default()).unwrap_err();
    assert!(why.contains("0 at once is the limit"), "{why}");
}

#[test]
fn nothing_is_collected_that_cannot_be_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let audit_log = Some(folder.path().join("none/audit.jsonl"));
    let collections = collections(Settings { audit_log, ..Settings::default() });
    assert!(collections.check().is_err());
    for why in [
        collections.record(Asked::default(), Client::default()).unwrap_err(),
        collections.enable(Asked::default(), Client::default()).unwrap_err(),
        collections.subscribe("events://stream", &Wanted::default(), Client::default()).unwrap_err(),
    ] {
        assert!(why.contains("nothing is collected"), "{why}");
    }
    assert!(collections.streams.find(&Wanted::default()).is_none(), "and nobody is subscribed");
}

#[test]
fn what_is_subscribed_to_is_collected_with_what_the_configuration_names() {
    let probes = Probes { kinds: vec![Kind::BlockIssue], ..Probes::default() };
    let collections = collections(Settings { probes, ..Settings::default() });
    let query = json!({ "kind": "futex" });
    let (wanted, _) = Wanted::read(query.as_object().cloned().unwrap()).unwrap();
    for wanted in [wanted, Wanted::default()] {
        let plan = collections.plan_stream(&wanted, Client::default()).unwrap();
        let more = wanted.kinds().unwrap_or_default();
        for kind in [Kind::Switch, Kind::BlockIssue].into_iter().chain(more) {
            assert!(plan.collects(kind), "{kind}: {wanted:?}");
        }
        assert!(!plan.collects(Kind::BlockComplete), "and nothing else: {wanted:?}");
    }
}

#[test]
fn a_subscription_that_nothing_was_collected_for_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let audit_log = Some(folder.path().join("audit.jsonl"));
    let limits = Limits { max_at_once: 0, ..Limits::default() };
    let collections = collections(Settings { audit_log, limits, ..Settings::default() });
    let why = collections.subscribe("events://stream", &Wanted::default(), Client::default()).unwrap_err();
    assert!(why.contains("0 at once is the limit"), "{why}");
    assert!(collections.streams.find(&Wanted::default()).is_none());
    let lines = audited(folder.path());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[1]["outcome"], format!("failed: {why}"));
}

/// The audit log in a folder.
fn audited(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_does_not_begin_is_written_down_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let audit_log = Some(folder.path().join("audit.jsonl"));
    let collections = collections(Settings { audit_log, ..Settings::default() });
    // No process has this number: whoever may load programs is told so, and whoever may not, that.
    let asked = Asked { pids: vec![u32::MAX >> 1], ..Asked::default() };
    let client = Client { name: "test".into(), version: "1".into() };
    collections.record(asked, client).unwrap_err();
    let lines = audited(folder.path());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[0]["action"], &lines[0]["client"]["name"]), (&json!("start"), &json!("test")));
    assert_eq!(lines[1]["action"], "end");
    assert!(lines[1]["outcome"].as_str().unwrap().starts_with("failed: "), "{lines:?}");
}

#[test]
fn a_server_that_ends_begins_nothing() {
    let collections = collections(Settings::default());
    collections.close("the test ended");
    assert!(collections.enable(Asked::default(), Client::default()).unwrap_err().contains("the server ends"));
    assert!(collections.record(Asked::default(), Client::default()).unwrap_err().contains("the server ends"));
    let subscribed = collections.subscribe("events://stream", &Wanted::default(), Client::default());
    assert!(subscribed.unwrap_err().contains("the server ends"));
}

#[test]
fn a_handle_is_no_way_to_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let trace = write_trace(folder.path());
    let collections = collections(Settings::default());
    for named in [trace.as_path(), Path::new("live"), Path::new("rec-1"), Path::new("rec-1/../..")] {
        assert!(collections.trace(Some(named)).is_none(), "{named:?}");
    }
}

/// A trace is found by its name and its path, and nothing else by what begins so.
fn assert_found_alone(collections: &Collections, name: &str, trace: &Path) {
    let elsewhere = tempfile::tempdir_in(trace.parent().unwrap()).unwrap();
    let other = write_trace(elsewhere.path());
    let way = Path::new(elsewhere.path().file_name().unwrap()).join("a.schedtrace");
    let link = elsewhere.path().join("link");
    symlink(trace, &link).unwrap();
    for named in
        [Path::new(name), trace, &trace.join("."), &link, &other.join("../..").join(trace.file_name().unwrap())]
    {
        assert_eq!(collections.trace(Some(named)).as_deref(), Some(trace), "{named:?}");
    }
    let out = trace.join("..").join(way);
    assert!(out.canonicalize().unwrap() == other.canonicalize().unwrap() && out.starts_with(trace));
    for named in
        [out.as_path(), &other, &trace.join("meta.json"), &trace.join(".."), &trace.join("none"), Path::new("")]
    {
        assert!(collections.trace(Some(named)).is_none(), "{named:?}");
    }
}

#[test]
fn a_trace_is_no_way_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let trace = write_trace(folder.path());
    let collections = collections(Settings::default());
    let plan = collections.plan(Asked::default(), 1, "enable_collection", Client::default()).unwrap();
    collections.lock().live = Some(Collection::over(Plan { id: LIVE.into(), ..plan }, &trace));
    assert_found_alone(&collections, LIVE, &trace);
}

#[test]
fn live_what_is_collected_is_no_way_to_other_traces() {
    let collections = collections(Settings::default());
    let (trace, _) = collections.enable(Asked::default(), Client::default()).unwrap();
    assert_found_alone(&collections, LIVE, &trace);
    collections.close("the test ended");
}

#[test]
fn live_a_recording_that_cannot_be_written_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (keep, audit_log) = (Some(folder.path().to_owned()), Some(folder.path().join("audit.jsonl")));
    let collections = collections(Settings { keep, audit_log, ..Settings::default() });
    let asked = Asked { duration_s: Some(600), ..Asked::default() };
    let handle = collections.record(asked, Client::default()).unwrap();
    let trace = collections.trace(Some(Path::new(&handle))).unwrap();
    // As when the disk is full: what is to be written next fails.
    std::fs::remove_dir_all(&trace).unwrap();
    let control = collections.look(Some(&handle), Collection::control).unwrap();
    let end = control.wait(Duration::from_secs(60)).expect("it goes on, and nothing is written");
    assert!(end.failed.is_some(), "{end:?}");
    let lines = audited(folder.path());
    assert!(lines[1]["outcome"].as_str().unwrap().starts_with("failed: "), "{lines:?}");
}

#[test]
fn live_whoever_comes_when_the_last_one_goes_is_served() {
    let collections = collections(Settings::default());
    let subscribe = || collections.subscribe("events://stream", &Wanted::default(), Client::default());
    let (_, page) = Wanted::read(rmcp::model::JsonObject::new()).unwrap();
    for _ in 0..3 {
        drop(subscribe().unwrap());
        let next = subscribe().unwrap();
        let goes_on = collections.lock().live.as_ref().is_some_and(|live| live.is_on() && !live.is_ending());
        assert!(goes_on, "it is not the one that ends");
        work();
        let begun = Instant::now();
        let mut read = String::new();
        while !read.contains(r#""event":"sched_switch""#) {
            assert!(begun.elapsed() < Duration::from_secs(60) && !read.contains(r#""ended":"live""#), "{read}");
            read = collections.streams.read(&Wanted::default(), page).unwrap();
        }
        drop(next);
        collections.enable(Asked::default(), Client::default()).unwrap();
        collections.disable().unwrap();
    }
}

/// Sleeps and wakes, so that there are events.
fn work() {
    (0..200).for_each(|_| std::thread::sleep(Duration::from_micros(100)));
}

#[test]
fn live_what_is_told_of_a_recording_is_what_its_trace_has() {
    // Such a filter is for streams: the trace has all switches, and so many that there is no room for them.
    let mut filters = KindFilters::default();
    filters.add(Kind::Switch, "prev_comm = nobody", |_, _| None).unwrap();
    let probes = Probes { filters, ..Probes::default() };
    let limits = Limits { max_events_per_second: Some(100), ..Limits::default() };
    let collections = collections(Settings { limits, probes, ..Settings::default() });
    let handle = collections.record(Asked::default(), Client::default()).unwrap();
    let trace = collections.trace(Some(Path::new(&handle))).unwrap();
    let completeness = || TraceReader::open(&trace).unwrap().info().unwrap().completeness;
    let told = || completeness().lost.iter().map(|loss| loss.count).sum::<u64>();
    let begun = Instant::now();
    while told() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is lost");
        work();
    }
    let (events, lost) = (completeness().events, told());
    let so_far = collections.look(Some(&handle), Collection::stands).unwrap();
    assert!(so_far.events >= events && so_far.lost >= lost, "{so_far:?}: the trace has {events}, and {lost} lost");
    let end = collections.look(Some(&handle), Collection::control).unwrap().stop("stopped").unwrap();
    assert!(end.failed.is_none() && end.lost > 0, "{end:?}");
    assert_eq!((completeness().events, told()), (end.events, end.lost));
    assert_eq!(end.why, "stopped");
    collections.close("the test ended");
    assert!(!trace.exists(), "it goes with the server");
}

#[test]
fn live_recordings_that_are_over_make_room() {
    let collections = collections(Settings::default());
    let asked = || Asked { pids: vec![std::process::id()], ..Asked::default() };
    let mut traces = Vec::new();
    for _ in 0..KEPT + 2 {
        let handle = collections.record(asked(), Client::default()).unwrap();
        traces.push(collections.trace(Some(Path::new(&handle))).unwrap());
        collections.look(Some(&handle), Collection::control).unwrap().stop("stopped").unwrap();
    }
    let there: Vec<_> = traces.iter().map(|trace| trace.exists()).collect();
    assert_eq!(there, [false, true, true, true, true, true], "the oldest goes when the next begins");
}

#[test]
fn live_what_is_subscribed_to_ends_with_the_limits() {
    let limits = Limits { max_duration: Duration::from_secs(1), ..Limits::default() };
    let collections = collections(Settings { limits, ..Settings::default() });
    let subscription = collections.subscribe("events://stream", &Wanted::default(), Client::default()).unwrap();
    let control = collections.lock().live.as_ref().map(Collection::control).unwrap();
    let end = control.wait(Duration::from_secs(60)).unwrap();
    assert_eq!(end.why, "its time was over");
    let (_, page) = Wanted::read(rmcp::model::JsonObject::new()).unwrap();
    let read = collections.streams.read(&Wanted::default(), page).unwrap();
    assert!(read.contains(r#""ended":"live""#) && read.contains("sched_switch"), "{read}");
    drop(subscription);
    assert!(collections.streams.find(&Wanted::default()).is_none());
}
