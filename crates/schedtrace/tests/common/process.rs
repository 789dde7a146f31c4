//! The test's side of a measured process: starts it, reads the kernel's figures of its threads, opens its gates.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::procfs::{self, Reading, Rest};
use super::threads;

/// One thread, or one process of one thread, whose figures are known.
#[derive(Clone, Debug)]
pub struct Measured {
    pub name: String,
    pub tid: u32,
    /// What the kernel counted while it was recorded.
    pub theirs: Reading,
    /// The moment at which the kernel's figures hold, where that is not the end of the recording.
    pub until_ns: Option<u64>,
    before: Reading,
    rests: Rest,
}

impl Measured {
    /// Whether it is one of the many processes that a workload creates.
    pub fn is_child(&self) -> bool {
        self.name.starts_with("child ")
    }

    /// A process that began while it was recorded, and is not read yet.
    pub fn from_its_start(name: &str, tid: u32) -> Self {
        let (theirs, before) = (Reading::default(), Reading::default());
        Self { name: name.to_owned(), tid, theirs, until_ns: None, before, rests: Rest::Zombie(tid) }
    }
}

/// Reads the figures of those that rest now, and have not told them themselves.
pub fn read_at_rest(measured: &mut [Measured]) {
    let mut resting: Vec<&mut Measured> = measured.iter_mut().filter(|thread| thread.until_ns.is_none()).collect();
    let rests: Vec<Rest> = resting.iter().map(|thread| thread.rests).collect();
    for (thread, after) in resting.iter_mut().zip(procfs::settled(&rests)) {
        thread.theirs = after.since(thread.before);
    }
}

/// A workload that waits at its first gate.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Name, thread id, and figures before it worked.
    threads: Vec<(String, u32, Reading)>,
    /// What else it told: the first word of each line, and the others.
    told: BTreeMap<String, Vec<String>>,
}

impl Process {
    /// Starts a workload and reads the figures of its threads, which sleep.
    pub fn start(name: &str) -> Self {
        Self::of(threads::command(name))
    }

    /// The same of a command that becomes a workload.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, input, output, threads: vec![], told: BTreeMap::new() };
        loop {
            let line = process.line();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["thread", name, tid] => process.threads.push((name.into(), tid.parse().unwrap(), Reading::default())),
                ["ready"] => break,
                _ => process.keep(&line),
            }
        }
        let rests: Vec<Rest> = process.threads.iter().map(|&(_, tid, _)| Rest::Asleep(tid)).collect();
        process.threads.iter_mut().zip(procfs::settled(&rests)).for_each(|(thread, before)| thread.2 = before);
        process
    }

    /// The next thing it tells.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the workload ended early");
            if !line.trim().is_empty() {
                return line.trim().to_owned();
            }
        }
    }

    fn keep(&mut self, line: &str) {
        let mut words = line.split(' ').map(str::to_owned);
        if let Some(first) = words.next() {
            self.told.insert(first, words.collect());
        }
    }

    /// What it told in the line that began with this word.
    pub fn told(&self, first: &str) -> Option<&[String]> {
        self.told.get(first).map(Vec::as_slice)
    }

    /// The id of its thread with this name.
    pub fn tid(&self, name: &str) -> u32 {
        let thread = self.threads.iter().find(|(thread, ..)| thread == name);
        thread.unwrap_or_else(|| panic!("no thread is called {name}")).1
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Opens the first gate, and waits until all threads are at the second one or have ended.
    pub fn work(&mut self) -> Vec<Measured> {
        self.input.as_mut().unwrap().write_all(b"go\n").unwrap();
        let mut left = self.threads.len();
        let (mut children, mut ended) = (Vec::new(), Vec::new());
        let mut executor = None;
        while left > 0 {
            let line = self.line();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["done", _] => left -= 1,
                ["executed", name] => (left, executor) = (left - 1, Some(name.to_owned())),
                ["child", pid] => children.push(pid.parse().unwrap()),
                ["figures", name, ref figures @ ..] => {
                    let figures: Vec<u64> = figures.iter().map(|figure| figure.parse().unwrap()).collect();
                    ended.push((name.to_owned(), figures));
                }
                _ => self.keep(&line),
            }
        }
        // A thread that executed a program has taken the others' lives, and the id of the process.
        self.threads.retain(|(name, ..)| executor.as_ref().is_none_or(|executor| executor == name));
        let mut measured = Vec::new();
        for (name, tid, before) in &self.threads {
            let told = ended.iter().find(|(thread, _)| thread == name).map(|(_, figures)| figures.as_slice());
            let (theirs, until_ns) = match told {
                Some(&[at, cpu_ns, wait_ns, runs, voluntary, involuntary]) => {
                    (Reading { cpu_ns, wait_ns, runs, voluntary, involuntary }.since(*before), Some(at))
                }
                _ => (Reading::default(), None),
            };
            measured.push(Measured {
                name: name.clone(),
                tid: *tid,
                theirs,
                until_ns,
                before: *before,
                rests: Rest::Asleep(if executor.is_some() { self.child.id() } else { *tid }),
            });
        }
        // These began while they were recorded.
        measured.extend(children.into_iter().map(|pid| Measured::from_its_start(&format!("child {pid}"), pid)));
        read_at_rest(&mut measured);
        measured
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Opens the second gate; a workload that hangs is ended.
        drop(self.input.take());
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// A name that says nothing.
pub fn random_name() -> String {
    let mut bits = RandomState::new().build_hasher().finish();
    let mut letter = || {
        let letter = b'a' + (bits % 26) as u8;
        bits /= 26;
        char::from(letter)
    };
    (0..8).map(|_| letter()).collect()
}
