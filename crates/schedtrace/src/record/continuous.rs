//! `schedtrace record --continuous`

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use schedtrace_core::trace::{Archive, ArchiveOptions, ArchiveWriter, LeftAlone};
use schedtrace_core::{Error, Meta, Nanos, OnFull, Pipeline, RateLimit, Source, Summary};

use super::{Ending, Recording, Seen, Signals, cpu_time, lost, own_folder, run_until, share_of, unaccounted};
use crate::args::RecordArgs;
use crate::privilege;
use crate::{Failure, units};

/// So many things that are left alone are told by name.
const TOLD: usize = 10;

pub(super) fn run(args: &RecordArgs) -> Result<ExitCode, Failure> {
    // Without one there is nothing to come back to after a restart.
    let Some(folder) = args.output.as_deref() else {
        return Err(Error::Invalid("no folder to record into: name one with -o".into()).into());
    };
    let options = ArchiveOptions {
        max_bytes: args.max_size.map(|size| size.as_u64()),
        max_age: (!args.max_age.is_zero()).then_some(args.max_age),
        min_free_bytes: args.min_free.map(|size| size.as_u64()),
        ..ArchiveOptions::default()
    };
    options.check()?;
    let loaded = args.collect.builder().load()?;
    // What belongs to somebody is worked on with what that one may do.
    let user = privilege::invoking_user(args.collect.user.as_deref())?;
    let user = own_folder(folder, user, args.collect.user.is_some())?;
    let open = || Archive::open(folder, &options);
    let archive = match &user {
        Some(user) => user.act(open)??,
        None => open()?,
    };
    for (path, repair) in archive.repaired() {
        eprintln!("{}: repaired, {} up to its last commit", path.display(), units::plural(repair.events, "event"));
    }
    tell_left_alone(archive.left_alone());
    let signals = Signals::catch(false)?;
    let before = cpu_time();
    let attached = loaded.attach()?;
    privilege::drop_all(user.as_ref())?;
    let max_bytes = archive.max_bytes();
    let mut writer = archive.record()?;
    let trace = writer.trace().to_owned();
    let (told, began) = (writer.left_alone().len(), Instant::now());
    // Of a recording that did not begin, nothing is left behind.
    let mut collector = attached.start().inspect_err(|_| drop(std::fs::remove_dir_all(&trace)))?;
    let until = args.duration.map(|span| began + span);
    let mut ending = Ending { stopper: collector.stopper(), child: None, until, flight: None };

    let seen = Seen::default();
    let per_second = if args.max_rate == 0 { u64::MAX } else { args.max_rate };
    let mut bounded = RateLimit::new(per_second, Recording { sink: &mut writer, seen: &seen });
    let pipeline = Pipeline::new().sink("trace", OnFull::Block, &mut bounded);
    let (summary, _) = run_until(&mut ending, pipeline, &mut collector, &seen, began, signals)?;
    let left_out = bounded.lost();
    tell_left_alone(writer.left_alone().get(told..).unwrap_or_default());
    let end = End { folder, max_bytes, left_out, per_second, cpu: cpu_time() - before };
    end.tell(&summary, collector.meta(), &writer);
    Ok(ExitCode::SUCCESS)
}

fn tell_left_alone(left_alone: &[LeftAlone]) {
    for left in left_alone.iter().take(TOLD) {
        let path = left.path.display().to_string().replace(char::is_control, "?");
        eprintln!("schedtrace: left as it is: {path}: {}", left.why);
    }
    if left_alone.len() > TOLD {
        eprintln!("schedtrace: left as they are: {} more", left_alone.len() - TOLD);
    }
}

/// What there is to say at the end.
struct End<'a> {
    folder: &'a Path,
    max_bytes: u64,
    left_out: u64,
    per_second: u64,
    cpu: Nanos,
}

impl End<'_> {
    /// On stderr, as of every recording.
    fn tell(&self, summary: &Summary, meta: &Meta, writer: &ArchiveWriter) {
        let window = meta.ended.unwrap_or(meta.started) - meta.started;
        let seconds = window.as_secs_f64();
        let events = writer.events();
        let rate = if seconds > 0.0 { events as f64 / seconds } else { 0.0 };
        eprintln!("recorded {window} to {}", writer.trace().display());
        eprintln!("  events    {} ({} per second)", units::count(events), units::count(rate as u64));
        eprintln!("  lost      {}", lost(summary, summary.total_events()));
        if self.left_out > 0 {
            let share = units::percent(units::ratio(self.left_out, self.left_out + events));
            let limit = units::count(self.per_second);
            let left_out = units::count(self.left_out);
            eprintln!("  left out  {left_out} ({share}): more than {limit} in a second; --max-rate says how many");
        }
        if let Some(unaccounted) = unaccounted(summary, meta) {
            eprintln!("  {unaccounted}");
        }
        let (bytes, most) = (units::bytes(writer.bytes()), units::bytes(self.max_bytes));
        eprintln!("  on disk   {bytes} in {}, of {most} at the most", self.folder.display());
        eprint!("{}", share_of(self.cpu, window));
        eprintln!("next: schedtrace info {}", self.folder.display());
    }
}
