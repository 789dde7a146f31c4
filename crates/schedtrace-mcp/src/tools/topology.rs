//! The machine's CPUs: in short by last-level cache, or each with its core, cache, node, frequencies and capacity.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schedtrace_core::system::{CpuHardware, CpuList, Hardware, Topology};
use schedtrace_core::trace::TraceReader;
use schedtrace_core::{Cpu, Source};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, unreadable};
use crate::answer::{Answer, quoted};
use crate::machine::root;
use crate::state::State;

const SUMMARY: &str = "summary";
const FULL: &str = "full";

pub(super) const TOPOLOGY: Tool = Tool {
    name: "get_topology",
    title: "CPU topology",
    description: "Which CPUs there are, which of them share a core, a last-level cache and a NUMA node, and whether cores run two \
        threads (smt): of the machine that this server runs on, or of that of a trace. `full` has each CPU, with its frequencies and \
        capacity where the machine tells them.",
    takes: || {
        let mut takes = detail_arguments();
        takes["trace"] =
            json!({ "type": "string", "description": "Which trace: a path, or a name that list_traces told." });
        takes
    },
    required: &[],
    tells: &[("online", "string"), ("counts", "object"), ("llcs", "array")],
    collects: false,
    destructive: false,
    call: |call| {
        let asked: Asked = call.arguments()?;
        let detail = Detail::read(asked.detail_level.as_deref(), asked.include_offline)?;
        match asked.trace {
            None => here(call.state, root(), detail),
            Some(trace) => {
                let path = call.state.find(Some(&trace))?;
                let trace = TraceReader::open(&path).map_err(unreadable)?;
                let meta = trace.meta();
                let answer = describe(&meta.topology, None, &quoted(&meta.host.hostname), detail);
                Ok(next(answer, call.state, Some(&path), detail))
            }
        }
    },
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    detail_level: Option<String>,
    #[serde(default)]
    include_offline: bool,
    trace: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Detail {
    Summary,
    Full { offline: bool },
}

impl Detail {
    /// What was asked for.
    pub(crate) fn read(level: Option<&str>, offline: bool) -> Result<Self, String> {
        match level {
            None | Some(SUMMARY) => Ok(Self::Summary),
            Some(FULL) => Ok(Self::Full { offline }),
            Some(_) => Err(format!("detail_level: there are two, use {SUMMARY} or {FULL}")),
        }
    }
}

/// What the level of detail is asked for with.
pub(crate) fn detail_arguments() -> Value {
    json!({
        "detail_level": { "type": "string", "enum": [SUMMARY, FULL], "default": SUMMARY },
        "include_offline": { "type": "boolean", "default": false, "description": "With `full`, CPUs that are offline too." }
    })
}

/// The machine that this server runs on.
pub(crate) fn here(state: &State, root: &Path, detail: Detail) -> Result<Answer, String> {
    let sys = root.join("sys");
    let topology = Topology::read(&sys).map_err(|why| why.to_string())?;
    let hardware = Hardware::read(&sys).map_err(|why| why.to_string())?;
    let answer = describe(&topology, Some(&hardware), "This machine", detail).read_now();
    Ok(next(answer, state, None, detail))
}

/// What to ask next: of the same trace, or of the one that is meant where none is named.
fn next(answer: Answer, state: &State, trace: Option<&Path>, detail: Detail) -> Answer {
    let of = |mut arguments: Value| {
        if let Some(trace) = trace {
            arguments["trace"] = json!(trace);
        }
        arguments
    };
    let answer = match detail {
        Detail::Full { .. } => answer,
        Detail::Summary => {
            let full = of(json!({ "detail_level": FULL }));
            answer.next("get_topology", full, "each CPU, with its core, node and frequencies")
        }
    };
    match trace.is_some() || state.find(None).is_ok() {
        true => answer.next("analyze", of(json!({ "by": "llc" })), "says by cpu or llc where tasks waited"),
        false => answer,
    }
}

fn describe(topology: &Topology, hardware: Option<&Hardware>, of: &str, detail: Detail) -> Answer {
    let by_core = topology.group_by(|info| info.core);
    let nodes = topology.group_by(|info| info.node);
    let llcs = topology.llcs();
    let online = topology.online();
    let offline = topology.cpus.iter().filter(|info| !info.online).map(|info| info.cpu);
    // A trace does not tell what the kernel says of it.
    let smt = hardware.map_or_else(|| by_core.values().any(|cpus| cpus.len() > 1), |hardware| hardware.smt.active);
    let counts = json!({
        "online_cpus": online.as_slice().len(),
        "all_cpus": topology.cpus.len(),
        "cores": by_core.len(),
        "llcs": llcs.len(),
        "nodes": nodes.len(),
        "smt": smt,
        "smt_control": hardware.and_then(|hardware| hardware.smt.control.clone()),
    });
    let cores_of = |cpus: &[Cpu]| {
        let cores = cpus.iter().filter_map(|&cpu| topology.get(cpu)).map(|info| info.core);
        cores.collect::<std::collections::BTreeSet<_>>().len()
    };
    let caches = llcs.iter().map(|(llc, cpus)| {
        let node = cpus.first().and_then(|&cpu| topology.get(cpu)).map(|info| info.node);
        json!({ "llc": llc, "node": node, "cpus": list(cpus.iter().copied()), "cores": cores_of(cpus) })
    });
    let nodes_told = nodes.iter().map(|(node, cpus)| {
        let llcs: std::collections::BTreeSet<u32> =
            cpus.iter().filter_map(|&cpu| topology.get(cpu)).map(|info| info.llc).collect();
        json!({ "node": node, "cpus": list(cpus.iter().copied()), "llcs": llcs, "cores": cores_of(cpus) })
    });
    let smt_told = if smt { "cores run two threads or more" } else { "each core runs one thread" };
    let mut answer = Answer::new(format!("{of}: {}; {smt_told}.", topology.shape()))
        .with("online", &online.to_string())
        .with("offline", &list(offline))
        .with("counts", &counts)
        .with("llcs", &caches.collect::<Vec<_>>());
    if let Detail::Full { offline } = detail {
        let cores = by_core.iter().map(|(core, cpus)| json!({ "core": core, "cpus": list(cpus.iter().copied()) }));
        let cpus = topology.cpus.iter().filter(|info| offline || info.online);
        answer = answer
            .with("nodes", &nodes_told.collect::<Vec<_>>())
            .with("hardware", &hardware.map(kinds))
            .with("cpus", &cpus.collect::<Vec<_>>())
            .with("cores", &cores.collect::<Vec<_>>())
            .with(
                "units",
                "core and llc: the lowest number of a CPU in it; _hz: hertz; capacity: 1024 is the fastest CPU",
            )
            .roomy();
    }
    answer
}

/// CPUs that can do the same, together: machines have hundreds, of two or three kinds.
fn kinds(hardware: &Hardware) -> Value {
    let mut kinds: BTreeMap<_, Vec<Cpu>> = BTreeMap::new();
    for CpuHardware { cpu, min_hz, max_hz, governor, capacity, .. } in &hardware.cpus {
        kinds.entry((min_hz, max_hz, governor, capacity)).or_default().push(*cpu);
    }
    let kinds = kinds.into_iter().map(|((min_hz, max_hz, governor, capacity), cpus)| {
        let current = hardware.cpus.iter().filter(|cpu| cpus.contains(&cpu.cpu)).filter_map(|cpu| cpu.current_hz);
        let current: Vec<u64> = current.collect();
        json!({
            "cpus": list(cpus.into_iter()),
            "min_hz": min_hz,
            "max_hz": max_hz,
            "current_lowest_hz": current.iter().min(),
            "current_highest_hz": current.iter().max(),
            "governor": governor,
            "capacity": capacity,
        })
    });
    json!({
        "kinds": kinds.collect::<Vec<_>>(),
        "isolated": hardware.isolated,
        "nohz_full": hardware.nohz_full,
    })
}

fn list(cpus: impl Iterator<Item = Cpu>) -> String {
    cpus.collect::<CpuList>().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, refusal, state_of};
    use super::*;
    use crate::tests::write_trace;
    use schedtrace_core::synthetic::SyntheticHost;

    #[test]
    fn a_large_machine_fits_an_answer() {
        let host = SyntheticHost::new().cpus(512).llcs(64).nodes(8).start();
        let topology = &host.meta().topology;
        let told = describe(topology, None, "a test", Detail::Summary).finish().unwrap();
        assert_eq!(told["summary"], "a test: 512 CPUs, 512 cores, 64 LLCs, 8 nodes; each core runs one thread.");
        assert_eq!(told["llcs"][1], json!({"llc": 8, "node": 0, "cpus": "8-15", "cores": 8}));
        assert!(told.to_string().len() < 5_000 * 3, "{} bytes", told.to_string().len());
        assert!(told["cut_to_fit"].is_null() && told["cpus"].is_null());
        let within =
            |detail| Answer::new("s").with_answer("value", describe(topology, None, "a test", detail)).finish();
        let wrapped = within(Detail::Summary).unwrap();
        assert!(wrapped.to_string().len() <= crate::answer::BUDGET && wrapped["cut_to_fit"].is_null());
        let wrapped = within(Detail::Full { offline: false }).unwrap().to_string().len();
        assert!((crate::answer::BUDGET..=crate::answer::ROOMY).contains(&wrapped), "{wrapped} bytes");
        // Each CPU with a cache of its own is the most that there is to tell.
        let split = SyntheticHost::new().cpus(512).llcs(512).nodes(8).start();
        let told = describe(&split.meta().topology, None, "a test", Detail::Summary).finish().unwrap().to_string();
        assert!(told.len() <= crate::answer::BUDGET, "{} bytes", told.len());
        let full = describe(topology, None, "a test", Detail::Full { offline: false }).finish().unwrap();
        assert_eq!((full["cpus"].as_array().unwrap().len(), full["nodes"].as_array().unwrap().len()), (512, 8));
        assert!(full["cut_to_fit"].is_null(), "{}", full["cut_to_fit"]);
    }

    #[test]
    fn kinds_of_cpus_are_told_once() {
        let fast = |cpu, current| CpuHardware {
            cpu: Cpu(cpu),
            max_hz: Some(3_000_000_000),
            current_hz: Some(current),
            capacity: Some(1_024),
            ..CpuHardware::default()
        };
        let slow = CpuHardware { cpu: Cpu(300), capacity: Some(512), ..CpuHardware::default() };
        let hardware = Hardware { cpus: vec![fast(0, 5), fast(1, 9), slow], ..Hardware::default() };
        let told = kinds(&hardware);
        assert_eq!(told["kinds"].as_array().unwrap().len(), 2, "{told}");
        assert_eq!((&told["kinds"][0]["cpus"], &told["kinds"][0]["capacity"]), (&json!("300"), &json!(512)));
        assert_eq!(told["kinds"][1]["cpus"], "0-1");
        assert_eq!(
            (&told["kinds"][1]["current_lowest_hz"], &told["kinds"][1]["current_highest_hz"]),
            (&json!(5), &json!(9))
        );
    }

    #[test]
    fn offline_cpus_are_told_to_whoever_asks() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/devices/system/cpu");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("present"), "0-2").unwrap();
        std::fs::write(folder.join("online"), "0,2").unwrap();
        let cpus = |offline| {
            let state = state_of(root.path());
            let told = here(&state, root.path(), Detail::Full { offline }).unwrap().finish().unwrap();
            assert_eq!((&told["online"], &told["offline"]), (&json!("0,2"), &json!("1")));
            told["cpus"].as_array().unwrap().len()
        };
        assert_eq!((cpus(false), cpus(true)), (2, 3));
    }

    #[test]
    fn the_next_calls_are_about_the_same_trace() {
        let folder = tempfile::tempdir().unwrap();
        let calls = |arguments: Value| -> Vec<Value> {
            let told = answer(&state_of(folder.path()), "get_topology", &arguments);
            told["next"].as_array().unwrap().iter().map(|next| next["arguments"].clone()).collect()
        };
        assert_eq!(calls(json!({})), [json!({ "detail_level": "full" })], "there is no trace to analyze");
        let trace = write_trace(folder.path()).canonicalize().unwrap();
        assert_eq!(calls(json!({})), [json!({ "detail_level": "full" }), json!({ "by": "llc" })]);
        let other = tempfile::tempdir_in(folder.path()).unwrap();
        write_trace(other.path());
        let told = calls(json!({ "trace": trace }));
        assert_eq!(told, [json!({ "detail_level": "full", "trace": trace }), json!({ "by": "llc", "trace": trace })]);
    }

    #[test]
    fn this_machine_is_told() {
        let state = State::new(crate::Settings::default());
        let short = answer(&state, "get_topology", &json!({ "detail_level": "summary" }));
        let full = answer(&state, "get_topology", &json!({ "detail_level": "full", "include_offline": true }));
        assert_eq!(short["counts"], full["counts"]);
        assert_eq!(full["cpus"].as_array().unwrap().len() as u64, short["counts"]["all_cpus"].as_u64().unwrap());
        assert!(refusal(&state, "get_topology", &json!({ "detail_level": "all" })).contains("use summary or full"));
    }
}
