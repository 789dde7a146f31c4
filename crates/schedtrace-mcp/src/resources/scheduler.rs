//! Which scheduler runs, and what it and the kernel count of it.

use std::path::Path;

use schedtrace_core::system::sched_ext::{Scheduler, SchedulerClass, ScxStats};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{JSON, Resource};
use crate::answer::Answer;
use crate::call::Call;
use crate::machine::root;

pub(super) const CURRENT: Resource = Resource {
    uri: "scheduler://current",
    name: "Current scheduler",
    description: "Which scheduler runs now: its name, its class (sched_ext or other), and its state.",
    mime_type: JSON,
    takes: || json!({}),
    collects: false,
    read: |call| {
        let Nothing {} = call.arguments()?;
        current(root()).map(Into::into)
    },
};

pub(super) const RAW: Resource = Resource {
    uri: "stats://scheduler/raw",
    name: "Statistics of the scheduler",
    description: "What a sched_ext scheduler that uses scx_stats tells of itself, as it gives it.",
    mime_type: JSON,
    takes: || json!({ "target": { "type": "string", "default": "top", "description": "What to ask the scheduler for; all have `top`." } }),
    collects: false,
    read: |call| raw(call, root()).map(Into::into),
};

pub(super) const SCX: Resource = Resource {
    uri: "stats://scheduler/scx",
    name: "The kernel's counts of sched_ext",
    description: "What the kernel counts of sched_ext: loads, rejected tasks, and its events while a scheduler is loaded.",
    mime_type: JSON,
    takes: || json!({}),
    collects: false,
    read: |call| {
        let Nothing {} = call.arguments()?;
        scx(root()).map(Into::into)
    },
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    target: Option<String>,
}

fn current(root: &Path) -> Result<Answer, String> {
    let scheduler = Scheduler::read(root).map_err(|why| why.to_string())?;
    let answer = Answer::new(scheduler.describe())
        .with("name", &scheduler.name)
        .with("class", &scheduler.class)
        .with("state", &scheduler.state)
        .with("sched_ext_supported", &scheduler.sched_ext_supported)
        .read_now();
    Ok(if scheduler.class == SchedulerClass::SchedExt {
        answer.next("query_stats", json!({ "uri": RAW.uri }), "what the scheduler tells of itself").next(
            "query_stats",
            json!({ "uri": SCX.uri }),
            "what the kernel counts of it",
        )
    } else {
        answer.next("query_stats", json!({ "stat_type": "cpu" }), "where to read how busy the CPUs are")
    })
}

fn raw(call: &Call<'_>, root: &Path) -> Result<Answer, String> {
    let asked: Raw = call.arguments()?;
    let target = asked.target.as_deref().unwrap_or("top");
    let scheduler = Scheduler::read(root).map_err(|why| why.to_string())?;
    // What runs says more than that there is no socket.
    let figures = ScxStats::at(root).stats(target).map_err(|why| format!("{} {why}", scheduler.describe()))?;
    let count = match &figures {
        Value::Object(fields) => fields.len(),
        _ => 1,
    };
    Ok(Answer::new(format!("The scheduler {} tells {count} figures under `{target}`.", scheduler.name))
        .with("scheduler", &scheduler.name)
        .with("target", target)
        .with("stats", &figures)
        .with("units", "as the scheduler defines them; times are mostly nanoseconds, and counts are since its last answer or its start")
        .read_now()
        .roomy()
        .next("query_stats", json!({ "uri": SCX.uri }), "what the kernel counts of the same scheduler"))
}

fn scx(root: &Path) -> Result<Answer, String> {
    let scheduler = Scheduler::read(root).map_err(|why| why.to_string())?;
    let counted = match scheduler.events.iter().max_by_key(|(_, count)| **count) {
        Some((name, count)) if *count > 0 => {
            format!(" The most frequent event is {name}: {count} times since it was loaded.")
        }
        _ => String::new(),
    };
    Ok(Answer::new(format!("{}{counted}", scheduler.describe())).with_all(&scheduler).read_now().next(
        "query_stats",
        json!({ "stat_type": "scheduler" }),
        "what else can be read of the scheduler",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::answer;
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let release = ("proc/sys/kernel/osrelease", "6.18.1");
        for (path, text) in files.iter().chain([&release]) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn this_machine_is_told() {
        let current = answer(CURRENT.uri);
        assert!(["sched_ext", "other"].contains(&current["class"].as_str().unwrap()), "{current}");
        let scx = answer(SCX.uri);
        assert_eq!((&scx["name"], &scx["state"]), (&current["name"], &current["state"]));
    }

    #[test]
    fn a_loaded_scheduler_is_told_with_its_events() {
        let root = folder(&[
            ("sys/kernel/sched_ext/state", "enabled"),
            ("sys/kernel/sched_ext/root/ops", "simple\u{1b}[2J"),
            ("sys/kernel/sched_ext/root/events", "SCX_EV_A 3\nSCX_EV_B 9\n"),
        ]);
        let current = current(root.path()).unwrap().finish().unwrap();
        assert_eq!((&current["class"], &current["name"]), (&json!("sched_ext"), &json!("simple\u{fffd}[2J")));
        assert_eq!(current["next"][0]["arguments"]["uri"], RAW.uri);
        let scx = scx(root.path()).unwrap().finish().unwrap();
        assert_eq!(scx["events"], json!({ "SCX_EV_A": 3, "SCX_EV_B": 9 }));
        assert!(scx["summary"].as_str().unwrap().contains("SCX_EV_B: 9 times"), "{scx}");
    }

    #[test]
    fn without_a_socket_it_says_what_runs() {
        let root = folder(&[]);
        let state = crate::state::State::new(crate::Settings::default());
        let told = raw(&Call::quiet(&state), root.path()).unwrap_err();
        assert!(told.contains("EEVDF") && told.contains("no scheduler serves statistics"), "{told}");
    }

    #[test]
    fn figures_of_a_scheduler_come_as_it_gives_them() {
        use std::io::{BufRead, BufReader, Write};
        let root = folder(&[("var/run/scx/root/x", "")]);
        let listener = std::os::unix::net::UnixListener::bind(root.path().join("var/run/scx/root/stats")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
            stream.write_all(b"{\"errno\":0,\"args\":{\"resp\":{\"nr\":7,\"name\":\"a\\u001bb\"}}}\n").unwrap();
        });
        let state = crate::state::State::new(crate::Settings::default());
        let told = raw(&Call::quiet(&state), root.path()).unwrap().finish().unwrap();
        assert_eq!(told["stats"], json!({ "nr": 7, "name": "a\u{fffd}b" }));
    }
}
