//! `schedtrace record`

mod continuous;

use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::{Access, AtFlags, CWD};
use schedtrace_core::export::perfetto::PerfettoWriter;
use schedtrace_core::flight::{FlightHandle, FlightOptions, FlightRecorder};
use schedtrace_core::live::{Collector, Stopper};
use schedtrace_core::system::procfs;
use schedtrace_core::trace::{TraceWriter, WriterOptions};
use schedtrace_core::{Batch, Error, Kind, Meta, Nanos, OnFull, Pipeline, Sink, Source, Summary};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::args::RecordArgs;
use crate::privilege::{self, User};
use crate::{FAILURE, Failure, events, flight, repair, units};

/// As shells have it: the command to run was found, but cannot be run, or was not found.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How often the line of progress changes, where there is one.
const TICK: Duration = Duration::from_millis(100);
/// So many signals may wait to be looked at.
const SIGNALS: usize = 16;

pub(crate) fn run(args: &RecordArgs) -> Result<ExitCode, Failure> {
    if args.collect.asks_for_help() {
        return events::help().map(|()| ExitCode::SUCCESS);
    }
    if args.continuous {
        return continuous::run(args);
    }
    let command = args.command.split_first().map(|(program, rest)| find(program).map(|path| (path, rest)));
    let command = command.transpose()?;
    let in_flight = args.flight.options();
    let output = args.output.clone().unwrap_or_else(|| default_output(in_flight.is_some()));
    let options = WriterOptions {
        max_bytes: args.max_size.map(|size| size.as_u64()),
        max_age: (!args.max_age.is_zero()).then_some(args.max_age),
        ..WriterOptions::default()
    };
    options.check()?;
    in_flight.as_ref().map(FlightOptions::check).transpose()?;
    let loaded = args.collect.builder().load()?;

    // What belongs to somebody is worked on with what that one may do.
    let user = privilege::invoking_user(args.collect.user.as_deref())?;
    match &user {
        Some(user) => user.act(|| repair::left_over_beside(&output))?,
        None => repair::left_over_beside(&output),
    }
    let signals = Signals::catch(in_flight.is_some())?;
    let before = cpu_time();
    let attached = loaded.attach()?;
    let user = own_folder(&output, user, args.collect.user.is_some())?;
    privilege::drop_all(user.as_ref())?;
    let mut target = Target::create(args, &output, options)?;
    let mut perfetto = args.perfetto.as_ref().map(PerfettoWriter::create).transpose()?;
    // Of a recording that did not begin, nothing is left behind.
    let discard = || discard(&output, in_flight.is_some());
    let mut collector = attached.start().inspect_err(|_| discard())?;
    let mut ending = Ending { stopper: collector.stopper(), child: None, until: None, flight: target.handle() };
    if let Some((program, rest)) = command {
        let spawned = std::process::Command::new(&program).args(rest).spawn();
        ending.child = Some(spawned.map_err(|error| {
            discard();
            Failure::Coded(NOT_EXECUTABLE, format!("cannot run {}: {error}", program.display()))
        })?);
    }
    let began = Instant::now();
    ending.until = args.duration.map(|span| began + span);

    let seen = Seen::default();
    let name = target.name();
    let mut recording = Recording { sink: target.sink(), seen: &seen };
    let perfetto = perfetto.as_mut().map(|writer| ("perfetto", OnFull::Block, writer));
    let pipeline = Pipeline::new().sink(name, OnFull::Block, &mut recording);
    let pipeline = perfetto.into_iter().fold(pipeline, |pipeline, (name, full, sink)| pipeline.sink(name, full, sink));
    let (summary, status) = run_until(&mut ending, pipeline, &mut collector, &seen, began, signals)?;
    let text = target.told(&summary, collector.meta(), &output, cpu_time() - before);
    // What was recorded is on disk, whether anybody reads this or not.
    let _ = std::io::stderr().write_all(text.as_bytes());
    match (status, ending.child.as_mut()) {
        (Some(status), _) => Ok(exit_code(status)),
        // The time was over before the command: it goes on, and we end when it does.
        (None, Some(child)) => {
            let status = child
                .wait()
                .map_err(|error| Failure::Coded(FAILURE, format!("cannot wait for the command: {error}")))?;
            Ok(exit_code(status))
        }
        (None, None) => Ok(ExitCode::SUCCESS),
    }
}

