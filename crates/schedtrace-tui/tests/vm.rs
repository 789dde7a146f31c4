//! `schedtrace top` on a machine that changes under it: schedulers of sched_ext, CPUs and thousands of tasks that come and go.
//! In a virtual machine that `make vm-test` boots.
#![cfg(feature = "live")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod tty;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tty::{Setup, Terminal};

/// Of the folder that `scripts/vm-test.sh` shares with the machine.
const SCHEDTRACE: &str = "/run/out/schedtrace";
const SCHEDULER: &str = "/run/out/two_queues";

/// These tests take CPUs away, and give all tasks to another scheduler.
fn in_the_emulator() {
    assert!(std::env::var_os("SCHEDTRACE_VM").is_some(), "this needs a machine of its own: run scripts/vm-test.sh");
}

/// The screen of this machine as it runs.
fn top(arguments: &str) -> Terminal {
    let terminal = Setup::new().size(160, 50).running(&format!("{SCHEDTRACE} top {arguments}"));
    terminal.wait("who waited");
    terminal
}

fn leave(terminal: &Terminal) {
    terminal.keys(&["q"]);
    let screen = terminal.assert_left_as_it_was(0);
    assert!(!screen.contains("panicked"), "{screen}");
}

/// A scheduler that has every task wait in one of two queues; it goes with this.
struct Scheduler(Child);

