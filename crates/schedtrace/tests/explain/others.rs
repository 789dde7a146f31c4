//! What other tracers say of the same seconds: perf sched, and runqlat of the libbpf tools.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// What perf says of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerfRow {
    pub switches: u64,
    pub mean_ns: u64,
    pub max_ns: u64,
}

/// A tracer at work; ends when it goes out of scope.
#[derive(Debug)]
struct Tracer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Tracer {
    /// Starts it, and waits until it prints something: then it records.
    fn start(command: &mut Command) -> Result<Self, String> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut tracer = Self { child, output };
        let mut line = String::new();
        tracer.output.read_line(&mut line).map_err(|error| error.to_string())?;
        if line.is_empty() {
            let mut errors = String::new();
            let _ = std::io::Read::read_to_string(&mut tracer.child.stderr.take().unwrap(), &mut errors);
            return Err(format!("{} does not record: {}", command.get_program().display(), errors.trim()));
        }
        Ok(tracer)
    }

    /// Ends it as Ctrl-C does; what it printed since.
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut text).unwrap();
        self.child.wait().unwrap();
        text
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `perf sched record` records, but for the event of a wakeup: it prefers `sched_waking` where there is one, of
/// which `perf sched latency` of Linux 6.1 knows nothing. So that version would count the waits of preempted threads
/// alone.
const PERF: [&str; 5] =
    ["sched_switch", "sched_stat_runtime", "sched_wakeup", "sched_wakeup_new", "sched_migrate_task"];

/// `perf sched record`.
#[derive(Debug)]
pub struct Perf {
    tracer: Tracer,
    dir: tempfile::TempDir,
}

impl Perf {
    pub fn start() -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("perf");
        command.args(["record", "-a", "-R", "-c", "1", "-m", "4096", "-o"]).arg(dir.path().join("perf.data"));
        command.args(PERF.iter().flat_map(|event| ["-e".to_owned(), format!("sched:{event}")]));
        // It starts this when it records; it ends with our end of its input, even if perf is killed.
        let tracer = Tracer::start(command.args(["--", "sh", "-c", "echo begun; exec cat >/dev/null"]))?;
        Ok(Self { tracer, dir })
    }

    /// Ends it: what `perf sched latency` prints.
    pub fn stop(self) -> Result<String, String> {
        self.tracer.stop();
        let mut command = Command::new("perf");
        command.args(["sched", "latency", "-p", "-i"]).arg(self.dir.path().join("perf.data"));
        let output = command.output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(said) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}

/// The row of a thread in what perf printed.
///
/// `  name:tid              |    100.390 ms |       31 | avg:   7.672 ms | max:  15.993 ms | ...`
pub fn perf_row(said: &str, tid: u32) -> Option<PerfRow> {
    let rows = said.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row[0].ends_with(&format!(":{tid}")))?;
    let ns = |column: &str| {
        let ms = column.split_ascii_whitespace().find_map(|word| word.parse::<f64>().ok());
        (ms.unwrap() * 1e6).round() as u64
    };
    Some(PerfRow { switches: row[2].parse().unwrap(), mean_ns: ns(row[3]), max_ns: ns(row[4]) })
}

/// `runqlat`.
#[derive(Debug)]
pub struct Runqlat(Tracer);

/// A thread's waits, in powers of two of microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// From, to, how many.
    pub slots: Vec<(u64, u64, u64)>,
}

impl Histogram {
    pub fn count(&self) -> u64 {
        self.slots.iter().map(|slot| slot.2).sum()
    }

    /// All waits together are at least and at most so long.
    pub fn total_ns(&self) -> (u64, u64) {
        let sum = |of: fn(&(u64, u64, u64)) -> u64| self.slots.iter().map(|slot| of(slot) * slot.2 * 1000).sum();
        (sum(|slot| slot.0), sum(|slot| slot.1 + 1))
    }
}

impl Runqlat {
    /// Of one process, thread by thread.
    pub fn start(process: u32) -> Result<Self, String> {
        // A line at a time, so that the first one is seen at once.
        let mut command = Command::new("stdbuf");
        Tracer::start(command.args(["-oL", "runqlat", "-L", "-p", &process.to_string()])).map(Self)
    }

    pub fn stop(self) -> String {
        self.0.stop()
    }
}

/// The histogram of a thread in what runqlat printed.
///
/// ```text
/// tid = 75 name
///      usecs               : count    distribution
///          0 -> 1          : 0        |                    |
/// ```
pub fn histogram(said: &str, tid: u32) -> Option<Histogram> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with(&format!("tid = {tid} ")));
    lines.next()?;
    let slot = |line: &str| {
        let (from, rest) = line.split_once("->")?;
        let (to, rest) = rest.split_once(':')?;
        let count = rest.split_ascii_whitespace().next()?;
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?, count.parse().ok()?))
    };
    Some(Histogram { slots: lines.skip(1).map_while(slot).collect() })
}
