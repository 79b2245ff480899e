//! Promises of weighted draws: by weight, independent, by seed, epoch and position alone.

use std::path::PathBuf;

use forebay::order::{Order, Shuffle, Weights};
use forebay::source::{Extent, Source, UNLABELLED};
use forebay::{ErrorKind, Result};

/// Labels, and nothing to load.
struct Labels(Vec<i64>);

impl Source for Labels {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        Ok(Extent::Object(sample))
    }

    fn object_path(&self, _object: u64, path: &mut PathBuf) -> Result<()> {
        path.clear();
        Ok(())
    }

    fn label(&self, sample: u64) -> Result<i64> {
        Ok(self.0[sample as usize])
    }

    fn key(&self, _sample: u64, key: &mut String) -> Result<()> {
        key.clear();
        Ok(())
    }
}

fn drawn(order: &Order, epoch: u64) -> Vec<u64> {
    let epoch = order.epoch(epoch);
    (0..order.samples()).map(|position| epoch.at(position)).collect()
}

/// Chi-square of counts against what they should be, in standard deviations from what chance gives.
fn sigmas(counts: &[u64], expected: impl Fn(usize) -> f64) -> f64 {
    let squares = counts.iter().enumerate().filter(|(index, _)| expected(*index) > 0.0);
    let chi_square: f64 = squares.clone().map(|(i, &count)| (count as f64 - expected(i)).powi(2) / expected(i)).sum();
    let freedom = squares.count().saturating_sub(1).max(1) as f64;
    (chi_square - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn samples_come_as_often_as_they_weigh() {
    for samples in [1usize, 2, 3, 10, 100, 1000] {
        let weights: Vec<f64> =
            (0..samples).map(|sample| ((sample * 7919) % 11) as f64 / 3.0 + f64::from(samples == 1)).collect();
        let sum: f64 = weights.iter().sum();
        let draws = 2000 * samples as u64;
        let order = Order::weighted(Weights::new(&weights).unwrap().with_draws(draws).unwrap(), 5);
        let mut counts = vec![0; samples];
        drawn(&order, 3).into_iter().for_each(|sample| counts[sample as usize] += 1);
        assert!(counts.iter().zip(&weights).all(|(count, weight)| *weight > 0.0 || *count == 0));
        let off = sigmas(&counts, |sample| weights[sample] / sum * draws as f64);
        assert!(off.abs() < 5.0, "{samples} samples: {off} sigmas");
    }
}

#[test]
fn neighbouring_draws_and_epochs_are_independent() {
    let order = Order::weighted(Weights::new(&[1.0, 2.0, 3.0, 4.0]).unwrap().with_draws(400_000).unwrap(), 9);
    let expected = |pair: usize| ((pair / 4 + 1) * (pair % 4 + 1)) as f64 / 100.0;
    let (first, second) = (drawn(&order, 0), drawn(&order, 1));
    let within: Vec<(u64, u64)> = first.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let across: Vec<(u64, u64)> = first.iter().copied().zip(second).collect();
    for (name, pairs) in [("within an epoch", within), ("across epochs", across)] {
        let mut counts = vec![0; 16];
        pairs.iter().for_each(|(a, b)| counts[(a * 4 + b) as usize] += 1);
        let off = sigmas(&counts, |pair| expected(pair) * pairs.len() as f64);
        assert!(off.abs() < 5.0, "{name}: {off} sigmas");
    }
}

#[test]
fn seed_epoch_and_position_alone_decide() {
    let order = |seed| Order::weighted(Weights::new(&[1.0, 5.0, 0.5, 2.0, 7.0, 1.0, 3.0]).unwrap(), seed);
    assert_eq!(drawn(&order(1), 0), drawn(&order(1), 0));
    assert_ne!(drawn(&order(1), 0), drawn(&order(1), 1));
    assert_ne!(drawn(&order(1), 2), drawn(&order(2), 1));
    // Any position alone, in any order, as a rank or a resumed run asks for it.
    let whole = drawn(&order(1), 4);
    assert!((0..7).rev().all(|position| order(1).at(4, position) == whole[position as usize]));
    // Changing this is changing every run's order.
    assert_eq!(drawn(&order(1), 0), FIRST_SEVEN);
}

const FIRST_SEVEN: [u64; 7] = [1, 1, 4, 1, 4, 5, 4];

#[test]
fn classes_are_balanced_however_many_samples_they_have() {
    // 10 of class 0, 100 of class 1, 890 of class 7, and 50 without a label.
    let labels = [(0, 10), (1, 100), (7, 890), (UNLABELLED, 50)];
    let labels = labels.iter().flat_map(|&(label, count)| std::iter::repeat_n(label, count)).collect();
    let source = Labels(labels);
    let counts_of = |weights: Weights| {
        let order = Order::weighted(weights.with_draws(30_000).unwrap(), 2);
        let mut counts = vec![0u64; source.0.len()];
        drawn(&order, 0).into_iter().for_each(|sample| counts[sample as usize] += 1);
        counts
    };
    let counts = counts_of(Weights::balanced(&source).unwrap());
    let classes =
        [&counts[..10], &counts[10..110], &counts[110..1000], &counts[1000..]].map(|of| of.iter().sum::<u64>());
    assert_eq!(classes[3], 0);
    assert!(sigmas(&classes[..3], |_| 10_000.0).abs() < 5.0, "{classes:?}");
    assert!(sigmas(&counts[110..1000], |_| classes[2] as f64 / 890.0).abs() < 5.0);
    let counts = counts_of(Weights::by_class(&source, |label| if label == 1 { 3.0 } else { 1.0 }).unwrap());
    let ones = counts[10..110].iter().sum::<u64>();
    assert!((ones as f64 - 15_000.0).abs() < 5.0 * (30_000f64 / 4.0).sqrt(), "{ones}");
    let nothing = Weights::by_class(&source, |label| f64::from(u8::from(label == 5))).unwrap_err();
    assert!(nothing.kind() == ErrorKind::InvalidParameter && nothing.remedy().is_some());
}

#[test]
#[should_panic(expected = "is not below 2")]
fn a_draw_outside_the_epoch_panics() {
    Order::weighted(Weights::new(&[1.0, 1.0]).unwrap(), 0).at(0, 2);
}

#[test]
fn a_name_of_weights_makes_no_order() {
    let shuffle = Weights::new(&[1.0]).unwrap().shuffle();
    assert!(matches!(shuffle, Shuffle::Weighted { draws: 1, .. }));
    assert_eq!(Order::new(1, 0, shuffle).unwrap_err().kind(), ErrorKind::InvalidParameter);
}
