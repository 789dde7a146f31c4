//! `schedtrace://trace/{id}/{report}`: a report of a recorded trace at an address of its own.

use rmcp::model::JsonObject;
use serde_json::{Value, json};

use super::{JSON, Template};
use crate::tools;

pub(super) const REPORT: Template = Template {
    uri: "schedtrace://trace/{id}/{report}",
    name: "Report of a trace",
    description: "What the tool `analyze` answers of the trace that list_traces calls `id`; takes `by`, `top`, `from`, `until` as \
        a query.",
    mime_type: JSON,
    takes: tools::report_takes,
    parts,
    read: |call| tools::report(call).map(Into::into),
    complete: |state, part| match part {
        "id" => state.traces.names(),
        "report" => tools::report_names().map(Into::into).collect(),
        _ => Vec::new(),
    },
};

fn parts(address: &str) -> Option<JsonObject> {
    let (id, report) = address.strip_prefix("schedtrace://trace/")?.rsplit_once('/')?;
    let id = percent_encoding::percent_decode_str(id).decode_utf8().ok()?;
    (!id.is_empty() && !report.is_empty())
        .then(|| JsonObject::from_iter([("trace".to_owned(), json!(id)), ("report".to_owned(), Value::from(report))]))
}
