//! The resources: what can be read at an address.
//!
//! A resource is a [`Resource`] in a module of its own, and a line in [`ALL`]; one whose address has parts that vary is a
//! [`Template`]. Behind the address there may be a query (`?limit=10&cursor=...`): it is taken as the arguments of a tool are,
//! so that reading a resource is a [`Call`] as well.

mod aggregated;
pub(crate) mod events;
#[cfg(feature = "live")]
mod programs;
mod scheduler;
#[cfg(feature = "live")]
mod stream;
mod system;
mod topology;
mod traces;

use rmcp::model::{ErrorData, JsonObject, ReadResourceResult, ResourceContents};
use serde_json::{Value, json};

use crate::answer::{Answer, cleaned};
use crate::call::Call;
use crate::state::State;
use crate::tools::only_known;

/// One resource.
pub(crate) struct Resource {
    /// Its address, without a query.
    pub(crate) uri: &'static str,
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) mime_type: &'static str,
    /// What its query takes: properties, as JSON Schema.
    pub(crate) takes: fn() -> Value,
    /// It is there with `--collect` alone.
    pub(crate) collects: bool,
    pub(crate) read: fn(&Call<'_>) -> Result<Contents, String>,
}

/// Resources whose addresses differ in parts that a client fills in.
pub(crate) struct Template {
    /// As in RFC 6570.
    pub(crate) uri: &'static str,
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) mime_type: &'static str,
    pub(crate) takes: fn() -> Value,
    /// The parts of an address that is one of these, by their names.
    pub(crate) parts: fn(&str) -> Option<JsonObject>,
    pub(crate) read: fn(&Call<'_>) -> Result<Contents, String>,
    /// What may stand in this part, as far as it is known.
    pub(crate) complete: fn(&State, &str) -> Vec<String>,
}

/// What is read.
#[derive(Debug)]
pub(crate) enum Contents {
    Answer(Answer),
    /// Lines of JSON, or other text, as it is.
    #[cfg_attr(not(feature = "live"), allow(dead_code, reason = "for what collects"))]
    Text(String),
}

impl From<Answer> for Contents {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

pub(crate) const JSON: &str = "application/json";

/// All of them, in the order in which they are listed.
static ALL: &[&Resource] = &[
    &scheduler::CURRENT,
    &scheduler::RAW,
    &scheduler::SCX,
    &topology::INFO,
    &aggregated::CPU,
    &aggregated::LLC,
    &aggregated::NODE,
    &aggregated::DSQ,
    &aggregated::PROCESS,
    &aggregated::THREAD,
    &system::CPU,
    &system::MEMORY,
    &system::NETWORK,
    &system::DISK,
    &system::INTERRUPTS,
    &events::PERF,
    &events::KPROBE,
    #[cfg(feature = "live")]
    &stream::STREAM,
    #[cfg(feature = "live")]
    &programs::PROGRAMS,
];

static TEMPLATES: &[&Template] = &[&traces::REPORT];

/// The resources that this server has.
pub(crate) fn of(state: &State) -> impl Iterator<Item = &'static Resource> {
    let collects = state.collects();
    ALL.iter().copied().filter(move |resource| collects || !resource.collects)
}

/// The templates that this server has.
pub(crate) fn templates() -> impl Iterator<Item = &'static Template> {
    TEMPLATES.iter().copied()
}

impl Resource {
    pub(crate) fn definition(&self) -> rmcp::model::Resource {
        let mut resource = rmcp::model::Resource::new(self.uri, self.name);
        resource.description = Some(self.description.into());
        resource.mime_type = Some(self.mime_type.into());
        resource
    }
}

impl Template {
    pub(crate) fn definition(&self) -> rmcp::model::ResourceTemplate {
        rmcp::model::ResourceTemplate::new(self.uri, self.name)
            .with_description(self.description)
            .with_mime_type(self.mime_type)
    }
}

/// What stands at an address.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) name: &'static str,
    pub(crate) takes: fn() -> Value,
    mime_type: &'static str,
    read: fn(&Call<'_>) -> Result<Contents, String>,
}

/// What stands at this address, and the arguments that are in it.
pub(crate) fn find(state: &State, uri: &str) -> Result<(Found, JsonObject), ErrorData> {
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    if let Some(resource) = of(state).find(|resource| resource.uri == address) {
        let Resource { uri: name, takes, mime_type, read, .. } = *resource;
        return Ok((Found { name, takes, mime_type, read }, arguments_of(query, &takes())));
    }
    for template in templates() {
        if let Some(parts) = (template.parts)(address) {
            let Template { uri: name, takes, mime_type, read, .. } = *template;
            let mut arguments = arguments_of(query, &takes());
            if let Some(twice) = parts.keys().find(|part| arguments.contains_key(*part)) {
                let told = format!("{}: `{twice}` stands in the address already", cleaned(uri, 200));
                return Err(ErrorData::invalid_params(told, None));
            }
            arguments.extend(parts);
            return Ok((Found { name, takes, mime_type, read }, arguments));
        }
    }
    let known: Vec<_> =
        of(state).map(|resource| resource.uri).chain(templates().map(|template| template.uri)).collect();
    let told = format!("there is no resource {}: use one of {}", cleaned(uri, 200), known.join(", "));
    Err(ErrorData::resource_not_found(told, Some(json!({ "uri": cleaned(uri, 200) }))))
}

