//! What the kernel counts for the whole machine: read twice, so that rates can be told.

use schedtrace_core::system::stats::{SystemCpu, SystemDisk, SystemInterrupts, SystemMemory, SystemNetwork};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{JSON, Resource};
use crate::answer::Answer;
use crate::call::Call;
use crate::machine::{bytes, of, percent, root, tidy, twice};
use crate::tools::rows;

const DEFAULT_ROWS: usize = 16;
const MAX_ROWS: usize = 512;

pub(super) const CPU: Resource = resource(
    "stats://system/cpu",
    "CPU time of the machine",
    "How busy the CPUs are (user, system, interrupts, steal, waiting for I/O, idle), switches and interrupts per second, load, and \
     pressure; the busiest CPUs first.",
    |call| cpu(call, limit(call)?),
);

pub(super) const MEMORY: Resource = resource(
    "stats://system/memory",
    "Memory of the machine",
    "How much memory there is and is left, for what it is used, page faults and swapping per second, and pressure.",
    |call| {
        limit(call)?;
        memory(call)
    },
);

pub(super) const NETWORK: Resource = resource(
    "stats://system/network",
    "Network interfaces",
    "Bytes, packets, errors and drops of each network interface, per second and since boot; the busiest first.",
    |call| network(call, limit(call)?),
);

pub(super) const DISK: Resource = resource(
    "stats://system/disk",
    "Disks",
    "Requests, bytes, times and queues of each disk, per second and since boot, and pressure; the busiest first.",
    |call| disk(call, limit(call)?),
);

pub(super) const INTERRUPTS: Resource = resource(
    "stats://system/interrupts",
    "Interrupts",
    "How often each interrupt and software interrupt came, per second and since boot, and on which CPU most; the most frequent first.",
    |call| interrupts(call, limit(call)?),
);

