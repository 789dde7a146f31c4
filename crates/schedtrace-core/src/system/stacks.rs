//! Where a task is in the kernel now: the functions that it is in while it sleeps.
//!
//! It is a look at a machine that runs. No event says it, so that no trace holds it. The kernel tells it to
//! `CAP_SYS_ADMIN`: a program that has given its privileges up asks a [`StackHelper`].

mod helper;

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::helper::{StackHelper, serve};
use super::processes::Stat;
use super::{read_text, syscall_name};
use crate::error::{Error, Result};

/// So often it is looked at a thread that ran meanwhile.
const ATTEMPTS: usize = 5;

/// A function of the kernel that a task is in.
///
/// ```
/// use schedtrace_core::system::stacks::KernelFrame;
/// let frame = KernelFrame::parse("[<0>] nfs_wait_bit_killable+0x11/0x60 [nfs]").unwrap();
/// assert_eq!((frame.function.as_str(), frame.module.as_deref()), ("nfs_wait_bit_killable", Some("nfs")));
/// assert_eq!((frame.offset_bytes, frame.size_bytes), (Some(0x11), Some(0x60)));
/// assert_eq!(KernelFrame::parse(""), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFrame {
    /// The function; its address where the kernel names none.
    pub function: String,
    /// How far into the function, in bytes. None where the kernel tells the function alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset_bytes: Option<u64>,
    /// How long the function is, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The module that the function is in; none of the kernel proper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

impl KernelFrame {
    /// Reads a line of `/proc/PID/stack`, such as `[<0>] do_nanosleep+0x6a/0x180`. None of an empty one.
    ///
    /// ```
    /// use schedtrace_core::system::stacks::KernelFrame;
    /// let frame = KernelFrame::parse("[<0>] do_nanosleep+0x6a/0x180").unwrap();
    /// assert_eq!((frame.function.as_str(), frame.offset_bytes), ("do_nanosleep", Some(0x6a)));
    /// ```
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        // The address is 0 since Linux 4.15; before it was told.
        let line = line.strip_prefix("[<").and_then(|rest| rest.split_once(">]")).map_or(line, |(_, rest)| rest);
        let mut words = line.split_ascii_whitespace();
        let place = words.next()?;
        let module = words.next().and_then(|word| word.strip_prefix('[')?.strip_suffix(']'));
        // `[nfs 3c1f...]`: with the id of its build, where the kernel is told to say it.
        let module = module.or_else(|| line.split_once(" [")?.1.strip_suffix(']')?.split_ascii_whitespace().next());
        let (function, offset, size) = match place.rsplit_once('+') {
            Some((function, at)) if !function.is_empty() => {
                let (offset, size) = at.split_once('/').map_or((at, None), |(offset, size)| (offset, Some(size)));
                (function, hex(offset), size.and_then(hex))
            }
            _ => (place, None, None),
        };
        Some(Self {
            function: function.to_owned(),
            offset_bytes: offset,
            size_bytes: size,
            module: module.map(str::to_owned),
        })
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Where a thread is in the kernel: the functions that it is in, and the system call that led there.
///
/// ```
/// use schedtrace_core::system::stacks::KernelStack;
/// assert!(!KernelStack::default().is_running());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStack {
    /// The thread's id.
    pub tid: u32,
    /// What it is called: text that it chose itself.
    pub comm: String,
    /// What it does, as [`TaskUse::state`](super::processes::TaskUse::state) says it: `S` sleeps, `R` runs or waits for a CPU.
    pub state: char,
    /// The system call that it is in. None where it is in none, or where it is not known which: of a program of 32 bits, or
    /// of a task that may not be looked into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<String>,
    /// The functions, the one that it sleeps in first. None while it runs: the kernel's answer is then of another moment.
    pub frames: Vec<KernelFrame>,
    /// Whether these are all functions, down to the first. Else it is the one that it sleeps in alone: all that is told
    /// without `CAP_SYS_ADMIN`, or by a kernel without `CONFIG_STACKTRACE`.
    pub is_whole: bool,
}

