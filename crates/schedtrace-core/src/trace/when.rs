//! Moments as people and programs write them, and the part of a trace that lies between two of them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::TraceReader;
use crate::error::{Error, Result};
use crate::event::{Nanos, Window};
use crate::source::{Meta, Source};

/// A number with fewer digits is no time of `CLOCK_MONOTONIC`: it would be within the first second after the boot.
const MIN_DIGITS: usize = 10;

/// A moment in a recording, as it is written.
///
/// | text | moment |
/// |---|---|
/// | `2.5s`, `+10ms`, `1m30s` | so long after the recording's start |
/// | `-30s` | so long before its end |
/// | `2026-11-22T10:00:00.5Z`, `2026-11-22T11:00:00+01:00` | by the wall clock, with its zone |
/// | `123456789012ns`, `123456789012` | by the clock of the events, `CLOCK_MONOTONIC`, as reports tell it |
///
/// ```
/// use schedtrace_core::trace::Time;
/// use schedtrace_core::{Meta, Nanos, Window};
///
/// let meta = Meta { started: Nanos(2_000_000_000), ..Meta::default() };
/// let window = Window::new(meta.started, Nanos(9_000_000_000));
/// let at = |text: &str| text.parse::<Time>()?.in_trace(&meta, window);
/// assert_eq!(at("1.5s")?, Nanos(3_500_000_000));
/// assert_eq!(at("-2s")?, Nanos(7_000_000_000));
/// assert_eq!(at("2500000000ns")?, Nanos(2_500_000_000));
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// After the start of the recording.
    SinceStart(Duration),
    /// Before the end of the recording.
    BeforeEnd(Duration),
    /// By the wall clock, since 1970-01-01 UTC.
    Wall {
        /// In nanoseconds; 0 for what was before.
        unix_ns: Nanos,
    },
    /// By the clock of the events.
    Monotonic(Nanos),
}

impl Time {
    /// The moment by the clock of the events, in a trace that reaches over `window`. It may lie outside of it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a time of the wall clock if the trace has no reading of that.
    ///
    /// ```
    /// use schedtrace_core::trace::Time;
    /// use schedtrace_core::{Meta, Window};
    /// let wall: Time = "2026-11-22T10:00:00Z".parse()?;
    /// let error = wall.in_trace(&Meta::default(), Window::default()).unwrap_err();
    /// assert!(error.to_string().contains("give times after its start"));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn in_trace(self, meta: &Meta, window: Window) -> Result<Nanos> {
        match self {
            Self::SinceStart(span) => Ok(meta.started + Nanos::from(span)),
            Self::BeforeEnd(span) => Ok(window.until_ns - Nanos::from(span)),
            Self::Monotonic(at) => Ok(at),
            Self::Wall { unix_ns } => {
                let clock = meta.clocks.first().ok_or_else(|| {
                    Error::Invalid("the trace does not say what time of day it was: give times after its start".into())
                })?;
                // Both readings are of one moment; what lies between them is the same by either clock.
                let offset = i128::from(unix_ns.0) - i128::from(clock.realtime_ns.0);
                let at = i128::from(clock.monotonic_ns.0) + offset;
                Ok(Nanos(u64::try_from(at.max(0)).unwrap_or(u64::MAX)))
            }
        }
    }
}

impl FromStr for Time {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let digits = text.strip_suffix("ns").unwrap_or(text);
        if digits.len() >= MIN_DIGITS
            && let Ok(ns) = digits.parse()
        {
            return Ok(Self::Monotonic(Nanos(ns)));
        }
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            let unix_ns = Nanos(u64::try_from(timestamp.as_nanosecond()).unwrap_or(0));
            return Ok(Self::Wall { unix_ns });
        }
        let (span, to): (&str, fn(Duration) -> Self) = match text.strip_prefix('-') {
            Some(span) => (span, Self::BeforeEnd),
            None => (text.strip_prefix('+').unwrap_or(text), Self::SinceStart),
        };
        // A second sign would be one of the span itself.
        duration(span).filter(|_| !span.starts_with(['+', '-'])).map(to).ok_or_else(|| {
            Error::Invalid(format!(
                "`{text}` is no time: write one after the start (1.5s), before the end (-30s), or of the day (2026-11-21T10:00:00Z)"
            ))
        })
    }
}

fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

/// What lies between two moments; without one, up to that end of the recording.
///
/// ```
/// use schedtrace_core::trace::Stretch;
/// let last: Stretch = "-5s..".parse()?;
/// assert!(last.from.is_some() && last.until.is_none());
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Its beginning.
    pub from: Option<Time>,
    /// Its end.
    pub until: Option<Time>,
}

impl FromStr for Stretch {
    type Err = Error;

    /// Reads `0s..5s`, `2s..` and `..2s`.
    fn from_str(text: &str) -> Result<Self> {
        let ends = text.split_once("..").filter(|(from, until)| !from.is_empty() || !until.is_empty());
        let Some((from, until)) = ends else {
            let why = format!("`{text}` is no window: write two times with two dots between them, such as 0s..5s");
            return Err(Error::Invalid(why));
        };
        let bound = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some) };
        Ok(Self { from: bound(from)?, until: bound(until)? })
    }
}

