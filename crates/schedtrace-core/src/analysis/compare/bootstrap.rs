//! How far a number might be off by chance: the window's blocks, drawn again and again.

use super::profile::{WindowSlice, highest_ns, join};

/// A window is cut into so many blocks at most.
pub(super) const MAX_BLOCKS: usize = 64;

/// No two neighbours are taken to be more alike than this.
const MAX_CORRELATION: f64 = 0.9;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, each about equally likely.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// A window in blocks, prepared for many draws. A draw is how often each block was drawn: the weights.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) list: Vec<WindowSlice>,
    /// The buckets that any wait is in, shortest waits first.
    buckets: Vec<u16>,
    /// For each of these, for each block: waits of the block in this bucket or a lower one.
    cumulative: Vec<u64>,
}

impl Blocks {
    pub(super) fn new(slices: &[WindowSlice]) -> Self {
        let list = join(slices, slices.len().div_ceil(MAX_BLOCKS));
        let mut buckets: Vec<u16> =
            list.iter().flat_map(|block| block.wait_buckets.iter().map(|(bucket, _)| bucket)).collect();
        buckets.sort_unstable();
        buckets.dedup();
        let mut cumulative = vec![0; buckets.len() * list.len()];
        for (at, block) in list.iter().enumerate() {
            let mut waits = block.wait_buckets.iter().peekable();
            let mut sum = 0_u64;
            for (row, bucket) in buckets.iter().enumerate() {
                if let Some((_, n)) = waits.next_if(|(next, _)| next == bucket) {
                    sum = sum.saturating_add(n);
                }
                cumulative[row * list.len() + at] = sum;
            }
        }
        Self { list, buckets, cumulative }
    }

    /// Each block once: the window as it was.
    pub(super) fn as_they_are(&self) -> Vec<u64> {
        vec![1; self.list.len()]
    }

    /// As many blocks as there are, each drawn from all of them.
    pub(super) fn draw(&self, random: &mut Random, weights: &mut [u64]) {
        weights.fill(0);
        for _ in 0..weights.len() {
            weights[random.below(self.list.len())] += 1;
        }
    }

    /// Waits in the bucket at this place or a lower one.
    fn up_to(&self, place: usize, weights: &[u64]) -> u64 {
        let row = &self.cumulative[place * weights.len()..][..weights.len()];
        row.iter().zip(weights).fold(0, |sum: u64, (n, weight)| sum.wrapping_add(n.wrapping_mul(*weight)))
    }

    /// The nearest-rank quantile `per_10_000 / 10_000`, at most 1/128 above the true one; none of nothing.
    pub(super) fn quantile_ns(&self, per_10_000: u32, weights: &[u64]) -> Option<u64> {
        let bucket = self.buckets.get(self.place(per_10_000, weights)?)?;
        Some(highest_ns(*bucket))
    }

    /// The place of the quantile's bucket.
    fn place(&self, per_10_000: u32, weights: &[u64]) -> Option<usize> {
        let last = self.buckets.len().checked_sub(1)?;
        let count = self.up_to(last, weights);
        let rank = (u128::from(count) * u128::from(per_10_000)).div_ceil(10_000);
        if rank == 0 {
            return None;
        }
        let (mut low, mut high) = (0, last);
        while low < high {
            let middle = usize::midpoint(low, high);
            if u128::from(self.up_to(middle, weights)) >= rank {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Some(low)
    }

    /// For each block, the number of waits that are not longer than the quantile, and of all waits.
    pub(super) fn below_quantile(&self, per_10_000: u32) -> (Vec<f64>, Vec<f64>) {
        let as_f64 = |row: Option<&[u64]>| row.unwrap_or_default().iter().map(|&n| n as f64).collect();
        let mut rows = self.cumulative.chunks(self.list.len().max(1));
        let place = self.place(per_10_000, &self.as_they_are()).unwrap_or(0);
        (as_f64(rows.clone().nth(place)), as_f64(rows.next_back()))
    }
}

/// The sum of some number over the blocks that were drawn.
pub(super) fn weighted(numbers: &[f64], weights: &[u64]) -> f64 {
    numbers.iter().zip(weights).map(|(number, &weight)| number * weight as f64).sum()
}

/// How much farther than the normal distribution's Student's *t* reaches at the same level: the ratio of their
/// quantiles, where `z` is the normal one (Fisher and Cornish 1960; Abramowitz and Stegun 26.7.5).
pub(super) fn student_to_normal(z: f64, degrees_of_freedom: f64) -> f64 {
    let (z2, v) = (z * z, degrees_of_freedom);
    let first = (z2 + 1.0) / (4.0 * v);
    let second = ((5.0 * z2 + 16.0) * z2 + 3.0) / (96.0 * v * v);
    let third = (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / (384.0 * v * v * v);
    1.0 + first + second + third
}

/// How much farther a share of two sums varies than it would if blocks were independent of their neighbours, 1 or more:
/// the root of (1 + *r*) / (1 - *r*), where *r* is the correlation of one block with the next (Bayley and Hammersley,
/// "The effective number of independent observations in an autocorrelated time series", Journal of the Royal
/// Statistical Society, Supplement 8, 1946). Estimates of *r* are too low by (1 + 4 *r*) / *n* (Kendall, "Note on bias
/// in the estimation of autocorrelation", Biometrika 41, 1954), which is put right.
pub(super) fn neighbours_widen(part: &[f64], whole: &[f64]) -> f64 {
    let (sum, all) = (part.iter().sum::<f64>(), whole.iter().sum::<f64>());
    if all <= 0.0 || part.len() < 8 {
        return 1.0;
    }
    // How far each block pulls the share away from what it is.
    let pulls: Vec<f64> = part.iter().zip(whole).map(|(part, whole)| part - whole * (sum / all)).collect();
    let square: f64 = pulls.iter().map(|pull| pull * pull).sum();
    if square <= 0.0 {
        return 1.0;
    }
    let product: f64 = pulls.iter().zip(pulls.iter().skip(1)).map(|(pull, next)| pull * next).sum();
    let n = part.len() as f64;
    let r = ((product / square + 1.0 / n) / (1.0 - 4.0 / n)).clamp(0.0, MAX_CORRELATION);
    ((1.0 + r) / (1.0 - r)).sqrt()
}