impl KernelStack {
    /// How many functions are told at the most, the innermost: the kernel tells 64.
    pub const MAX_FRAMES: usize = 128;

    /// Reads `proc/TID/task/TID/{stat,stack,wchan,syscall}` below `root` (`/`). While the thread runs, or waits for a CPU,
    /// there are no functions: they could change while they are told.
    ///
    /// ```
    /// use schedtrace_core::system::stacks::KernelStack;
    /// let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
    /// match KernelStack::read("/".as_ref(), child.id()) {
    ///     Ok(stack) if stack.is_running() => println!("{} runs", stack.comm),
    ///     Ok(stack) => println!("{} is in {:?}", stack.comm, stack.frames),
    ///     Err(error) => println!("{error}"),
    /// }
    /// child.kill()?;
    /// child.wait()?;
    /// assert!(KernelStack::read("/no/such/folder".as_ref(), 1).is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such thread, or if it sleeps and not even the function that it sleeps in is told: that
    /// needs `CAP_SYS_ADMIN`, unless it is a task of the same user.
    pub fn read(root: &Path, tid: u32) -> Result<Self> {
        Self::read_in(&root.join(format!("proc/{tid}/task/{tid}")), tid)
    }

    /// The same of the threads of a process below `root` (`/`): of at most `most`, those of the lowest ids, and how many
    /// there are. What ends meanwhile is left out.
    ///
    /// ```
    /// use schedtrace_core::system::stacks::KernelStack;
    /// match KernelStack::read_process("/".as_ref(), std::process::id(), 8) {
    ///     Ok((stacks, threads)) => assert!(stacks.len() <= 8 && stacks.len() <= threads),
    ///     // Without privileges, some of them may not be told.
    ///     Err(error) => println!("{error}"),
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such process, or none of its threads can be read, as of [`read`](Self::read).
    pub fn read_process(root: &Path, pid: u32, most: usize) -> Result<(Vec<Self>, usize)> {
        let folder = root.join(format!("proc/{pid}/task"));
        let entries = fs::read_dir(&folder).map_err(Error::io("cannot read", &folder))?;
        let mut tids: Vec<u32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).collect();
        tids.sort_unstable();
        let (mut stacks, mut failed) = (Vec::new(), None);
        for &tid in tids.iter().take(most) {
            match Self::read_in(&folder.join(tid.to_string()), tid) {
                Ok(stack) => stacks.push(stack),
                Err(error) => failed = Some(error),
            }
        }
        match failed.filter(|_| stacks.is_empty()) {
            Some(error) => Err(error),
            None => Ok((stacks, tids.len())),
        }
    }

    /// Whether it runs, or waits for a CPU: it is then in no function that it would stay in.
    ///
    /// ```
    /// use schedtrace_core::system::stacks::KernelStack;
    /// assert!(KernelStack { state: 'R', ..KernelStack::default() }.is_running());
    /// ```
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.state == 'R'
    }

    const fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// What ran meanwhile is looked at again, a few times: what sleeps again and again is seldom awake.
    fn read_in(folder: &Path, tid: u32) -> Result<Self> {
        let mut it = Self::read_once(folder, tid)?;
        for _ in 1..ATTEMPTS {
            // What sleeps is in some function: with none, it ran when the kernel looked.
            let is_told = !it.is_running() && !it.frames.is_empty() || it.has_ended();
            if is_told {
                break;
            }
            it = Self::read_once(folder, tid)?;
        }
        Ok(it)
    }

    fn read_once(folder: &Path, tid: u32) -> Result<Self> {
        let before = stat(folder)?;
        let text = read_text(&folder.join("stack"));
        let sleeps_in = read_text(&folder.join("wchan")).ok().filter(|name| !matches!(name.as_str(), "" | "0"));
        let call = read_text(&folder.join("syscall")).ok().and_then(|text| syscall(&text));
        // It may have run between two looks that find it asleep: what is told is then of a moment between them.
        let after = stat(folder)?;
        let state = if before.state == 'R' { 'R' } else { after.state };
        let mut it = Self { tid, comm: after.comm, state, ..Self::default() };
        if it.is_running() {
            return Ok(it);
        }
        it.syscall = call.map(str::to_owned);
        match (text, sleeps_in) {
            (Ok(text), _) => {
                it.frames = text.lines().filter_map(KernelFrame::parse).take(Self::MAX_FRAMES).collect();
                it.is_whole = true;
            }
            (Err(_), Some(function)) => it.frames = vec![KernelFrame { function, ..KernelFrame::default() }],
            // What has ended is nowhere.
            (Err(_), None) if it.has_ended() => it.is_whole = true,
            (Err(error), None) => return Err(Error::io("cannot read", folder.join("stack"))(advised(error))),
        }
        Ok(it)
    }
}

