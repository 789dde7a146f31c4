//! `schedtrace diff`: core's comparison of two windows as text.

use std::io::Write;
use std::path::Path;

use schedtrace_core::analysis::{
    self, Answered, Comparison, MetricChange, Options, Profile, ProfileAnswer, Study, TaskChange, Verdict,
};
use schedtrace_core::trace::{Excerpt, Stretch};
use schedtrace_core::{Error, Meta, Nanos, Source, Window};

use crate::args::DiffArgs;
use crate::render::{Column, heading, table};
use crate::units::{count, offset, percent, span};
use crate::window;
use crate::{Failure, print_json};

pub(crate) fn run(args: &DiffArgs) -> Result<(), Failure> {
    let second = match (&args.second, args.a, args.b) {
        (Some(second), ..) => second,
        (None, Some(_), Some(_)) => &args.first,
        (None, ..) => {
            let why = "one window cannot be compared with itself: give a second trace, or two windows of this one \
                       with --a and --b (--a 0s..5s --b 5s..10s)";
            return Err(Error::Invalid(why.into()).into());
        }
    };
    let a = Part::read(&args.first, args.a, ["the beginning of --a", "the end of --a"], args.include_recorder)?;
    let b = Part::read(second, args.b, ["the beginning of --b", "the end of --b"], args.include_recorder)?;
    let comparison = analysis::compare(&a.profile, &b.profile);
    if args.json {
        return print_json(&comparison);
    }
    let mut out = std::io::stdout().lock();
    write!(out, "{}", head([("A", &a, &comparison.window_a), ("B", &b, &comparison.window_b)]))?;
    write!(out, "{}{}", metrics(&comparison), confidence(&comparison))?;
    write!(out, "{}", names("Tasks that waited longer in B, by name", &comparison.tasks_grew))?;
    write!(out, "{}", names("Tasks that waited less in B, by name", &comparison.tasks_shrank))?;
    let missing = |of| window::missing(of, None);
    let (in_a, in_b) = (missing(&comparison.completeness_a), missing(&comparison.completeness_b));
    writeln!(out, "\n{}\n  A: {in_a}\n  B: {in_b}", heading("Completeness"))?;
    Ok(())
}

/// A or B.
struct Part<'a> {
    path: &'a Path,
    meta: Meta,
    profile: Answered<ProfileAnswer>,
}

impl<'a> Part<'a> {
    fn read(path: &'a Path, stretch: Option<Stretch>, ends: [&str; 2], recorder: bool) -> Result<Self, Failure> {
        let Excerpt { mut reader, from, until, .. } = stretch.unwrap_or_default().open(path, ends)?;
        let options = Options { from, until, include_recorder: recorder, ..Options::default() };
        let profile = analysis::run(&mut reader, Study::<Profile>::new(options))?;
        Ok(Self { path, meta: reader.meta().clone(), profile })
    }
}

