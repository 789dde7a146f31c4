//! How often the server may be asked.

use std::time::{Duration, Instant};

/// So many calls in a second on the average: as many at once at most, and then one each time its share of a second is over.
#[derive(Debug)]
pub(crate) struct CallRate {
    per_second: f64,
    /// Calls that may be made now, up to those of a second.
    left: f64,
    counted: Instant,
}

impl CallRate {
    /// All of a second's calls may be made at once first.
    pub(crate) fn new(per_second: f64, now: Instant) -> Self {
        let mut rate = Self { per_second, left: 0.0, counted: now };
        rate.left = rate.most();
        rate
    }

    /// As many as may be made at once: one, where it is less than one in a second.
    fn most(&self) -> f64 {
        self.per_second.max(1.0)
    }

    /// Takes a call, or says how long to wait before the next can be had. A call that is refused costs nothing.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.counted);
        self.left = (self.left + passed.as_secs_f64() * self.per_second).min(self.most());
        self.counted = self.counted.max(now);
        // Parts of calls add up to whole ones but for a rounding.
        if self.left >= 1.0 - 1e-9 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::try_from_secs_f64((1.0 - self.left) / self.per_second).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &mut CallRate, now: Instant, calls: u32) -> u32 {
        (0..calls).filter(|_| rate.take(now).is_ok()).count().try_into().unwrap()
    }

    #[test]
    fn a_second_s_calls_at_once_and_then_each_in_its_turn() {
        let start = Instant::now();
        let mut rate = CallRate::new(100.0, start);
        assert_eq!(taken(&mut rate, start, 1_000), 100);
        let wait = rate.take(start).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(11), "{wait:?}");
        assert_eq!(rate.take(start + wait), Ok(()), "it said when");
        assert!(rate.take(start + wait).is_err());
        assert_eq!(taken(&mut rate, start + Duration::from_millis(510), 1_000), 50);
        // What nobody asked for does not add up beyond a second.
        assert_eq!(taken(&mut rate, start + Duration::from_secs(100), 1_000), 100);
    }

    #[test]
    fn less_than_one_in_a_second_is_one_now_and_then() {
        let start = Instant::now();
        let mut rate = CallRate::new(0.1, start);
        assert_eq!(rate.take(start), Ok(()));
        let wait = rate.take(start + Duration::from_secs(4)).unwrap_err();
        assert_eq!(wait.as_secs_f64().round(), 6.0);
        assert_eq!(rate.take(start + Duration::from_secs(10)), Ok(()));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut rate = CallRate::new(1.0, start);
        assert_eq!(rate.take(start), Ok(()));
        assert!(rate.take(start - Duration::from_secs(5)).is_err());
        assert!(rate.take(start).is_err());
        assert_eq!(rate.take(start + Duration::from_secs(1)), Ok(()));
    }
}
