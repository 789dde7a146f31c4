//! Who stays privileged, and does nothing else than to tell where tasks are in the kernel.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::KernelStack;
use crate::error::{Error, Result};

/// No request is longer, in bytes.
const MAX_REQUEST: u64 = 64;
/// Of so many threads it is told at the most where they are.
const MAX_THREADS: usize = 1_024;
/// No answer is longer, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
enum Answer {
    Stacks { stacks: Vec<KernelStack>, threads: usize },
    Failed { why: String },
}

/// Answers the requests of a [`StackHelper`], line by line, until they end: what the program does that it starts.
///
/// ```
/// use schedtrace_core::system::stacks::serve;
/// let mut answers = Vec::new();
/// serve("/".as_ref(), &b"thread 1\n"[..], &mut answers)?;
/// assert!(answers.ends_with(b"\n"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// If requests cannot be read or answers cannot be written, or if something else than a request comes.
pub fn serve(root: &Path, mut requests: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    loop {
        let mut request = String::new();
        if requests.by_ref().take(MAX_REQUEST).read_line(&mut request)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = request.split_ascii_whitespace().collect();
        let number = |word: &str| word.parse::<u32>().map_err(|_| unasked());
        let read = match words.as_slice() {
            ["thread", tid] => KernelStack::read(root, number(tid)?).map(|stack| (vec![stack], 1)),
            ["process", pid, most] => {
                let most = usize::try_from(number(most)?).unwrap_or(MAX_THREADS).min(MAX_THREADS);
                KernelStack::read_process(root, number(pid)?, most)
            }
            _ => return Err(unasked()),
        };
        let answer = match read {
            Ok((stacks, threads)) => Answer::Stacks { stacks, threads },
            Err(error) => Answer::Failed { why: error.to_string() },
        };
        serde_json::to_writer(&mut answers, &answer)?;
        answers.write_all(b"\n")?;
        answers.flush()?;
    }
}

fn unasked() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is no request for stacks")
}

/// A program that was started before privileges were given up, and that does nothing but [`serve`].
///
/// ```no_run
/// use std::process::Command;
/// use schedtrace_core::system::stacks::StackHelper;
/// // It calls `serve`, with its standard input and output.
/// let mut helper = StackHelper::start(&mut Command::new("/usr/lib/my-stacks"))?;
/// println!("{:?}", helper.read(1)?.frames);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct StackHelper {
    child: Child,
    /// None from when it is to end.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl StackHelper {
    /// Starts the program. It ends by itself when this is dropped, or when this process ends.
    ///
    /// ```
    /// use std::process::Command;
    /// use schedtrace_core::system::stacks::StackHelper;
    /// assert!(StackHelper::start(&mut Command::new("/no/such/program")).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let program = Path::new(command.get_program()).to_owned();
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = started.map_err(Error::io("cannot start", &program))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(answers)) => {
                Ok(Self { child, requests: Some(requests), answers: BufReader::new(answers) })
            }
            _ => Err(Error::io("cannot talk to", &program)(io::Error::other("it has no pipes"))),
        }
    }

    /// [`KernelStack::read`], there.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what it says, or if it does not answer any more.
    ///
    /// ```no_run
    /// # let mut command = std::process::Command::new("/usr/lib/my-stacks");
    /// # let mut helper = schedtrace_core::system::stacks::StackHelper::start(&mut command)?;
    /// println!("{:?}", helper.read(1)?.syscall);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn read(&mut self, tid: u32) -> Result<KernelStack> {
        let (mut stacks, _) = self.ask(&format!("thread {tid}\n"))?;
        stacks.pop().ok_or_else(|| silent("it told of nobody"))
    }

    /// [`KernelStack::read_process`], there; of 1,024 threads at the most.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what it says, or if it does not answer any more.
    ///
    /// ```no_run
    /// # let mut command = std::process::Command::new("/usr/lib/my-stacks");
    /// # let mut helper = schedtrace_core::system::stacks::StackHelper::start(&mut command)?;
    /// let (stacks, threads) = helper.read_process(1, 8)?;
    /// println!("{} of {threads}", stacks.len());
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn read_process(&mut self, pid: u32, most: usize) -> Result<(Vec<KernelStack>, usize)> {
        self.ask(&format!("process {pid} {}\n", most.min(MAX_THREADS)))
    }

    fn ask(&mut self, request: &str) -> Result<(Vec<KernelStack>, usize)> {
        let requests = self.requests.as_mut().ok_or_else(|| silent("it has ended"))?;
        requests.write_all(request.as_bytes()).map_err(silent)?;
        let mut line = String::new();
        self.answers.by_ref().take(MAX_ANSWER).read_line(&mut line).map_err(silent)?;
        match serde_json::from_str(&line) {
            Ok(Answer::Stacks { stacks, threads }) => Ok((stacks, threads)),
            Ok(Answer::Failed { why }) => Err(Error::Invalid(why)),
            Err(_) if line.is_empty() => Err(silent("it has ended")),
            Err(error) => Err(silent(error)),
        }
    }
}

fn silent(why: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("cannot ask where tasks are in the kernel: {why}; start this program anew"))
}

impl Drop for StackHelper {
    fn drop(&mut self) {
        // Its requests end, and with them it does; it is killed if it hangs in one.
        drop(self.requests.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::processes::tests::stat;
    use super::super::super::tests::write;
    use super::*;

    fn answered(requests: &str) -> (io::Result<()>, Vec<Answer>) {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/7/task/7/stat", &stat(7, "a \"b", 'S', 1, 2, 3, 0));
        write(root.path(), "proc/7/task/7/stack", "[<0>] do_wait+0x1/0x2\n");
        let mut answers = Vec::new();
        let served = serve(root.path(), requests.as_bytes(), &mut answers);
        let text = String::from_utf8(answers).unwrap();
        (served, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn each_request_has_an_answer() {
        let (served, answers) = answered("thread 7\nthread 8\nprocess 7 5\n");
        served.unwrap();
        let [Answer::Stacks { stacks, .. }, Answer::Failed { why }, Answer::Stacks { threads: 1, .. }] = &answers[..]
        else {
            panic!("{}", answers.len())
        };
        assert_eq!((stacks[0].comm.as_str(), stacks[0].frames[0].function.as_str()), ("a \"b", "do_wait"));
        assert!(why.contains("proc/8"), "{why}");
    }

    #[test]
    fn nothing_else_is_done() {
        for wrong in ["open /etc/shadow\n", "thread ../1\n", "thread\n", "\n", "process 7\n", "thread 99999999999\n"] {
            let (served, answers) = answered(wrong);
            assert!(served.is_err() && answers.is_empty(), "{wrong}");
        }
        assert!(answered(&"thread 7 ".repeat(99)).0.is_err(), "it is too long");
    }

    #[test]
    fn who_does_not_answer_says_so() {
        let mut helper = StackHelper::start(&mut Command::new("true")).unwrap();
        assert!(helper.read(1).unwrap_err().to_string().contains("cannot ask"));
        let mut helper = StackHelper::start(&mut Command::new("cat")).unwrap();
        assert!(helper.read_process(1, 3).is_err(), "this is no answer");
    }
}