const fn resource(
    uri: &'static str,
    name: &'static str,
    description: &'static str,
    read: fn(&Call<'_>) -> Result<super::Contents, String>,
) -> Resource {
    Resource { uri, name, description, mime_type: JSON, takes, collects: false, read }
}

fn takes() -> Value {
    json!({ "limit": {
        "type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": DEFAULT_ROWS, "description": "How many rows at most."
    } })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    limit: Option<u64>,
}

fn limit(call: &Call<'_>) -> Result<usize, String> {
    let asked: Asked = call.arguments()?;
    rows("limit", asked.limit, DEFAULT_ROWS, MAX_ROWS)
}

/// More than by default may be told to whoever asks for it.
fn sized(answer: Answer, limit: usize) -> super::Contents {
    if limit > DEFAULT_ROWS { answer.roomy().into() } else { answer.into() }
}

fn cpu(call: &Call<'_>, limit: usize) -> Result<super::Contents, String> {
    let (before, mut now) = twice(call, || SystemCpu::read(root()))?;
    let mut rates = now.since(&before);
    let cpus = rates.cpus.len();
    rates.cpus.sort_by(|a, b| b.shares.busy_ratio.total_cmp(&a.shares.busy_ratio));
    rates.cpus.truncate(limit);
    // Each CPU's time since boot says nothing of now, and would take the room of what does.
    now.cpus.clear();
    let load = now.load.map(|load| format!(", load {}", load.one_minute)).unwrap_or_default();
    let summary = format!(
        "Over {}, {} were {} busy{load}: {:.0} switches and {:.0} interrupts a second.",
        rates.window_ns,
        of(cpus, "CPU"),
        percent(rates.total.busy_ratio),
        rates.context_switches_per_second,
        rates.interrupts_per_second,
    );
    let mut since_boot = tidy(&now);
    since_boot.as_object_mut().map(|fields| fields.remove("cpus"));
    let answer = Answer::new(summary)
        .with("rates", &tidy(&rates))
        .with("cpus_total", &cpus)
        .with("since_boot", &since_boot)
        .read_now()
        .next(
            "query_stats",
            json!({ "uri": "stats://aggregated/cpu" }),
            "the same CPU by CPU, with how long tasks wait there",
        )
        .next("query_stats", json!({ "uri": "stats://aggregated/process" }), "who uses the CPUs");
    Ok(sized(answer, limit))
}

fn memory(call: &Call<'_>) -> Result<super::Contents, String> {
    let (before, now) = twice(call, || SystemMemory::read(root()))?;
    let rates = now.since(&before);
    let left = now.available_bytes.unwrap_or(now.free_bytes);
    let stalled = now.pressure.and_then(|pressure| pressure.some).map(|some| some.avg10_percent);
    let stalled = match stalled {
        Some(share) if share > 0.0 => format!(" Tasks were held up by memory for {share:.1}% of the last 10 s."),
        _ => String::new(),
    };
    let summary = format!(
        "{} of {} can be had without swapping; {:.0} page faults a second, {:.0} of them with a read.{stalled}",
        bytes(left),
        bytes(now.total_bytes),
        rates.page_faults_per_second,
        rates.major_page_faults_per_second,
    );
    let answer = Answer::new(summary).with("rates", &tidy(&rates)).with("now", &tidy(&now)).read_now();
    Ok(answer
        .next("query_stats", json!({ "uri": DISK.uri }), "whether disks are busy with swapping or reading back")
        .into())
}

fn network(call: &Call<'_>, limit: usize) -> Result<super::Contents, String> {
    let (before, mut now) = twice(call, || SystemNetwork::read(root()))?;
    let mut rates = now.since(&before);
    let total = now.interfaces.len();
    let summary = match rates.interfaces.first() {
        Some(most) => format!(
            "Over {}, the busiest of {} received {:.0} and sent {:.0} bytes a second.",
            rates.window_ns,
            of(total, "interface"),
            most.received_bytes_per_second,
            most.sent_bytes_per_second,
        ),
        None => "There is no network interface in this network namespace.".into(),
    };
    rates.interfaces.truncate(limit);
    now.interfaces.truncate(limit);
    let answer = Answer::new(summary)
        .with("rates", &tidy(&rates))
        .with("interfaces_total", &total)
        .with("since_boot", &now)
        .read_now()
        .next("query_stats", json!({ "uri": INTERRUPTS.uri }), "which CPUs take the interrupts of the network");
    Ok(sized(answer, limit))
}

fn disk(call: &Call<'_>, limit: usize) -> Result<super::Contents, String> {
    let (before, mut now) = twice(call, || SystemDisk::read(root()))?;
    let mut rates = now.since(&before);
    let total = now.disks.len();
    let summary = match rates.disks.first() {
        Some(most) => format!(
            "Over {}, {} was the busiest of {}: {} of the time, {:.0} reads and {:.0} writes a second.",
            rates.window_ns,
            most.name,
            of(total, "disk"),
            percent(most.busy_ratio),
            most.reads_per_second,
            most.writes_per_second,
        ),
        None => "No disk of this machine has been used.".into(),
    };
    rates.disks.truncate(limit);
    now.disks.truncate(limit);
    let answer = Answer::new(summary)
        .with("rates", &tidy(&rates))
        .with("disks_total", &total)
        .with("since_boot", &tidy(&now))
        .read_now()
        .next(
            "query_stats",
            json!({ "uri": "stats://aggregated/process" }),
            "which processes run, and how long they wait",
        );
    Ok(sized(answer, limit))
}

fn interrupts(call: &Call<'_>, limit: usize) -> Result<super::Contents, String> {
    let (before, mut now) = twice(call, || SystemInterrupts::read(root()))?;
    let mut rates = now.since(&before);
    let all: f64 = rates.sources.iter().map(|source| source.per_second).sum();
    let summary = match rates.sources.first() {
        Some(most) => {
            let on = most.busiest_cpu.map(|cpu| format!(", most on CPU {cpu}")).unwrap_or_default();
            format!(
                "Over {}, {} came most often: {:.0} of {all:.0} interrupts and software interrupts a second{on}.",
                rates.window_ns, most.name, most.per_second
            )
        }
        None => format!("Over {}, no interrupt came.", rates.window_ns),
    };
    let total = now.sources.len();
    rates.sources.truncate(limit);
    now.sources.truncate(limit);
    let answer = Answer::new(summary)
        .with("rates", &tidy(&rates))
        .with("sources_total", &total)
        .with("since_boot", &now)
        .read_now()
        .next("query_stats", json!({ "uri": CPU.uri }), "how much time the CPUs spend in interrupts");
    Ok(sized(answer, limit))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, read};
    use super::*;

    #[test]
    fn this_machine_is_told_in_rates() {
        let cpu = answer(CPU.uri);
        let busy = cpu["rates"]["total"]["busy_ratio"].as_f64().unwrap();
        assert!(
            (0.0..=1.0).contains(&busy) && cpu["rates"]["context_switches_per_second"].as_f64() > Some(0.0),
            "{cpu}"
        );
        assert!(cpu["since_boot"]["cpus"].is_null() && cpu["cpus_total"].as_u64() > Some(0));
        let memory = answer(MEMORY.uri);
        assert!(memory["now"]["total_bytes"].as_u64() > memory["now"]["free_bytes"].as_u64());
        for (uri, list) in [(NETWORK.uri, "interfaces"), (DISK.uri, "disks"), (INTERRUPTS.uri, "sources")] {
            let told = answer(uri);
            assert!(told["rates"][list].is_array() && told["since_boot"][list].is_array(), "{uri}: {told}");
            assert!(told["rates"]["window_ns"].as_u64() >= Some(200_000_000), "{uri}");
        }
    }

    #[test]
    fn rows_are_as_many_as_were_asked_for() {
        let told = answer("stats://system/interrupts?limit=1");
        assert_eq!(told["since_boot"]["sources"].as_array().unwrap().len(), 1);
        assert!(told["sources_total"].as_u64() > Some(1));
        let state = crate::state::State::new(crate::Settings::default());
        for (uri, why) in [
            ("stats://system/cpu?limit=0", "use 1 to 512"),
            ("stats://system/cpu?limit=many", "limit (integer)"),
            ("stats://system/memory?colour=1", "colour"),
        ] {
            let told = read(&state, uri).unwrap_err().message;
            assert!(told.contains(why), "{uri}: {told}");
        }
    }
}
