//! Draws with replacement, by weights.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::Shuffle;
use super::permutation::key;
use crate::error::{Error, ErrorKind, Result};
use crate::source::Source;

/// What a cell of the table holds: the shares of all samples add up to a whole number of these.
const CELL: u64 = 1 << 32;

/// The most draws of an epoch. Each is a view of its sample of its own, and views are numbered in 32 bits.
const DRAWS_MAX: u64 = 1 << 32;

/// How often each sample is drawn, relative to the others. An epoch is a number of draws with replacement, by default as
/// many as there are samples: each takes sample i with a probability of its weight divided by the sum of all.
///
/// Every draw is a function of seed, epoch and position alone and independent of all others, as in torch's
/// `WeightedRandomSampler`; a sample that comes several times in an epoch is augmented anew each time. A sample of weight
/// 0 never comes.
///
/// Walker's alias method ("An efficient method for generating discrete random variables with general distributions", ACM
/// TOMS 3, 1977), set up as by Vose (IEEE TSE 17, 1991) but in whole numbers, so that nothing is left over: a draw looks
/// at one cell, 8 bytes a sample. A probability is as close to its weight as 2^-28 of the average one for up to 2^22
/// samples, and twice that for each doubling beyond. Setting up takes 24 bytes a sample for a short while.
///
/// ```
/// use forebay::order::{Order, Weights};
///
/// let weights = Weights::new(&[1.0, 0.0, 3.0])?.with_draws(1000)?;
/// let order = Order::weighted(weights, 7);
/// let drawn = |sample| (0..1000).filter(|&position| order.at(0, position) == sample).count();
/// assert_eq!(drawn(1), 0);
/// assert!(drawn(2) > 2 * drawn(0));
/// # Ok::<(), forebay::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Weights {
    cells: Arc<Vec<Cell>>,
    draws: u64,
    digest: u64,
}

/// A share of at most two samples: the cell's own up to the threshold, and another from there.
#[derive(Clone, Copy, Debug)]
struct Cell {
    threshold: u32,
    other: u32,
}

impl Weights {
    /// Weights of the samples 0, 1, 2, .., not negative and not all 0. Only their ratios count.
    ///
    /// # Errors
    /// `InvalidParameter` for a weight that is negative, infinite or no number, and where all are 0; `EmptyDataset` for
    /// none; `LimitExceeded` for 2^32 or more, or if there is no memory for the table.
    pub fn new(weights: &[f64]) -> Result<Self> {
        let largest = check(weights)?;
        let samples = weights.len() as u64;
        let mut cells = fallible(weights.len())?;
        let mut shares = fallible(weights.len())?;
        // Each share ends where the sum of weights so far does. So they add up exactly, and nothing is no share.
        let sum: f64 = weights.iter().map(|weight| weight / largest).sum();
        let whole = samples * CELL;
        let (mut so_far, mut taken) = (0.0, 0);
        let last = weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
        for (sample, weight) in weights.iter().enumerate() {
            so_far += weight / largest;
            let end = if sample >= last { whole } else { ((so_far / sum * whole as f64) as u64).min(whole) };
            shares.push(end - taken);
            taken = end;
        }
        fill(&mut shares, &mut cells);
        let mut hash = Xxh3::new();
        cells.iter().for_each(|Cell { threshold, other }| {
            hash.update(&threshold.to_le_bytes());
            hash.update(&other.to_le_bytes());
        });
        Ok(Self { cells: Arc::new(cells), draws: samples, digest: hash.digest() })
    }

    /// Every class as often as every other, and within a class every sample. Samples without a label are never drawn.
    ///
    /// # Errors
    /// Those of the source's labels; as [`new`](Self::new); `InvalidParameter` if no sample has a label.
    pub fn balanced(source: &dyn Source) -> Result<Self> {
        Self::by_class(source, |label| if label == crate::source::UNLABELLED { 0.0 } else { 1.0 })
    }

