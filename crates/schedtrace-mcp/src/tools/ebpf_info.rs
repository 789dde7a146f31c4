//! What BPF this machine gives.

use std::path::Path;

use schedtrace_core::live::inspect::{self, Feature, Support};
use schedtrace_core::system::kernel::KernelInfo;
use serde::Deserialize;
use serde_json::json;

use super::Tool;
use crate::answer::Answer;
use crate::call::Call;

pub(super) const INFO: Tool = Tool {
    name: "ebpf_info",
    title: "BPF on this machine",
    description: "The kernel, its distribution and its configuration, what BPF it has (ring buffers, arenas, task storage, \
        tp_btf, fentry, kprobes, sched_ext, JIT ...), and what this server may do with it: load, trace, inspect. Says how to \
        get what is missing.",
    takes: || json!({}),
    required: &[],
    tells: &[("kernel", "object"), ("features", "array"), ("rights", "object")],
    collects: false,
    destructive: false,
    call: info,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn info(call: &Call<'_>) -> Result<Answer, String> {
    let Nothing {} = call.arguments()?;
    let kernel = KernelInfo::read(Path::new("/")).map_err(|why| why.to_string())?;
    call.tell(0.1, "trying what this kernel has");
    // Only a server that may collect loads what it would collect with.
    let collects = call.state.collects();
    Ok(told(&kernel, &inspect::support(collects), collects))
}

fn told(kernel: &KernelInfo, support: &Support, collects: bool) -> Answer {
    let is = |wanted: Option<bool>| move |feature: &&Feature| feature.available == wanted;
    let names = |wanted| support.features.iter().filter(is(wanted)).map(|of| of.name).collect::<Vec<_>>().join(", ");
    let (missing, unknown) = (names(Some(false)), names(None));
    let distribution = kernel.distribution.as_ref().map(|of| format!(" ({})", of.name)).unwrap_or_default();
    let rights = match (support.rights.may_record, support.rights.may_inspect) {
        (true, true) => "this server may load BPF programs and look at those of others",
        (true, false) => "this server may load BPF programs, but not look at those of others",
        (false, true) => "this server may look at BPF programs, but not load any",
        (false, false) => "this server may neither load BPF programs nor look at those of others",
    };
    let list = |what: &str, names: &str| if names.is_empty() { String::new() } else { format!(" {what}: {names}.") };
    let (missing, unknown) = (list("Missing", &missing), list("Not known", &unknown));
    let machine = &kernel.machine;
    let answer =
        Answer::new(format!("Linux {}{distribution} on {machine}: {rights}.{missing}{unknown}", kernel.release))
            .read_now()
            .with("rights", &support.rights)
            .with("features", &support.features);
    let answer = match &support.recording {
        Some(recording) => answer.with(
            "recording",
            &json!({ "can_record": recording.can_record(), "checks": recording.checks }),
        ),
        None => answer.with(
            "recording",
            &json!({ "not_tried": "this server was started without `--collect`: `schedtrace doctor` says what can be recorded" }),
        ),
    };
    let answer = answer.with("kernel", kernel);
    let answer = if support.rights.may_inspect {
        answer.next("ebpf_map_dump", json!({}), "lists the BPF maps; the resource bpf://programs has the programs")
    } else {
        answer
    };
    if collects && support.rights.may_record {
        answer.next("enable_collection", json!({}), "records what the scheduler does")
    } else {
        answer.next("list_traces", json!({}), "what was recorded can be read without any rights")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, refusal};
    use super::*;
    use crate::Settings;
    use crate::state::State;
    use schedtrace_core::live::inspect::Rights;
    use serde_json::Value;

    #[test]
    fn what_is_missing_and_what_is_not_known_are_two_things() {
        let feature = |name, available| Feature { name, what: "", available, note: None };
        let rights = Rights {
            uid: 1000,
            cap_bpf: false,
            cap_perfmon: false,
            cap_sys_admin: false,
            of_machine: true,
            may_record: false,
            may_inspect: false,
            mend: Some("run with sudo".into()),
        };
        let features = vec![feature("arena", None), feature("kprobe", Some(false)), feature("btf", Some(true))];
        let support = Support { rights, features, recording: None };
        let kernel = KernelInfo { release: "6.12.0".into(), machine: "x86_64".into(), ..KernelInfo::default() };
        let told = told(&kernel, &support, false).finish().unwrap();
        assert_eq!(
            told["summary"],
            "Linux 6.12.0 on x86_64: this server may neither load BPF programs nor look at those of others. \
             Missing: kprobe. Not known: arena."
        );
        assert_eq!(
            (&told["rights"]["mend"], &told["next"][0]["tool"]),
            (&json!("run with sudo"), &json!("list_traces"))
        );
    }

    #[test]
    fn live_this_machine_is_told_within_the_budget() {
        for collect in [false, true] {
            let state = State::new(Settings { collect, ..Settings::default() });
            let told = answer(&state, "ebpf_info", &json!({}));
            assert!(told.get("cut_to_fit").is_none(), "{}", told["cut_to_fit"]);
            assert_eq!(told["recording"]["can_record"], if collect { json!(true) } else { Value::Null });
            assert_eq!(told["kernel"]["btf"], true);
        }
        let state = State::new(Settings::default());
        assert!(refusal(&state, "ebpf_info", &json!({"colour": 1})).contains("colour"));
    }
}
