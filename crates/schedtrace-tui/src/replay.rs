//! A recording that is played: a clock that moves a window through it. It knows no time but what it is told.

use std::time::Instant;

use schedtrace_core::{Nanos, Window};

/// How fast, in recorded seconds a second.
const SPEEDS: [f64; 10] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// Where a replay is.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// Where the window begins.
    at: Nanos,
    /// How long it is.
    length: Nanos,
    speed: usize,
    /// When it was moved last; held without.
    moved: Option<Instant>,
}

impl Replay {
    /// A window at a moment, held.
    pub(crate) fn new(at: Nanos, length: Nanos) -> Self {
        let speed = SPEEDS.iter().position(|speed| *speed >= 1.0).unwrap_or(0);
        Self { at, length: length.max(Nanos(1)), speed, moved: None }
    }

    pub(crate) fn is_playing(&self) -> bool {
        self.moved.is_some()
    }

    pub(crate) fn play(&mut self, now: Instant) {
        self.moved = Some(now);
    }

    pub(crate) fn hold(&mut self) {
        self.moved = None;
    }

    /// Faster or slower, as far as it goes.
    pub(crate) fn change(&mut self, faster: bool) {
        self.speed = if faster { (self.speed + 1).min(SPEEDS.len() - 1) } else { self.speed.saturating_sub(1) };
    }

    pub(crate) fn speed(&self) -> f64 {
        SPEEDS[self.speed]
    }

    /// Moves the window to where it should be now; holds at the end.
    pub(crate) fn go_on(&mut self, now: Instant, extent: Window) {
        let Some(moved) = self.moved else { return };
        let by = now.saturating_duration_since(moved).as_nanos() as f64 * self.speed();
        self.moved = Some(now);
        self.seek(self.at + Nanos(by as u64), extent);
        if self.until(extent) >= extent.until_ns {
            self.hold();
        }
    }

    /// Puts the window elsewhere, whole within the recording.
    pub(crate) fn seek(&mut self, at: Nanos, extent: Window) {
        let latest = (extent.until_ns - self.length).max(extent.from_ns);
        self.at = at.clamp(extent.from_ns, latest);
    }

    /// So many of its lengths on, or back.
    pub(crate) fn step(&mut self, lengths: f64, extent: Window) {
        let by = Nanos((self.length.0 as f64 * lengths.abs()) as u64);
        self.seek(if lengths < 0.0 { self.at - by } else { self.at + by }, extent);
    }

    /// From when to when it shows.
    pub(crate) fn window(&self, extent: Window) -> (Nanos, Nanos) {
        (self.at, self.until(extent))
    }

    fn until(&self, extent: Window) -> Nanos {
        (self.at + self.length).min(extent.until_ns)
    }

    /// Where it is, of what, and how fast.
    pub(crate) fn told(&self, extent: Window, origin: Nanos) -> String {
        let seconds = |at: Nanos| (at - origin).0 as f64 / 1e9;
        let (at, whole) = (seconds(self.until(extent)), seconds(extent.until_ns));
        let state = if self.is_playing() { "playing" } else { "held" };
        format!("{state} at {at:.3} s of {whole:.3} s, {}x", self.speed())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EXTENT: Window =
        Window { from_ns: Nanos(1_000), until_ns: Nanos(10_000_001_000), duration_ns: Nanos(10_000_000_000) };

    #[test]
    fn it_goes_as_fast_as_it_says_and_holds_at_the_end() {
        let now = Instant::now();
        let mut replay = Replay::new(EXTENT.from_ns, Nanos(1_000_000_000));
        replay.go_on(now + Duration::from_secs(5), EXTENT);
        assert_eq!(replay.window(EXTENT).0, EXTENT.from_ns, "it is held");
        replay.play(now);
        replay.go_on(now + Duration::from_millis(500), EXTENT);
        assert_eq!(replay.window(EXTENT), (Nanos(500_001_000), Nanos(1_500_001_000)));
        replay.change(true);
        replay.go_on(now + Duration::from_millis(1500), EXTENT);
        assert_eq!(replay.window(EXTENT).0, Nanos(2_500_001_000));
        assert_eq!(replay.told(EXTENT, EXTENT.from_ns), "playing at 3.500 s of 10.000 s, 2x");
        replay.go_on(now + Duration::from_secs(60), EXTENT);
        assert_eq!(replay.window(EXTENT), (Nanos(9_000_001_000), EXTENT.until_ns));
        assert!(!replay.is_playing());
    }

    #[test]
    fn it_stays_within_the_recording() {
        let mut replay = Replay::new(EXTENT.from_ns, Nanos(1_000_000_000));
        replay.step(-3.0, EXTENT);
        assert_eq!(replay.window(EXTENT).0, EXTENT.from_ns);
        replay.seek(Nanos::MAX, EXTENT);
        assert_eq!(replay.window(EXTENT).1, EXTENT.until_ns);
        let mut long = Replay::new(EXTENT.from_ns, Nanos::MAX);
        long.step(1.0, EXTENT);
        assert_eq!(long.window(EXTENT), (EXTENT.from_ns, EXTENT.until_ns));
        (0..20).for_each(|_| long.change(true));
        assert_eq!(long.speed(), 100.0);
        (0..20).for_each(|_| long.change(false));
        assert_eq!(long.speed(), 0.1);
    }
}
