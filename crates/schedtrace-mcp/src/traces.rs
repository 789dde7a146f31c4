//! Which traces may be read, and what they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use schedtrace_core::Source;
use schedtrace_core::trace::TraceReader;
use serde_json::{Value, json};

use crate::analyze::json_of;

/// So many traces are told at most, the newest.
const MAX_LISTED: usize = 20;

/// The traces, and folders of traces, that this server was given; all that it may read, unless there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed(Vec<PathBuf>);

impl Allowed {
    pub(crate) fn new(places: Vec<PathBuf>) -> Self {
        Self(places)
    }

    /// The folder of the trace that was asked for; the only one there is, if none was named.
    pub(crate) fn find(&self, named: Option<&Path>) -> Result<PathBuf, String> {
        let Some(named) = named else {
            let mut all = self.all();
            return match all.len() {
                1 => Ok(all.remove(0)),
                0 => Err("there is no trace here: name one in `trace`, by its absolute path".into()),
                n => Err(format!("there are {n} traces: name one in `trace`; list_traces tells which")),
            };
        };
        // A name as list_traces tells it, or a path.
        let beside = self.0.iter().map(|place| place.join(named)).find(|path| path.exists());
        let path = if named.is_relative() { beside.unwrap_or_else(|| named.to_owned()) } else { named.to_owned() };
        let is_within = |place: &PathBuf| {
            let real = |path: &Path| path.canonicalize().ok();
            real(place).is_some_and(|place| real(&path).is_some_and(|path| path.starts_with(place)))
        };
        if self.0.is_empty() || self.0.iter().any(is_within) {
            return Ok(path);
        }
        Err(format!("{} may not be read: this server was started for others; list_traces tells which", path.display()))
    }

    /// All of them, the newest first.
    fn all(&self) -> Vec<PathBuf> {
        let here = [PathBuf::from(".")];
        let places = if self.0.is_empty() { &here[..] } else { &self.0 };
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for place in places {
            let beside = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
            let candidates = std::iter::once(place.clone()).chain(beside.filter(|path| path.is_dir()));
            for path in candidates {
                let changed = fs::symlink_metadata(path.join("meta.json")).and_then(|file| file.modified());
                if let (Ok(changed), Ok(path)) = (changed, path.canonicalize()) {
                    found.push((changed, path));
                }
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        found.dedup_by(|a, b| a.1 == b.1);
        found.into_iter().map(|(_, path)| path).collect()
    }

    pub(crate) fn list(&self) -> Value {
        let all = self.all();
        let traces: Vec<Value> = all.iter().take(MAX_LISTED).map(|path| line(path)).collect();
        let summary = match all.len() {
            0 => "There is no trace here: `schedtrace record -o DIR` makes one.".to_owned(),
            1 => "One trace.".to_owned(),
            n => format!("{n} traces, the newest first."),
        };
        json!({
            "summary": summary,
            "traces": traces,
            "total": all.len(),
            "truncated": all.len() > MAX_LISTED,
            "next": "`open_trace` says what one holds, `analyze` why its tasks waited.",
        })
    }
}

/// One trace in a list.
fn line(path: &Path) -> Value {
    let told = TraceReader::open(path).and_then(|trace| {
        let info = trace.info()?;
        let clock = trace.meta().clocks.first();
        Ok(json!({
            "trace": path,
            "host": info.host.hostname,
            "kernel": info.host.kernel,
            "started_unix_ns": clock.map(|clock| clock.realtime(info.window.from_ns)),
            "duration_ns": info.window.duration_ns,
            "events": info.completeness.events,
            "complete": info.completeness.complete,
            "state": info.state,
        }))
    });
    told.unwrap_or_else(|error| json!({ "trace": path, "error": error.to_string() }))
}

/// What a trace holds.
pub(crate) fn describe(path: &Path) -> Result<Value, String> {
    let trace = TraceReader::open(path).map_err(|why| why.to_string())?;
    let info = trace.info().map_err(|why| why.to_string())?;
    let meta = trace.meta();
    let missing = if info.completeness.complete { "nothing is known to be missing" } else { "something is missing" };
    let summary = format!(
        "{} of {} (Linux {}, {}): {} events; {missing}.",
        info.window.duration_ns,
        info.host.hostname,
        info.host.kernel,
        meta.topology.shape(),
        info.completeness.events
    );
    let clock = meta.clocks.first();
    let off: Vec<_> = meta.probes.iter().filter(|probe| probe.why.is_some()).collect();
    let unaccounted: u128 = info.accounts.iter().map(|account| account.unaccounted().unsigned_abs()).sum();
    Ok(json!({
        "summary": summary,
        "trace": info.path,
        "state": info.state,
        "host": info.host,
        "topology": meta.topology.shape(),
        "window": json_of(&info.window)?,
        "started_unix_ns": clock.map(|clock| clock.realtime(info.window.from_ns)),
        "filters": json_of(&meta.filters)?,
        "tables": json_of(&info.tables)?,
        "bytes": info.bytes,
        "completeness": json_of(&info.completeness)?,
        "unaccounted": u64::try_from(unaccounted).unwrap_or(u64::MAX),
        "limited": json_of(&off)?,
        "next": "`analyze` says why its tasks waited, `get_scheduler_stats` the totals, `get_topology` where its CPUs are.",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::write_trace;

    #[test]
    fn only_what_was_given_may_be_read() {
        let (ours, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (trace, other) = (write_trace(ours.path()), write_trace(others.path()));
        let allowed = Allowed::new(vec![ours.path().to_owned()]);
        assert_eq!(allowed.find(None).unwrap(), trace.canonicalize().unwrap());
        assert_eq!(allowed.find(Some(&trace)).unwrap(), trace);
        assert_eq!(allowed.find(Some(Path::new("a.schedtrace"))).unwrap(), trace);
        let around = ours.path().join("..").join(others.path().file_name().unwrap()).join("a.schedtrace");
        std::os::unix::fs::symlink(&other, ours.path().join("link")).unwrap();
        for forbidden in [other.clone(), around, ours.path().join("link"), ours.path().join("../..")] {
            let told = allowed.find(Some(&forbidden)).unwrap_err();
            assert!(told.contains("may not be read"), "{told}");
        }
        assert_eq!(Allowed::default().find(Some(&other)).unwrap(), other, "without limits, anything");
    }

    #[test]
    fn traces_are_listed_with_those_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path());
        fs::create_dir(folder.path().join("b.schedtrace")).unwrap();
        fs::write(folder.path().join("b.schedtrace/meta.json"), "{").unwrap();
        let allowed = Allowed::new(vec![folder.path().to_owned()]);
        let list = allowed.list();
        assert_eq!((&list["total"], &list["truncated"]), (&json!(2), &json!(false)));
        let find = |name: &str| {
            let traces = list["traces"].as_array().unwrap();
            traces.iter().find(|line| line["trace"].as_str().unwrap().ends_with(name)).unwrap()
        };
        assert_eq!(find("a.schedtrace")["events"], 2);
        assert!(find("b.schedtrace")["error"].as_str().unwrap().contains("meta.json"));
        assert!(allowed.find(None).unwrap_err().contains("list_traces"));
        assert_eq!(Allowed::new(vec![folder.path().join("none")]).list()["total"], 0);
    }
}
