//! The running machine by CPU, last-level cache, NUMA node, process, thread and dispatch queue: from procfs and sysfs, which are
//! always there, and from what is being collected, which knows how long each wait was.

use std::collections::BTreeMap;

use schedtrace_core::system::processes::{Level, Order, Processes};
use schedtrace_core::system::sched_ext::Scheduler;
use schedtrace_core::system::stats::{CpuRates, CpuShares, RunQueueRates, RunQueues, SystemCpu};
use schedtrace_core::system::{CpuInfo, Hardware, Topology};
use schedtrace_core::{Cpu, EventGroup, Nanos};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Contents, JSON, Resource};
use crate::answer::Answer;
use crate::call::Call;
use crate::machine::{of, percent, root, tidy, twice};
use crate::part::Part;
use crate::tools::{next_to_record, rows, to_record};

const DEFAULT_ROWS: usize = 16;
const MAX_ROWS: usize = 512;
/// The group of events that tell of dispatch queues.
const OF_QUEUES: &str = "sched_ext";
/// Events of a collection that are read for one answer, the newest.
const AT_ONCE: u64 = 4_000_000;

pub(super) const CPU: Resource = resource(
    "stats://aggregated/cpu",
    "Statistics by CPU",
    "How busy each CPU is, what with, its frequency, and how many tasks wait for it; the busiest first.",
    limit_takes,
    cpu,
);

pub(super) const LLC: Resource = resource(
    "stats://aggregated/llc",
    "Statistics by last-level cache",
    "How busy the CPUs under each last-level cache are, and how many tasks wait for them.",
    limit_takes,
    |call| grouped(call, "llc", |info| info.llc),
);

pub(super) const NODE: Resource = resource(
    "stats://aggregated/node",
    "Statistics by NUMA node",
    "How busy the CPUs of each NUMA node are, and how many tasks wait for them.",
    limit_takes,
    |call| grouped(call, "node", |info| info.node),
);

pub(super) const DSQ: Resource = resource(
    "stats://aggregated/dsq",
    "Statistics by dispatch queue",
    "How long tasks lay in each dispatch queue of a sched_ext scheduler, how many, and their slices; known while collecting alone.",
    limit_takes,
    dsq,
);

pub(super) const PROCESS: Resource = resource(
    "stats://aggregated/process",
    "Statistics by process",
    "The processes that use the CPUs now: CPU time, time on a run queue, switches, policy, cgroup; by what `order` says.",
    task_takes,
    |call| tasks(call, Level::Process),
);

pub(super) const THREAD: Resource = resource(
    "stats://aggregated/thread",
    "Statistics by thread",
    "The threads that use the CPUs now: CPU time, time on a run queue, switches, policy, cgroup; by what `order` says.",
    task_takes,
    |call| tasks(call, Level::Thread),
);

