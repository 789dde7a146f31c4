use std::time::Duration;

use proptest::prelude::*;
use schedtrace_core::Kind;

use super::*;
use crate::{Limits, tools};

const YAML: &str = include_str!("../../tests/fixtures/config.yaml");
const TOML: &str = include_str!("../../tests/fixtures/config.toml");

fn refused(plan: &Plan) -> Vec<&str> {
    plan.refused.iter().map(|refused| refused.key.as_str()).collect()
}

#[test]
fn the_published_configuration_is_accepted_as_it_stands() {
    let config = Config::from_yaml(YAML).unwrap();
    let plan = config.plan();
    let settings = &plan.settings;
    assert_eq!(settings.name.as_deref(), Some("kernel-diagnostic-bridge"));
    assert_eq!(settings.version.as_deref(), Some("1.0.0"));
    assert!(!settings.collect && !settings.daemon);
    assert_eq!(settings.probes.kinds, [Kind::Switch, Kind::BlockIssue]);
    let filters: Vec<_> = settings.probes.filters.iter().collect();
    assert_eq!(filters, [(Kind::Switch, "prev_pid != 0 && next_pid != 0"), (Kind::BlockIssue, "rwbs ~ '.*W.*'")]);
    assert_eq!(settings.probes.retention, Some(Duration::from_secs(72 * 3600)));
    assert_eq!(settings.limits, Limits { max_events_per_second: Some(50_000), ..Limits::default() });
    assert_eq!(settings.calls_per_second, Some(100.0));

    let uprobes =
        ["probes.uprobes[0] (libcudart.so:cudaLaunchKernel)", "probes.uprobes[1] (libcudart.so:cudaDeviceSynchronize)"];
    let asked = ["query_off_cpu_events", "resolve_causal_chain", "analyze_gpu_launch_latency"];
    let has = |name: &str| tools::names().any(|known| known == name);
    let missing = (0..3).filter(|at| !has(asked[*at])).map(|at| format!("tools[{at}] ({})", asked[at]));
    let expected: Vec<_> = uprobes.map(str::to_owned).into_iter().chain(missing).collect();
    assert_eq!(refused(&plan), expected);
    assert!(plan.refused.last().unwrap().why.contains("user probes"), "of the GPU tool: {plan:?}");
    let chosen: Vec<_> = settings.tools.iter().flatten().map(|tool| tool.name.as_str()).collect();
    assert_eq!(chosen, asked.into_iter().filter(|name| has(name)).collect::<Vec<_>>());
    let told: Vec<_> = plan.told.iter().map(|told| told.key.as_str()).collect();
    assert!(told.contains(&"storage.precision_ms"), "{told:?}");
    assert!(told.contains(&"probes.tracepoints[0] (sched:sched_switch).filter"), "{told:?}");
    assert!(!told.iter().any(|key| key.contains("tracepoints[1]")), "what it says of blocks is done: {told:?}");
}

#[test]
fn toml_says_the_same() {
    let (yaml, toml) = (Config::from_yaml(YAML).unwrap(), Config::from_toml(TOML).unwrap());
    assert_eq!(yaml, toml);
    assert_eq!(yaml.plan(), toml.plan());
}

/// What is in force reads back as the same, and nothing of it is refused.
fn reads_back(plan: &Plan) {
    let printed = plan.to_string();
    let again = Config::from_yaml(&printed).unwrap_or_else(|bad| panic!("{bad}: {printed}")).plan();
    assert_eq!(again.settings, plan.settings, "{printed}");
    assert_eq!(again.refused, [], "{printed}");
}

#[test]
fn what_is_printed_reads_back() {
    for text in [
        "",
        YAML,
        "collect: true\ndaemon: true\nkeep: /var/lib/a\naudit_log: /var/log/a b.jsonl\ntraces: [a, \"b\\nc\"]\nroots: [\"d: # e\"]",
        "server: { name: \"quotes \\\" and \\\\ and \\u2028, \\x07\" }\nstorage: { retention_hours: 0.37 }",
        "tools: []\nsecurity: { rate_limit_per_second: 0.1 }\nlimits: { max_duration_s: 7, max_bytes: 2000000, max_at_once: 9 }",
        "probes: { tracepoints: [{ name: softirq }, { name: block_rq_complete, filter: 'error != 0 and dev ~ \"^[sv]d\"' }] }",
        "tools: [{ name: analyze, description: \"- a: 'b' #\" }, { name: open_trace }]",
    ] {
        reads_back(&Config::from_yaml(text).unwrap().plan());
    }
    let printed = Config::from_yaml(YAML).unwrap().plan().to_string();
    for line in [
        "# `probes.uprobes[0] (libcudart.so:cudaLaunchKernel)` is refused: user probes are not there yet",
        "# `storage.precision_ms`:",
    ] {
        assert!(printed.lines().any(|printed| printed.starts_with(line)), "{printed}");
    }
}

