//! `schedtrace explain`: core's causal chain as text.

use std::io::Write;

use schedtrace_core::analysis::{self, Explain, Explained, Mechanism, Options, Severity, Step};
use schedtrace_core::trace::Excerpt;
use schedtrace_core::{Error, Meta, Source};

use crate::args::ExplainArgs;
use crate::render::{heading, warning};
use crate::units::{offset, percent, plural, span};
use crate::window;
use crate::{Failure, print_json};

/// What takes less of the window is not printed.
const WORTH: f64 = 0.005;
/// So many parts of the critical path are printed.
const PARTS: usize = 12;

pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let Excerpt { mut reader, from, until, .. } = window::open(&args.trace, &args.window)?;
    let subject = args.subject.subject().unwrap_or_default();
    let report = analysis::run(&mut reader, Explain::study(subject, Options { from, until, ..Options::default() }))?;
    if report.answer.subject.is_none() {
        let why = format!("nothing of {subject} was recorded in that window: `schedtrace report` tells who was there");
        return Err(Error::Invalid(why).into());
    }
    if args.json {
        return print_json(&report);
    }
    let mut out = std::io::stdout().lock();
    write!(out, "{}{}{}", head(&report), chain(&report), path(&report, reader.meta()))?;
    writeln!(out, "{}", window::completeness(&report.about.completeness, 0))?;
    Ok(())
}

fn head(report: &Explained) -> String {
    let it = &report.answer;
    let name = it.subject.as_ref().map(ToString::to_string).unwrap_or_default();
    let threads =
        if it.threads > 1 { format!(" and {}", plural(it.threads as u64 - 1, "more thread")) } else { String::new() };
    let window = report.about.window.duration_ns;
    let mut text = format!("{}\n", heading(&format!("{name}{threads}, {window}")));
    let lost = percent(it.contended_ratio);
    match (it.mechanism, &it.contention_source) {
        (Some(mechanism), Some(source)) if it.severity > Severity::None => {
            let whose: Vec<String> = source
                .task
                .iter()
                .map(ToString::to_string)
                .chain(source.what.clone())
                .chain(source.cgroup.clone())
                .collect();
            let whose = if whose.is_empty() { String::new() } else { format!(", by {}", whose.join(", ")) };
            let severity = it.severity.name();
            text +=
                &format!("  {severity}: {lost} of the window lost to others, most of it {}{whose}\n", mechanism.name());
        }
        _ => text += "  nothing kept it from running\n",
    }
    if it.severity > Severity::None {
        text += &format!("  what to do: {}\n  because {}\n", it.recommendation.action, it.recommendation.reason);
    }
    if it.unexplained_ns > 0 {
        let text_of = format!("  {} of the window is not explained", percent(it.unexplained_ratio));
        text += &format!("{}\n", warning(&text_of));
    }
    if it.cut_off_at_ns.is_some() {
        let why = "  the window holds too much: its end is left out (choose a shorter one with --from and --to)";
        text += &format!("{}\n", warning(why));
    }
    text
}

fn chain(report: &Explained) -> String {
    let mut text = format!("\n{}\n", heading("What it did, and why"));
    steps(&report.answer.steps, 1, &mut text);
    text
}

fn steps(all: &[Step], depth: usize, text: &mut String) {
    let told = |step: &&Step| step.share_ratio >= WORTH;
    for step in all.iter().filter(told) {
        let indent = "  ".repeat(depth);
        *text += &format!("{:>7}  {indent}{}\n", percent(step.share_ratio), step.sentence);
        // Who ran is told in the sentence above, where that is all there is.
        let plain = step.steps.len() == 1 && step.steps[0].mechanism == Mechanism::Running;
        if !plain {
            steps(&step.steps, depth + 1, text);
        }
    }
    let rest: u64 = all.iter().filter(|step| !told(step)).map(|step| step.total_ns).sum();
    let share: f64 = all.iter().filter(|step| !told(step)).map(|step| step.share_ratio).sum();
    if rest > 0 && share >= WORTH {
        *text += &format!("{:>7}  {}other: {}\n", percent(share), "  ".repeat(depth), span(rest));
    }
}

fn path(report: &Explained, meta: &Meta) -> String {
    let path = &report.answer.critical_path;
    let mut parts: Vec<_> = path.parts.iter().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.until_ns - part.from_ns));
    parts.truncate(PARTS);
    parts.sort_by_key(|part| part.from_ns);
    let mut text = format!("\n{}\n", heading("The critical path, its longest parts"));
    for part in &parts {
        text += &format!("  {}  {}\n", offset(part.from_ns, meta.started), part.sentence);
    }
    let more = path.parts_total - parts.len();
    if more > 0 { text + &format!("  … and {} shorter ones\n", more) } else { text }
}
