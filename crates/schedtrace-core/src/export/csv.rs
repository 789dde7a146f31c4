//! One line per event, as comma-separated values (RFC 4180), for whatever reads nothing else.
//!
//! | column | what it is |
//! |---|---|
//! | `ts_ns` | nanoseconds of `CLOCK_MONOTONIC` |
//! | `cpu` | where the kernel did it |
//! | `event` | the kernel's name of it |
//! | `tid`, `pid`, `comm` | whom it is about: who got the CPU, was woken, moved, created |
//! | `by_tid`, `by_pid`, `by_comm` | who left the CPU; who was current at the waking; who created |
//! | `state` | of who left the CPU, as `ps` prints it; `+` behind it for who was preempted in kernel code |
//! | `prio` | kernel priority of the first |
//! | `context` | in which a waking happened: `task`, `softirq`, `hardirq`, `nmi` |
//! | `from_cpu`, `to_cpu` | of a migration; for a waking, where the task ran last, and for a new task, where it waits |
//! | `details` | the other fields of an event beyond those that are recorded by default: `address=0x7f12 result=0` |
//!
//! A task whose identity was lost has a thread id beyond all that the kernel gives
//! ([`UNKNOWN_TID`](super::UNKNOWN_TID)). What does not apply is empty. Lines are in the order of time, but for those of events that came late.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::names::{Name, Names, Step, steps};
use crate::counted::Counted;
use crate::error::{Error, Result};
use crate::event::{Batch, Event, EventKind};
use crate::sink::Sink;
use crate::source::Meta;

/// The columns.
pub const COLUMNS: [&str; 15] = [
    "ts_ns", "cpu", "event", "tid", "pid", "comm", "by_tid", "by_pid", "by_comm", "state", "prio", "context",
    "from_cpu", "to_cpu", "details",
];

/// Writes events as comma-separated values.
///
/// ```
/// use schedtrace_core::export::csv::{COLUMNS, CsvWriter};
/// use schedtrace_core::{Meta, Sink};
///
/// let mut writer = CsvWriter::new(Vec::new());
/// writer.begin(&Meta::default())?;
/// writer.finish(&Meta::default())?;
/// assert_eq!(writer.bytes(), COLUMNS.join(",").len() as u64 + 1);
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Debug)]
pub struct CsvWriter<W: Write> {
    out: csv::Writer<Counted<W>>,
    path: PathBuf,
    names: Names,
}

/// The columns behind the first three.
#[derive(Default)]
struct Line {
    who: Option<Name>,
    by: Option<Name>,
    state: String,
    prio: Option<u8>,
    context: &'static str,
    from: Option<u16>,
    to: Option<u16>,
    details: String,
}

impl CsvWriter<BufWriter<File>> {
    /// Creates a file, or empties it.
    ///
    /// ```no_run
    /// use schedtrace_core::export::csv::CsvWriter;
    /// let mut writer = CsvWriter::create("events.csv")?;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if that is refused.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let file = File::create(&path).map_err(Error::io("cannot create", &path))?;
        Ok(Self { path: path.as_ref().to_owned(), ..Self::new(BufWriter::new(file)) })
    }
}

impl<W: Write> CsvWriter<W> {
    /// Writes into anything.
    ///
    /// ```
    /// use schedtrace_core::export::csv::CsvWriter;
    /// let writer = CsvWriter::new(std::io::stdout().lock());
    /// ```
    pub fn new(out: W) -> Self {
        let out = csv::Writer::from_writer(Counted::new(out));
        Self { out, path: "the table of events".into(), names: Names::default() }
    }

    /// How many bytes were written; all of them once the stream is finished.
    ///
    /// ```
    /// use schedtrace_core::export::csv::CsvWriter;
    /// assert_eq!(CsvWriter::new(Vec::new()).bytes(), 0);
    /// ```
    pub fn bytes(&self) -> u64 {
        self.out.get_ref().bytes
    }