#[test]
fn what_is_not_known_names_what_is_near_and_where_it_stands() {
    for (text, line, why) in [
        ("sever:\n  name: x\n", 1, "`sever`: do you mean `server`?"),
        ("server:\n  name: x\n  readonly: true\n", 3, "`server.readonly`: do you mean `server.read_only`?"),
        ("probes:\n  tracepoints:\n    - name: x\n      filtre: y\n", 4, "do you mean `probes.tracepoints[0].filter`?"),
        ("tools:\n  - nam: x\n", 2, "`tools[0].nam`"),
        ("tools:\n  - description: x\n", 2, "`tools[0].name` is missing"),
        ("server: [1]\n", 1, "`server` has to be keys with values, and it is a list"),
        ("server:\n  read_only: perhaps\n", 2, "true or false, and it is a text"),
        ("server:\n  version: 1.0\n", 2, "a text (in quotes), and it is a number"),
        ("storage:\n  retention_hours: -1\n", 2, "has to be a number above 0"),
        ("storage:\n  retention_hours: .nan\n", 2, "has to be a number above 0"),
        ("storage:\n  max_events_per_second: 1.5\n", 2, "a whole number above 0"),
        ("limits:\n  max_bytes: 0\n", 2, "above 0"),
        ("traces: here\n", 1, "`traces` has to be a list"),
        ("collect: yes\n", 1, "true or false"),
        ("- server\n", 1, "the file has to be keys with values"),
        ("collect: true\ncollect: false\n", 2, "was set before, in line 1"),
        ("collect: true\n---\ncollect: true\n", 2, "a second document"),
        ("collect: !!bool true\n", 1, "tags"),
        ("collect: *no\n", 1, ""),
        ("collect: [\n", 2, ""),
        ("a: &a [*a]\n", 1, "a part of"),
    ] {
        let bad = Config::from_yaml(text).unwrap_err();
        assert!(bad.line == line && bad.why.contains(why), "{text}: {bad}");
        assert!(!bad.to_string().contains('\n'));
    }
    for (text, line, why) in [
        ("collect = true\n[sever]\n", 2, "do you mean `server`?"),
        ("[server]\nread_only = 1\n", 2, "true or false, and it is a number"),
        ("[server]\n\nname = x\n", 3, ""),
        ("[limits]\nmax_bytes = 99999999999999999999\n", 2, ""),
        ("collect = 2026-11-22\n", 1, "date"),
        ("[[tools]]\nname = \"a\"\n[[tools]]\nschema = \"event\"\n", 3, "`tools[1].name` is missing"),
    ] {
        let bad = Config::from_toml(text).unwrap_err();
        assert!(bad.line == line && bad.why.contains(why), "{text}: {bad}");
        assert!(!bad.to_string().contains('\n'));
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (text, key, told) in [
        ("server: { transport: http }", "server.transport", "it is `stdio`"),
        ("storage: { backend: rows }", "storage.backend", "columnar"),
        ("security: { write_access: true }", "security.write_access", "no tool changes"),
        ("tools: [{ name: analyse }]", "tools[0] (analyse)", "do you mean `analyze`?"),
        ("tools: [{ name: analyze }, { name: analyze }]", "tools[1] (analyze)", "named before"),
        ("tools: [{ name: analyze, schema: metric }]", "tools[0].schema (analyze)", "events"),
        (
            "probes: { tracepoints: [{ name: \"sched:sched_swich\" }] }",
            "probes.tracepoints[0] (sched:sched_swich)",
            "do you mean `sched_switch`?",
        ),
        (
            "probes: { tracepoints: [{ name: \"tcp:tcp_probe\" }] }",
            "probes.tracepoints[0] (tcp:tcp_probe)",
            "not recorded",
        ),
        ("probes: { tracepoints: [{ name: irq, filter: irq = 3 }] }", "probes.tracepoints[0] (irq)", "one tracepoint"),
        (
            "probes: { tracepoints: [{ name: softirq_entry, filter: vek = 3 }] }",
            "probes.tracepoints[0] (softirq_entry).filter",
            "do you mean `vec`?",
        ),
        ("limits: { max_duration_s: 601 }", "limits.max_duration_s", "it is 600"),
        ("limits: { max_bytes: 1000 }", "limits.max_bytes", "below 1048576"),
        ("collect: true\nserver: { read_only: true }", "collect", "--collect"),
        ("daemon: true", "daemon", "collect: true"),
    ] {
        let plan = Config::from_yaml(text).unwrap().plan();
        assert_eq!(refused(&plan), [key], "{text}");
        assert!(plan.refused[0].to_string().contains(told), "{text}: {}", plan.refused[0]);
        reads_back(&plan);
    }
}

#[test]
fn flags_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.YML");
    std::fs::write(&file, "server: { read_only: true }\ntraces: [a, /b]\nroots: [c]\naudit_log: log\n").unwrap();
    let args = crate::Args { config: Some(file.clone()), ..crate::Args::default() };
    let settings = args.plan().unwrap().settings;
    assert_eq!(settings.traces, [folder.path().join("a"), "/b".into()]);
    assert_eq!((settings.roots, settings.audit_log), (vec![folder.path().join("c")], Some(folder.path().join("log"))));
    #[cfg(feature = "live")]
    {
        let args = crate::Args { collect: true, traces: vec!["x".into()], ..args };
        let settings = args.plan().unwrap().settings;
        assert!(settings.collect && settings.roots.is_empty());
        assert_eq!(settings.traces, [Path::new("x")]);
    }
}