/// Creates the folder of the trace while this process may still do so, as the user. Where that one may not, as with
/// `sudo -i` in root's home, and was not asked for by name, the recorder stays root, and so is the trace's owner.
fn own_folder(output: &Path, user: Option<User>, named: bool) -> Result<Option<User>, Error> {
    let create = || match std::fs::create_dir(output) {
        // The writer looks whether it may be used.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok(rustix::fs::accessat(CWD, output, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
        }
        created => created,
    };
    let Some(user) = user else {
        create().map_err(Error::io("cannot create", output))?;
        return Ok(None);
    };
    match user.act(create)? {
        Ok(()) => Ok(Some(user)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !named => {
            create().map_err(Error::io("cannot create", output))?;
            eprintln!("schedtrace: the trace will belong to root: {} may not write there", user.name);
            Ok(None)
        }
        Err(error) if named => {
            let why =
                format!("{} cannot create {}: {error}; choose another folder with -o", user.name, output.display());
            Err(Error::Invalid(why))
        }
        Err(error) => Err(Error::io("cannot create", output)(error)),
    }
}

/// Where the program is, by `PATH`, so that a wrong name is told before anything is recorded.
fn find(program: &std::ffi::OsStr) -> Result<PathBuf, Failure> {
    which::which(program).map_err(|_| {
        let name = program.to_string_lossy();
        match Path::new(program).exists() && name.contains('/') {
            true => Failure::Coded(NOT_EXECUTABLE, format!("cannot run {name}: it is not executable")),
            false => Failure::Coded(NOT_FOUND, format!("no command is called {name}: check its name and PATH")),
        }
    })
}

/// Removes what a recording that did not begin has left.
fn discard(output: &Path, in_flight: bool) {
    let removed = match in_flight {
        // Traces from before may be in it, and then it stays.
        true => std::fs::remove_dir(output),
        false => std::fs::remove_dir_all(output),
    };
    if let Err(error) = removed {
        tracing::debug!("cannot remove {}: {error}", output.display());
    }
}

fn default_output(in_flight: bool) -> PathBuf {
    let format = if in_flight { "flight-%Y%m%d-%H%M%S" } else { "sched-%Y%m%d-%H%M%S.schedtrace" };
    jiff::Zoned::now().strftime(format).to_string().into()
}

/// As a shell has it: the code of the command, or 128 and the signal that ended it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(i32::from(FAILURE));
    ExitCode::from(u8::try_from(code).unwrap_or(FAILURE))
}

/// What a recorder waits for.
#[derive(Debug)]
enum Happened {
    Signal(i32),
    /// Nobody records any more.
    Over,
}

/// Says that it is over when it goes, by a panic as well.
struct Over(mpsc::SyncSender<Happened>);

impl Drop for Over {
    fn drop(&mut self) {
        let _ = self.0.send(Happened::Over);
    }
}

/// Signals that end a recording, that of a command that ended, and one that asks a flight recorder to write; they do not end
/// the process.
struct Signals(signal_hook::iterator::Signals);

impl Signals {
    fn catch(in_flight: bool) -> Result<Self, Error> {
        let asks = in_flight.then_some(SIGUSR1);
        let signals = [SIGINT, SIGTERM, SIGHUP, SIGCHLD].into_iter().chain(asks);
        let signals = signal_hook::iterator::Signals::new(signals);
        signals.map(Self).map_err(|error| Error::Invalid(format!("cannot catch signals: {error}")))
    }

    /// Tells of them on a thread of its own, as long as what it returns is kept.
    fn tell(self, to: mpsc::SyncSender<Happened>) -> Result<Telling, Failure> {
        let Self(mut signals) = self;
        let handle = signals.handle();
        let tell = move || signals.forever().all(|signal| to.send(Happened::Signal(signal)).is_ok());
        let thread = std::thread::Builder::new().name("st-signals".into()).spawn(tell);
        thread.map_err(|error| Failure::Coded(FAILURE, format!("cannot start a thread: {error}")))?;
        Ok(Telling(handle))
    }
}