    fn line(&self, event: &Event) -> Option<Line> {
        let who = |task| Some(self.names.of(task));
        let line = match event.kind {
            EventKind::Switch(switch) => Line {
                who: who(switch.next),
                by: who(switch.prev),
                state: format!("{}{}", switch.prev_state.letter(), if switch.preempted { "+" } else { "" }),
                prio: Some(switch.next_prio),
                ..Line::default()
            },
            EventKind::Waking(waking) => Line {
                who: who(waking.task),
                by: who(waking.current),
                prio: Some(waking.prio),
                context: waking.context.name(),
                from: Some(waking.prev_cpu.0),
                ..Line::default()
            },
            EventKind::WakeupNew(new) => Line {
                who: who(new.task),
                by: who(new.parent),
                prio: Some(new.prio),
                to: Some(new.target_cpu.0),
                ..Line::default()
            },
            EventKind::Migrate(migrate) => Line {
                who: who(migrate.task),
                prio: Some(migrate.prio),
                from: Some(migrate.from.0),
                to: Some(migrate.to.0),
                ..Line::default()
            },
            EventKind::Fork(fork) => Line { who: who(fork.child), by: who(fork.parent), ..Line::default() },
            EventKind::Exec(exec) => Line { who: who(exec.task), ..Line::default() },
            EventKind::Exit(exit) => Line { who: who(exit.task), ..Line::default() },
            EventKind::Free { task } | EventKind::Rename { task } => Line { who: who(task), ..Line::default() },
            // Nothing that the kernel did.
            EventKind::Snapshot(_) => return None,
            declared => {
                let fields = declared.kind().fields();
                let values = declared.values();
                // Whom it is about has columns of its own.
                let fields = fields.iter().zip(&*values).skip(usize::from(declared.task().is_some()));
                let details: Vec<_> = fields
                    .map(|(field, &value)| format!("{}={}", field.name, self.names.value(field.ty, value)))
                    .collect();
                Line {
                    who: declared.task().map(|task| self.names.of(task)),
                    details: details.join(" "),
                    ..Line::default()
                }
            }
        };
        Some(line)
    }

    fn event(&mut self, event: &Event) -> csv::Result<()> {
        let Some(line) = self.line(event) else { return Ok(()) };
        let number = |n: Option<u16>| n.map(|n| n.to_string()).unwrap_or_default();
        let who = |who: Option<Name>| {
            who.map_or_else(Default::default, |who| [who.tid.to_string(), who.tgid.to_string(), who.comm.to_string()])
        };
        let (prio, context) = (number(line.prio.map(u16::from)), line.context.to_owned());
        let rest = [line.state, prio, context, number(line.from), number(line.to), line.details];
        let head = [event.ts.0.to_string(), event.cpu.to_string(), event.kind.kind().name().to_owned()];
        self.out.write_record(head.into_iter().chain(who(line.who)).chain(who(line.by)).chain(rest))
    }

    fn failed(&self, error: csv::Error) -> Error {
        let io = match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => std::io::Error::other(format!("{other:?}")),
        };
        Error::io("cannot write", &self.path)(io)
    }
}

impl<W: Write> Sink for CsvWriter<W> {
    fn begin(&mut self, _: &Meta) -> Result<()> {
        self.out.write_record(COLUMNS).map_err(|error| self.failed(error))
    }

    fn batch(&mut self, batch: &Batch) -> Result<()> {
        let due = self.names.due(batch);
        for step in steps(&due, batch) {
            match step {
                Step::Task(task) => {
                    self.names.take(task);
                }
                Step::Event(event) | Step::Late(event) => {
                    self.event(event).map_err(|error| self.failed(error))?;
                    if let EventKind::Free { task } = event.kind {
                        self.names.free(task);
                    }
                }
            }
        }
        self.names.forget();
        Ok(())
    }

    fn finish(&mut self, _: &Meta) -> Result<()> {
        self.out.flush().map_err(Error::io("cannot write", &self.path))
    }
}
