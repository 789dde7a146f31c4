//! All that analyses say of a window, they say of the same time of a stream that was seen from its beginning.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::analysis::{self, Explain, Options, ReportName, Reports, Sched, Subject};
use crate::flight::Window;
use crate::synthetic::SyntheticHost;

/// A stream, its setting, and a window that has seen it.
fn host(seed: u64, lost: f64, late: f64, options: WindowOptions) -> (Meta, Vec<Batch>, Window) {
    let host = SyntheticHost::new().cpus(6).tasks(40).events(6_000).seed(seed).lost_ratio(lost).late_ratio(late);
    let mut source = host.burst(8).start();
    let before = source.meta().clone();
    let window = Window::new(options).unwrap();
    let mut sink = window.clone();
    sink.begin(&before).unwrap();
    let batches = read(&mut source);
    batches.iter().for_each(|batch| sink.batch(batch).unwrap());
    sink.finish(source.meta()).unwrap();
    (source.meta().clone(), batches, window)
}

/// Reports that need no more than what tasks were doing: others, such as where tasks have been seen to run, learn from what
/// was before the window too.
const OF_STATES: [ReportName; 6] = [
    ReportName::ThreadStates,
    ReportName::Latency,
    ReportName::Preemptions,
    ReportName::Wakers,
    ReportName::Outliers,
    ReportName::Fairness,
];

/// What is said of all the tasks.
fn said(source: &(impl Source + Clone), from: Option<Nanos>, names: &[ReportName]) -> Vec<Value> {
    let options = Options { from, top: 1_000, ..Options::default() };
    let reports = Reports::study(names.iter().copied(), options.clone());
    let sched = analysis::run(&mut source.clone(), Sched::new(options.clone())).unwrap();
    let reports = analysis::run(&mut source.clone(), reports).unwrap();
    let explained = analysis::run(&mut source.clone(), Explain::study(Subject::Last, options)).unwrap();
    let mut all = vec![serde_json::to_value(sched), serde_json::to_value(reports), serde_json::to_value(explained)];
    all.iter_mut().flatten().for_each(sort);
    all.into_iter().map(Result::unwrap).collect()
}

/// Rows of equal length stand in any order.
fn sort(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(sort),
        Value::Array(rows) => {
            rows.iter_mut().for_each(sort);
            rows.sort_by_cached_key(Value::to_string);
        }
        _ => {}
    }
}

/// The places at which two answers differ.
fn differences(at: &str, one: &Value, other: &Value, out: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().for_each(|(key, value)| differences(&format!("{at}.{key}"), value, &b[key], out));
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.for_each(|(n, (a, b))| differences(&format!("{at}[{n}]"), a, b, out));
        }
        _ if one == other => {}
        _ => out.push(format!("{at}: {one} and {other}").chars().take(300).collect()),
    }
}

fn same(one: &[Value], other: &[Value]) -> Result<(), TestCaseError> {
    let mut different = Vec::new();
    one.iter().zip(other).for_each(|(one, other)| differences("", one, other, &mut different));
    prop_assert!(different.is_empty(), "{}", different.join("\n"));
    Ok(())
}

#[derive(Clone)]
struct Again(Meta, Vec<Batch>, usize);

