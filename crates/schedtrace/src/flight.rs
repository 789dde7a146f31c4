//! `schedtrace record --flight`: the last seconds in memory, and a trace of them when something goes wrong.

use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use schedtrace_core::flight::{FlightHandle, FlightOptions, FlightRecorder, FlightStatus, Trigger};
use schedtrace_core::{Error, Meta, Nanos, Summary};

use crate::record::{self, share_of};
use crate::units;

/// What stands in a trace that a signal asked for, and in its name.
const ON_SIGNAL: &str = "sigusr1";

/// What a flight recorder keeps.
#[derive(Debug, clap::Args)]
pub(crate) struct FlightArgs {
    /// Write nothing as long as all is well: keep the last so much time in memory, and write it as a trace into the folder -o
    /// when a trigger fires, or on SIGUSR1
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with_all = ["max_size", "max_age", "perfetto"])]
    pub(crate) flight: Option<Duration>,
    /// What to wait for: 'runqueue_latency > 20ms', 'sleep > 1s for comm = nginx', 'lost > 0', or the conditions of an event,
    /// as export --where takes them; may be given several times
    #[arg(long = "trigger", value_name = "TRIGGER", requires = "flight")]
    triggers: Vec<Trigger>,
    /// The memory for events: if it does not suffice, less time is kept [default: 256MiB]
    #[arg(long, value_name = "SIZE", requires = "flight")]
    flight_memory: Option<ByteSize>,
    /// How long to go on when something fired, before it is written [default: a tenth of --flight]
    #[arg(long, value_name = "TIME", value_parser = units::duration, requires = "flight")]
    flight_after: Option<Duration>,
    /// How many traces to write at most [default: 10]
    #[arg(long, value_name = "N", requires = "flight")]
    flight_dumps: Option<u32>,
}

impl FlightArgs {
    /// What it is to keep, where this is wanted at all.
    pub(crate) fn options(&self) -> Option<FlightOptions> {
        let defaults = FlightOptions::default();
        Some(FlightOptions {
            window: self.flight?,
            memory_bytes: self.flight_memory.map_or(defaults.memory_bytes, |size| size.as_u64()),
            after: self.flight_after,
            max_dumps: self.flight_dumps.unwrap_or(defaults.max_dumps),
            ..defaults
        })
    }

    pub(crate) fn recorder(&self, folder: &Path, options: FlightOptions) -> Result<FlightRecorder, Error> {
        FlightRecorder::create(folder, options, self.triggers.iter().cloned())
    }
}

/// Has the window written.
pub(crate) fn ask(handle: &FlightHandle) {
    if !handle.dump(ON_SIGNAL) {
        tracing::warn!("the window was not written: it is being written already");
    }
}

/// For the line of progress.
pub(crate) fn line(handle: &FlightHandle) -> String {
    let status = handle.status();
    let covers = status.covers;
    let held = format!("window {} in {}", covers.window.duration_ns, units::bytes(covers.bytes + status.writing_bytes));
    let short = if covers.shortened { ", cut short" } else { "" };
    let doing = match &status.pending {
        Some(fired) => format!(" · {fired}: to be written"),
        None => String::new(),
    };
    format!("{held}{short} · {} · {}{doing}", units::plural(status.fired, "firing"), written(status.dumps.len()))
}

fn written(traces: usize) -> String {
    format!("{} written", units::plural(traces as u64, "trace"))
}

/// The end of a recording.
pub(crate) fn told(status: &FlightStatus, summary: &Summary, meta: &Meta, folder: &Path, cpu: Nanos) -> String {
    let time = meta.ended.unwrap_or(meta.started) - meta.started;
    let events = summary.total_events();
    let covers = status.covers;
    let mut text = format!("watched for {time}, {}\n", written(status.dumps.len()));
    text += &record::counted(summary, meta);
    let short = if covers.shortened { ", which --flight-memory makes shorter than it should be" } else { "" };
    let (held, bytes) = (covers.window.duration_ns, units::bytes(covers.bytes));
    let each = units::ratio(covers.bytes, covers.events);
    text += &format!("  window    {held} in {bytes} ({each:.1} bytes per event){short}\n");
    text += &format!("  fired     {}", units::count(status.fired));
    if status.suppressed > 0 {
        text += &format!(", of which {} were passed over: there were enough traces", units::count(status.suppressed));
    }
    text.push('\n');
    for dump in &status.dumps {
        text +=
            &format!("  trace     {}: {} ({})\n", dump.path.display(), dump.fired, units::plural(dump.events, "event"));
    }
    text += &share_of(cpu, time);
    match status.dumps.last() {
        Some(dump) => text += &format!("next: schedtrace explain {}\n", dump.path.display()),
        None if events > 0 => text += &format!("nothing fired: {} is empty\n", folder.display()),
        None => {}
    }
    text
}
