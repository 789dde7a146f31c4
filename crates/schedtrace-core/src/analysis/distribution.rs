//! How long things took: exact while they are few, a histogram with a stated error when they are many.

use hdrhistogram::Histogram;
use serde::Serialize;

/// So many samples are kept as they are; more go into a histogram.
const EXACT: usize = 128;
/// Keeps buckets no wider than 1/128 of their values.
const SIGNIFICANT_DIGITS: u8 = 2;

/// A distribution of durations in nanoseconds, of bounded size whatever is added.
///
/// The *p*-quantile is the nearest-rank one: the smallest recorded value that at least `p * count` of the
/// recorded values do not exceed. It is exact for up to 128 samples. Beyond, it is at most 1/128 (0.8 %) above the
/// true one, never below it, and never outside of the smallest and the largest value, which are always exact, as are
/// count, total and mean.
///
/// ```
/// use schedtrace_core::analysis::Distribution;
/// let mut waits = Distribution::default();
/// for ns in 1..=100 {
///     waits.record(ns);
/// }
/// let summary = waits.summary();
/// assert_eq!((summary.p50_ns, summary.p99_ns, summary.max_ns), (50, 99, 100));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    count: u64,
    total: u128,
    min: u64,
    max: u64,
    samples: Samples,
}

#[derive(Clone, Debug)]
enum Samples {
    Exact(Vec<u64>),
    /// 32-bit counters: half the memory. They cannot overflow while `count` fits in them.
    Small(Box<Histogram<u32>>),
    Large(Box<Histogram<u64>>),
}

impl Default for Samples {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

/// What a [`Distribution`] comes down to. All zero where `count` is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many samples.
    pub count: u64,
    /// The smallest.
    pub min_ns: u64,
    /// The mean, rounded down.
    pub mean_ns: u64,
    /// The median.
    pub p50_ns: u64,
    /// The 90th percentile.
    pub p90_ns: u64,
    /// The 99th percentile.
    pub p99_ns: u64,
    /// The 99.9th percentile.
    pub p99_9_ns: u64,
    /// The 99.99th percentile.
    pub p99_99_ns: u64,
    /// The largest.
    pub max_ns: u64,
    /// All together.
    pub total_ns: u64,
}

/// How many of a [`Distribution`]'s samples are of about one length: a bar of its histogram.
///
/// ```
/// use schedtrace_core::analysis::{Bucket, Distribution};
/// let mut waits = Distribution::default();
/// [700, 1_000, 5_000].into_iter().for_each(|ns| waits.record(ns));
/// let bars = waits.histogram();
/// assert_eq!(bars[0], Bucket { from_ns: 512, until_ns: 1_024, count: 2 });
/// assert_eq!(bars.iter().map(|bar| bar.count).collect::<Vec<_>>(), [2, 0, 0, 1]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The shortest that belongs to it.
    pub from_ns: u64,
    /// The shortest that is too long for it.
    pub until_ns: u64,
    /// How many there are.
    pub count: u64,
}

impl Distribution {
    /// Adds a sample.
    pub fn record(&mut self, ns: u64) {
        self.note(ns, 1);
        match &mut self.samples {
            Samples::Exact(samples) if samples.len() < EXACT => samples.push(ns),
            _ => self.bucket(ns, 1),
        }
    }

    /// Adds all samples of another distribution.
    pub fn merge(&mut self, other: &Self) {
        match &other.samples {
            Samples::Exact(samples) => samples.iter().for_each(|&ns| self.record(ns)),
            Samples::Small(histogram) => self.merge_buckets(other, histogram),
            Samples::Large(histogram) => self.merge_buckets(other, histogram),
        }
    }