/// Ends the thread that tells of signals when it goes.
struct Telling(signal_hook::iterator::Handle);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Records on a thread of its own until something ends it; with the status of the command, if that was it.
fn run_until(
    ending: &mut Ending,
    pipeline: Pipeline<'_>,
    collector: &mut Collector,
    seen: &Seen,
    began: Instant,
    signals: Signals,
) -> Result<(Summary, Option<ExitStatus>), Failure> {
    let (happens, happened) = mpsc::sync_channel(SIGNALS);
    let _signals = signals.tell(happens.clone())?;
    std::thread::scope(|scope| {
        let recording = std::thread::Builder::new().name("st-merge".into()).spawn_scoped(scope, || {
            let _over = Over(happens);
            pipeline.run(collector)
        });
        let recording =
            recording.map_err(|error| Failure::Coded(FAILURE, format!("cannot start a thread: {error}")))?;
        let status = ending.wait(seen, began, happened);
        let summary = recording.join().map_err(|_| Failure::Coded(FAILURE, "the recorder panicked: a bug".into()))?;
        Ok((summary?.into_result()?, status))
    })
}

/// What ends the recording.
#[derive(Debug)]
struct Ending {
    stopper: Stopper,
    child: Option<Child>,
    until: Option<Instant>,
    /// Asked by a signal.
    flight: Option<FlightHandle>,
}

impl Ending {
    /// Waits for the end and tells the collector; returns the command's status if it was its end. What happens after that
    /// is nobody's business: it goes with the receiver, so that nobody waits for room in the channel.
    fn wait(&mut self, seen: &Seen, began: Instant, happened: mpsc::Receiver<Happened>) -> Option<ExitStatus> {
        let progress = progress();
        let mut told = false;
        let status = loop {
            // At once: it may have ended before there was anyone to be told.
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                break Some(status);
            }
            let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break None;
            }
            let in_flight = self.flight.as_ref().map(|handle| format!(" · {}", flight::line(handle)));
            progress.set_message(seen.line(began.elapsed()) + &in_flight.unwrap_or_default());
            progress.tick();
            let patience = if progress.is_hidden() { Duration::MAX } else { TICK };
            let signal = match happened.recv_timeout(left.map_or(patience, |left| left.min(patience))) {
                Ok(Happened::Signal(SIGCHLD)) | Err(RecvTimeoutError::Timeout) => continue,
                Ok(Happened::Signal(SIGUSR1)) => {
                    self.flight.iter().for_each(flight::ask);
                    continue;
                }
                Ok(Happened::Signal(signal)) => signal,
                Ok(Happened::Over) | Err(RecvTimeoutError::Disconnected) => break None,
            };
            let Some(child) = self.child.as_ref().filter(|_| !told) else { break None };
            told = true;
            // The terminal has sent Ctrl-C to the command as well; other signals come to us alone.
            if signal != SIGINT {
                forward(child, signal);
            }
        };
        progress.finish_and_clear();
        self.stopper.stop();
        status
    }
}

fn forward(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let signal = if signal == SIGHUP { rustix::process::Signal::HUP } else { rustix::process::Signal::TERM };
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, signal)
    {
        tracing::warn!("cannot send a signal to the command: {error}");
    }
}

/// Hidden where stderr is no terminal.
fn progress() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} recording {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

/// What is recorded into.
#[derive(Debug)]
enum Target {
    Trace(Box<TraceWriter>),
    Flight(Box<FlightRecorder>),
}

impl Target {
    fn create(args: &RecordArgs, output: &Path, options: WriterOptions) -> Result<Self, Error> {
        Ok(match args.flight.options() {
            Some(options) => Self::Flight(Box::new(args.flight.recorder(output, options)?)),
            None => Self::Trace(Box::new(TraceWriter::create(output, options)?)),
        })
    }

    fn told(&self, summary: &Summary, meta: &Meta, output: &Path, cpu: Nanos) -> String {
        match self {
            Self::Trace(writer) => told(summary, meta, writer, output, cpu),
            Self::Flight(flown) => flight::told(&flown.handle().status(), summary, meta, output, cpu),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Trace(_) => "trace",
            Self::Flight(_) => "flight",
        }
    }

    fn handle(&self) -> Option<FlightHandle> {
        match self {
            Self::Trace(_) => None,
            Self::Flight(flown) => Some(flown.handle()),
        }
    }

    fn sink(&mut self) -> &mut (dyn Sink + Send) {
        match self {
            Self::Trace(writer) => &mut **writer,
            Self::Flight(flown) => &mut **flown,
        }
    }
}

/// What is recorded into, and the count of what came. One sink: when the trace cannot be written, the recording is over.
struct Recording<'a> {
    sink: &'a mut (dyn Sink + Send),
    seen: &'a Seen,
}

