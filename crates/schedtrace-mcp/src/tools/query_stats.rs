//! Which statistics can be read, and reading them for clients whose models cannot read resources.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Tool;
use crate::answer::Answer;
use crate::call::Call;
use crate::resources::{self, Resource};

/// What a question is about, and the addresses that answer it, the best first.
const KINDS: [(&str, &[&str]); 7] = [
    ("cpu", &["stats://aggregated/cpu", "stats://system/cpu", "stats://system/interrupts", "topology://info"]),
    ("llc", &["stats://aggregated/llc", "topology://info"]),
    ("node", &["stats://aggregated/node", "topology://info", "stats://system/memory"]),
    ("dsq", &["stats://aggregated/dsq", "stats://scheduler/scx", "stats://scheduler/raw"]),
    ("process", &["stats://aggregated/process", "stats://aggregated/thread"]),
    ("scheduler", &["scheduler://current", "stats://scheduler/scx", "stats://scheduler/raw"]),
    (
        "system",
        &[
            "stats://system/cpu",
            "stats://system/memory",
            "stats://system/network",
            "stats://system/disk",
            "stats://system/interrupts",
        ],
    ),
];

pub(super) const QUERY_STATS: Tool = Tool {
    name: "query_stats",
    title: "Statistics of this machine",
    description: "Which statistics of the running machine can be read, at which address: CPUs, caches, nodes, dispatch queues, \
        processes, the scheduler, the whole system. With `uri`, reads one of them.",
    takes: || {
        json!({
            "stat_type": { "type": "string", "enum": KINDS.map(|(name, _)| name), "description": "Only those about this." },
            "uri": { "type": "string", "description": "Read this address now, such as stats://aggregated/process?limit=5." }
        })
    },
    required: &[],
    tells: &[("resources", "array")],
    collects: false,
    destructive: false,
    call: |call| {
        let asked: Asked = call.arguments()?;
        match (asked.uri, asked.stat_type) {
            (Some(uri), _) => read(call, &uri),
            (None, kind) => list(call, kind.as_deref()),
        }
    },
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    stat_type: Option<String>,
    uri: Option<String>,
}

fn list(call: &Call<'_>, kind: Option<&str>) -> Result<Answer, String> {
    let all: Vec<&Resource> = resources::of(call.state).collect();
    let found: Vec<&Resource> = match kind {
        None => all,
        Some(kind) => {
            let Some((_, uris)) = KINDS.iter().find(|(name, _)| *name == kind) else {
                return Err(format!("stat_type: use one of {}", KINDS.map(|(name, _)| name).join(", ")));
            };
            uris.iter().filter_map(|uri| all.iter().copied().find(|resource| resource.uri == *uri)).collect()
        }
    };
    let answer = Answer::new(format!(
        "{} can be read{}: each at its address as a resource, or with this tool and `uri`.",
        found.len(),
        kind.map(|kind| format!(" about {kind}")).unwrap_or_default(),
    ));
    let answer = answer.with("resources", &found.iter().map(|resource| told(resource)).collect::<Vec<_>>());
    Ok(match found.first() {
        Some(first) => answer.next("query_stats", json!({ "uri": first.uri }), format!("reads: {}", first.name)),
        None => answer,
    })
}

fn told(resource: &Resource) -> Value {
    let takes = (resource.takes)();
    let takes: Vec<&String> = takes.as_object().into_iter().flat_map(serde_json::Map::keys).collect();
    json!({ "uri": resource.uri, "description": resource.description, "takes": takes })
}

fn read(call: &Call<'_>, uri: &str) -> Result<Answer, String> {
    let (found, arguments) = resources::find(call.state, uri).map_err(|why| why.message.into_owned())?;
    let answer = found.answer(&call.of_other((found.name, (found.takes)()), arguments))?;
    Ok(within(uri, answer))
}

/// What stands at an address.
fn within(uri: &str, answer: Answer) -> Answer {
    let summary = answer.summary().to_owned();
    Answer::new(summary).with("resources", &[json!({ "uri": uri })]).with_answer("value", answer)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, refusal};
    use super::*;
    use crate::Settings;
    use crate::answer::{BUDGET, ROOMY};
    use crate::state::State;

    #[test]
    fn every_address_that_is_named_can_be_read() {
        let state = State::new(Settings::default());
        for (kind, uris) in KINDS {
            let told = answer(&state, "query_stats", &json!({ "stat_type": kind }));
            let named: Vec<_> =
                told["resources"].as_array().unwrap().iter().map(|one| one["uri"].as_str().unwrap()).collect();
            assert_eq!(named, uris, "{kind}: an address that is not there");
        }
        let all = answer(&state, "query_stats", &json!({}));
        assert_eq!(all["resources"].as_array().unwrap().len(), resources::of(&state).count());
        assert!(all.to_string().len() < crate::answer::BUDGET && all["cut_to_fit"].is_null());
    }

    #[test]
    fn what_is_read_takes_no_more_than_at_its_address() {
        let rows: Vec<_> = (0..9_000).map(|n| json!({ "row": n })).collect();
        let long = || Answer::new("Rows.").with("rows", &rows);
        let size = |answer: Answer| within("stats://x", answer).finish().unwrap().to_string().len();
        assert!(size(long()) <= BUDGET, "{}", size(long()));
        assert!((BUDGET..=ROOMY).contains(&size(long().roomy())), "{}", size(long().roomy()));
    }

    #[cfg(feature = "live")]
    #[test]
    fn a_stream_is_not_read_by_who_cannot_be_told() {
        use schedtrace_core::{Batch, Sink, TaskId, TaskState};

        let state = State::new(Settings { collect: true, ..Settings::default() });
        let streams = &state.collections.streams;
        let (wanted, page) = crate::stream::Wanted::read(rmcp::model::JsonObject::new()).unwrap();
        let _feed = streams.join(&wanted).unwrap();
        let mut hub = crate::stream::Hub::new(streams, "live", true);
        let events = vec![crate::tests::switch(1, TaskId(1), TaskId(2), TaskState::RUNNING, true)];
        hub.batch(&Batch { events, ..Batch::default() }).unwrap();
        let told = refusal(&state, "query_stats", &json!({ "uri": "events://stream" }));
        assert!(told.contains("read it as a resource"), "{told}");
        let read = streams.read(&wanted, page).unwrap();
        assert!(read.contains("sched_switch"), "it is still there: {read}");
    }

    #[test]
    fn a_resource_is_read_for_those_who_cannot() {
        let state = State::new(Settings::default());
        let told = answer(&state, "query_stats", &json!({ "uri": "stats://aggregated/process?limit=2" }));
        assert_eq!(told["value"]["tasks"].as_array().unwrap().len(), 2, "{told}");
        assert_eq!(told["summary"], told["value"]["summary"]);
        for (arguments, why) in [
            (json!({ "uri": "file:///etc/passwd" }), "there is no resource"),
            (json!({ "uri": "stats://system/cpu?limit=0" }), "use 1 to 512"),
            (json!({ "stat_type": "colour" }), "use one of cpu, llc"),
        ] {
            let told = refusal(&state, "query_stats", &arguments);
            assert!(told.contains(why), "{arguments}: {told}");
        }
    }
}
