//! What somebody wants to see: the query of `events://stream`.

use std::collections::HashSet;
use std::str::FromStr;

use rmcp::model::JsonObject;
use schedtrace_core::{Batch, CgroupId, EventFilter, Kind, Kinds};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lines::Held;

/// The address, without a query.
pub(crate) const URI: &str = "events://stream";

/// Lines of a page.
const DEFAULT_LIMIT: usize = 200;
const MAX_LIMIT: u64 = 2_000;

/// What the query takes.
pub(crate) fn takes() -> Value {
    json!({
        "kind": { "type": "string" },
        "task": { "type": "string" },
        "pid": { "type": "integer" },
        "cgroup": { "type": "string" },
        "cpu": { "type": "integer" },
        "where": { "type": "string" },
        "limit": { "type": "integer" },
        "after": { "type": "integer" },
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    kind: Option<String>,
    task: Option<Subject>,
    pid: Option<u32>,
    cgroup: Option<String>,
    cpu: Option<u16>,
    #[serde(rename = "where")]
    conditions: Option<String>,
    limit: Option<u64>,
    after: Option<u64>,
}

/// A task: a number is its thread id, and everything else its name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Subject {
    Tid(u32),
    Comm(String),
}

impl Subject {
    /// In an address everything is text: one that looks like a number is one.
    fn of(self) -> Self {
        match self {
            Self::Comm(text) => text.parse().map_or(Self::Comm(text), Self::Tid),
            tid @ Self::Tid(_) => tid,
        }
    }
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    kinds: Option<Vec<Kind>>,
    task: Option<Subject>,
    pid: Option<u32>,
    cgroup: Option<String>,
    cpu: Option<u16>,
    conditions: Option<String>,
}

/// Which part of them is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    /// More than by default was asked for.
    pub(crate) roomy: bool,
    /// Only what comes behind this one.
    pub(crate) after: Option<u64>,
}

impl Wanted {
    /// What a query asks for.
    pub(crate) fn read(query: JsonObject) -> Result<(Self, Page), String> {
        let takes = "kind, task, pid, cgroup, cpu, where, limit, after";
        let wrong = |why: &dyn std::fmt::Display| format!("the query of {URI} is wrong: {why}; it takes {takes}");
        let query: Query = serde_json::from_value(Value::Object(query)).map_err(|why| wrong(&why))?;
        let kinds = query.kind.map(|names| kinds_of(&names)).transpose().map_err(|why| wrong(&why))?;
        let conditions = query.conditions.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        if let Some(conditions) = &conditions {
            EventFilter::from_str(conditions).map_err(|why| wrong(&why))?;
        }
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT as u64);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(wrong(&format!("limit: {limit} lines cannot be had: use 1 to {MAX_LIMIT}")));
        }
        let limit = usize::try_from(limit).unwrap_or(DEFAULT_LIMIT);
        let cgroup = query.cgroup.map(|path| cgroup_path(&path));
        let task = query.task.map(Subject::of);
        let wanted = Self { kinds, task, pid: query.pid, cgroup, cpu: query.cpu, conditions };
        if wanted.kinds().is_some_and(|kinds| kinds.is_empty()) {
            return Err(wrong(
                &"no event is both: `where` is about others than those of `kind`, or than itself asks for",
            ));
        }
        Ok((wanted, Page { limit, roomy: limit > DEFAULT_LIMIT, after: query.after }))
    }

    /// The kinds of which at least one has to be collected; all, if it does not depend on the kind.
    pub(crate) fn kinds(&self) -> Option<Vec<Kind>> {
        let conditions = self.conditions.as_deref().and_then(|text| EventFilter::from_str(text).ok());
        let of_conditions = conditions.map(|filter| filter.kinds());
        match (&self.kinds, of_conditions) {
            (None, None) => None,
            (Some(kinds), None) => Some(kinds.clone()),
            (None, Some(kinds)) => (kinds.len() < Kind::selectable().count()).then_some(kinds),
            (Some(named), Some(kinds)) => Some(named.iter().copied().filter(|kind| kinds.contains(kind)).collect()),
        }
    }
}

/// Names of kinds and groups, with commas between them.
fn kinds_of(names: &str) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        kinds.extend(Kinds::from_str(name).map_err(|why| format!("kind: {why}"))?.kinds);
    }
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.is_empty() { Err("kind: no event is named".into()) } else { Ok(kinds) }
}

/// A path in the hierarchy, of one in the file system as well.
fn cgroup_path(path: &str) -> String {
    let path = path.strip_prefix("/sys/fs/cgroup").unwrap_or(path);
    format!("/{}", path.trim_matches('/'))
}

/// Tells which events are wanted, once it was told who the tasks are.
#[derive(Debug)]
pub(super) struct Selector {
    kinds: Option<HashSet<Kind>>,
    /// Those that may be wanted, by all conditions together.
    possible: Option<HashSet<Kind>>,
    wanted: Wanted,
    conditions: Option<EventFilter>,
    /// Those that are or lie below the one that is wanted.
    cgroups: HashSet<CgroupId>,
}

impl Selector {
    pub(super) fn new(wanted: &Wanted) -> Result<Self, String> {
        let conditions = wanted.conditions.as_deref().map(EventFilter::from_str).transpose();
        Ok(Self {
            kinds: wanted.kinds.as_ref().map(|kinds| kinds.iter().copied().collect()),
            possible: wanted.kinds().map(|kinds| kinds.into_iter().collect()),
            conditions: conditions.map_err(|why| why.to_string())?,
            wanted: wanted.clone(),
            cgroups: HashSet::new(),
        })
    }

    /// Takes note of who is called how, before the events of the batch are looked at.
    pub(super) fn learn(&mut self, batch: &Batch) {
        if let Some(conditions) = &mut self.conditions {
            conditions.learn(batch);
        }
        if let Some(wanted) = self.wanted.cgroup.as_deref() {
            let within = |path: &str| {
                wanted == "/" || path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            self.cgroups.extend(batch.cgroups.iter().filter(|cgroup| within(&cgroup.path)).map(|cgroup| cgroup.id));
        }
    }

    /// Whether events of this kind can be wanted; one that is not known can.
    pub(super) fn may(&self, kind: Option<Kind>) -> bool {
        self.possible.as_ref().is_none_or(|kinds| kind.is_none_or(|kind| kinds.contains(&kind)))
    }

    pub(super) fn accepts(&self, held: &Held) -> bool {
        let event = &held.event;
        let any_task = |meets: &dyn Fn(&super::lines::Who) -> bool| held.who.iter().flatten().any(meets);
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&event.kind.kind()))
            && self.wanted.cpu.is_none_or(|cpu| event.cpu.0 == cpu)
            && self.wanted.pid.is_none_or(|pid| any_task(&|who| who.pid == pid))
            && self.wanted.task.as_ref().is_none_or(|task| match task {
                Subject::Tid(tid) => any_task(&|who| who.tid == *tid),
                Subject::Comm(comm) => any_task(&|who| who.comm.to_string() == *comm),
            })
            && (self.wanted.cgroup.is_none() || any_task(&|who| self.cgroups.contains(&who.cgroup)))
            && self.conditions.as_ref().is_none_or(|conditions| conditions.accepts(event))
    }
}
