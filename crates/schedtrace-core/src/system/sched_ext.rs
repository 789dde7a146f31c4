//! Which scheduler runs, what the kernel counts of it, and what it tells of itself.
//!
//! A scheduler of sched_ext is a set of BPF programs; what the kernel says of it is in `/sys/kernel/sched_ext`
//! ([`Scheduler`]). Those that are written with the `scx_stats` library serve figures of their own on a socket
//! ([`ScxStats`]).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::read_text;
use crate::error::{Error, Result};

/// The class that most tasks are scheduled by.
///
/// ```
/// use schedtrace_core::system::sched_ext::SchedulerClass;
/// assert_eq!(serde_json::to_string(&SchedulerClass::SchedExt)?, "\"sched_ext\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerClass {
    /// BPF programs.
    SchedExt,
    /// The kernel's own.
    #[default]
    Other,
}

/// The scheduler that runs now.
///
/// ```
/// use schedtrace_core::system::sched_ext::Scheduler;
/// println!("{}", Scheduler::read("/".as_ref())?.describe());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Scheduler {
    /// What the scheduler of sched_ext calls itself; else `EEVDF` or `CFS`, the kernel's own.
    pub name: String,
    /// What it is made of.
    pub class: SchedulerClass,
    /// Whether this kernel can run a scheduler of sched_ext.
    pub sched_ext_supported: bool,
    /// What sched_ext does: `disabled`, `enabling`, `enabled` or `disabling`. None where the kernel has none.
    pub state: Option<String>,
    /// Whether all ordinary tasks are scheduled by it, and not only those that asked for `SCHED_EXT`.
    pub switch_all: Option<bool>,
    /// How often a scheduler was loaded since boot.
    pub enable_seq: Option<u64>,
    /// How many tasks were kept from `SCHED_EXT` by the scheduler.
    pub nr_rejected: Option<u64>,
    /// How often a CPU came or went since boot.
    pub hotplug_seq: Option<u64>,
    /// What the kernel counts while the scheduler is loaded, by the kernel's name of it; empty before Linux 6.15.
    pub events: BTreeMap<String, u64>,
}

impl Scheduler {
    /// Reads `sys/kernel/sched_ext` below `root` (`/`).
    ///
    /// ```
    /// use schedtrace_core::system::sched_ext::{Scheduler, SchedulerClass};
    /// let scheduler = Scheduler::read("/".as_ref())?;
    /// assert!(scheduler.sched_ext_supported || scheduler.class == SchedulerClass::Other);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if not even the kernel's release can be read.
    pub fn read(root: &Path) -> Result<Self> {
        let folder = root.join("sys/kernel/sched_ext");
        let text = |name: &str| read_text(&folder.join(name)).ok().filter(|text| !text.is_empty());
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        let state = text("state");
        // While none is loaded, the folder of the scheduler is not there; while one is being taken away, it is.
        let loaded = state.as_deref().is_some_and(|state| state != "disabled");
        let ops = text("root/ops").filter(|_| loaded);
        let (name, class) = match ops {
            Some(ops) => (ops, SchedulerClass::SchedExt),
            None => (own_class(root)?.to_owned(), SchedulerClass::Other),
        };
        Ok(Self {
            name,
            class,
            sched_ext_supported: state.is_some(),
            state,
            switch_all: number("switch_all").map(|all| all != 0),
            enable_seq: number("enable_seq"),
            nr_rejected: number("nr_rejected"),
            hotplug_seq: number("hotplug_seq"),
            events: text("root/events").map(|text| counters(&text)).unwrap_or_default(),
        })
    }

    /// Who schedules, in a sentence.
    ///
    /// ```
    /// use schedtrace_core::system::sched_ext::Scheduler;
    /// let scheduler = Scheduler { name: "EEVDF".into(), ..Scheduler::default() };
    /// assert_eq!(
    ///     scheduler.describe(),
    ///     "The kernel's own scheduler runs, EEVDF; this kernel has no sched_ext (CONFIG_SCHED_CLASS_EXT is off)."
    /// );
    /// ```
    #[must_use]
    pub fn describe(&self) -> String {
        let state = self.state.as_deref().unwrap_or_default();
        match (self.class, self.sched_ext_supported) {
            (SchedulerClass::SchedExt, _) => {
                let whom =
                    if self.switch_all == Some(false) { "tasks that asked for it" } else { "all ordinary tasks" };
                format!("The sched_ext scheduler {} is {state} and schedules {whom}.", self.name)
            }
            (SchedulerClass::Other, true) => {
                format!("The kernel's own scheduler runs, {}; sched_ext is {state}.", self.name)
            }
            (SchedulerClass::Other, false) => format!(
                "The kernel's own scheduler runs, {}; this kernel has no sched_ext (CONFIG_SCHED_CLASS_EXT is off).",
                self.name
            ),
        }
    }
}