fn stat(folder: &Path) -> Result<Stat> {
    let path = folder.join("stat");
    let text = read_text(&path).map_err(Error::io("cannot read", &path))?;
    Stat::parse(&text).ok_or_else(|| {
        let why = io::Error::new(io::ErrorKind::InvalidData, "this is no line of a task");
        Error::io("cannot read", &path)(why)
    })
}

/// What to do about it.
fn advised(error: io::Error) -> io::Error {
    let advice = match error.kind() {
        // Not all that is asked for is refused, but this task.
        _ if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
            "this task may do more than this program: needs CAP_SYS_PTRACE, outside of a container"
        }
        io::ErrorKind::PermissionDenied => "needs CAP_SYS_ADMIN: run with sudo",
        io::ErrorKind::NotFound => "needs a kernel with CONFIG_STACKTRACE=y",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}; {advice}"))
}

/// The call that a line of `/proc/PID/syscall` tells: its number, six arguments, the stack and where the program is.
fn syscall(line: &str) -> Option<&'static str> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    // `running`, or `-1` and two addresses outside of any call.
    let [number, .., stack, _] = words.as_slice() else { return None };
    // A thread of the kernel has only zeros; a program of 32 bits has other numbers.
    hex(stack).filter(|stack| *stack > u64::from(u32::MAX))?;
    syscall_name(std::env::consts::ARCH, number.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::super::processes::tests::stat;
    use super::super::tests::write;
    use super::*;

    const SLEEPS: &str = "[<0>] hrtimer_nanosleep+0x74/0xf0\n[<0>] do_syscall_64+0x71/0x280\n";

    fn made(state: char, files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/7/task/7/stat", &stat(7, "a) b", state, 1, 2, 3, 0));
        files.iter().for_each(|(name, text)| write(root.path(), &format!("proc/7/task/7/{name}"), text));
        root
    }

    fn read(root: &tempfile::TempDir) -> KernelStack {
        KernelStack::read(root.path(), 7).unwrap()
    }

    #[test]
    fn what_sleeps_is_where_it_sleeps() {
        let call = "230 0x0 0x0 0x7ffd5f666c50 0x7ffd5f666c90 0x0 0x0 0x7ffd5f666c38 0x7f9dd6bf1503\n";
        let root = made('S', &[("stack", SLEEPS), ("wchan", "hrtimer_nanosleep"), ("syscall", call)]);
        let stack = read(&root);
        let functions: Vec<_> = stack.frames.iter().map(|frame| frame.function.as_str()).collect();
        assert_eq!(functions, ["hrtimer_nanosleep", "do_syscall_64"]);
        assert_eq!((stack.comm.as_str(), stack.state, stack.is_whole), ("a) b", 'S', true));
        assert_eq!(stack.syscall.as_deref(), syscall_name(std::env::consts::ARCH, 230));
    }

    #[test]
    fn what_runs_is_nowhere() {
        let stack = read(&made('R', &[("stack", SLEEPS), ("wchan", "0"), ("syscall", "running\n")]));
        assert!(stack.is_running() && stack.frames.is_empty() && stack.syscall.is_none(), "{stack:?}");
    }

    #[test]
    fn less_is_told_without_the_stack() {
        let stack = read(&made('S', &[("wchan", "do_wait")]));
        assert_eq!((stack.frames[0].function.as_str(), stack.is_whole), ("do_wait", false));
        for files in [&[][..], &[("wchan", "0")]] {
            let error = KernelStack::read(made('S', files).path(), 7).unwrap_err();
            assert!(error.to_string().contains("task/7/stack: "), "{error}");
        }
        assert!(read(&made('Z', &[])).frames.is_empty(), "it has ended");
        assert!(matches!(KernelStack::read(made('S', &[]).path(), 8), Err(Error::Io { .. })), "there is none");
        let denied = advised(io::Error::from_raw_os_error(13)).to_string();
        assert!(denied.contains("needs CAP_SYS_ADMIN: run with sudo"), "{denied}");
    }

    #[test]
    fn a_call_is_named_where_its_number_is_sure() {
        let of = |number: &str, stack: &str| syscall(&format!("{number} 0x3 0x1 0x2 0x3 0x4 0x5 {stack} 0x7f00"));
        assert_eq!(of("0", "0x7ffd5f666c38"), syscall_name(std::env::consts::ARCH, 0));
        assert_eq!(of("0", "0x0"), None, "a thread of the kernel");
        assert_eq!(of("3", "0xffffd010"), None, "32 bits");
        assert_eq!([syscall("running"), syscall("-1 0x7ffd5f666c38 0x7f9d"), syscall("")], [None; 3]);
    }

    #[test]
    fn a_process_has_its_threads() {
        let root = made('S', &[("stack", SLEEPS)]);
        for tid in [8, 9] {
            write(root.path(), &format!("proc/7/task/{tid}/stat"), &stat(tid, "t", 'R', 1, 2, 3, 0));
        }
        write(root.path(), "proc/7/task/10/nothing", "");
        let (stacks, threads) = KernelStack::read_process(root.path(), 7, 9).unwrap();
        assert_eq!((stacks.iter().map(|stack| stack.tid).collect::<Vec<_>>(), threads), (vec![7, 8, 9], 4));
        assert_eq!(KernelStack::read_process(root.path(), 7, 1).unwrap().0.len(), 1);
        assert!(KernelStack::read_process(root.path(), 11, 1).is_err());
    }

    #[test]
    fn a_child_that_waits_is_in_the_kernel() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let found = std::iter::repeat_with(|| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            KernelStack::read(Path::new("/"), child.id())
        });
        let is_there = |read: &Result<KernelStack>| {
            read.as_ref().map_or(true, |stack| {
                !stack.is_running() && stack.comm == "cat" && stack.syscall.as_deref() != Some("execve")
            })
        };
        let read = found.take(1_000).find(is_there);
        child.kill().unwrap();
        child.wait().unwrap();
        match read.unwrap() {
            Ok(stack) => {
                assert!(!stack.frames.is_empty(), "{stack:?}");
                assert!(stack.frames.iter().any(|frame| frame.function.contains("read")), "{stack:?}");
            }
            Err(error) => assert!(error.to_string().contains("run with sudo"), "{error}"),
        }
        assert!(KernelStack::read(Path::new("/"), child.id()).is_err(), "it is gone");
    }

    #[test]
    fn lines_of_every_kernel_are_read() {
        let frame = |line: &str| {
            let frame = KernelFrame::parse(line).unwrap();
            (frame.function, frame.offset_bytes, frame.module)
        };
        assert_eq!(frame("[<ffffffff8107b0a1>] do_wait+0x1c1/0x230"), ("do_wait".into(), Some(0x1c1), None));
        assert_eq!(frame("[<0>] f+0x1/0x2 [nfs 3c1f]"), ("f".into(), Some(1), Some("nfs".into())));
        assert_eq!(frame("[<0>] 0xffffffffc0a1b2c3"), ("0xffffffffc0a1b2c3".into(), None, None));
        assert_eq!(frame("a.cold+0x5/0x9"), ("a.cold".into(), Some(5), None));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_none(line in ".{0,60}", odd in "(\\[<|>\\]|\\+|/|0x|[0-9a-f]|\\[|\\]| |é){0,16}") {
            for text in [line, odd] {
                let _ = (KernelFrame::parse(&text), syscall(&text));
            }
        }
    }
}