#[test]
fn every_key_is_documented() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mcp-config.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let (_, block) = docs.split_once("```yaml\n").unwrap();
    let config = Config::from_yaml(block.split_once("```").unwrap().0).unwrap();
    let config = format!("{config:?}");
    assert!(!config.contains("None"), "a key is not in the list: {config}");
}

#[test]
fn files_are_read_by_their_ending_and_are_not_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str, text: &[u8]| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Config::load(&folder.path().join(name)).map_err(|bad| bad.to_string())
    };
    assert_eq!(load("a.toml", b"collect = true").unwrap().collect, Some(true));
    assert_eq!(load("a.yaml", b"collect: true").unwrap().collect, Some(true));
    assert!(load("a.json", b"{}").unwrap_err().contains("call it .yaml or .toml"));
    assert!(load("b.yaml", &[b'#'; 2 << 20]).unwrap_err().contains("larger than"));
    assert!(load("c.yaml", b"\xff\xfe").unwrap_err().contains("no text"));
    assert!(load("d.toml", b"a = 1").unwrap_err().contains("d.toml, line 1: no key is called `a`"));
    assert!(Config::load(&folder.path().join("none.yaml")).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn a_small_file_cannot_become_much() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for at in 1..9 {
        let refers = vec![format!("*a{}", at - 1); 10].join(", ");
        bomb += &format!("a{at}: &a{at} [{refers}]\n");
    }
    assert!(Config::from_yaml(&bomb).unwrap_err().why.contains("more than 10000 values"));
    let text = "x".repeat(900_000);
    for long in [
        format!("traces:\n- &a {text}\n{}", "- *a\n".repeat(9_000)),
        format!("a: &a {{ {text}: 1 }}\nb: [{}]\n", vec!["*a"; 9_000].join(", ")),
        format!("a: &a [{text}]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
    ] {
        let why = Config::from_yaml(&long).unwrap_err().why;
        assert!(why.contains("more than 4194304 bytes of text"), "{why}");
    }
    let keys = format!("a: &a {{ {} }}\n", (0..99).map(|at| format!("k{at}: 1")).collect::<Vec<_>>().join(", "));
    let many = format!("{keys}b: [{}]\n", vec!["*a"; 60].join(", "));
    assert!(Config::from_yaml(&many).unwrap_err().why.contains("more than 10000 values"), "keys are values as well");
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        for deep in [17, 100, 100_000] {
            let text = format!("a: {}{}", open.repeat(deep), close.repeat(deep));
            assert!(Config::from_yaml(&text).is_err());
        }
    }
    let deep: String = (0..5_000).map(|at| format!("{}a:\n", " ".repeat(at))).collect();
    assert!(Config::from_yaml(&deep).unwrap_err().why.contains("deep"));
    assert!(Config::from_toml(&format!("a = {}", "[".repeat(100_000))).is_err());
    assert!(Config::from_toml(&format!("{} = 1", vec!["a"; 100_000].join("."))).is_err());
    let anchored = "traces: &t [a, b]\nroots: *t\n";
    let config = Config::from_yaml(anchored).unwrap();
    assert_eq!(config.traces, config.roots);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = Config::from_yaml(&text);
        let _ = Config::from_toml(&text);
    }

    #[test]
    fn what_is_nearly_right_is_read_or_refused(at in 0usize..900, with in "[\\PC\n]{0,4}", cut in 0usize..30) {
        for text in [YAML, TOML] {
            let (begin, rest) = text.split_at(at.min(text.len()));
            let text = format!("{begin}{with}{}", rest.get(cut..).unwrap_or_default());
            if let Ok(config) = Config::from_yaml(&text) {
                reads_back(&config.plan());
            }
            if let Ok(config) = Config::from_toml(&text) {
                reads_back(&config.plan());
            }
        }
    }

    #[test]
    fn any_names_are_printed_so_that_they_read_back(
        name in any::<String>(), path in "[^\0]{1,20}", hours in 0.001f64..1e5, rate in 1e-3f64..1e6,
    ) {
        let config = Config {
            server: ConfigServer { name: Some(name.clone()), version: Some(name.clone()), ..ConfigServer::default() },
            tools: Some(vec![ConfigTool { name: "analyze".into(), description: Some(name), schema: None }]),
            storage: ConfigStorage { retention_hours: Some(hours), ..ConfigStorage::default() },
            security: ConfigSecurity { rate_limit_per_second: Some(rate), ..ConfigSecurity::default() },
            traces: vec![path.into()],
            ..Config::default()
        };
        reads_back(&config.plan());
    }
}
