//! `topology://info`: the machine's CPUs.

use serde::Deserialize;

use super::{JSON, Resource};
use crate::machine::root;
use crate::tools::topology::{Detail, detail_arguments, here};

pub(super) const INFO: Resource = Resource {
    uri: "topology://info",
    name: "CPU topology",
    description: "The CPUs of this machine, by last-level cache and NUMA node; with ?detail_level=full each with its core, \
        frequencies and capacity.",
    mime_type: JSON,
    takes: detail_arguments,
    collects: false,
    read: |call| {
        let asked: Asked = call.arguments()?;
        here(call.state, root(), Detail::read(asked.detail_level.as_deref(), asked.include_offline)?).map(Into::into)
    },
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    detail_level: Option<String>,
    #[serde(default)]
    include_offline: bool,
}

#[cfg(test)]
mod tests {
    use super::super::tests::answer;
    use super::*;

    #[test]
    fn this_machine_is_told() {
        let told = answer(INFO.uri);
        assert!(told["llcs"].as_array().is_some_and(|llcs| !llcs.is_empty()) && told["cpus"].is_null(), "{told}");
        let full = answer("topology://info?detail_level=full&include_offline=true");
        assert!(full["cpus"].as_array().is_some_and(|cpus| !cpus.is_empty()), "{full}");
        assert_eq!(full["counts"], told["counts"]);
    }
}
