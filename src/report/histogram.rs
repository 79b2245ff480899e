//! A latency histogram of fixed size.

/// Sub-buckets per power of two: 16, so that a percentile is at most 1/16 above the true value.
const SUB_BITS: u32 = 4;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) << SUB_BITS;

/// Counts of durations in logarithmic buckets: 8 KiB whatever the number of values, percentiles within
/// 6.25 % (the layout of HdrHistogram with one significant hexadecimal digit).
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0, max_us: 0 }
    }
}

impl Histogram {
    /// Adds one duration, in microseconds.
    pub fn record_us(&mut self, value_us: u64) {
        self.counts[bucket(value_us)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(value_us);
    }

    /// Adds the durations of another.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts.iter()).for_each(|(count, other)| *count += other);
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The number of durations.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The duration, in microseconds, that a share `quantile` (0 to 1) of the values does not exceed;
    /// 0 when empty.
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        let rank = (quantile.clamp(0.0, 1.0) * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(index).min(self.max_us);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    let exponent = (64 - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    ((exponent as usize) << SUB_BITS) + (value >> exponent) as usize
}

fn upper_bound(index: usize) -> u64 {
    let exponent = (index >> SUB_BITS).saturating_sub(1);
    let mantissa = (index - (exponent << SUB_BITS)) as u64;
    ((mantissa + 1) << exponent) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_bounds_and_is_narrow() {
        for value in (0..5000).chain((0..50).map(|shift| (1u64 << shift) + 3)) {
            let upper = upper_bound(bucket(value));
            assert!(upper >= value && upper as f64 <= value as f64 * 1.0625 + 1.0, "{value} -> {upper}");
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_within_a_sixteenth() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.record_us(value));
        for (quantile, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = histogram.quantile_us(quantile) as f64;
            assert!(got >= exact && got <= exact * 1.0625, "{quantile}: {got}");
        }
        assert_eq!(Histogram::default().quantile_us(0.5), 0);
    }
}