impl Stretch {
    /// Opens what lies in a trace between these moments. `names` is what the two are called where they are given, for
    /// errors.
    ///
    /// # Errors
    ///
    /// As [`TraceReader::open`]; [`Error::Invalid`] if the end is not later than the beginning, or nothing of the recording lies
    /// between them.
    ///
    /// ```no_run
    /// use schedtrace_core::analysis::{self, Options, Sched};
    /// use schedtrace_core::trace::Stretch;
    ///
    /// let mut last = "-5s..".parse::<Stretch>()?.open("run.schedtrace", ["--from", "--to"])?;
    /// let options = Options { from: last.from, until: last.until, ..Options::default() };
    /// let report = analysis::run(&mut last.reader, Sched::new(options))?;
    /// # let _ = report;
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn open(self, dir: impl AsRef<Path>, names: [&str; 2]) -> Result<Excerpt> {
        self.of(TraceReader::open(dir)?, names)
    }

    /// The same of a trace that is open already.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// ```no_run
    /// use schedtrace_core::trace::{Stretch, TraceReader};
    /// let trace = TraceReader::open("run.schedtrace")?;
    /// let first = "..1s".parse::<Stretch>()?.of(trace, ["from", "until"])?;
    /// assert!(first.window.duration_ns.as_secs_f64() <= 1.0);
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn of(self, reader: TraceReader, names: [&str; 2]) -> Result<Excerpt> {
        let whole = reader.window();
        let bound = |time: Option<Time>| time.map(|time| time.in_trace(reader.meta(), whole)).transpose();
        let (from, until) = (bound(self.from)?, bound(self.until)?);
        if let (Some(from), Some(until)) = (from, until)
            && until <= from
        {
            return Err(Error::Invalid(format!("{} must be later than {}", names[1], names[0])));
        }
        for (name, outside) in [
            (names[0], from.is_some_and(|from| from >= whole.until_ns)),
            (names[1], until.is_some_and(|until| until <= whole.from_ns)),
        ] {
            if outside {
                let why = format!("{name} leaves nothing of the recording, which is {} long", whole.duration_ns);
                return Err(Error::Invalid(why));
            }
        }
        let begin = from.unwrap_or(whole.from_ns).max(whole.from_ns);
        let window = Window::new(begin, until.unwrap_or(whole.until_ns).min(whole.until_ns));
        Ok(Excerpt { reader: reader.between(from, until), from, until, window })
    }
}

/// A trace, of which some part is wanted.
pub struct Excerpt {
    /// Reads that part, and what lies beside it in the same segments.
    pub reader: TraceReader,
    /// Where it begins, if that was said: for [`Options`](crate::analysis::Options).
    pub from: Option<Nanos>,
    /// Where it ends, if that was said.
    pub until: Option<Nanos>,
    /// The part, with the edges of the recording where no others were given.
    pub window: Window,
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Excerpt").field("window", &self.window).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::ClockSnapshot;

    fn at(text: &str) -> Nanos {
        let clock = ClockSnapshot {
            monotonic_ns: Nanos(1_000_000_000),
            boottime_ns: Nanos(1_000_000_000),
            realtime_ns: Nanos(1_800_000_000_000_000_000),
        };
        let meta = Meta { started: Nanos(2_000_000_000), clocks: vec![clock], ..Meta::default() };
        let window = Window::new(meta.started, Nanos(12_000_000_000));
        text.parse::<Time>().unwrap().in_trace(&meta, window).unwrap()
    }

    #[test]
    fn times_map_to_the_clock_of_the_events() {
        for (text, ns) in [
            ("0", 2_000_000_000),
            ("1.5s", 3_500_000_000),
            ("+10ms", 2_010_000_000),
            ("-3s", 9_000_000_000),
            ("-1m", 0),
            ("2500000000ns", 2_500_000_000),
            ("2500000000", 2_500_000_000),
            ("2027-01-15T08:00:02Z", 3_000_000_000),
            ("2027-01-15T09:00:02.25+01:00", 3_250_000_000),
            ("1970-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(at(text), Nanos(ns), "{text}");
        }
        assert!(at("2500ns") < Nanos(2_000_002_501), "short ones are spans");
    }

    #[test]
    fn what_is_no_time_is_refused_with_advice() {
        for text in ["yesterday", "", "5", "+", "-", "--5s", "+-5s", "2026-11-22T10:00:00", "99999999999999999999999s"]
        {
            let error = text.parse::<Time>().unwrap_err().to_string();
            assert!(error.contains("write one after the start"), "{text}: {error}");
        }
    }

    #[test]
    fn windows_are_read_or_refused_with_advice() {
        let second = |n| Some(Time::SinceStart(Duration::from_secs(n)));
        let read = |text: &str| text.parse::<Stretch>();
        assert_eq!(read("0s..5s").unwrap(), Stretch { from: second(0), until: second(5) });
        assert_eq!(read("5s..").unwrap(), Stretch { from: second(5), until: None });
        assert_eq!(read("..1.5s").unwrap().until, Some(Time::SinceStart(Duration::from_millis(1500))));
        assert_eq!(read("-2s..").unwrap().from, Some(Time::BeforeEnd(Duration::from_secs(2))));
        for wrong in ["", "..", "5s", "5s-6s"] {
            assert!(read(wrong).is_err_and(|error| error.to_string().contains("0s..5s")), "{wrong}");
        }
        assert!(read("soon..5s").is_err_and(|error| error.to_string().contains("`soon` is no time")));
    }
}
