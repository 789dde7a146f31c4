//! Two traces, or two windows of one, side by side.

use std::path::{Path, PathBuf};

use schedtrace_core::Nanos;
use schedtrace_core::analysis::{
    self, Answered, Comparison, MetricChange, Profile, ProfileAnswer, Study, TaskChange, Verdict,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Tool;
use crate::answer::Answer;
use crate::call::Call;
use crate::part::Part;

/// So many names of tasks are told each way.
const NAMES: usize = 5;
/// So many events of each side are read where nobody says which.
const AT_ONCE: u64 = 2_000_000;

pub(super) const COMPARE: Tool = Tool {
    name: "compare_traces",
    title: "Compare two traces",
    description: "What changed between two traces, or two windows of one: waits for a CPU, rates, utilisation, each with a verdict \
        that tells a difference from chance, and the names of tasks that wait more or less.",
    takes: || {
        json!({
            "before": { "type": "string" },
            "after": { "type": "string", "description": "Default: `before`." },
            "before_from": { "type": "string", "description": "Times as in `analyze`." },
            "before_until": { "type": "string" },
            "after_from": { "type": "string" },
            "after_until": { "type": "string" },
        })
    },
    required: &["before"],
    tells: &[
        ("window", "object"),
        ("window_after", "object"),
        ("completeness", "object"),
        ("completeness_after", "object"),
        ("metrics", "array"),
    ],
    collects: false,
    destructive: false,
    call: compare,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    before: PathBuf,
    after: Option<PathBuf>,
    before_from: Option<String>,
    before_until: Option<String>,
    after_from: Option<String>,
    after_until: Option<String>,
}

fn compare(call: &Call<'_>) -> Result<Answer, String> {
    let asked: Asked = call.arguments()?;
    let after = asked.after.as_ref().unwrap_or(&asked.before);
    let same = call.state.find(Some(&asked.before))? == call.state.find(Some(after))?;
    let windows = [&asked.before_from, &asked.before_until, &asked.after_from, &asked.after_until];
    if same && windows.iter().all(|time| time.is_none()) {
        return Err(
            "one window cannot be compared with itself: give another trace in `after`, or two windows of this one \
            (before_until: \"5s\", after_from: \"5s\")"
                .into(),
        );
    }
    let of = [("before_from", asked.before_from.as_deref()), ("before_until", asked.before_until.as_deref())];
    call.pass(0.0, 0.5);
    let (first, a) = profile(call, &asked.before, of)?;
    let of = [("after_from", asked.after_from.as_deref()), ("after_until", asked.after_until.as_deref())];
    call.pass(0.5, 1.0);
    let (second, b) = profile(call, after, of)?;
    let told = analysis::compare(&a, &b);
    let metrics: Vec<Value> = told.metrics.iter().map(metric).collect();
    let names = |all: &[TaskChange]| -> Vec<Value> { all.iter().take(NAMES).map(name).collect() };
    let grew = told.tasks_grew.first().map(|change| change.comm.to_string());
    let answer = Answer::new(summary(&told))
        .with("window", &told.window_a)
        .with("window_after", &told.window_b)
        .with("completeness", &told.completeness_a)
        .with("completeness_after", &told.completeness_b)
        .with("confidence_ratio", &told.confidence_ratio)
        .with("metrics", &metrics)
        .with("tasks_that_wait_more", &names(&told.tasks_grew))
        .with("tasks_that_wait_less", &names(&told.tasks_shrank))
        .with("before", &first.about())
        .with("after", &second.about());
    let why = match grew {
        Some(comm) => format!("why its tasks waited, and behind whom: `{comm}` waits more"),
        None => "why its tasks waited, and behind whom".to_owned(),
    };
    Ok(answer.next("analyze", second.of_window(json!({ "by": "process" })), why).next(
        "analyze",
        first.of_window(json!({ "by": "process" })),
        "the same of what was before",
    ))
}

fn profile(
    call: &Call<'_>,
    trace: &Path,
    times: [(&str, Option<&str>); 2],
) -> Result<(Part, Answered<ProfileAnswer>), String> {
    let mut part = Part::named(call, Some(trace), times, AT_ONCE)?;
    let options = part.options();
    let profile = part.study(call, Study::<Profile>::new(options))?;
    Ok((part, profile))
}

/// One metric, with no more digits than it is worth.
fn metric(of: &MetricChange) -> Value {
    let short = |value: f64| match of.unit {
        "ratio" => (value * 1e4).round() / 1e4,
        _ => (value * 10.0).round() / 10.0,
    };
    json!({
        "name": of.name,
        "before": of.a.map(short),
        "after": of.b.map(short),
        "change_ratio": of.change_ratio.map(|ratio| (ratio * 1e3).round() / 1e3),
        "change_interval": of.interval.map(|interval| [short(interval.low), short(interval.high)]),
        "samples": [of.samples_a, of.samples_b],
        "verdict": of.verdict,
    })
}

fn name(of: &TaskChange) -> Value {
    json!({
        "comm": of.comm.to_string(),
        "wait_ns_per_second_before": of.a_wait_ns_per_second.round(),
        "wait_ns_per_second_after": of.b_wait_ns_per_second.round(),
        "waits": [of.a.waits, of.b.waits],
        "tasks": [of.a.tasks, of.b.tasks],
    })
}

fn summary(told: &Comparison) -> String {
    let named = |verdict: Verdict| -> Vec<&str> {
        told.metrics.iter().filter(|metric| metric.verdict == verdict).map(|metric| metric.name).collect()
    };
    let claims = [
        (Verdict::Worse, "worse"),
        (Verdict::Better, "better"),
        (Verdict::Higher, "higher"),
        (Verdict::Lower, "lower"),
    ];
    let claims: Vec<String> = claims
        .into_iter()
        .map(|(verdict, word)| (word, named(verdict)))
        .filter(|(_, which)| !which.is_empty())
        .map(|(word, which)| format!("{word}: {}", which.join(", ")))
        .collect();
    let grew = told.tasks_grew.first().map_or_else(String::new, |change| {
        format!(
            " Tasks called {} wait {} a second, where it was {}.",
            change.comm,
            Nanos(change.b_wait_ns_per_second.round() as u64),
            Nanos(change.a_wait_ns_per_second.round() as u64)
        )
    });
    match claims.is_empty() {
        true => format!("No difference is shown: what there is may be chance, or there is too little to tell.{grew}"),
        false => format!("What is after is {}.{grew}", claims.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{answer, refusal, state_of};
    use crate::tests::{fixture, write_trace};

    #[test]
    fn two_windows_are_compared_and_one_is_not() {
        let state = state_of(&fixture("hackbench"));
        let trace = "hackbench.schedtrace";
        let window = answer(&state, "open_trace", &json!({}))["window"]["duration_ns"].as_u64().unwrap();
        let half = format!("{}ms", window / 2_000_000);
        let told =
            answer(&state, "compare_traces", &json!({ "before": trace, "before_until": half, "after_from": half }));
        assert_eq!(told["window"]["until_ns"], told["window_after"]["from_ns"]);
        assert_eq!(told["metrics"].as_array().unwrap().len(), 13);
        assert!(told.to_string().len() <= 15_000 && told.get("cut_to_fit").is_none());
        assert!(refusal(&state, "compare_traces", &json!({ "before": trace })).contains("compared with itself"));
        assert!(refusal(&state, "compare_traces", &json!({ "before": "none" })).contains("list_traces"));
    }

    #[test]
    fn each_side_is_half_of_the_way() {
        use crate::call::{Asker, Call};

        let folder = tempfile::tempdir().unwrap();
        let trace = write_trace(folder.path());
        let state = state_of(folder.path());
        let far = |until: &str| {
            let asker = Asker::default();
            let told = asker.progress.subscribe();
            let arguments = json!({ "before": trace, "before_until": "4ms", "after": trace, "after_until": until });
            let takes = (super::COMPARE.name, (super::COMPARE.takes)());
            let call = Call::new(&state, takes, arguments.as_object().cloned().unwrap(), asker);
            let answered = super::compare(&call).is_ok();
            (answered, told.borrow().as_ref().map_or(0.0, |(part, _)| *part))
        };
        assert_eq!(far("soon"), (false, 0.5), "what is after is not read at all");
        assert_eq!(far("3ms"), (true, 1.0));
    }

    #[test]
    fn a_trace_equals_itself_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let one = write_trace(folder.path());
        let other = tempfile::tempdir_in(folder.path()).unwrap();
        let two = write_trace(other.path());
        let state =
            crate::state::State::new(crate::Settings { roots: vec![folder.path().into()], ..Default::default() });
        let told = answer(&state, "compare_traces", &json!({ "before": one, "after": two }));
        assert!(told["summary"].as_str().unwrap().contains("No difference is shown"), "{}", told["summary"]);
    }
}
