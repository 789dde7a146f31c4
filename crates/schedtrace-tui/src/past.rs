//! The windows that are over, for curves.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many are kept of a machine that runs: ten minutes of seconds.
const MOST: usize = 600;

/// A window that is over, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Past {
    pub(crate) busy_ratio: f64,
    pub(crate) wait_p99_ns: u64,
}

/// Windows one after the other, with gaps where nobody looked: what lies minutes apart is not joined.
#[derive(Debug, Default)]
pub(crate) struct Curve {
    windows: VecDeque<Option<Past>>,
    at: Option<Instant>,
}

impl Curve {
    /// The next window, or none if its figures were not worked out. There is a gap as well if the last one was longer ago than
    /// `held`.
    pub(crate) fn push(&mut self, window: Option<Past>, now: Instant, held: Duration) {
        let was_held = self.at.is_some_and(|at| now.saturating_duration_since(at) > held);
        self.at = Some(now);
        // A curve begins with a figure, and one gap tells that it was held.
        if was_held && matches!(self.windows.back(), Some(Some(_))) {
            self.add(None);
        }
        if window.is_some() || !self.windows.is_empty() {
            self.add(window);
        }
        self.windows.make_contiguous();
    }

    fn add(&mut self, window: Option<Past>) {
        if self.windows.len() == MOST {
            self.windows.pop_front();
        }
        self.windows.push_back(window);
    }

    pub(crate) fn windows(&self) -> &[Option<Past>] {
        self.windows.as_slices().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_gaps_where_nobody_looked() {
        let (mut curve, begun) = (Curve::default(), Instant::now());
        let mut push = |window, seconds| {
            curve.push(window, begun + Duration::from_secs(seconds), Duration::from_secs(8));
            curve.windows().iter().map(|window| if window.is_some() { 'x' } else { ' ' }).collect::<String>()
        };
        let figures = Some(Past::default());
        assert_eq!(push(None, 0), "", "it begins with a figure");
        assert_eq!(push(figures, 1), "x");
        assert_eq!(push(None, 2), "x ", "another view was shown");
        assert_eq!(push(figures, 3), "x x");
        assert_eq!(push(figures, 8), "x xx", "what takes long comes late");
        assert_eq!(push(figures, 300), "x xx x", "it was held for minutes");
        for second in 301..2_000 {
            push(figures, second);
        }
        assert_eq!(push(figures, 2_000).len(), MOST);
    }
}