    /// A weight for each class, by its label, of which its samples take equal parts: the class is drawn that often,
    /// however many samples it has. [`UNLABELLED`](crate::source::UNLABELLED) is a class too.
    ///
    /// # Errors
    /// As [`balanced`](Self::balanced).
    pub fn by_class(source: &dyn Source, weight: impl Fn(i64) -> f64) -> Result<Self> {
        let mut counts = HashMap::<i64, u64>::new();
        for sample in 0..source.len() {
            *counts.entry(source.label(sample)?).or_default() += 1;
        }
        let of_sample: HashMap<i64, f64> =
            counts.iter().map(|(&label, &count)| (label, weight(label) / count as f64)).collect();
        if of_sample.values().all(|&weight| weight == 0.0) && !of_sample.is_empty() {
            return Err(Error::new(ErrorKind::InvalidParameter, "no class that has samples has a weight above 0")
                .with_remedy("give the samples labels, or weights of their own"));
        }
        let mut weights = fallible(usize::try_from(source.len()).unwrap_or(usize::MAX))?;
        for sample in 0..source.len() {
            weights.push(of_sample.get(&source.label(sample)?).copied().unwrap_or(0.0));
        }
        Self::new(&weights)
    }

    /// Another number of draws an epoch than there are samples.
    ///
    /// # Errors
    /// `InvalidParameter` for 0 or more than 2^32.
    pub fn with_draws(mut self, draws: u64) -> Result<Self> {
        if !(1..=DRAWS_MAX).contains(&draws) {
            return Err(Error::invalid_parameter("draws", draws, "an epoch has 1 to 4294967296 draws"));
        }
        self.draws = draws;
        Ok(self)
    }

    /// How many samples they are of.
    pub fn samples(&self) -> u64 {
        self.cells.len() as u64
    }

    /// Draws of an epoch.
    pub fn draws(&self) -> u64 {
        self.draws
    }

    /// What an order by these weights is, in a few bytes.
    pub fn shuffle(&self) -> Shuffle {
        Shuffle::Weighted { draws: self.draws, digest: self.digest }
    }

    /// The draw at a position, by an epoch's key.
    pub(super) fn draw(&self, epoch_key: u64, position: u64) -> u64 {
        let sample = (u128::from(key(epoch_key, 2 * position)) * self.cells.len() as u128) >> u64::BITS;
        let within = (key(epoch_key, 2 * position + 1) >> u32::BITS) as u32;
        let Cell { threshold, other } = self.cells[sample as usize];
        if within < threshold { sample as u64 } else { other.into() }
    }
}

/// The key that an epoch's draws are derived from: another than that of its permutation.
pub(super) fn epoch_key(seed: u64, epoch: u64) -> u64 {
    key(key(seed, epoch), xxh3_64(b"draws with replacement"))
}

/// The largest weight, if all of them are sound.
fn check(weights: &[f64]) -> Result<f64> {
    if weights.is_empty() {
        return Err(Error::new(ErrorKind::EmptyDataset, "there are weights of 0 samples")
            .with_remedy("check the path or the filter that the samples come from"));
    }
    if weights.len() as u64 >= u64::from(u32::MAX) {
        let message = format!("weights of {} samples: tables are of fewer than 2^32 - 1", weights.len());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let is_sound = |weight: &f64| weight.is_finite() && *weight >= 0.0;
    if let Some(sample) = weights.iter().position(|weight| !is_sound(weight)) {
        let name = format!("the weight of sample {sample}");
        return Err(Error::invalid_parameter(&name, weights[sample], "weights are finite and not negative"));
    }
    let largest = weights.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return Err(Error::invalid_parameter("the largest weight", 0, "at least one sample has to be drawn"));
    }
    Ok(largest)
}