/// The arguments in a query: each as what is taken under its name, if it looks like that.
fn arguments_of(query: &str, takes: &Value) -> JsonObject {
    let value_of = |name: &str, text: &str| match takes[name]["type"].as_str() {
        Some("boolean") => text.parse::<bool>().ok().map(Value::from),
        Some("integer") => text.parse::<u64>().ok().map(Value::from),
        _ => None,
    };
    let words = form_urlencoded::parse(query.as_bytes());
    words.map(|(name, text)| (name.to_string(), value_of(&name, &text).unwrap_or_else(|| text.into()))).collect()
}

impl Found {
    /// What is there, as far as it is an answer with fields.
    pub(crate) fn answer(&self, call: &Call<'_>) -> Result<Answer, String> {
        let no_answer = || format!("{} is a stream: read it as a resource", self.name);
        if self.mime_type != JSON {
            // Whoever reads it has read it: the next would miss what nobody was told.
            return Err(no_answer());
        }
        match (self.read)(call)? {
            Contents::Answer(answer) => Ok(answer),
            Contents::Text(_) => Err(no_answer()),
        }
    }

    /// Reads it, for the address that was asked for.
    pub(crate) fn read(&self, call: &Call<'_>, uri: &str) -> Result<ReadResourceResult, ErrorData> {
        let wrong = |why: String| ErrorData::invalid_params(cleaned(&why, 2_000), None);
        let text = match (self.read)(call).map_err(wrong)? {
            Contents::Answer(answer) => only_known(call.state, answer.finish().map_err(wrong)?).to_string(),
            Contents::Text(text) => text,
        };
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(self.mime_type)]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tests::write_trace;
    use crate::tools::tests::state_of;

    /// Reads what stands at an address and is JSON.
    pub(crate) fn read(state: &State, uri: &str) -> Result<Value, ErrorData> {
        let (found, arguments) = find(state, uri)?;
        let read = found.read(&Call::of_resource(state, found, arguments), uri)?;
        match &read.contents[..] {
            [ResourceContents::TextResourceContents { uri: at, text, .. }] if at == uri => {
                Ok(serde_json::from_str(text).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Reads what has to succeed, and looks at what every answer has: its size, a sentence, and calls that can be made.
    pub(crate) fn answer(uri: &str) -> Value {
        let state = State::new(crate::Settings::default());
        let read = read(&state, uri).unwrap_or_else(|why| panic!("{uri}: {}", why.message));
        assert!(read["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{uri}: {read}");
        assert!(read.to_string().len() <= crate::answer::BUDGET, "{uri}: {} bytes", read.to_string().len());
        for next in read["next"].as_array().unwrap() {
            let tool = crate::tools::find(&state, next["tool"].as_str().unwrap());
            let takes = (tool.unwrap_or_else(|| panic!("{uri}: there is {next}")).takes)();
            for argument in next["arguments"].as_object().unwrap().keys() {
                assert!(takes.get(argument).is_some(), "{uri}: {next}");
            }
        }
        read
    }

    #[test]
    fn words_of_a_query_are_what_is_taken_there() {
        let takes =
            json!({ "limit": { "type": "integer" }, "on": { "type": "boolean" }, "filter": { "type": "string" } });
        let taken = arguments_of("limit=7&on=true&filter=12&colour=7&limit2", &takes);
        let expected = json!({ "limit": 7, "on": true, "filter": "12", "colour": "7", "limit2": "" });
        assert_eq!(Value::from(taken), expected);
        assert_eq!(arguments_of("limit=x", &takes)["limit"], "x", "what is no number is refused by name");
    }

    #[test]
    fn a_report_of_a_trace_has_an_address() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        let report = read(&state, "schedtrace://trace/a.schedtrace/latency?top=1").unwrap();
        assert!(report["summary"].is_string(), "{report}");
        let wrong = read(&state, "schedtrace://trace/a.schedtrace/latency?colour=1").unwrap_err();
        assert!(wrong.message.contains("colour"), "{wrong:?}");
        for (uri, told) in [
            ("schedtrace://trace/a.schedtrace/colour", "colour"),
            ("schedtrace://trace/a.schedtrace/latency?trace=b", "`trace` stands in the address already"),
            ("schedtrace://trace/none/latency", "list_traces"),
            ("schedtrace://trace/..%2f..%2fetc/latency", "list_traces"),
            ("schedtrace://trace/a.schedtrace", "schedtrace://trace/{id}/{report}"),
            ("file:///etc/passwd", "there is no resource"),
        ] {
            let wrong = read(&state, uri).unwrap_err();
            assert!(wrong.message.contains(told), "{uri}: {wrong:?}");
        }
    }

    #[test]
    fn what_is_known_of_the_parts_of_an_address_is_offered() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        let state = state_of(folder.path());
        assert_eq!((traces::REPORT.complete)(&state, "id"), ["a.schedtrace"]);
        assert!((traces::REPORT.complete)(&state, "report").contains(&"latency".to_owned()));
        assert!((traces::REPORT.complete)(&state, "colour").is_empty());
    }
}