impl Scheduler {
    fn start() -> Self {
        let mut scheduler = Command::new(SCHEDULER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(scheduler.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "it schedules\n");
        Self(scheduler)
    }

    /// Its standard input ends.
    fn stop(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn vm_a_scheduler_of_sched_ext_comes_and_goes_on_the_screen() {
    in_the_emulator();
    if !Path::new("/sys/kernel/sched_ext").exists() {
        println!("this kernel has no sched_ext: CONFIG_SCHED_CLASS_EXT, Linux 6.12");
        return;
    }
    let terminal = top("--events default,sched_ext");
    terminal.keys(&["9"]);
    let screen = terminal.wait("who schedules");
    assert!(!screen.contains("two_queues"), "{screen}");
    for _ in 0..2 {
        let scheduler = Scheduler::start();
        terminal.wait_until("the scheduler and both of its queues are shown", |screen| {
            let queue = |name: &str| screen.lines().any(|line| line.starts_with(name));
            screen.contains("two_queues") && queue("0x7 ") && queue("0x8 ")
        });
        scheduler.stop();
        terminal.wait_until("there is none, and no queue", |screen| {
            screen.contains("who schedules")
                && !screen.contains("two_queues")
                && screen.contains("no task went through")
        });
    }
    leave(&terminal);
}

/// Takes a CPU off line, or brings it back.
fn set_online(cpu: u16, online: bool) {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    std::fs::write(&path, if online { "1" } else { "0" }).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// How busy CPUs are, in percent, as the overview has it: a number, a bar, a percentage.
fn busy(screen: &str) -> Vec<(u16, u16)> {
    let mut cpus = Vec::new();
    for line in screen.lines().take_while(|line| !line.contains("who waited")) {
        let words: Vec<_> = line.split_whitespace().filter(|word| !"▁▂▃▄▅▆▇█".contains(word)).collect();
        for pair in words.windows(2) {
            if let (Ok(cpu), Some(Ok(percent))) = (pair[0].parse(), pair[1].strip_suffix('%').map(str::parse)) {
                cpus.push((cpu, percent));
            }
        }
    }
    cpus
}

/// Waits until a CPU is busy or idle, as a thread that spins there comes and goes.
fn assert_followed(terminal: &Terminal, cpu: u16) {
    let idle = |screen: &str| busy(screen).iter().any(|(of, percent)| *of == cpu && *percent < 50);
    terminal.wait_until(&format!("CPU {cpu} idles"), idle);
    let mut spinner = Command::new("taskset");
    let mut spinner =
        spinner.args(["-c", &cpu.to_string(), "sh", "-c", "while :; do :; done"]).spawn().expect("taskset");
    let is_busy = |screen: &str| busy(screen).iter().any(|(of, percent)| *of == cpu && *percent > 80);
    terminal.wait_until(&format!("CPU {cpu} is busy"), is_busy);
    let _ = spinner.kill();
    let _ = spinner.wait();
    terminal.wait_until(&format!("CPU {cpu} idles again"), idle);
}

#[test]
fn vm_cpus_come_and_go_under_the_screen() {
    in_the_emulator();
    let terminal = top("");
    for _ in 0..2 {
        set_online(7, false);
        // Its last switch was to its stopper, which nobody sees leave: it is not busy because of that.
        let is_gone = |screen: &str| {
            let told = busy(screen);
            told.iter().any(|(of, _)| *of == 6) && told.iter().all(|(of, _)| *of != 7)
        };
        terminal.wait_until("CPU 7 is off line", is_gone);
        // The others are followed, and it is when it is back.
        assert_followed(&terminal, 6);
        terminal.keys(&["3"]);
        terminal.wait("schedtrace cpus");
        set_online(7, true);
        terminal.keys(&["1"]);
        terminal.wait("schedtrace overview");
        assert_followed(&terminal, 7);
    }
    // The views that ask the machine, too.
    for view in ["cpus", "llcs", "power", "interrupts", "timeline"] {
        terminal.keys(&[":"]);
        terminal.wait(" :_ ");
        terminal.type_text(view);
        terminal.keys(&["Enter"]);
        terminal.wait(&format!("schedtrace {view}"));
        set_online(6, false);
        std::thread::sleep(Duration::from_secs(1));
        set_online(6, true);
        terminal.wait(&format!("schedtrace {view}"));
    }
    leave(&terminal);
}

/// What a process has of the memory, in MiB.
fn resident_mib(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// So many tasks that come, sleep, wake and go: some hundreds at a time.
fn crowd(tasks: u32) {
    let one = || std::thread::sleep(Duration::from_millis(20));
    let mut some = std::collections::VecDeque::new();
    for _ in 0..tasks {
        some.push_back(std::thread::Builder::new().name("one-of-many".into()).spawn(one).unwrap());
        if some.len() > 300 {
            some.pop_front().unwrap().join().unwrap();
        }
    }
    some.into_iter().for_each(|task| task.join().unwrap());
}

#[test]
fn vm_tasks_by_the_thousand_come_and_go() {
    in_the_emulator();
    let terminal = top("");
    let pid = terminal.child();
    // What it needs for any window.
    crowd(1000);
    terminal.wait("who waited");
    let before = resident_mib(&pid);
    let crowd = std::thread::spawn(|| crowd(5000));
    let views = ["2", "4", "5", "E", "6", "1"];
    let views = views.into_iter().zip(["tasks", "timeline", "latency", "events", "wakers", "overview"]);
    let (mut most, mut rounds) = (before, 0);
    for (key, view) in views.cycle() {
        terminal.keys(&[key]);
        terminal.wait(&format!("schedtrace {view}"));
        most = most.max(resident_mib(&pid));
        rounds += 1;
        if view == "overview" && crowd.is_finished() {
            break;
        }
    }
    crowd.join().unwrap();
    println!("{rounds} views while tasks came; {before} MiB before, {most} MiB at most");
    assert!(most < before + 256, "{before} MiB, then {most} MiB");
    let screen = terminal.wait_until("it is told whether events are missing", |screen| {
        screen.contains("no event is known to be missing") || screen.contains("events are missing")
    });
    assert!(screen.contains("live"), "{screen}");
    leave(&terminal);
}

#[test]
fn vm_what_is_lost_is_told() {
    in_the_emulator();
    let terminal = top("--ring-mb 1");
    // Nobody reads the rings meanwhile.
    terminal.kill("STOP");
    let ran = Command::new("hackbench").args(["-g", "4", "-l", "500"]).stdout(Stdio::null()).status().unwrap();
    assert!(ran.success());
    terminal.kill("CONT");
    terminal.wait("events are missing");
    terminal.wait_state("1 1 0");
    // In every view, and as long as it runs.
    terminal.keys(&["2"]);
    terminal.wait_until("the tasks, and what is missing", |screen| {
        screen.contains("schedtrace tasks") && screen.contains("events are missing")
    });
    leave(&terminal);
}
