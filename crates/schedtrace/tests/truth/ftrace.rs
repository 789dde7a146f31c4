//! The same seconds as ftrace shows them: an instance of its own, read as text when it has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use schedtrace_core::{Context, Nanos};

/// What it records.
const EVENTS: [&str; 8] = [
    "sched_switch",
    "sched_waking",
    "sched_wakeup",
    "sched_wakeup_new",
    "sched_migrate_task",
    "sched_process_fork",
    "sched_process_exec",
    "sched_process_exit",
];

/// An event, as both sides show it. Tasks are told by their thread ids, idle ones by 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// `preempted` stands for the `+` behind the state, which is `R` then.
    Switch {
        prev: u32,
        next: u32,
        state: char,
        preempted: bool,
        prev_prio: u8,
        next_prio: u8,
    },
    Waking {
        current: u32,
        context: Context,
        task: u32,
        prio: u8,
        cpu: u16,
    },
    /// Ftrace alone: the task has been put on a run queue.
    Wakeup {
        task: u32,
        cpu: u16,
    },
    WakeupNew {
        current: u32,
        task: u32,
        prio: u8,
        cpu: u16,
    },
    Migrate {
        task: u32,
        prio: u8,
        from: u16,
        to: u16,
    },
    Fork {
        parent: u32,
        child: u32,
    },
    Exec {
        task: u32,
        old_tid: u32,
    },
    Exit {
        task: u32,
        group_dead: bool,
    },
}

impl What {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Switch { .. } => "sched_switch",
            Self::Waking { .. } => "sched_waking",
            Self::Wakeup { .. } => "sched_wakeup",
            Self::WakeupNew { .. } => "sched_wakeup_new",
            Self::Migrate { .. } => "sched_migrate_task",
            Self::Fork { .. } => "sched_process_fork",
            Self::Exec { .. } => "sched_process_exec",
            Self::Exit { .. } => "sched_process_exit",
        }
    }

    /// The tasks that it speaks of.
    pub fn tids(&self) -> [u32; 2] {
        match *self {
            Self::Switch { prev, next, .. } => [prev, next],
            Self::Waking { current, task, .. } | Self::WakeupNew { current, task, .. } => [current, task],
            Self::Wakeup { task, .. } | Self::Migrate { task, .. } | Self::Exit { task, .. } => [task, task],
            Self::Fork { parent, child } => [parent, child],
            Self::Exec { task, old_tid } => [task, old_tid],
        }
    }
}

/// Where and when, too. Ftrace prints microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub ts: Nanos,
    pub cpu: u16,
    /// Who was current there; ftrace alone tells it of every event.
    pub current: Option<u32>,
    pub what: What,
}

/// A recording by ftrace. What was made for it goes with it.
#[derive(Debug)]
pub struct Ftrace {
    instance: PathBuf,
    /// Where tracefs was mounted for it.
    mounted: Option<tempfile::TempDir>,
}