const fn resource(
    uri: &'static str,
    name: &'static str,
    description: &'static str,
    takes: fn() -> Value,
    read: fn(&Call<'_>) -> Result<Contents, String>,
) -> Resource {
    Resource { uri, name, description, mime_type: JSON, takes, collects: false, read }
}

fn limit_takes() -> Value {
    json!({ "limit": {
        "type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": DEFAULT_ROWS, "description": "How many rows at most."
    } })
}

fn task_takes() -> Value {
    let mut takes = limit_takes();
    takes["order"] = json!({
        "type": "string",
        "enum": ["cpu_time", "wait", "timeslices", "voluntary_switches", "involuntary_switches"],
        "default": "cpu_time",
        "description": "What the first rows have most of."
    });
    takes
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limited {
    limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tasks {
    limit: Option<u64>,
    #[serde(default)]
    order: Order,
}

fn limit(call: &Call<'_>) -> Result<usize, String> {
    let asked: Limited = call.arguments()?;
    rows("limit", asked.limit, DEFAULT_ROWS, MAX_ROWS)
}

/// More than by default may be told to whoever asks for it.
fn sized(answer: Answer, limit: usize) -> Contents {
    if limit > DEFAULT_ROWS { answer.roomy().into() } else { answer.into() }
}

/// What each CPU does now.
struct Cpus {
    rates: CpuRates,
    /// None where the kernel does not count it.
    queues: Option<BTreeMap<Cpu, RunQueueRates>>,
    topology: Topology,
}

impl Cpus {
    fn read(call: &Call<'_>) -> Result<Self, String> {
        let (before, now) = twice(call, || Ok((SystemCpu::read(root())?, RunQueues::read(root())?)))?;
        let queues = before.1.zip(now.1).map(|(before, now)| now.since(&before));
        Ok(Self {
            rates: now.0.since(&before.0),
            queues: queues.map(|queues| queues.into_iter().map(|queue| (queue.cpu, queue)).collect()),
            topology: Topology::read(&root().join("sys")).map_err(|why| why.to_string())?,
        })
    }

    /// What CPUs do together.
    fn together(&self, cpus: &[Cpu]) -> Value {
        let mut sum = CpuShares::default();
        let mut counted = 0.0;
        for one in self.rates.cpus.iter().filter(|one| cpus.contains(&one.cpu)) {
            counted += 1.0;
            sum.busy_ratio += one.shares.busy_ratio;
            sum.user_ratio += one.shares.user_ratio;
            sum.system_ratio += one.shares.system_ratio;
            sum.irq_ratio += one.shares.irq_ratio;
            sum.softirq_ratio += one.shares.softirq_ratio;
            sum.steal_ratio += one.shares.steal_ratio;
            sum.iowait_ratio += one.shares.iowait_ratio;
            sum.idle_ratio += one.shares.idle_ratio;
        }
        let mut told = tidy(&sum);
        for share in told.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
            *share = tidy(&(share.as_f64().unwrap_or_default() / f64::max(counted, 1.0)));
        }
        if let Some(queues) = &self.queues {
            let queues: Vec<_> = queues.values().filter(|queue| cpus.contains(&queue.cpu)).collect();
            let waiting: f64 = queues.iter().map(|queue| queue.waiting_mean).sum();
            let slices: f64 = queues.iter().map(|queue| queue.timeslices_per_second).sum();
            told["waiting_mean"] = tidy(&waiting);
            told["timeslices_per_second"] = tidy(&slices);
            // So much waiting a second, for so many that got a CPU in it.
            told["wait_mean_ns"] = if slices > 0.0 { tidy(&(waiting * 1e9 / slices)) } else { Value::Null };
        }
        told
    }

    /// How to read a row, and what this kernel does not tell.
    fn units(&self) -> String {
        let waits = match self.queues {
            Some(_) => "waiting_mean: tasks that waited for a CPU, on average",
            None => "how many tasks wait is not known here: the kernel was built without CONFIG_SCHEDSTATS",
        };
        format!("_ratio: part of the time, 0 to 1; _hz: hertz; _ns: nanoseconds; {waits}")
    }
}

fn cpu(call: &Call<'_>) -> Result<Contents, String> {
    let limit = limit(call)?;
    let mut cpus = Cpus::read(call)?;
    // A frequency belongs to a row where the machine tells it.
    let hardware = Hardware::read(&root().join("sys")).map_err(|why| why.to_string())?;
    cpus.rates.cpus.sort_by(|a, b| b.shares.busy_ratio.total_cmp(&a.shares.busy_ratio).then(a.cpu.cmp(&b.cpu)));
    let row = |cpu: Cpu| {
        let mut row = json!({ "cpu": cpu });
        if let (Some(info), Some(row)) = (cpus.topology.get(cpu), row.as_object_mut()) {
            row.extend([("llc".to_owned(), info.llc.into()), ("node".to_owned(), info.node.into())]);
        }
        if let Some(hz) = hardware.cpus.iter().find(|one| one.cpu == cpu).and_then(|one| one.current_hz) {
            row["current_hz"] = hz.into();
        }
        if let (Value::Object(row), Value::Object(does)) = (&mut row, cpus.together(&[cpu])) {
            row.extend(does);
        }
        row
    };
    let told: Vec<_> = cpus.rates.cpus.iter().take(limit).map(|one| row(one.cpu)).collect();
    let busiest = cpus.rates.cpus.first();
    let busiest =
        busiest.map(|one| format!(", CPU {} most: {}", one.cpu, percent(one.shares.busy_ratio))).unwrap_or_default();
    let summary = format!(
        "Over {}, {} were {} busy on average{busiest}.",
        cpus.rates.window_ns,
        of(cpus.rates.cpus.len(), "CPU"),
        percent(cpus.rates.total.busy_ratio)
    );
    let answer = Answer::new(summary)
        .with("window_ns", &cpus.rates.window_ns)
        .with("cpus", &told)
        .with("cpus_total", &cpus.rates.cpus.len())
        .with("units", &cpus.units())
        .read_now()
        .next("query_stats", json!({ "uri": PROCESS.uri }), "who uses the CPUs");
    Ok(sized(with_collected(answer, call, "cpu", limit)?, limit))
}

fn grouped(call: &Call<'_>, by: &'static str, key: fn(&CpuInfo) -> u32) -> Result<Contents, String> {
    let limit = limit(call)?;
    let cpus = Cpus::read(call)?;
    let groups = cpus.topology.group_by(key);
    let mut told: Vec<_> = groups
        .iter()
        .map(|(group, members)| {
            let list: schedtrace_core::system::CpuList = members.iter().copied().collect();
            let mut row = json!({ by: group, "cpus": list.to_string() });
            if let (Value::Object(row), Value::Object(does)) = (&mut row, cpus.together(members)) {
                row.extend(does);
            }
            row
        })
        .collect();
    let busy = |row: &Value| row["busy_ratio"].as_f64().unwrap_or_default();
    told.sort_by(|a, b| busy(b).total_cmp(&busy(a)));
    let name = if by == "llc" { "last-level cache" } else { "NUMA node" };
    let spread = match (told.first(), told.last()) {
        (Some(most), Some(least)) if told.len() > 1 => {
            format!(", from {} to {} busy", percent(busy(least)), percent(busy(most)))
        }
        (Some(only), _) => format!(", {} busy", percent(busy(only))),
        _ => String::new(),
    };
    told.truncate(limit);
    let answer = Answer::new(format!("Over {}, {}{spread}.", cpus.rates.window_ns, of(groups.len(), name)))
        .with("window_ns", &cpus.rates.window_ns)
        .with(&format!("{by}s"), &told)
        .with(&format!("{by}s_total"), &groups.len())
        .with("units", &cpus.units())
        .read_now();
    let answer = if by == "llc" { with_collected(answer, call, "llc", limit)? } else { answer };
    Ok(sized(answer.next("get_topology", json!({}), "which CPUs share what"), limit))
}

fn tasks(call: &Call<'_>, level: Level) -> Result<Contents, String> {
    let asked: Tasks = call.arguments()?;
    let limit = rows("limit", asked.limit, DEFAULT_ROWS, MAX_ROWS)?;
    let (before, now) = twice(call, || Processes::read(root()))?;
    let now = now.since(&before);
    let told = now.top(root(), level, asked.order, limit);
    let (total, of_them) = match level {
        Level::Process => (now.processes(), "processes"),
        Level::Thread => (now.threads(), "threads"),
    };
    let first = match told.first() {
        Some(first) => {
            let rates = first.rates.unwrap_or_default();
            let waited = format!("{:.2}", rates.wait_ratio);
            // What it is called is for the rows: a sentence of ours holds no text of others.
            let tid = first.tid;
            format!(": the first is {tid}, with {:.2} CPUs of work and {waited} threads waiting", rates.cpu_ratio)
        }
        None => String::new(),
    };
    let answer = Answer::new(format!("Over {}, {total} {of_them}{first}.", now.window_ns))
        .with("window_ns", &now.window_ns)
        .with("order", &asked.order)
        .with("tasks", &tidy(&told))
        .with("tasks_total", &total)
        .with("omitted_threads", &now.omitted_threads)
        .with(
            "units",
            "rates: since the reading before; cpu_ratio: CPUs in use; wait_ratio: threads waiting for a CPU, on average, each wait counted when it ends; _ns and \
             counts: since it began, of threads that are alive",
        )
        .read_now();
    let waits = format!("{}?order=wait", if level == Level::Process { PROCESS.uri } else { THREAD.uri });
    let answer = answer.next("query_stats", json!({ "uri": waits }), "who waits for a CPU most");
    let by = if level == Level::Process { "process" } else { "task" };
    Ok(sized(with_collected(answer, call, by, limit)?, limit))
}

fn dsq(call: &Call<'_>) -> Result<Contents, String> {
    let limit = limit(call)?;
    let scheduler = Scheduler::read(root()).map_err(|why| why.to_string())?;
    let Some(found) = collected(call, Some(EventGroup::SchedExt), |trace| dispatched(call, trace, limit)) else {
        let how = if call.state.collects() {
            format!("{}, and read this while it goes on", to_record(call.state, OF_QUEUES))
        } else {
            "this needs a server that was started with --collect".to_owned()
        };
        return Err(format!("{} Dispatch queues are seen only while collecting: {how}", scheduler.describe()));
    };
    let answer = found?.with("scheduler", &scheduler.name);
    Ok(sized(
        answer.next("query_stats", json!({ "uri": "stats://scheduler/scx" }), "what the kernel counts of it"),
        limit,
    ))
}

/// What is known of dispatch queues from a trace.
fn dispatched(call: &Call<'_>, trace: &std::path::Path, limit: usize) -> Result<Answer, String> {
    use schedtrace_core::analysis::{Options, ReportName, Reports};
    let mut part = Part::open(call, Some(trace), (None, None), AT_ONCE)?;
    let options = Options { top: limit, ..part.options() };
    let report = part.study(call, Reports::study([ReportName::Dispatch], options))?;
    let told = json!(report.answer)[ReportName::Dispatch.name()].take();
    let queues = told["queues_total"].as_u64().unwrap_or(0);
    let latency = &told["total"]["latency"];
    let recorded = part.has(EventGroup::SchedExt);
    let window = report.about.window.duration_ns;
    let summary = match queues {
        _ if !recorded => format!(
            "Nothing can be said of dispatch queues: the events of the group {OF_QUEUES} are not in what was collected; {}.",
            to_record(call.state, OF_QUEUES)
        ),
        0 => format!("In {window}, no task went through a dispatch queue of a sched_ext scheduler."),
        queues => format!(
            "In {window}, tasks got a CPU from {} of {queues} dispatch queues: half of them lay there up to {}, 99% up to {}.",
            told["total"]["dispatches"],
            Nanos(latency["p50_ns"].as_u64().unwrap_or(0)),
            Nanos(latency["p99_ns"].as_u64().unwrap_or(0)),
        ),
    };
    let answer = Answer::new(summary)
        .with("window", &report.about.window)
        .with("completeness", &report.about.completeness)
        .with("recorded", &recorded)
        .with_all(&told);
    Ok(if recorded { answer } else { next_to_record(answer, call.state, OF_QUEUES) })
}

/// Does something with what is or was collected, if there is anything: rather with what has events of this group.
fn collected<T>(call: &Call<'_>, rather: Option<EventGroup>, with: impl FnOnce(&std::path::Path) -> T) -> Option<T> {
    #[cfg(feature = "live")]
    {
        use schedtrace_core::Source;
        let all = call.state.collections.traces();
        let has = |trace: &std::path::Path, group| {
            let read = schedtrace_core::trace::TraceReader::open(trace);
            read.is_ok_and(|read| read.meta().probes.iter().any(|probe| probe.on && probe.kind.group() == group))
        };
        let found = rather.and_then(|group| all.iter().find(|(_, trace)| has(trace, group)));
        found.or(all.first()).map(|(_, trace)| with(trace))
    }
    #[cfg(not(feature = "live"))]
    {
        let _ = (call, rather, with);
        None
    }
}

/// Adds how long tasks waited, from what is or was collected: the kernel's counts have no quantiles.
fn with_collected(answer: Answer, call: &Call<'_>, by: &'static str, limit: usize) -> Result<Answer, String> {
    use schedtrace_core::analysis::{GroupBy, Options, Sched};
    let by_group: GroupBy = by.parse().map_err(|why| format!("by: {why}"))?;
    let found = collected(call, None, |trace| {
        let mut part = Part::open(call, Some(trace), (None, None), AT_ONCE)?;
        let options = Options { by: by_group, top: limit, ..part.options() };
        part.study(call, Sched::new(options))
    });
    Ok(match found {
        None if call.state.collects() => answer.next(
            "enable_collection",
            json!({ "duration_s": 30 }),
            "then read this again: it has the quantiles of waits as well, and their causes",
        ),
        None => answer,
        // What was begun a moment ago has nothing to read yet; cancelled is cancelled.
        Some(Err(why)) if !call.is_cancelled() => answer.with("collected", &json!({ "not_yet": why })),
        Some(Err(why)) => return Err(why),
        Some(Ok(report)) => {
            let told = json!({
                "window": report.window,
                "completeness": report.completeness,
                "waits": report.run_queue.groups,
                "cpu_time": report.cpu_time.groups,
            });
            answer.with("collected", &told).next(
                "analyze",
                json!({ "by": by }),
                "who held the CPU meanwhile, in what is or was collected",
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, read};
    use super::*;
    use crate::Settings;
    use crate::state::State;
    use crate::tests::fixture;
    use crate::tools::tests::state_of;
    use schedtrace_core::system::stats::CpuUseRates;

    #[test]
    fn this_machine_is_told_by_cpu_cache_and_node() {
        let told = answer(CPU.uri);
        let cpus = told["cpus"].as_array().unwrap();
        assert_eq!(cpus.len(), (told["cpus_total"].as_u64().unwrap() as usize).min(DEFAULT_ROWS));
        assert!(cpus.iter().all(|row| row["busy_ratio"].is_number() && row["node"].is_number()), "{told}");
        for (uri, list, name) in [(LLC.uri, "llcs", "llc"), (NODE.uri, "nodes", "node")] {
            let told = answer(uri);
            assert!(told[list][0][name].is_number() && told[list][0]["cpus"].is_string(), "{told}");
        }
        assert_eq!(answer("stats://aggregated/cpu?limit=1")["cpus"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn this_machine_is_told_by_process_and_thread() {
        let told = answer("stats://aggregated/process?limit=3&order=timeslices");
        assert_eq!((told["tasks"].as_array().unwrap().len(), &told["order"]), (3, &json!("timeslices")));
        assert!(told["tasks"][0]["rates"]["cpu_ratio"].is_number(), "{told}");
        let threads = answer(THREAD.uri);
        assert!(threads["tasks_total"].as_u64() >= told["tasks_total"].as_u64());
        let state = State::new(Settings::default());
        let why = read(&state, "stats://aggregated/thread?order=colour").unwrap_err().message;
        assert!(why.contains("involuntary_switches"), "{why}");
    }

    #[test]
    fn cpus_together_are_their_mean() {
        let cpu =
            |cpu, busy_ratio| CpuUseRates { cpu: Cpu(cpu), shares: CpuShares { busy_ratio, ..CpuShares::default() } };
        let queue = |cpu, waiting_mean| RunQueueRates {
            cpu: Cpu(cpu),
            waiting_mean,
            timeslices_per_second: 50.0,
            ..RunQueueRates::default()
        };
        let queues = [queue(0, 0.5), queue(7, 1.5), queue(9, 100.0)];
        let cpus = Cpus {
            rates: CpuRates { cpus: vec![cpu(0, 0.25), cpu(7, 0.75), cpu(9, 1.0)], ..CpuRates::default() },
            queues: Some(queues.into_iter().map(|queue| (queue.cpu, queue)).collect()),
            topology: Topology::default(),
        };
        let told = cpus.together(&[Cpu(0), Cpu(7), Cpu(300)]);
        assert_eq!((&told["busy_ratio"], &told["waiting_mean"]), (&json!(0.5), &json!(2.0)));
        assert_eq!((&told["timeslices_per_second"], &told["wait_mean_ns"]), (&json!(100.0), &json!(20_000_000.0)));
        let unknown = Cpus { queues: None, ..cpus };
        assert!(unknown.together(&[Cpu(0)])["waiting_mean"].is_null() && unknown.units().contains("CONFIG_SCHEDSTATS"));
    }

    #[test]
    fn dispatch_queues_need_a_collection() {
        for (collect, how) in [(false, "--collect"), (true, "enable_collection")] {
            let state = State::new(Settings { collect, ..Settings::default() });
            let why = read(&state, DSQ.uri).unwrap_err().message;
            let how = if cfg!(feature = "live") { how } else { "--collect" };
            assert!(why.contains(how), "{why}");
        }
    }

    #[test]
    fn dispatch_queues_of_a_trace_without_any_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let trace = crate::tests::write_trace(folder.path());
        let state = state_of(folder.path());
        let told = dispatched(&Call::quiet(&state), &trace, 3).unwrap().finish().unwrap();
        let summary = told["summary"].as_str().unwrap();
        assert!(summary.contains("not in what was collected; `schedtrace record --events default,sched_ext"), "{told}");
        assert_eq!((&told["queues"], &told["recorded"]), (&json!([]), &json!(false)));
        let state = state_of(&fixture("every-event"));
        let told = dispatched(&Call::quiet(&state), &state.find(None).unwrap(), 3).unwrap().finish().unwrap();
        assert_eq!(told["recorded"], true);
    }

    #[cfg(feature = "live")]
    #[test]
    fn what_was_not_recorded_is_told_with_the_call_that_records_it() {
        let folder = tempfile::tempdir().unwrap();
        let trace = crate::tests::write_trace(folder.path());
        let state = State::new(Settings { traces: vec![folder.path().into()], collect: true, ..Settings::default() });
        let told = dispatched(&Call::quiet(&state), &trace, 3).unwrap().finish().unwrap();
        assert_eq!(told["next"][0]["tool"], "record_trace");
        assert_eq!(told["next"][0]["arguments"], json!({ "events": ["default", "sched_ext"] }));
        let report = crate::tools::tests::answer(&state, "analyze", &json!({ "report": "dispatch", "trace": trace }));
        assert_eq!(report["next"][0]["arguments"], json!({ "events": ["default", "sched_ext"] }));
    }

    #[cfg(feature = "live")]
    #[test]
    fn live_waits_of_what_is_collected_are_told() {
        let state = State::new(Settings { collect: true, ..Settings::default() });
        let asked = crate::collect::Asked { duration_s: Some(30), ..crate::collect::Asked::default() };
        state.collections.enable(asked, crate::call::Client::default()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1_500));
        for uri in [CPU.uri, LLC.uri, PROCESS.uri, THREAD.uri] {
            let told = read(&state, uri).unwrap();
            let collected = &told["collected"];
            assert!(collected["waits"].as_array().is_some_and(|rows| !rows.is_empty()), "{uri}: {told}");
            assert!(told.to_string().len() <= crate::answer::BUDGET, "{uri}");
        }
        assert!(read(&state, DSQ.uri).unwrap()["queues"].is_array());
        state.collections.disable().unwrap();
    }
}
