//! Latency histogram, median and ratios. Pure arithmetic.
//!
//! The histogram has a fixed size, so a run of any length needs the same
//! memory. A value is reported too high by less than 1 % and never too low.
//! This file knows nothing of servers or requests.

/// Buckets per power of two, as bits: 2^7 buckets, an error below 1/128.
const SUB_BITS: u32 = 7;
/// Buckets per power of two.
const SUB: u64 = 1 << SUB_BITS;
/// Buckets in all: every `u64` has one.
const BUCKETS: usize = ((64 - SUB_BITS as usize) + 1) << SUB_BITS;

/// Counts of values in buckets of constant relative width.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// An empty histogram.
    pub(crate) fn new() -> Histogram {
        Histogram {
            buckets: vec![0; BUCKETS],
            count: 0,
            max: 0,
        }
    }

    /// Counts one value.
    pub(crate) fn record(&mut self, value: u64) {
        if let Some(bucket) = self.buckets.get_mut(bucket_of(value)) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Adds the counts of another histogram.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// Number of values counted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Smallest bucket bound that `q` (0 to 1) of the values do not exceed;
    /// 0 when nothing was counted.
    pub(crate) fn quantile(&self, q: f64) -> u64 {
        let rank = ((q * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(bucket).min(self.max);
            }
        }
        self.max
    }
}

/// Bucket that holds `value`.
fn bucket_of(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - SUB_BITS;
    let sub = (value >> shift) & (SUB - 1);
    (((shift as usize) + 1) << SUB_BITS) + sub as usize
}

/// Largest value that falls into `bucket`.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = (bucket >> SUB_BITS) - 1;
    let low = (SUB + (bucket & (SUB - 1))) << shift;
    low + ((1_u64 << shift) - 1)
}

/// Middle value; the mean of the two middle ones when their number is even.
/// `None` when there are none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let high = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(high);
    }
    let low = *sorted.get(sorted.len() / 2 - 1)?;
    Some((low + high) / 2.0)
}

/// Median, least and greatest of the ratios of rounds run side by side.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Ratio {
    /// Median of the rounds' ratios.
    pub(crate) median: f64,
    /// The least favourable round.
    pub(crate) least: f64,
    /// The most favourable round.
    pub(crate) greatest: f64,
}

/// Divides round by round. Rounds where either side is missing or the base is
/// zero are left out; `None` when no round is left.
pub(crate) fn paired_ratio(ours: &[f64], base: &[f64]) -> Option<Ratio> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(base)
        .filter(|(_, base)| **base > 0.0)
        .map(|(ours, base)| ours / base)
        .collect();
    Some(Ratio {
        median: median(&ratios)?,
        least: ratios.iter().copied().reduce(f64::min)?,
        greatest: ratios.iter().copied().reduce(f64::max)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut probes = vec![0, 1, 127, 128, 129, 255, 256, u64::MAX - 1, u64::MAX];
        probes.extend((0..64).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power.saturating_add(power / 3)]
        }));
        for value in probes {
            let bucket = bucket_of(value);
            assert!(bucket < BUCKETS, "{value} has bucket {bucket}");
            let bound = upper_bound(bucket);
            assert!(bound >= value, "{value} above its bound {bound}");
            assert!(
                (bound - value) as f64 <= value as f64 / SUB as f64,
                "{value} reported as {bound}"
            );
            if bucket > 0 {
                assert!(upper_bound(bucket - 1) < value);
            }
        }
    }

    #[test]
    fn quantiles_of_a_known_series() {
        let mut histogram = Histogram::new();
        for value in 1..=100 {
            histogram.record(value);
        }
        assert_eq!(histogram.quantile(0.50), 50);
        assert_eq!(histogram.quantile(0.99), 99);
        assert_eq!(histogram.quantile(1.0), 100);
        assert_eq!(histogram.quantile(0.0), 1);
        assert_eq!(histogram.count(), 100);
    }

    #[test]
    fn a_quantile_never_exceeds_the_greatest_value() {
        let mut histogram = Histogram::new();
        histogram.record(1_000_001);
        assert_eq!(histogram.quantile(0.5), 1_000_001);
        assert_eq!(Histogram::new().quantile(0.5), 0);
    }

    #[test]
    fn merged_histograms_count_both() {
        let (mut a, mut b) = (Histogram::new(), Histogram::new());
        a.record(10);
        b.record(90);
        b.record(100);
        a.merge(&b);
        assert_eq!(a.count(), 3);
        assert_eq!(a.quantile(0.5), 90);
        assert_eq!(a.quantile(1.0), 100);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_paired_by_round() {
        // The machine was twice as slow in the second round for both.
        let ratio = paired_ratio(&[200.0, 100.0, 210.0], &[100.0, 50.0, 100.0]);
        assert_eq!(
            ratio,
            Some(Ratio {
                median: 2.0,
                least: 2.0,
                greatest: 2.1
            })
        );
        assert_eq!(paired_ratio(&[1.0], &[0.0]), None);
        assert_eq!(paired_ratio(&[], &[1.0]), None);
    }
}
