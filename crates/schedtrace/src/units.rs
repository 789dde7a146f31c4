//! Times, spans and sizes as people write and read them.

use std::fmt::Display;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schedtrace_core::system::ClockSnapshot;
use schedtrace_core::{Error, Kind, Meta, Nanos, Result};

/// A moment, as given on the command line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Time {
    /// After the start of the recording.
    SinceStart(Duration),
    /// By the wall clock.
    Wall(Timestamp),
    /// By the clock of the events, as `--json` prints it.
    Monotonic(Nanos),
}

/// Reads `5s`, `1m30s`, `1.5 hours`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: String| format!("{why}: write a time such as 5s, 1m30s or 2h");
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let span: SignedDuration = text.parse().map_err(|error: jiff::Error| wrong(error.to_string()))?;
    Duration::try_from(span).map_err(|_| wrong(format!("`{text}` is not a length of time that can be waited for")))
}

/// Reads a moment: after the start, by the wall clock, or in nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn time(text: &str) -> Result<Time, String> {
    let digits = text.strip_suffix("ns").filter(|digits| digits.len() > 9);
    if let Some(ns) = digits.and_then(|digits| digits.parse().ok()) {
        return Ok(Time::Monotonic(Nanos(ns)));
    }
    if let Ok(timestamp) = text.parse() {
        return Ok(Time::Wall(timestamp));
    }
    duration(text).map(Time::SinceStart).map_err(|_| {
        format!("`{text}` is no time: write one after the start (1.5s), or of the day (2026-11-21T10:00:00Z)")
    })
}

/// What lies between two moments; without one, up to that end of the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stretch {
    pub(crate) from: Option<Time>,
    pub(crate) to: Option<Time>,
}

/// Reads `0s..5s`, `2s..` and `..2s`.
pub(crate) fn stretch(text: &str) -> Result<Stretch, String> {
    let ends = text.split_once("..").filter(|(from, to)| !from.is_empty() || !to.is_empty());
    let Some((from, to)) = ends else {
        return Err(format!("`{text}` is no window: write two times with two dots between them, such as 0s..5s"));
    };
    let bound = |text: &str| if text.is_empty() { Ok(None) } else { time(text).map(Some) };
    Ok(Stretch { from: bound(from)?, to: bound(to)? })
}

impl Time {
    /// The moment by the clock of the events.
    pub(crate) fn in_trace(self, meta: &Meta) -> Result<Nanos> {
        match self {
            Self::SinceStart(span) => Ok(meta.started + Nanos::from(span)),
            Self::Monotonic(at) => Ok(at),
            Self::Wall(timestamp) => {
                let clock = clock(meta).ok_or_else(|| {
                    Error::Invalid("the trace does not say what time of day it was: give times after its start".into())
                })?;
                // Both readings are of one moment; what lies between them is the same by either clock.
                let ns = u64::try_from(timestamp.as_nanosecond()).unwrap_or(0);
                let offset = i128::from(ns) - i128::from(clock.realtime_ns.0);
                let at = i128::from(clock.monotonic_ns.0) + offset;
                Ok(Nanos(u64::try_from(at.max(0)).unwrap_or(u64::MAX)))
            }
        }
    }
}

fn clock(meta: &Meta) -> Option<&ClockSnapshot> {
    meta.clocks.first()
}

/// When the recording began, by the wall clock: `2026-11-21 10:00:00 UTC`.
pub(crate) fn started(meta: &Meta) -> Option<String> {
    let at = clock(meta)?.realtime(meta.started);
    let at = Timestamp::from_nanosecond(i128::from(at.0)).ok()?;
    Some(at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A span with a unit.
pub(crate) fn span(ns: u64) -> String {
    Nanos(ns).to_string()
}

/// A moment as an offset from the start, to the microsecond.
pub(crate) fn offset(at: Nanos, started: Nanos) -> String {
    format!("+{:.6}s", (at - started).as_secs_f64())
}

/// Bytes with a binary unit.
pub(crate) fn bytes(n: u64) -> String {
    bytesize::ByteSize(n).display().iec().to_string()
}

/// A count with separators: `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share in percent; what is little but there does not read as nothing.
pub(crate) fn percent(ratio: f64) -> String {
    match ratio * 100.0 {
        p if p > 0.0 && p < 0.1 => "<0.1%".into(),
        p if p < 9.95 => format!("{p:.1}%"),
        p => format!("{p:.0}%"),
    }
}

/// `n` of something, in the singular or plural.
pub(crate) fn plural(n: u64, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {what}{s}", count(n))
}

/// What was lost at one place: `120 sched_switch at ring:0`.
pub(crate) fn lost(n: u64, kind: Option<Kind>, place: &impl Display) -> String {
    format!("{} {} at {place}", count(n), kind.map_or("events", Kind::name))
}

/// A part of a whole, 0 where there is no whole.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_or_refused_with_advice() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0.5s"), Ok(Duration::from_millis(500)));
        for wrong in ["", "5", "-5s", "soon"] {
            assert!(duration(wrong).is_err_and(|text| text.contains("write a time")), "{wrong}");
        }
    }

    #[test]
    fn times_map_to_the_clock_of_the_events() {
        let clock = ClockSnapshot {
            monotonic_ns: Nanos(1_000_000_000),
            boottime_ns: Nanos(1_000_000_000),
            realtime_ns: Nanos(1_800_000_000_000_000_000),
        };
        let meta = Meta { started: Nanos(2_000_000_000), clocks: vec![clock], ..Meta::default() };
        let at = |text: &str| time(text).unwrap().in_trace(&meta).unwrap();
        assert_eq!(at("1.5s"), Nanos(3_500_000_000));
        assert_eq!(at("2500000000ns"), Nanos(2_500_000_000));
        assert_eq!(at("2027-01-15T08:00:02Z"), Nanos(3_000_000_000));
        assert_eq!(at("1970-01-01T00:00:00Z"), Nanos(0), "before the boot");
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn windows_are_read_or_refused_with_advice() {
        let second = |n| Some(Time::SinceStart(Duration::from_secs(n)));
        assert_eq!(stretch("0s..5s"), Ok(Stretch { from: second(0), to: second(5) }));
        assert_eq!(stretch("5s.."), Ok(Stretch { from: second(5), to: None }));
        assert_eq!(stretch("..1.5s").unwrap().to, Some(Time::SinceStart(Duration::from_millis(1500))));
        for wrong in ["", "..", "5s", "5s-6s"] {
            assert!(stretch(wrong).is_err_and(|text| text.contains("0s..5s")), "{wrong}");
        }
        assert!(stretch("soon..5s").is_err_and(|text| text.contains("`soon` is no time")));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(percent(0.0), "0.0%");
        assert_eq!(percent(0.0001), "<0.1%");
        assert_eq!(percent(0.834), "83%");
        assert_eq!(plural(1, "wait"), "1 wait");
        assert_eq!(plural(2000, "wait"), "2,000 waits");
    }
}
