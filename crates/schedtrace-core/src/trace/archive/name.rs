//! What the traces of an archive are called: after the moment at which they were begun, so that they sort by time.

use std::path::{Path, PathBuf};

use crate::event::Nanos;

/// What every trace's name ends with.
pub(super) const SUFFIX: &str = ".schedtrace";
const DAY_SECONDS: u64 = 24 * 3600;

/// A moment by the wall clock: year, month, day, hour, minute, second, in UTC.
fn civil(wall: Nanos) -> [u64; 6] {
    let seconds = wall.0 / 1_000_000_000;
    let (mut day, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let is_leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    // 64 bits of nanoseconds end in 2554.
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for days in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    [year, month, day + 1, second / 3600, second / 60 % 60, second % 60]
}

/// For people: `2026-11-22 10:51:17 UTC`.
pub(super) fn text(wall: Nanos) -> String {
    let [year, month, day, hour, minute, second] = civil(wall);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// A path that is not taken for a trace that begins now: `20261122T105117Z.schedtrace`, or with a number behind the time.
pub(super) fn free_in(folder: &Path, now: Nanos) -> PathBuf {
    let [year, month, day, hour, minute, second] = civil(now);
    let stamp = format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z");
    let path = |number: u32| match number {
        0 => folder.join(format!("{stamp}{SUFFIX}")),
        number => folder.join(format!("{stamp}-{number}{SUFFIX}")),
    };
    let taken = |path: &PathBuf| path.symlink_metadata().is_ok();
    // Whoever finds the last one taken is told so when the trace is created.
    (0..u32::MAX).map(path).find(|path| !taken(path)).unwrap_or_else(|| path(u32::MAX))
}

/// Whether a recorder gave this name.
pub(super) fn is_ours(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(SUFFIX) else { return false };
    let (stamp, number) = stem.split_once('-').map_or((stem, None), |(stamp, number)| (stamp, Some(number)));
    let shape = |(at, byte): (usize, u8)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    let digits = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    stamp.len() == 16 && stamp.bytes().enumerate().all(shape) && number.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_the_calendar_has_them() {
        // As `date -u -d @N` prints them.
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (68_169_599, "1972-02-28 23:59:59 UTC"),
            (68_169_600, "1972-02-29 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
            (1_795_344_677, "2026-11-22 10:51:17 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(text(Nanos(seconds * 1_000_000_000)), expected);
        }
        assert!(text(Nanos::MAX).starts_with("2554-07-21"));
    }

    #[test]
    fn names_are_given_once_and_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let now = Nanos(1_795_344_677 * 1_000_000_000);
        for expected in
            ["20261122T105117Z.schedtrace", "20261122T105117Z-1.schedtrace", "20261122T105117Z-2.schedtrace"]
        {
            let path = free_in(folder.path(), now);
            assert_eq!(path, folder.path().join(expected));
            assert!(is_ours(expected));
            std::fs::create_dir(path).unwrap();
        }
        for other in [
            "run.schedtrace",
            "20261122T105117Z",
            "20261122T105117Z.schedtrace.old",
            "20261122T105117Z-.schedtrace",
            "20261122T105117Z-x.schedtrace",
            "2026112 T105117Z.schedtrace",
            "20261122T105117.schedtrace",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