impl Source for Again {
    fn meta(&self) -> &Meta {
        &self.0
    }
    fn poll(&mut self, _: Instant) -> crate::Result<Poll> {
        self.2 += 1;
        Ok(self.1.get(self.2 - 1).cloned().map_or(Poll::End, Poll::Batch))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_window_is_as_good_as_all_of_the_stream(seed in 0..1_000u64, part in 0.1..1.2f64) {
        let whole = options(u64::MAX / 4, 1 << 30);
        let (meta, ..) = host(seed, 0.0, 0.0, whole);
        let length = (meta.ended.unwrap() - meta.started).0 as f64;
        let (meta, batches, window) = host(seed, 0.0, 0.0, options((length * part) as u64, 1 << 30));
        let from = Some(window.covers().window.from_ns);
        let all = said(&Again(meta, batches, 0), from, &OF_STATES);
        same(&all, &said(&window.source(), from, &OF_STATES))?;
        same(&all, &said(&window.source(), None, &OF_STATES))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_newest_part_is_as_good_as_all_of_the_window(seed in 0..1_000u64, part in 0.0..1.1f64) {
        let (meta, _, window) = host(seed, 0.0, 0.0, options(u64::MAX / 4, 1 << 30));
        let length = (meta.ended.unwrap() - meta.started).0 as f64;
        let from = meta.started + Nanos((length * part) as u64);
        let (all, newest) = (window.source(), window.source_since(from));
        prop_assert!(newest.meta().started <= from && newest.meta().ended == all.meta().ended);
        prop_assert!(part < 0.5 || read(&mut newest.clone()).len() < read(&mut all.clone()).len());
        same(&said(&all, Some(from), &OF_STATES), &said(&newest, Some(from), &OF_STATES))?;
    }

    #[test]
    fn who_goes_on_reads_what_they_would_who_begin_anew(
        seed in 0..1_000u64,
        asked in prop::collection::vec((0..8usize, 0.0..1.1f64), 1..40),
        length in 0.1..1.2f64,
    ) {
        let (meta, batches, _) = host(seed, 0.01, 0.05, options(u64::MAX / 4, 1 << 30));
        let whole = (meta.ended.unwrap() - meta.started).0 as f64;
        let options = options((whole * length) as u64, 1 << 30);
        let (goes_on, mut batches) = (Window::new(options).unwrap(), batches.iter());
        goes_on.clone().begin(&meta).unwrap();
        let anew = |fed: &[&Batch]| {
            let window = Window::new(options).unwrap();
            window.clone().begin(&meta).unwrap();
            fed.iter().for_each(|batch| window.clone().batch(batch).unwrap());
            window
        };
        let mut fed = Vec::new();
        for (more, back) in asked {
            for batch in batches.by_ref().take(more) {
                goes_on.clone().batch(batch).unwrap();
                fed.push(batch);
            }
            let covers = goes_on.covers().window;
            let from = covers.until_ns - Nanos((whole * back * back / 4.0) as u64);
            let (mut one, mut other) = (goes_on.source_since(from), anew(&fed).source_since(from));
            prop_assert_eq!(one.meta().started, other.meta().started);
            prop_assert_eq!(read(&mut one), read(&mut other));
        }
    }
}

/// The window as a trace.
#[cfg(feature = "trace")]
fn written(window: &Window) -> (tempfile::TempDir, std::path::PathBuf) {
    use crate::trace::{TraceWriter, WriterOptions};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("window.schedtrace");
    let lent = window.lend();
    let mut writer = TraceWriter::create(&path, WriterOptions::default()).unwrap();
    let meta = lent.meta.clone();
    writer.begin(&meta).unwrap();
    lent.for_each(|batch| writer.batch(&batch).unwrap());
    writer.finish(&meta).unwrap();
    (folder, path)
}

#[cfg(feature = "trace")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn a_window_that_was_written_says_the_same(
        seed in 0..1_000u64,
        part in 0.1..1.2f64,
        lost in prop_oneof![Just(0.0), Just(0.01)],
        late in prop_oneof![Just(0.0), Just(0.01)],
    ) {
        let whole = options(u64::MAX / 4, 1 << 30);
        let (meta, ..) = host(seed, lost, late, whole);
        let length = (meta.ended.unwrap() - meta.started).0 as f64;
        let (_, _, window) = host(seed, lost, late, options((length * part) as u64, 1 << 30));
        let (_folder, path) = written(&window);
        let mut trace = crate::trace::TraceReader::open(&path).unwrap();
        let batches = read(&mut trace);
        let trace = Again(trace.meta().clone(), batches, 0);
        same(&said(&trace, None, ReportName::ALL), &said(&window.source(), None, ReportName::ALL))?;
    }
}
