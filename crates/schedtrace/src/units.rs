//! Times, spans and sizes as people write and read them.

use std::fmt::Display;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schedtrace_core::trace::{Stretch, Time};
use schedtrace_core::{Error, Kind, Meta, Nanos};

/// Reads `5s`, `1m30s`, `1.5 hours`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: String| format!("{why}: write a time such as 5s, 1m30s or 2h");
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let span: SignedDuration = text.parse().map_err(|error: jiff::Error| wrong(error.to_string()))?;
    Duration::try_from(span).map_err(|_| wrong(format!("`{text}` is not a length of time that can be waited for")))
}

/// Reads a moment: see [`Time`].
pub(crate) fn time(text: &str) -> Result<Time, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

/// Reads `0s..5s`, `2s..` and `..2s`.
pub(crate) fn stretch(text: &str) -> Result<Stretch, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

/// When the recording began, by the wall clock: `2026-11-21 10:00:00 UTC`.
pub(crate) fn started(meta: &Meta) -> Option<String> {
    let at = meta.clocks.first()?.realtime(meta.started);
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