fn head(parts: [(&str, &Part<'_>, &Window); 2]) -> String {
    let line = |(name, part, window): (&str, &Part<'_>, &Window)| {
        let at = offset(window.from_ns, part.meta.started);
        format!("  {name}  {} from {at}, {} · Linux {}", window.duration_ns, part.path.display(), part.meta.host.kernel)
    };
    let [a, b] = parts.map(line);
    format!("{}\n{a}\n{b}\n", heading("What changed from A to B"))
}

fn metrics(comparison: &Comparison) -> String {
    let named = |verdict: Verdict| {
        let these = comparison.metrics.iter().filter(|metric| metric.verdict == verdict).map(|metric| metric.name);
        these.collect::<Vec<_>>().join(", ")
    };
    let claims = [Verdict::Worse, Verdict::Better, Verdict::Higher, Verdict::Lower];
    let claims =
        claims.into_iter().map(|verdict| (words(verdict), named(verdict))).filter(|(_, which)| !which.is_empty());
    let claims: Vec<_> = claims.map(|(verdict, which)| format!("{verdict}: {which}")).collect();
    let summary = match claims.is_empty() {
        true => "No difference is shown: what there is may be chance, or there is too little to tell.".to_owned(),
        false => format!("B is {}.", claims.join("; ")),
    };
    let columns = [
        Column::Text("metric"),
        Column::Number("A"),
        Column::Number("B"),
        Column::Number("change"),
        Column::Number("of A"),
        Column::Text("interval of the change"),
        Column::Text("verdict"),
    ];
    let rows = comparison.metrics.iter().map(|metric| {
        let plain = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| amount(value, metric));
        let change = metric.change.map_or_else(|| "-".into(), |change| signed(change, metric));
        let share = metric.change_ratio.map_or_else(|| "-".into(), |ratio| format!("{:+.1}%", ratio * 100.0));
        let interval = metric.interval.map_or_else(
            || "-".into(),
            |interval| format!("{} to {}", signed(interval.low, metric), signed(interval.high, metric)),
        );
        let name = metric.name.to_owned();
        vec![name, plain(metric.a), plain(metric.b), change, share, interval, words(metric.verdict).to_owned()]
    });
    format!("  {summary}\n\n{}", table(&columns, rows))
}

/// What the intervals and the verdicts mean.
fn confidence(comparison: &Comparison) -> String {
    format!(
        "  With a confidence of {} no verdict of this table claims a difference that is not there; each interval holds \
         with {}.\n  That is of these recordings: what differs from one run to the next, only several of each can tell.\n",
        exact_percent(comparison.confidence_ratio),
        exact_percent(comparison.confidence_each_ratio)
    )
}

fn exact_percent(ratio: f64) -> String {
    let text = format!("{:.2}", ratio * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Names of tasks, with how long they waited.
fn names(title: &str, changes: &[TaskChange]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let numbers = ["A, per second", "B, per second", "change", "waits in A", "in B", "tasks in A", "in B"];
    let columns: Vec<_> = [Column::Text("name")].into_iter().chain(numbers.map(Column::Number)).collect();
    let rows = changes.iter().map(|change| {
        let mut cells = vec![change.comm.to_string()];
        cells.extend([change.a_wait_ns_per_second, change.b_wait_ns_per_second].map(|ns| span(ns.round() as u64)));
        cells.push(signed_span(change.growth_ns_per_second));
        cells.extend([change.a.waits, change.b.waits, change.a.tasks, change.b.tasks].map(count));
        cells
    });
    format!("\n{}\n{}", heading(title), table(&columns, rows))
}

/// A number with its unit.
fn amount(value: f64, metric: &MetricChange) -> String {
    match metric.unit {
        "ns" => span(value.round() as u64),
        "ns/s" => format!("{}/s", span(value.round() as u64)),
        "1/s" => format!("{value:.1}/s"),
        "ratio" => percent(value),
        unit => format!("{value:.2} {unit}"),
    }
}

/// The same of a difference.
fn signed(value: f64, metric: &MetricChange) -> String {
    let sign = if value < 0.0 { "-" } else { "+" };
    match metric.unit {
        // Shares differ by less than what reads well in percent of something.
        "ratio" => format!("{:+.2} points", value * 100.0),
        _ => format!("{sign}{}", amount(value.abs(), metric)),
    }
}

fn signed_span(ns: f64) -> String {
    let sign = if ns < 0.0 { "-" } else { "+" };
    format!("{sign}{}", Nanos(ns.abs().round() as u64))
}

/// A verdict in words.
fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Higher => "higher",
        Verdict::Lower => "lower",
        Verdict::NoDifferenceShown => "no difference shown",
        Verdict::TooFewSamples => "too few samples to tell",
        Verdict::LossTooLarge => "too much is missing to tell",
        Verdict::NotComparable => "not comparable: a maximum grows with the recording",
    }
}