impl Ftrace {
    pub fn start() -> Self {
        let usual = Path::new("/sys/kernel/tracing");
        let mounted = (!usual.join("instances").exists()).then(|| {
            let dir = tempfile::tempdir().unwrap();
            let status = Command::new("mount").args(["-t", "tracefs", "none"]).arg(dir.path()).status().unwrap();
            assert!(status.success(), "tracefs cannot be mounted");
            dir
        });
        let tracefs = mounted.as_ref().map_or(usual, |dir| dir.path());
        let instance = tracefs.join(format!("instances/schedtrace-truth-{}", std::process::id()));
        let ftrace = Self { instance, mounted };
        fs::create_dir(&ftrace.instance).unwrap();
        ftrace.write("tracing_on", "0");
        ftrace.write("trace_clock", "mono");
        ftrace.write("buffer_size_kb", "16384");
        EVENTS.iter().for_each(|event| ftrace.write(&format!("events/sched/{event}/enable"), "1"));
        ftrace.write("tracing_on", "1");
        ftrace
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.instance.join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Ends it: all events of each CPU in the CPU's order.
    pub fn stop(self) -> Vec<Shown> {
        self.write("tracing_on", "0");
        let mut shown = Vec::new();
        for entry in fs::read_dir(self.instance.join("per_cpu")).unwrap() {
            let cpu = entry.unwrap().path();
            let stats = fs::read_to_string(cpu.join("stats")).unwrap();
            for line in stats.lines().filter(|line| line.contains("overrun:") || line.starts_with("dropped")) {
                assert!(line.ends_with(": 0"), "ftrace lost events of {}: {line}", cpu.display());
            }
            let text = String::from_utf8_lossy(&fs::read(cpu.join("trace")).unwrap()).into_owned();
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
            shown.extend(lines.map(|line| parse(line).unwrap_or_else(|| panic!("ftrace says `{line}`"))));
        }
        shown
    }
}

impl Drop for Ftrace {
    fn drop(&mut self) {
        let _ = fs::write(self.instance.join("tracing_on"), "0");
        let _ = fs::remove_dir(&self.instance);
        if let Some(dir) = &self.mounted {
            let _ = Command::new("umount").arg(dir.path()).status();
        }
    }
}

/// The number behind the last `name=`: names of tasks, which may hold anything, come before it.
fn number(text: &str, name: &str) -> Option<i64> {
    let at = text.rfind(&format!("{name}="))? + name.len() + 1;
    text[at..].split(|c: char| c != '-' && !c.is_ascii_digit()).next()?.parse().ok()
}

fn tid(text: &str, name: &str) -> Option<u32> {
    u32::try_from(number(text, name)?).ok()
}

fn cpu(text: &str, name: &str) -> Option<u16> {
    u16::try_from(number(text, name)?).ok()
}

/// Deadline tasks have -1, which fits no byte.
fn prio(text: &str, name: &str) -> Option<u8> {
    Some(u8::try_from(number(text, name)?).unwrap_or(u8::MAX))
}

/// `COMM-PID [CPU] FLAGS SECONDS: EVENT: FIELDS`
fn parse(line: &str) -> Option<Shown> {
    let (head, rest) = line.split_at(line.find(": sched_")?);
    let (event, fields) = rest[2..].split_once(": ")?;
    // Names may have spaces in them, and times are padded with them while a machine is young.
    let mut words = head.split_whitespace().rev();
    let (seconds, micros) = words.next()?.split_once('.')?;
    let ts = Nanos(seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1_000);
    let flags = words.next()?;
    let on = words.next()?.trim_matches(['[', ']']).parse().ok()?;
    let current: u32 = words.next()?.rsplit_once('-')?.1.parse().ok()?;
    let what = match event {
        "sched_switch" => {
            let (prev, next) = fields.split_at(fields.rfind(" ==> next_comm=")?);
            let state = &prev[prev.rfind("prev_state=")? + "prev_state=".len()..];
            What::Switch {
                prev: tid(prev, "prev_pid")?,
                next: tid(next, "next_pid")?,
                // Told by the exit state, too, of a task that ends: X if nobody waits for it, Z otherwise.
                state: if state == "Z" { 'X' } else { state.chars().next()? },
                preempted: state.ends_with('+'),
                prev_prio: prio(prev, "prev_prio")?,
                next_prio: prio(next, "next_prio")?,
            }
        }
        "sched_waking" => {
            let context = match flags.chars().nth(2)? {
                'Z' | 'z' => Context::Nmi,
                'H' | 'h' => Context::Hardirq,
                's' => Context::Softirq,
                _ => Context::Task,
            };
            let (task, prio) = (tid(fields, " pid")?, prio(fields, "prio")?);
            What::Waking { current, context, task, prio, cpu: cpu(fields, "target_cpu")? }
        }
        "sched_wakeup" => What::Wakeup { task: tid(fields, " pid")?, cpu: cpu(fields, "target_cpu")? },
        "sched_wakeup_new" => {
            let (task, prio) = (tid(fields, " pid")?, prio(fields, "prio")?);
            What::WakeupNew { current, task, prio, cpu: cpu(fields, "target_cpu")? }
        }
        "sched_migrate_task" => {
            let (task, prio) = (tid(fields, " pid")?, prio(fields, "prio")?);
            What::Migrate { task, prio, from: cpu(fields, "orig_cpu")?, to: cpu(fields, "dest_cpu")? }
        }
        "sched_process_fork" => {
            let (parent, child) = fields.split_at(fields.rfind(" child_comm=")?);
            What::Fork { parent: tid(parent, " pid")?, child: tid(child, " child_pid")? }
        }
        "sched_process_exec" => What::Exec { task: tid(fields, " pid")?, old_tid: tid(fields, " old_pid")? },
        "sched_process_exit" => {
            What::Exit { task: tid(fields, " pid")?, group_dead: fields.ends_with("group_dead=true") }
        }
        _ => return None,
    };
    Some(Shown { ts, cpu: on, current: Some(current), what })
}
