//! The part of a trace that a question is about: what was asked for, or the newest of a trace that takes long to read.

use std::path::Path;
use std::time::Duration;

use schedtrace_core::analysis::{Analysis, Options};
use schedtrace_core::trace::{Excerpt, Stretch, Time, TraceInfo, TraceReader};
use schedtrace_core::{EventGroup, Nanos, Source, Window};
use serde_json::{Map, Value, json};

use crate::answer::Answer;
use crate::call::Call;
use crate::tools::unreadable;

/// A part of a trace.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) info: TraceInfo,
    excerpt: Excerpt,
    /// Nobody said which part, and the whole is more than can be read at once: this is the newest of it.
    is_newest: bool,
    /// The argument that says from when.
    from: String,
}

/// The arguments with which a tool is told which part.
pub(crate) fn arguments() -> Map<String, Value> {
    let about = "2.5s (after the start), -30s (before the end), ISO 8601 with zone, or a `_ns` time (123456789012ns). \
        Default: all, or the newest.";
    Map::from_iter([
        ("from".to_owned(), json!({ "type": "string", "description": about })),
        ("until".to_owned(), json!({ "type": "string" })),
    ])
}

impl Part {
    /// Opens what lies between two times. Where nobody says which, and the trace has more events than that, the newest
    /// `at_once`.
    pub(crate) fn open(
        call: &Call<'_>,
        trace: Option<&Path>,
        (from, until): (Option<&str>, Option<&str>),
        at_once: u64,
    ) -> Result<Self, String> {
        Self::named(call, trace, [("from", from), ("until", until)], at_once)
    }

    /// The same, where the two times are called otherwise.
    pub(crate) fn named(
        call: &Call<'_>,
        trace: Option<&Path>,
        [from, until]: [(&str, Option<&str>); 2],
        at_once: u64,
    ) -> Result<Self, String> {
        let reader = TraceReader::open(call.state.find(trace)?).map_err(unreadable)?;
        let time = |(name, text): (&str, Option<&str>)| -> Result<Option<Time>, String> {
            text.map(str::parse).transpose().map_err(|why: schedtrace_core::Error| format!("{name}: {why}"))
        };
        let mut stretch = Stretch { from: time(from)?, until: time(until)? };
        let asked = stretch.from.is_some() || stretch.until.is_some();
        let newest = if asked { None } else { reader.begin_of_newest(at_once).map_err(unreadable)? };
        stretch.from = stretch.from.or(newest.map(Time::Monotonic));
        Self::of(reader, stretch, [from.0, until.0], newest.is_some())
    }

    /// The last of it, so long, before `until` or before the end.
    pub(crate) fn last(
        call: &Call<'_>,
        trace: Option<&Path>,
        length: Duration,
        until: Option<&str>,
    ) -> Result<Self, String> {
        let reader = TraceReader::open(call.state.find(trace)?).map_err(unreadable)?;
        let until: Option<Time> = until.map(str::parse).transpose().map_err(|why| format!("until: {why}"))?;
        let window = reader.info().map_err(unreadable)?.window;
        let end =
            until.map(|until| until.in_trace(reader.meta(), window)).transpose().map_err(|why| why.to_string())?;
        let from = end.unwrap_or(window.until_ns).min(window.until_ns) - Nanos::from(length);
        // What begins before the recording is all of it.
        let from = (from > window.from_ns).then_some(Time::Monotonic(from));
        Self::of(reader, Stretch { from, until }, ["latency_window_s", "until"], false)
    }

    fn of(
        reader: TraceReader,
        stretch: Stretch,
        names @ [from, _]: [&str; 2],
        is_newest: bool,
    ) -> Result<Self, String> {
        let info = reader.info().map_err(unreadable)?;
        let excerpt = stretch.of(reader, names).map_err(|why| {
            format!(
                "{why}; times are after its start (2.5s), before its end (-30s), or those of a `window`, with ns behind them"
            )
        })?;
        Ok(Self { info, excerpt, is_newest, from: from.to_owned() })
    }

    /// The window, for an analysis.
    pub(crate) fn options(&self) -> Options {
        Options { from: self.excerpt.from, until: self.excerpt.until, ..Options::default() }
    }

    /// The window, as it is in the recording.
    pub(crate) fn window(&self) -> Window {
        self.excerpt.window
    }

    /// The setting of the trace.
    pub(crate) fn meta(&self) -> &schedtrace_core::Meta {
        self.excerpt.reader.meta()
    }

    /// Whether events of this group were recorded.
    pub(crate) fn has(&self, group: EventGroup) -> bool {
        self.meta().probes.iter().any(|probe| probe.on && probe.kind.group() == group)
    }

    /// Analyses it.
    pub(crate) fn study<A: Analysis + Send>(&mut self, call: &Call<'_>, analysis: A) -> Result<A::Report, String> {
        let window = self.excerpt.window;
        call.run(&mut self.excerpt.reader, window, analysis)
    }

    /// What an answer says of the trace.
    pub(crate) fn about(&self) -> Value {
        let info = &self.info;
        let mut about = json!({
            "path": info.path,
            "state": info.state,
            "host": info.host,
            "removed": info.completeness.removed,
            "ends_at_last_commit": info.completeness.ends_at_last_commit,
            "recording": info.window,
        });
        if self.is_newest {
            about["read"] = json!(format!(
                "only the newest {} of {}: give `{}`: \"0s\" for all of it",
                self.excerpt.window.duration_ns, info.window.duration_ns, self.from
            ));
        }
        about
    }