    /// How many samples there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All samples together, in nanoseconds.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        u64::try_from(self.total).unwrap_or(u64::MAX)
    }

    /// The largest sample in nanoseconds; 0 if there is none.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max
    }

    /// The quantile `per_10_000 / 10_000` in nanoseconds; 0 if there is no sample.
    #[must_use]
    pub fn quantile(&self, per_10_000: u32) -> u64 {
        let mut sorted = Vec::new();
        self.quantile_of(per_10_000, self.sorted(&mut sorted))
    }

    /// Count, mean, quantiles and extremes.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut sorted = Vec::new();
        let sorted = self.sorted(&mut sorted);
        let quantile = |per_10_000| self.quantile_of(per_10_000, sorted);
        Summary {
            count: self.count,
            min_ns: self.min,
            mean_ns: u64::try_from(self.total / u128::from(self.count.max(1))).unwrap_or(u64::MAX),
            p50_ns: quantile(5_000),
            p90_ns: quantile(9_000),
            p99_ns: quantile(9_900),
            p99_9_ns: quantile(9_990),
            p99_99_ns: quantile(9_999),
            max_ns: self.max,
            total_ns: self.total_ns(),
        }
    }

    /// The median of the samples' distances from `median`, in nanoseconds: with the median, the median absolute
    /// deviation. Exact for up to 128 samples; beyond, off by at most 1/64 of itself and `median` together.
    #[must_use]
    pub fn mad(&self, median: u64) -> u64 {
        let mut distances = Self::default();
        self.each(|ns, times| {
            let distance = ns.abs_diff(median);
            if times == 1 {
                // A few of them stay exact.
                distances.record(distance);
            } else {
                distances.note(distance, times);
                distances.bucket(distance, times);
            }
        });
        distances.quantile(5_000)
    }

    /// How many samples are longer than `ns`, and all of these together, in nanoseconds. As exact as the quantiles.
    #[must_use]
    pub fn beyond(&self, ns: u64) -> (u64, u64) {
        let (mut count, mut total) = (0u64, 0u64);
        self.each(|sample, times| {
            if sample > ns {
                count = count.saturating_add(times);
                total = total.saturating_add(sample.saturating_mul(times));
            }
        });
        // Buckets tell a little more than there is.
        (count, total.min(self.total_ns()))
    }

    /// How many samples are how long, in buckets that double, as `hist()` of bpftrace and `runqlat` of bcc have them: those
    /// of less than 1 ns, less than 2 ns, less than 4 ns, and so on, from the first bucket that is not empty to the last.
    /// Exact however many samples there are (what is longer than 146 years may count as that).
    ///
    /// ```
    /// use schedtrace_core::analysis::Distribution;
    /// assert!(Distribution::default().histogram().is_empty());
    /// ```
    #[must_use]
    pub fn histogram(&self) -> Vec<Bucket> {
        let mut counts = [0_u64; u64::BITS as usize + 1];
        // The width of a number in bits says which one: 0 is of none. Those of `each` are never rounded over a power of two.
        let which = |ns: u64| (u64::BITS - ns.leading_zeros()) as usize;
        self.each(|ns, times| counts[which(ns)] = counts[which(ns)].saturating_add(times));
        let edge = |at: usize| 1_u64.checked_shl(at as u32).unwrap_or(u64::MAX);
        let bucket = |at: usize| Bucket {
            from_ns: if at == 0 { 0 } else { edge(at - 1) },
            until_ns: edge(at),
            count: counts[at],
        };
        let first = counts.iter().position(|&count| count > 0);
        let last = counts.iter().rposition(|&count| count > 0);
        first.zip(last).map_or_else(Vec::new, |(first, last)| (first..=last).map(bucket).collect())
    }

    /// All samples, those of one bucket together.
    fn each(&self, mut each: impl FnMut(u64, u64)) {
        match &self.samples {
            Samples::Exact(samples) => samples.iter().for_each(|&ns| each(ns, 1)),
            Samples::Small(histogram) => {
                let steps = histogram.iter_recorded();
                steps.for_each(|step| each(step.value_iterated_to().min(self.max), step.count_at_value().into()));
            }
            Samples::Large(histogram) => {
                let steps = histogram.iter_recorded();
                steps.for_each(|step| each(step.value_iterated_to().min(self.max), step.count_at_value()));
            }
        }
    }

    fn sorted<'a>(&self, room: &'a mut Vec<u64>) -> &'a [u64] {
        if let Samples::Exact(samples) = &self.samples {
            room.clone_from(samples);
            room.sort_unstable();
        }
        room
    }

    fn quantile_of(&self, per_10_000: u32, sorted: &[u64]) -> u64 {
        if self.count == 0 {
            return 0;
        }
        let rank = (u128::from(self.count) * u128::from(per_10_000)).div_ceil(10_000);
        let rank = u64::try_from(rank).unwrap_or(u64::MAX).clamp(1, self.count);
        // Half a rank lower, so that rounding in floating point cannot reach the next one.
        let quantile = (rank as f64 - 0.5) / self.count as f64;
        let value = match &self.samples {
            Samples::Exact(_) => usize::try_from(rank - 1).ok().and_then(|at| sorted.get(at)).copied().unwrap_or(0),
            Samples::Small(histogram) => histogram.value_at_quantile(quantile),
            Samples::Large(histogram) => histogram.value_at_quantile(quantile),
        };
        value.clamp(self.min, self.max)
    }

    fn note(&mut self, ns: u64, times: u64) {
        self.min = if self.count == 0 { ns } else { self.min.min(ns) };
        self.max = self.max.max(ns);
        self.count = self.count.saturating_add(times);
        self.total += u128::from(ns) * u128::from(times);
    }

    /// Puts samples that were noted into the histogram.
    fn bucket(&mut self, ns: u64, times: u64) {
        if let Samples::Exact(samples) = &mut self.samples {
            let mut histogram = empty::<u32>();
            for &mut ns in samples {
                add(&mut histogram, ns, 1);
            }
            self.samples = Samples::Small(Box::new(histogram));
        }
        if let Samples::Small(small) = &self.samples
            && self.count > u64::from(u32::MAX)
        {
            let mut large = empty::<u64>();
            for step in small.iter_recorded() {
                add(&mut large, step.value_iterated_to(), step.count_at_value().into());
            }
            self.samples = Samples::Large(Box::new(large));
        }
        match &mut self.samples {
            Samples::Exact(_) => {}
            Samples::Small(histogram) => add(histogram, ns, u32::try_from(times).unwrap_or(u32::MAX)),
            Samples::Large(histogram) => add(histogram, ns, times),
        }
    }

    fn merge_buckets<C: hdrhistogram::Counter>(&mut self, other: &Self, histogram: &Histogram<C>) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count = self.count.saturating_add(other.count);
        self.total = self.total.saturating_add(other.total);
        for step in histogram.iter_recorded() {
            self.bucket(step.value_iterated_to(), step.count_at_value().as_u64());
        }
    }
}

