//! `bpf://programs`: the BPF programs that are loaded, whoever loaded them.

use schedtrace_core::live::inspect::{self, Program, Programs};
use serde::Deserialize;
use serde_json::json;

use super::{Contents, JSON, Resource};
use crate::answer::Answer;
use crate::call::Call;
use crate::paging::fitting;
use crate::tools::rows;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

pub(super) const PROGRAMS: Resource = Resource {
    uri: "bpf://programs",
    name: "BPF programs",
    description: "The BPF programs that are loaded on this machine, the busiest first: runs and their time (where the kernel \
        counts them), where they are attached, the maps they use, who holds them. Takes `limit`, `cursor`, `type` and `name` \
        (a part of it) as a query.",
    mime_type: JSON,
    takes: || {
        json!({
            "limit": { "type": "integer" },
            "cursor": { "type": "integer" },
            "type": { "type": "string" },
            "name": { "type": "string" }
        })
    },
    collects: false,
    read,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    limit: Option<u64>,
    #[serde(default)]
    cursor: usize,
    #[serde(rename = "type")]
    ty: Option<String>,
    name: Option<String>,
}

fn read(call: &Call<'_>) -> Result<Contents, String> {
    let asked: Asked = call.arguments()?;
    let limit = rows("limit", asked.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let found = inspect::programs().map_err(|why| why.to_string())?;
    Ok(told(found, &asked, limit).into())
}

/// The part of the programs that was asked for.
fn told(mut found: Programs, asked: &Asked, limit: usize) -> Answer {
    found.sort_busiest_first();
    let (all, ours) = (found.programs.len(), found.programs.iter().filter(|program| program.is_schedtrace).count());
    let is_wanted = |program: &&Program| {
        asked.ty.as_ref().is_none_or(|ty| program.ty == *ty)
            && asked.name.as_ref().is_none_or(|name| program.name.contains(name.as_str()))
    };
    let matching: Vec<&Program> = found.programs.iter().filter(is_wanted).collect();
    let rest = matching.get(asked.cursor.min(matching.len())..).unwrap_or_default();
    let shown = &rest[..rest.len().min(limit)];
    let shown = &shown[..fitting(shown)];
    let next = asked.cursor + shown.len();
    let busiest = found.programs.first().filter(|program| program.runs.run_time_ns.0 > 0);
    let summary = match busiest {
        _ if !found.run_times_known => {
            "the kernel does not count their runs now (`sysctl kernel.bpf_stats_enabled=1` turns that on; each run then costs \
             some nanoseconds more)"
                .to_owned()
        }
        Some(program) => format!(
            "{} (id {}) has run longest: {} in {} runs",
            program.name, program.id, program.runs.run_time_ns, program.runs.run_count
        ),
        None => "none has run since they are counted".to_owned(),
    };
    let mut answer = Answer::new(format!("{all} BPF programs are loaded, {ours} of them schedtrace's; {summary}."))
        .read_now()
        .with("programs", shown)
        .with("shown", &shown.len())
        .with("matching", &matching.len())
        .with("loaded", &all)
        .with("run_times_known", &found.run_times_known)
        .with("holders_known", &found.holders_known);
    if next < matching.len() {
        answer = answer.with("next_cursor", &next);
    }
    if let Some(map) = shown.iter().find_map(|program| program.map_ids.first()) {
        answer = answer.next("ebpf_map_dump", json!({ "map": map.to_string() }), "reads a map that one of them uses");
    }
    answer.next("ebpf_info", json!({}), "what BPF this kernel gives, and what this server may do with it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::resources::tests::read;
    use crate::state::State;
    use schedtrace_core::Nanos;
    use schedtrace_core::live::inspect::Runs;

    fn some(count: u32) -> Programs {
        let program = |id: u32| Program {
            id,
            name: format!("program_{id}"),
            ty: if id.is_multiple_of(2) { "tracing".into() } else { "kprobe".into() },
            runs: Runs { run_count: u64::from(id), run_time_ns: Nanos(u64::from(id) * 100), ..Runs::default() },
            map_ids: vec![id + 1],
            ..Program::default()
        };
        Programs { run_times_known: true, holders_known: true, programs: (1..=count).map(program).collect() }
    }

    fn asked(cursor: usize) -> Asked {
        Asked { limit: None, cursor, ty: None, name: None }
    }

    #[test]
    fn pages_follow_each_other_from_the_busiest_on() {
        let (mut cursor, mut seen) = (0, Vec::new());
        loop {
            let page = told(some(100), &asked(cursor), 100).finish().unwrap();
            assert!(page.to_string().len() < crate::answer::BUDGET && page.get("cut_to_fit").is_none());
            seen.extend(page["programs"].as_array().unwrap().iter().map(|program| program["id"].as_u64().unwrap()));
            match page["next_cursor"].as_u64() {
                Some(next) => cursor = next as usize,
                None => break,
            }
        }
        assert_eq!(seen, (1..=100).rev().collect::<Vec<_>>());
        let past = told(some(3), &asked(7), 20).finish().unwrap();
        assert_eq!((&past["programs"], past.get("next_cursor")), (&json!([]), None));
    }

    #[test]
    fn a_summary_says_who_is_busiest_or_why_nobody_knows() {
        let page = told(some(3), &Asked { ty: Some("tracing".into()), ..asked(0) }, 20).finish().unwrap();
        assert!(
            page["summary"].as_str().unwrap().contains("program_3 (id 3) has run longest: 300ns in 3 runs"),
            "{page}"
        );
        assert_eq!((&page["matching"], &page["programs"][0]["name"]), (&json!(1), &json!("program_2")));
        let uncounted = Programs { run_times_known: false, ..some(3) };
        let page = told(uncounted, &Asked { name: Some("_1".into()), ..asked(0) }, 20).finish().unwrap();
        assert!(page["summary"].as_str().unwrap().contains("kernel.bpf_stats_enabled=1"), "{page}");
        assert_eq!((&page["matching"], &page["next"][0]["arguments"]), (&json!(1), &json!({"map": "2"})));
    }

    #[test]
    fn live_programs_of_this_machine_are_listed() {
        let state = State::new(Settings::default());
        let page = read(&state, "bpf://programs?limit=2").unwrap();
        assert!(page["programs"].as_array().unwrap().len() <= 2 && page["loaded"].is_u64(), "{page}");
        for (uri, told) in [("bpf://programs?limit=0", "use 1 to 100"), ("bpf://programs?colour=1", "colour")] {
            let wrong = read(&state, uri).unwrap_err();
            assert!(wrong.message.contains(told), "{uri}: {wrong:?}");
        }
    }
}