    /// What a sentence about it begins with: `In 5.00s`.
    pub(crate) fn within(&self) -> String {
        match self.is_newest {
            true => format!("In the newest {} of {}", self.excerpt.window.duration_ns, self.info.window.duration_ns),
            false => format!("In {}", self.excerpt.window.duration_ns),
        }
    }

    /// Arguments that name this trace, with more.
    pub(crate) fn of_trace(&self, more: Value) -> Value {
        let mut all = json!({ "trace": self.info.path });
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
        all
    }

    /// The same, with this window.
    pub(crate) fn of_window(&self, more: Value) -> Value {
        let Window { from_ns, until_ns, .. } = self.excerpt.window;
        let mut all = self.of_trace(json!({ "from": moment(from_ns), "until": moment(until_ns) }));
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
        all
    }

    /// Names the call for all of it, where this is not.
    pub(crate) fn or_all(&self, answer: Answer, tool: &str, more: Value) -> Answer {
        if !self.is_newest {
            return answer;
        }
        let mut arguments = self.of_trace(more);
        arguments["from"] = json!("0s");
        answer.next(tool, arguments, "the whole recording, which takes longer")
    }
}

/// A moment as `from` and `until` take it.
pub(crate) fn moment(at: Nanos) -> String {
    format!("{}ns", at.0)
}

#[cfg(test)]
mod tests {
    use schedtrace_core::trace::{TraceWriter, WriterOptions};
    use schedtrace_core::{Batch, Meta, Sink, TaskId, TaskState};

    use super::*;
    use crate::tests::{switch, write_trace};
    use crate::tools::tests::state_of;

    /// A trace of so many segments, each with a switch.
    fn write_segments(folder: &Path, segments: u64) {
        let options = WriterOptions { segment_bytes: 1, ..WriterOptions::default() };
        let meta = Meta { started: Nanos(1), ended: Some(Nanos(segments * 1_000_000)), ..Meta::default() };
        let mut writer = TraceWriter::create(folder.join("a.schedtrace"), options).unwrap();
        writer.begin(&meta).unwrap();
        for ms in 1..=segments {
            let events = vec![switch(ms, TaskId(1), TaskId(2), TaskState::RUNNING, true)];
            writer.batch(&Batch { until: Nanos(ms * 1_000_000 + 1), events, ..Batch::default() }).unwrap();
        }
        writer.finish(&meta).unwrap();
    }

    #[test]
    fn who_is_told_the_newest_learns_how_to_ask_for_all() {
        let folder = tempfile::tempdir().unwrap();
        write_segments(folder.path(), 4);
        let state = state_of(folder.path());
        let call = Call::quiet(&state);
        let read = |part: Part| part.about()["read"].as_str().map(str::to_owned);
        let newest = Part::named(&call, None, [("start_ts", None), ("end_ts", None)], 1).unwrap();
        assert!(newest.within().starts_with("In the newest"), "{}", newest.within());
        assert!(read(newest).unwrap().ends_with("give `start_ts`: \"0s\" for all of it"));
        assert!(read(Part::open(&call, None, (None, None), 1).unwrap()).unwrap().contains("give `from`: "));
        assert_eq!(read(Part::open(&call, None, (Some("0s"), None), 1).unwrap()), None);
        // Whoever tells so takes what it names.
        for (tool, argument) in [
            ("get_scheduler_stats", "from"),
            ("ebpf_trace_errors", "from"),
            ("analyze", "from"),
            ("query_off_cpu_events", "start_ts"),
            ("compare_traces", "before_from"),
            ("compare_traces", "after_from"),
        ] {
            let takes = (crate::tools::find(&state, tool).unwrap().takes)();
            assert_eq!(takes[argument]["type"], "string", "{tool}");
        }
    }

    #[test]
    fn a_part_is_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        let call = Call::quiet(&state);
        let open = |from, until| Part::open(&call, None, (from, until), u64::MAX);
        let window = |from, until| open(from, until).unwrap().window();
        assert_eq!(window(None, None), Window::new(Nanos(1), Nanos(5_000_000)));
        assert_eq!(window(Some("+1ms"), Some("-1ms")), Window::new(Nanos(1_000_001), Nanos(4_000_000)));
        for (from, until, told) in [
            (Some("soon"), None, "from: `soon` is no time"),
            (None, Some("2026-11-22T10:00:00Z"), "give times after its start"),
            (Some("1s"), None, "from leaves nothing"),
            (Some("3ms"), Some("2ms"), "until must be later than from"),
        ] {
            let why = open(from, until).unwrap_err();
            assert!(why.contains(told), "{why}");
        }
        let last = |ms, until| Part::last(&call, None, Duration::from_millis(ms), until).unwrap().window();
        assert_eq!(last(300_000, None), Window::new(Nanos(1), Nanos(5_000_000)), "more than there is is all there is");
        assert_eq!(last(2, None), Window::new(Nanos(3_000_000), Nanos(5_000_000)));
        assert_eq!(last(1_000, Some("-1ms")).until_ns, Nanos(4_000_000));
    }
}
