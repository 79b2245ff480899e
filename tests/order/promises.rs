//! Promises of the order: every sample once an epoch, as if drawn at random, by arithmetic alone.

use forebay::ErrorKind;
use forebay::order::{EpochOrder, Order, Shuffle};
use proptest::prelude::*;

fn epoch(order: &Order, epoch: u64) -> Vec<u64> {
    let epoch = order.epoch(epoch);
    (0..order.samples()).map(|position| epoch.at(position)).collect()
}

fn shuffles(samples_per_block: u64) -> [Shuffle; 3] {
    [Shuffle::Sequential, Shuffle::Full, Shuffle::Block { samples_per_block }]
}

#[test]
fn every_small_size_gives_every_sample_once() {
    for samples in (0..600u64).chain((600..5000).step_by(37)) {
        for shuffle in shuffles(samples % 97 + 1) {
            let mut ids = epoch(&Order::new(samples, samples, shuffle).unwrap(), 1);
            ids.sort_unstable();
            assert!(ids.into_iter().eq(0..samples), "{samples} {shuffle:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sampled_large_sizes_give_every_sample_once(samples in 5000u64..1_000_000, block in 1u64..2_000_000, seed: u64, number: u64) {
        for shuffle in shuffles(block) {
            let mut ids = epoch(&Order::new(samples, seed, shuffle).unwrap(), number);
            ids.sort_unstable();
            prop_assert!(ids.into_iter().eq(0..samples));
        }
    }

    #[test]
    fn any_size_and_block_can_be_looked_up(samples in 1u64.., block in 1u64.., seed: u64, position: u64) {
        for shuffle in shuffles(block) {
            prop_assert!(Order::new(samples, seed, shuffle).unwrap().at(seed, position % samples) < samples);
        }
    }
}

#[test]
fn blocks_stay_together_and_are_shuffled() {
    for (samples, block) in [(1000, 64), (1000, 100), (999, 1000), (7, 3), (64, 1)] {
        let ids = epoch(&Order::new(samples, 5, Shuffle::Block { samples_per_block: block }).unwrap(), 0);
        let mut blocks: Vec<u64> = ids.iter().map(|id| id / block).collect();
        blocks.dedup();
        assert_eq!(blocks.len() as u64, samples.div_ceil(block), "{samples} in blocks of {block}");
    }
    // The short block of 1000 = 15 x 64 + 40 must turn up everywhere, not in the end alone.
    let order = Order::new(1000, 5, Shuffle::Block { samples_per_block: 64 }).unwrap();
    let places: std::collections::HashSet<u64> =
        (0..400).map(|number| epoch(&order, number).iter().position(|&id| id >= 960).unwrap() as u64 / 64).collect();
    assert_eq!(places.len(), 16);
}

#[test]
fn seed_and_epoch_alone_decide() {
    let order = |seed| Order::new(10_000, seed, Shuffle::Full).unwrap();
    assert_eq!(epoch(&order(1), 0), epoch(&order(1), 0));
    assert_ne!(epoch(&order(1), 0), epoch(&order(1), 1));
    assert_ne!(epoch(&order(1), 0), epoch(&order(2), 0));
    // Seed and epoch are not interchangeable.
    assert_ne!(epoch(&order(1), 2), epoch(&order(2), 1));
    // Changing this is changing every run's order: the digest of an epoch must not move between releases.
    assert_eq!((0..5).map(|position| order(1).at(0, position)).collect::<Vec<_>>(), FIRST_FIVE);
}

const FIRST_FIVE: [u64; 5] = [7491, 1781, 6077, 1121, 854];

#[test]
#[should_panic(expected = "is not below 10")]
fn a_position_outside_the_epoch_panics() {
    Order::new(10, 0, Shuffle::Full).unwrap().at(0, 10);
}

#[test]
fn blocks_of_nothing_are_refused() {
    let error = Order::new(10, 0, Shuffle::Block { samples_per_block: 0 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
}

/// Chi-square of counts that should be equal, in standard deviations from what chance gives.
fn chi_square_sigmas(counts: &[u64]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let chi_square: f64 = counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    let freedom = (counts.len() - 1) as f64;
    (chi_square - freedom) / (2.0 * freedom).sqrt()
}

/// Over many epochs each sample must be equally often at each position.
#[test]
fn every_position_gets_every_sample_equally_often() {
    for samples in [2u64, 3, 5, 7, 8, 10, 16, 17, 33, 64, 100] {
        let order = Order::new(samples, 11, Shuffle::Full).unwrap();
        let mut counts = vec![0; (samples * samples) as usize];
        for number in 0..100 * samples {
            for (position, id) in epoch(&order, number).into_iter().enumerate() {
                counts[position * samples as usize + id as usize] += 1;
            }
        }
        // Rows and columns have fixed sums, which takes freedom away: only too large a value is bad.
        let sigmas = chi_square_sigmas(&counts);
        assert!(sigmas < 5.0, "{samples} samples: {sigmas}");
    }
}

/// At sizes from the smallest to a million: where a sample comes must say nothing of where in the data set it lies. By
/// chi-square over a table of sixteenths of the order by sixteenths of the data set, and the same over pairs of
/// neighbours in the order; a table of some thousand epochs where one is too small to fill it.
#[test]
fn no_size_has_a_bad_order() {
    let sizes = (1..=40u64).chain([63, 64, 65, 100, 127, 128, 129, 255, 257, 1000, 1023, 1025, 4096, 4097, 10_000]);
    for samples in sizes.chain([65_535, 65_537, 99_991, 262_144, 500_009, 1_000_000]) {
        let order = Order::new(samples, samples ^ 0x5EED, Shuffle::Full).unwrap();
        let cells = samples.min(16);
        let epochs = (100 * cells * cells).div_ceil(samples).max(2);
        let cell = |number: u64| (number * cells / samples) as usize;
        let (mut places, mut pairs) = (vec![0u64; (cells * cells) as usize], vec![0u64; (cells * cells) as usize]);
        // Where 16 does not divide the samples, cells differ in size: what is expected of each pair of them.
        let mut expected = vec![0f64; cells as usize];
        (0..samples).for_each(|number| expected[cell(number)] += 1.0);
        for number in 0..epochs {
            let ids = epoch(&order, number);
            for (position, id) in (0u64..).zip(&ids) {
                places[cell(position) * cells as usize + cell(*id)] += 1;
            }
            ids.windows(2).for_each(|pair| pairs[cell(pair[0]) * cells as usize + cell(pair[1])] += 1);
        }
        let sigmas = |counts: &[u64], same: f64, total: f64| {
            let mut chi_square = 0.0;
            for (row, counts) in counts.chunks(cells as usize).enumerate() {
                for (column, &count) in counts.iter().enumerate() {
                    // No sample stands beside itself, so pairs within a cell are rarer.
                    let pairs = expected[row] * (expected[column] - if row == column { same } else { 0.0 });
                    let expected = pairs * total;
                    if expected > 0.0 {
                        chi_square += (count as f64 - expected).powi(2) / expected;
                    }
                }
            }
            let freedom = ((cells * cells - 1) as f64).max(1.0);
            (chi_square - freedom) / (2.0 * freedom).sqrt()
        };
        let (n, epochs) = (samples as f64, epochs as f64);
        // Sums over rows and columns are fixed, which takes freedom away: only too large a value is bad.
        let found = (sigmas(&places, 0.0, epochs / n), sigmas(&pairs, 1.0, epochs / n));
        assert!(found.0 < 5.0 && found.1 < 5.0, "{samples} samples: {found:?} sigmas");
    }
}

/// A thousand million samples: an order is set up and asked in no time, as it has nothing that grows with them.
#[test]
fn an_order_of_a_thousand_million_samples_takes_no_time_and_no_memory() {
    // Weights alone have memory elsewhere, and there are none here.
    fn lies_in<T>(bytes: usize) {
        assert!(size_of::<T>() <= bytes, "{} bytes", size_of::<T>());
    }
    lies_in::<Order>(128);
    lies_in::<EpochOrder>(128);
    for shuffle in shuffles(10_000) {
        // The best of several: other programs may be running.
        let times = (0..20).map(|seed| {
            let started = std::time::Instant::now();
            let order = Order::new(1_000_000_000, seed, shuffle).unwrap();
            let epoch = order.epoch(3);
            let first: u64 = (0..256).map(|position| epoch.at(position)).sum();
            assert!(first > 0);
            started.elapsed()
        });
        let best = times.min().unwrap();
        println!("{shuffle}: {best:?} to set up and to look up 256 of 10^9");
        assert!(best < std::time::Duration::from_millis(1), "{shuffle}: {best:?}");
    }
}

/// At every size, neighbours in the order must not be neighbours in the data set.
#[test]
fn the_order_has_no_serial_correlation() {
    for samples in [100u64, 1000, 1024, 4097, 65_536, 100_000, 1_000_000] {
        for seed in 0..4 {
            let ids = epoch(&Order::new(samples, seed, Shuffle::Full).unwrap(), 0);
            for lag in [1usize, 2, 3, 16, 64] {
                let sigmas = serial_correlation(&ids, lag) * (samples as f64).sqrt();
                assert!(sigmas.abs() < 5.0, "{samples} samples, seed {seed}, lag {lag}: {sigmas} sigmas");
            }
        }
    }
}

/// Pairs of neighbours in the order, by the sixteenth of the data set that each comes from.
#[test]
fn successive_samples_come_from_all_pairs_of_regions() {
    for samples in [4096u64, 10_000, 65_537, 1_000_000] {
        let ids = epoch(&Order::new(samples, 3, Shuffle::Full).unwrap(), 9);
        let region = |id: u64| (id * 16 / samples) as usize;
        let mut counts = vec![0; 256];
        ids.windows(2).for_each(|pair| counts[region(pair[0]) * 16 + region(pair[1])] += 1);
        let sigmas = chi_square_sigmas(&counts);
        assert!(sigmas.abs() < 5.0, "{samples} samples: {sigmas}");
    }
}

/// The orders of two epochs must have nothing to do with each other: as many samples at the same position
/// as chance gives, which is 1 on average.
#[test]
fn successive_epochs_are_independent() {
    let order = Order::new(1000, 4, Shuffle::Full).unwrap();
    let epochs: Vec<Vec<u64>> = (0..500).map(|number| epoch(&order, number)).collect();
    let same: usize = epochs.windows(2).map(|pair| pair[0].iter().zip(&pair[1]).filter(|(a, b)| a == b).count()).sum();
    // Poisson with mean 499.
    assert!((same as f64 - 499.0).abs() < 5.0 * 499f64.sqrt(), "{same}");
}

fn serial_correlation(ids: &[u64], lag: usize) -> f64 {
    let mean = (ids.len() - 1) as f64 / 2.0;
    let centred = |id: u64| id as f64 - mean;
    let variance: f64 = ids.iter().map(|&id| centred(id).powi(2)).sum();
    let covariance: f64 = ids.iter().zip(ids.iter().cycle().skip(lag)).map(|(&a, &b)| centred(a) * centred(b)).sum();
    covariance / variance
}