/// The kernel's own class for ordinary tasks: EEVDF took the place of CFS in Linux 6.6.
fn own_class(root: &Path) -> Result<&'static str> {
    let path = root.join("proc/sys/kernel/osrelease");
    let release = read_text(&path).map_err(Error::io("cannot read", path))?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Ok(if version >= (6, 6) { "EEVDF" } else { "CFS" })
}

/// `scx_attr_events_show()` in `kernel/sched/ext.c`: a name and a number on each line.
fn counters(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, count) = line.split_once(char::is_whitespace)?;
        Some((name.trim_end_matches(':').to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// The socket on which a scheduler written with `scx_stats` serves its own figures.
///
/// A request and its answer are one line of JSON each. What the figures are called and mean is the scheduler's business:
/// [`meta`](Self::meta) gives what it says of them.
///
/// ```no_run
/// use schedtrace_core::system::sched_ext::ScxStats;
/// let stats = ScxStats::at("/".as_ref());
/// println!("{}", stats.stats("top")?);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ScxStats {
    socket: PathBuf,
    timeout: Duration,
}

/// What comes back.
#[derive(Deserialize)]
struct Answer {
    errno: i64,
    #[serde(default)]
    args: BTreeMap<String, Value>,
}

impl ScxStats {
    /// How many bytes an answer may have.
    pub const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
    /// How long a whole exchange may take, unless it is told otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(2);

    /// The socket where schedulers make it, `var/run/scx/root/stats` below `root` (`/`).
    ///
    /// ```
    /// use schedtrace_core::system::sched_ext::ScxStats;
    /// let told = ScxStats::at("/no/such/folder".as_ref()).stats("top").unwrap_err().to_string();
    /// assert!(told.contains("no scheduler serves statistics"));
    /// ```
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { socket: root.join("var/run/scx/root/stats"), timeout: Self::TIMEOUT }
    }

    /// How long a whole exchange may take, from a millisecond to an hour.
    ///
    /// ```
    /// use std::time::Duration;
    /// use schedtrace_core::system::sched_ext::ScxStats;
    /// let patient = ScxStats::at("/".as_ref()).timeout(Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.clamp(Duration::from_millis(1), Duration::from_secs(3_600));
        self
    }

    /// The figures of a target; every scheduler has `top`.
    ///
    /// ```no_run
    /// use schedtrace_core::system::sched_ext::ScxStats;
    /// let top = ScxStats::at("/".as_ref()).stats("top")?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] if no scheduler serves any, or it refuses, or answers what is no answer; [`Error::Io`] if it
    /// cannot be reached, or does not answer in time.
    pub fn stats(&self, target: &str) -> Result<Value> {
        self.ask(&json!({ "req": "stats", "args": { "target": target } }))
    }

    /// What the scheduler says of its figures: their types and what they mean.
    ///
    /// ```no_run
    /// use schedtrace_core::system::sched_ext::ScxStats;
    /// let meta = ScxStats::at("/".as_ref()).meta()?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`stats`](Self::stats).
    pub fn meta(&self) -> Result<Value> {
        self.ask(&json!({ "req": "stats_meta", "args": {} }))
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        let deadline = Instant::now() + self.timeout;
        let mut stream = self.connect().map_err(|error| self.unreachable(error))?;
        let line = self.exchange(&mut stream, request, deadline)?;
        let answer: Answer =
            serde_json::from_slice(&line).map_err(|_| self.refused("its answer is no line of JSON with an errno"))?;
        let figures = answer.args.into_iter().find(|(name, _)| name == "resp").map_or(Value::Null, |(_, value)| value);
        if answer.errno != 0 {
            let why: String = figures.to_string().chars().take(300).collect();
            return Err(self.refused(&format!("it answers with errno {}: {why}", answer.errno)));
        }
        Ok(figures)
    }

    /// A listener whose queue is full keeps whoever connects waiting: the time to send bounds that too.
    fn connect(&self) -> io::Result<UnixStream> {
        let address = SocketAddrUnix::new(&self.socket)?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(self.timeout))?;
        rustix::net::connect(&socket, &address)?;
        Ok(UnixStream::from(socket))
    }

    fn exchange(&self, stream: &mut UnixStream, request: &Value, deadline: Instant) -> Result<Vec<u8>> {
        let failed = |what| Error::io(what, &self.socket);
        stream.write_all(format!("{request}\n").as_bytes()).map_err(failed("cannot send a request to"))?;
        let mut line = Vec::new();
        let mut part = [0; 16 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed("no answer came in time from")(io::ErrorKind::TimedOut.into()));
            }
            stream.set_read_timeout(Some(left)).map_err(failed("cannot wait for"))?;
            let read = match stream.read(&mut part) {
                Ok(0) => return Err(self.refused("it hung up before its answer was complete")),
                Ok(read) => &part[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(failed("cannot read the answer of")(error)),
            };
            let end = read.iter().position(|&byte| byte == b'\n');
            line.extend_from_slice(&read[..end.unwrap_or(read.len())]);
            if line.len() > Self::MAX_ANSWER_BYTES {
                return Err(self.refused("its answer is larger than 4 MiB"));
            }
            if end.is_some() {
                return Ok(line);
            }
        }
    }

    fn unreachable(&self, error: io::Error) -> Error {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::NotFound => Error::Invalid(format!(
                "no scheduler serves statistics: there is no {socket}, so no scheduler of sched_ext runs, or one that does \
                 not use scx_stats; start one, or read what the kernel counts in /sys/kernel/sched_ext"
            )),
            io::ErrorKind::ConnectionRefused => Error::Invalid(format!(
                "no scheduler serves statistics: nobody listens on {socket} any more; start the scheduler again"
            )),
            io::ErrorKind::WouldBlock => {
                Error::io("no answer came in time from", &self.socket)(io::ErrorKind::TimedOut.into())
            }
            _ => Error::io("cannot connect to", &self.socket)(error),
        }
    }

    fn refused(&self, why: &str) -> Error {
        Error::Invalid(format!(
            "the scheduler behind {} gives no statistics: {why}; ask for the target `top`, which every scheduler has",
            self.socket.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    fn folder(release: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/sys/kernel/osrelease", release);
        root
    }

    #[test]
    fn a_kernel_without_sched_ext_says_so() {
        for (release, name) in [("6.5.9-x\n", "CFS"), ("6.6\n", "EEVDF"), ("7.0.1-rc1\n", "EEVDF"), ("v5.10\n", "CFS")]
        {
            let scheduler = Scheduler::read(folder(release).path()).unwrap();
            assert_eq!((scheduler.name.as_str(), scheduler.class), (name, SchedulerClass::Other), "{release}");
            assert!(!scheduler.sched_ext_supported && scheduler.state.is_none());
            assert!(scheduler.describe().contains("no sched_ext"), "{}", scheduler.describe());
        }
        let nothing = tempfile::tempdir().unwrap();
        assert!(Scheduler::read(nothing.path()).is_err());
    }

    #[test]
    fn a_loaded_scheduler_is_read_with_its_counters() {
        let root = folder("6.18.0");
        let set = |name: &str, text: &str| write(root.path(), &format!("sys/kernel/sched_ext/{name}"), text);
        set("state", "disabled\n");
        set("enable_seq", "2\n");
        set("root/ops", "going\n");
        let idle = Scheduler::read(root.path()).unwrap();
        assert_eq!((idle.name.as_str(), idle.sched_ext_supported, idle.enable_seq), ("EEVDF", true, Some(2)));
        assert_eq!(idle.describe(), "The kernel's own scheduler runs, EEVDF; sched_ext is disabled.");

        set("state", "enabled\n");
        set("switch_all", "1\n");
        set("nr_rejected", "7\n");
        set("hotplug_seq", "1\n");
        set("root/ops", "simple_1.0\n");
        set("root/events", "SCX_EV_SELECT_CPU_FALLBACK 12\nSCX_EV_BYPASS_DURATION: 5\nnonsense\n");
        let scheduler = Scheduler::read(root.path()).unwrap();
        assert_eq!((scheduler.name.as_str(), scheduler.class), ("simple_1.0", SchedulerClass::SchedExt));
        assert_eq!(
            (scheduler.switch_all, scheduler.nr_rejected, scheduler.hotplug_seq),
            (Some(true), Some(7), Some(1))
        );
        assert_eq!(scheduler.events.len(), 2);
        assert_eq!(scheduler.events["SCX_EV_BYPASS_DURATION"], 5);
        assert_eq!(
            scheduler.describe(),
            "The sched_ext scheduler simple_1.0 is enabled and schedules all ordinary tasks."
        );
        set("switch_all", "0\n");
        assert!(Scheduler::read(root.path()).unwrap().describe().ends_with("schedules tasks that asked for it."));
    }

    #[test]
    fn this_machine_is_read() {
        let scheduler = Scheduler::read("/".as_ref()).unwrap();
        assert_eq!(scheduler.sched_ext_supported, Path::new("/sys/kernel/sched_ext/state").exists());
        assert!(!scheduler.name.is_empty());
    }

    /// A socket where a scheduler would make it, whose one client is answered by `serve`.
    fn served(serve: impl FnOnce(String, UnixStream) + Send + 'static) -> (tempfile::TempDir, ScxStats) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("var/run/scx/root");
        std::fs::create_dir_all(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("stats")).unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            serve(line, stream);
        });
        let stats = ScxStats::at(root.path());
        (root, stats)
    }

    fn says(answer: impl Into<Vec<u8>>) -> String {
        let answer = answer.into();
        let (_root, stats) = served(move |_, mut stream| drop(stream.write_all(&answer)));
        stats.stats("top").unwrap_err().to_string()
    }

    #[test]
    fn figures_come_as_the_scheduler_gives_them() {
        let (_root, stats) = served(|request, mut stream| {
            let request: Value = serde_json::from_str(&request).unwrap();
            assert_eq!(request, json!({ "req": "stats", "args": { "target": "layers" } }));
            // In pieces, as a large answer comes.
            for piece in ["{\"errno\":0,\"args\":{\"resp\":", "{\"nr\":7,\"doms\":{\"0\":", "1.5}}}}\nmore"] {
                stream.write_all(piece.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        assert_eq!(stats.stats("layers").unwrap(), json!({ "nr": 7, "doms": { "0": 1.5 } }));
        let (_root, stats) = served(|request, mut stream| {
            assert!(request.contains("stats_meta"));
            stream.write_all(b"{\"errno\":0,\"args\":{}}\n").unwrap();
        });
        assert_eq!(stats.meta().unwrap(), Value::Null);
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let told = says("{\"errno\":22,\"args\":{\"resp\":\"unknown target\"}}\n");
        assert!(told.contains("errno 22: \"unknown target\"") && told.contains("`top`"), "{told}");
        for answer in ["[]\n", "nonsense\n", "{\"args\":{}}\n", "\n"] {
            assert!(says(answer).contains("no line of JSON"), "{answer}");
        }
        assert!(says([b'[', b'\xff', b'\n']).contains("no line of JSON"));
        assert!(says("{\"errno\":0").contains("hung up"));
        assert!(says(vec![b'['; ScxStats::MAX_ANSWER_BYTES + 1]).contains("larger than 4 MiB"));
        let deep = format!("{{\"errno\":0,\"args\":{{\"resp\":{}}}}}\n", "[".repeat(100_000));
        assert!(says(deep).contains("no line of JSON"));
    }

    #[test]
    fn whoever_is_silent_is_not_waited_for() {
        let (_root, stats) = served(|_, stream| {
            std::thread::sleep(Duration::from_secs(60));
            drop(stream);
        });
        let told = stats.timeout(Duration::from_millis(50)).stats("top").unwrap_err().to_string();
        assert!(told.starts_with("no answer came in time from "), "{told}");

        // Nobody accepts, and the queue is full.
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("var/run/scx/root")).unwrap();
        let path = root.path().join("var/run/scx/root/stats");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let stats = ScxStats::at(root.path()).timeout(Duration::from_millis(50));
        assert!(stats.stats("top").unwrap_err().to_string().starts_with("no answer came in time from "));
    }

    #[test]
    fn without_a_socket_it_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let told = ScxStats::at(root.path()).stats("top").unwrap_err().to_string();
        assert!(told.contains("no scheduler of sched_ext runs"), "{told}");
        let (root, stats) = served(|_, _| {});
        let socket = root.path().join("var/run/scx/root/stats");
        std::fs::remove_file(&socket).unwrap();
        drop(UnixListener::bind(&socket).unwrap());
        assert!(stats.stats("top").unwrap_err().to_string().contains("nobody listens"));
        assert!(stats.clone().timeout(Duration::ZERO).stats("top").is_err(), "no time at all is a millisecond");
        assert!(stats.timeout(Duration::MAX).stats("top").is_err());
        let long = root.path().join("x".repeat(200));
        assert!(ScxStats::at(&long).stats("top").unwrap_err().to_string().starts_with("cannot connect to "));
    }
}