#[allow(clippy::expect_used)] // The number of digits is a constant that the library allows.
fn empty<C: hdrhistogram::Counter>() -> Histogram<C> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("two significant digits are allowed")
}

fn add<C: hdrhistogram::Counter>(histogram: &mut Histogram<C>, ns: u64, times: C) {
    // It grows as needed, up to half of the range of u64 (146 years); what is longer counts as that.
    if histogram.record_n(ns.min(u64::MAX / 4), times).is_err() {
        histogram.saturating_record_n(ns, times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(samples: impl IntoIterator<Item = u64>) -> Distribution {
        let mut distribution = Distribution::default();
        samples.into_iter().for_each(|ns| distribution.record(ns));
        distribution
    }

    #[test]
    fn nothing_is_all_zero() {
        assert_eq!(Distribution::default().summary(), Summary::default());
    }

    #[test]
    fn few_samples_are_exact() {
        // 100 samples 10, 20 .. 1000: the nearest rank of p is p percent of 100.
        let summary = of((1..=100).rev().map(|n| n * 10)).summary();
        assert_eq!((summary.count, summary.min_ns, summary.max_ns), (100, 10, 1_000));
        assert_eq!((summary.total_ns, summary.mean_ns), (50_500, 505));
        assert_eq!((summary.p50_ns, summary.p90_ns, summary.p99_ns), (500, 900, 990));
        assert_eq!((summary.p99_9_ns, summary.p99_99_ns), (1_000, 1_000));
    }

    #[test]
    fn one_sample_is_every_quantile() {
        let summary = of([7]).summary();
        assert_eq!((summary.min_ns, summary.p50_ns, summary.p99_99_ns, summary.max_ns), (7, 7, 7, 7));
    }

    #[test]
    fn the_ends_of_the_range_are_kept() {
        let distribution = of([0, u64::MAX].into_iter().cycle().take(300));
        assert_eq!((distribution.quantile(1), distribution.max_ns()), (0, u64::MAX));
        assert_eq!(distribution.total_ns(), u64::MAX, "the total saturates");
    }

    #[test]
    fn counters_outgrow_32_bits() {
        let mut distribution = of(1..=200);
        for _ in 0..26 {
            let copy = distribution.clone();
            distribution.merge(&copy);
        }
        assert!(matches!(distribution.samples, Samples::Large(_)));
        assert_eq!(distribution.count(), 200 << 26);
        assert_eq!(distribution.quantile(5_000), 100, "values below 256 have buckets of their own");
        assert_eq!(distribution.total_ns(), 20_100 << 26);
    }

    #[test]
    fn buckets_double_and_reach_both_ends_of_the_range() {
        let bars: Vec<_> = of([0, 1, 2, 3, 4]).histogram();
        let bar = |from_ns, until_ns, count| Bucket { from_ns, until_ns, count };
        assert_eq!(bars, [bar(0, 1, 1), bar(1, 2, 1), bar(2, 4, 2), bar(4, 8, 1)]);
        assert_eq!(of([u64::MAX]).histogram(), [bar(1 << 63, u64::MAX, 1)]);
    }

    fn exact(sorted: &[u64], per_10_000: u32) -> u64 {
        let rank = (sorted.len() as u128 * u128::from(per_10_000)).div_ceil(10_000).max(1) as usize;
        sorted[rank - 1]
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(
            samples in prop::collection::vec(prop_oneof![0..2_000u64, 0..10_000_000_000u64, Just(0), Just(1 << 40)], 1..600),
            split in any::<prop::sample::Index>(),
        ) {
            let at = split.index(samples.len());
            let whole = of(samples.iter().copied());
            let mut merged = of(samples[..at].iter().copied());
            merged.merge(&of(samples[at..].iter().copied()));
            let bars = merged.histogram();
            for bar in &bars {
                let inside = samples.iter().filter(|&&ns| bar.from_ns <= ns && ns < bar.until_ns).count();
                prop_assert_eq!(bar.count, inside as u64, "from {} ns", bar.from_ns);
            }
            prop_assert_eq!(bars.iter().map(|bar| bar.count).sum::<u64>(), samples.len() as u64);
            prop_assert!(bars.windows(2).all(|two| two[0].until_ns == two[1].from_ns));
            let mut sorted = samples.clone();
            sorted.sort_unstable();
            for distribution in [&whole, &merged] {
                prop_assert_eq!(distribution.count(), samples.len() as u64);
                prop_assert_eq!(u128::from(distribution.total_ns()), samples.iter().map(|&ns| u128::from(ns)).sum::<u128>());
                prop_assert_eq!(distribution.summary().min_ns, sorted[0]);
                prop_assert_eq!(distribution.max_ns(), sorted[sorted.len() - 1]);
                for per_10_000 in [0, 1, 100, 2_500, 5_000, 9_000, 9_900, 9_990, 9_999, 10_000] {
                    let (truth, told) = (exact(&sorted, per_10_000), distribution.quantile(per_10_000));
                    prop_assert!(truth <= told && told <= truth + truth / 128, "{per_10_000}: {told}, in truth {truth}");
                    if samples.len() <= EXACT {
                        prop_assert_eq!(told, truth);
                    }
                }
            }
        }
    }
}