/// Distributes shares, which are a cell for each on average, over as many cells with two samples in each at most.
///
/// Two indices walk up: over the samples with less than a cell, and over those with more, which give theirs the rest. A
/// sample that has given until it has less than a cell itself comes next if the first index is past it.
fn fill(shares: &mut [u64], cells: &mut Vec<Cell>) {
    cells.extend((0..shares.len() as u32).map(|sample| Cell { threshold: u32::MAX, other: sample }));
    let next_large = |shares: &[u64], from: usize| (from..shares.len()).find(|&sample| shares[sample] > CELL);
    let Some(mut large) = next_large(shares, 0) else { return };
    for scanned in 0..shares.len() {
        let mut small = scanned;
        while shares[small] < CELL {
            cells[small] = Cell { threshold: shares[small] as u32, other: large as u32 };
            shares[large] -= CELL - shares[small];
            // Its cell is settled.
            shares[small] = CELL;
            if shares[large] > CELL {
                break;
            }
            let spent = large;
            // The shares that are left add up to as many cells: while one has less, another has more.
            match next_large(shares, large + 1) {
                Some(next) => large = next,
                None => return,
            }
            if spent > scanned {
                break;
            }
            small = spent;
        }
    }
}

fn fallible<T>(len: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|error| {
        let message = format!("there is no memory for a table of {len} samples: {error}");
        Error::new(ErrorKind::LimitExceeded, message).with_remedy("8 bytes a sample stay, 24 are needed to set it up")
    })?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the table gives each sample, in parts of a cell.
    fn shares(weights: &Weights) -> Vec<u64> {
        let mut shares = vec![0; weights.cells.len()];
        for (sample, cell) in weights.cells.iter().enumerate() {
            shares[sample] += u64::from(cell.threshold);
            shares[cell.other as usize] += CELL - u64::from(cell.threshold);
        }
        shares
    }

    proptest! {
        #[test]
        fn the_table_holds_the_weights(weights in prop::collection::vec(prop_oneof![Just(0.0), 0.0..1.0f64, 0.0..1e6f64, Just(1e300)], 1..200)) {
            prop_assume!(weights.iter().any(|&weight| weight > 0.0));
            let table = Weights::new(&weights).unwrap();
            let largest = weights.iter().copied().fold(0.0, f64::max);
            let sum: f64 = weights.iter().map(|weight| weight / largest).sum();
            for (sample, share) in shares(&table).into_iter().enumerate() {
                let expected = weights[sample] / largest / sum * weights.len() as f64 * CELL as f64;
                prop_assert!((share as f64 - expected).abs() < 16.0, "sample {}: {} of {}", sample, share, expected);
                prop_assert!(weights[sample] > 0.0 || share == 0, "sample {} has no weight, and a share of {}", sample, share);
            }
        }
    }

    #[test]
    fn equal_weights_fill_their_own_cells() {
        let table = Weights::new(&[0.1; 1000]).unwrap();
        assert!(shares(&table).into_iter().all(|share| share.abs_diff(CELL) < 16));
        assert_eq!(Weights::new(&[3.0]).unwrap().draw(1, 2), 0);
    }

    #[test]
    fn what_is_no_weight_is_refused_by_sample() {
        for (bad, word) in [(f64::NAN, "NaN"), (-1.0, "-1"), (f64::INFINITY, "inf")] {
            let error = Weights::new(&[1.0, bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
            assert!(error.to_string().contains("sample 1") && error.to_string().contains(word), "{error}");
        }
        assert_eq!(Weights::new(&[0.0, 0.0]).unwrap_err().kind(), ErrorKind::InvalidParameter);
        assert_eq!(Weights::new(&[]).unwrap_err().kind(), ErrorKind::EmptyDataset);
        let weights = Weights::new(&[1.0]).unwrap();
        assert!(weights.clone().with_draws(0).is_err() && weights.clone().with_draws(DRAWS_MAX + 1).is_err());
        assert!(weights.with_draws(DRAWS_MAX).is_ok());
    }

    #[test]
    fn other_weights_and_numbers_of_draws_are_other_orders() {
        let shuffle = |weights: &[f64]| Weights::new(weights).unwrap().shuffle();
        assert_eq!(shuffle(&[1.0, 2.0]), shuffle(&[2.0, 4.0]));
        assert_ne!(shuffle(&[1.0, 2.0]), shuffle(&[1.0, 3.0]));
        assert_ne!(shuffle(&[1.0, 2.0]), Weights::new(&[1.0, 2.0]).unwrap().with_draws(3).unwrap().shuffle());
    }
}
