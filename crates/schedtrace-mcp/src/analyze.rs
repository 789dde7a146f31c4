//! Reports as answers: a sentence up front, and no more rows than an answer has room for.

use std::cmp::Reverse;
use std::path::Path;

use schedtrace_core::analysis::{self, Options, Report, Sched};
use schedtrace_core::trace::{TraceInfo, TraceReader};
use schedtrace_core::{Nanos, Result};
use serde_json::{Value, json};

/// CPUs shown, busiest first: a machine has hundreds, an answer has a budget.
pub(crate) const MAX_CPUS: usize = 16;

/// Reads a whole trace.
pub(crate) fn study(trace: &Path, options: Options) -> Result<(TraceInfo, Report)> {
    let mut trace = TraceReader::open(trace)?;
    let info = trace.info()?;
    Ok((info, analysis::run(&mut trace, Sched::new(options))?))
}

/// The whole report.
pub(crate) fn report(info: &TraceInfo, mut report: Report) -> Result<Value, String> {
    let summary = summary(&report);
    let cpus = report.cpu_time.cpus.len();
    report.cpu_time.cpus.sort_by_key(|row| Reverse(row.used.busy_ns));
    report.cpu_time.cpus.truncate(MAX_CPUS);
    report.switches.cpus.sort_by_key(|row| Reverse(row.counts.switches));
    report.switches.cpus.truncate(MAX_CPUS);

    // First what must not be cut off.
    let mut answer = json!({ "summary": summary, "window": null, "completeness": null, "trace": about(info) });
    if let (Value::Object(answer), Value::Object(report)) = (&mut answer, json_of(&report)?) {
        answer.extend(report);
    }
    answer["cpu_time"]["cpus_total"] = cpus.into();
    answer["switches"]["cpus_total"] = cpus.into();
    answer["next"] = "For more rows ask again with a larger `top`; to see whose tasks, with another `by`.".into();
    Ok(answer)
}

/// The totals alone.
pub(crate) fn stats(info: &TraceInfo, report: &Report) -> Result<Value, String> {
    Ok(json!({
        "summary": summary(report),
        "window": json_of(&report.window)?,
        "events": json_of(&report.events)?,
        "completeness": json_of(&report.completeness)?,
        "run_queue": { "total": json_of(&report.run_queue.total)?, "causes": json_of(&report.run_queue.causes)? },
        "cpu_time": { "total": json_of(&report.cpu_time.total)?, "recorder_ns": report.cpu_time.recorder_ns },
        "switches": json_of(&report.switches.total)?,
        "wakeups": json_of(&report.wakeups.total)?,
        "migrations": json_of(&report.migrations.total)?,
        "trace": about(info),
        "next": "`analyze` names the tasks behind these figures.",
    }))
}

pub(crate) fn json_of(value: &impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|why| format!("this cannot be told as JSON: {why}"))
}

fn about(info: &TraceInfo) -> Value {
    json!({
        "path": info.path,
        "state": info.state,
        "host": info.host,
        "removed": info.completeness.removed,
        "ends_at_last_commit": info.completeness.ends_at_last_commit,
    })
}

fn summary(report: &Report) -> String {
    let wait = &report.run_queue.total.wait;
    let missing = match report.completeness.lost_total {
        0 => "No event is known to be missing.".to_owned(),
        lost => format!("{lost} events are known to be missing, so the counts are too low."),
    };
    format!(
        "In {} tasks waited for a CPU {} times, {} in all: half of the waits took up to {}, 99% up to {}, the longest {}. {missing}",
        report.window.duration_ns,
        wait.count,
        Nanos(wait.total_ns),
        Nanos(wait.p50_ns),
        Nanos(wait.p99_ns),
        Nanos(wait.max_ns),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::write_trace;
    use schedtrace_core::Cpu;

    #[test]
    fn many_cpus_leave_room_for_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (info, mut found) = study(&write_trace(folder.path()), Options::default()).unwrap();
        let row = found.cpu_time.cpus[0];
        found.cpu_time.cpus = (0..400).map(|cpu| analysis::CpuRow { cpu: Cpu(cpu), ..row }).collect();
        found.cpu_time.cpus[399].used.busy_ns += 1;
        let answer = report(&info, found).unwrap();
        assert_eq!(answer["cpu_time"]["cpus"].as_array().unwrap().len(), MAX_CPUS);
        assert_eq!(
            (&answer["cpu_time"]["cpus_total"], &answer["cpu_time"]["cpus"][0]["cpu"]),
            (&json!(400), &json!(399))
        );
    }
}