impl Sink for Recording<'_> {
    fn begin(&mut self, meta: &Meta) -> Result<(), Error> {
        self.sink.begin(meta)
    }
    fn batch(&mut self, batch: &Batch) -> Result<(), Error> {
        self.sink.batch(batch)?;
        self.seen.add(batch);
        Ok(())
    }
    fn finish(&mut self, meta: &Meta) -> Result<(), Error> {
        self.sink.finish(meta)
    }
}

/// What has come so far, for the progress line.
#[derive(Debug, Default)]
struct Seen {
    events: AtomicU64,
    lost: AtomicU64,
}

impl Seen {
    fn add(&self, batch: &Batch) {
        self.events.fetch_add((batch.events.len() + batch.late.len()) as u64, Ordering::Relaxed);
        self.lost.fetch_add(batch.lost.iter().map(|loss| loss.count).sum(), Ordering::Relaxed);
    }

    fn line(&self, time: Duration) -> String {
        let (events, lost) = (self.events.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed));
        format!("{:.0}s · {} · {} lost", time.as_secs_f64(), units::plural(events, "event"), units::count(lost))
    }
}

/// What this process has used so far.
fn cpu_time() -> Nanos {
    procfs::cpu_time(Path::new("/proc"), std::process::id()).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Nanos::ZERO
    })
}

/// The end of a recording, for stderr: stdout belongs to the command that was run.
fn told(summary: &Summary, meta: &Meta, writer: &TraceWriter, output: &Path, cpu: Nanos) -> String {
    let window = meta.ended.unwrap_or(meta.started) - meta.started;
    let mut text = format!("recorded {window} to {}\n{}", output.display(), counted(summary, meta));
    let removed = writer.removed_rows();
    let each = units::ratio(writer.bytes(), summary.total_events().saturating_sub(removed));
    text += &format!("  on disk   {} ({each:.1} bytes per event)\n", units::bytes(writer.bytes()));
    if removed > 0 {
        text += &format!("  removed   {}, the oldest, to keep to the limits\n", units::plural(removed, "row"));
    }
    text += &share_of(cpu, window);
    text + &format!("next: schedtrace report {}\n", output.display())
}

/// What came and what did not.
pub(crate) fn counted(summary: &Summary, meta: &Meta) -> String {
    let seconds = (meta.ended.unwrap_or(meta.started) - meta.started).as_secs_f64();
    let events = summary.total_events();
    let rate = if seconds > 0.0 { events as f64 / seconds } else { 0.0 };
    let mut text = format!("  events    {} ({} per second)\n", units::count(events), units::count(rate as u64));
    text += &format!("  lost      {}\n", lost(summary, events));
    if let Some(unaccounted) = unaccounted(summary, meta) {
        text += &format!("  {unaccounted}\n");
    }
    text
}

/// What recording took.
pub(crate) fn share_of(cpu: Nanos, window: Nanos) -> String {
    let seconds = window.as_secs_f64();
    let share = if seconds > 0.0 { cpu.as_secs_f64() / seconds } else { 0.0 };
    format!("  recorder  {cpu} of CPU time ({} of one CPU)\n", units::percent(share))
}

fn lost(summary: &Summary, events: u64) -> String {
    let total = summary.lost_total;
    if total == 0 {
        return "nothing".into();
    }
    let rows: Vec<_> = summary.lost.iter().map(|row| units::lost(row.count, row.kind, &row.place)).collect();
    let share = units::percent(units::ratio(total, total + events));
    format!("{} ({share}): {}; --ring-mb gives the rings more room", units::count(total), rows.join(", "))
}

/// The kernel's own count of what it emitted must be what came and what was lost, or there is a hole that nobody saw.
fn unaccounted(summary: &Summary, meta: &Meta) -> Option<String> {
    let in_rings: u128 = meta.accounts.iter().map(|account| account.unaccounted().unsigned_abs()).sum();
    let behind_them: u128 = (Kind::selectable().filter(|kind| !kind.is_sampled()))
        .map(|kind| {
            let accounts = meta.accounts.iter().filter(|account| account.kind == kind);
            let delivered: u64 = accounts.map(|account| account.delivered).sum();
            u128::from(delivered.abs_diff(summary.events.get(&kind).copied().unwrap_or(0)))
        })
        .sum();
    let missing = in_rings + behind_them;
    (missing != 0).then(|| format!("unaccounted for: {missing} events, which is a bug in schedtrace"))
}
