//! Several data sets in one order, each as often as its weight says.

use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::permutation::key;
use super::{Order, Shuffle};
use crate::error::{Error, ErrorKind, Result};

/// Positions after which every part has come exactly as often as its weight, rounded to a place of these, says.
const BLOCK: u32 = 1 << 16;
/// Neighbouring positions over which parts are shuffled.
const STRATUM: u32 = 64;
const STRATA: u32 = BLOCK / STRATUM;
/// More would make a table of over 4 MiB.
const PARTS_MAX: usize = 1024;
/// The part of a weight that rounding may add to it or take from it.
const ROUNDING_MAX: f64 = 0.01;

/// Data sets, or parts of one, that are mixed by weights: an epoch has of each its share, and each is gone through on its
/// own, pass after pass, without replacement. A small part with a large weight is passed through several times in an
/// epoch, a large one with a small weight in several epochs; no sample comes twice before all of its part came once.
///
/// All positions of a run, through its epochs, are numbered in one line. It is cut into strata of 64 positions, in which
/// the parts stand in random order, and blocks of 65,536, in which every part has exactly its places: the weights rounded
/// to so many by the method of largest remainders. How many of its places lie in a stratum is fixed too: the share of each
/// part in a stratum, and in any 2, 4, 8, .. of them that begin at a multiple of as many, is rounded up or down, never
/// further. So batches hardly differ in what they are made of, unlike by independent draws, where of 256 samples at a
/// weight of a half half of all batches are off by more than 5.
///
/// How often a part has come before a position is therefore known without looking at any other: that is the place in
/// the part's own order ([`with_shuffle`](Self::with_shuffle)), which ends and begins anew with each pass. A table of 4 KiB
/// a part is all that is stored; a look-up shuffles one stratum, in about a microsecond or less.
///
/// The strata are those of van der Corput's sequence: a stratum takes every 1024th place of the block, from the place that
/// its number with its bits reversed names, so that those of neighbours interleave ("Verteilungsfunktionen", Proc. Akad.
/// Amsterdam 38, 1935).
///
/// ```
/// use forebay::order::{Mixture, Order};
///
/// // 1000 samples, numbered from 0, and 50 behind them.
/// let mixture = Mixture::new(&[(1000, 0.75), (50, 0.25)])?;
/// let order = Order::mixed(mixture.clone(), 7);
/// let of_second = (0..640).filter(|&position| mixture.part_of(order.at(0, position)) == 1).count();
/// assert_eq!(of_second, 160);
/// # Ok::<(), forebay::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mixture {
    parts: Arc<Vec<Part>>,
    /// How many places of each part the strata before one take, of all parts for each stratum.
    before: Arc<Vec<u32>>,
    samples: u64,
    shuffle: Shuffle,
    digest: u64,
}

#[derive(Debug)]
struct Part {
    /// The number of its first sample.
    first: u64,
    samples: u64,
    /// Of a block.
    places: u32,
}

/// What stands at a position.
struct Turn {
    part: usize,
    /// How often the part has been gone through before.
    pass: u64,
    /// The position in that pass.
    position: u64,
}

impl Mixture {
    /// Parts by their samples and weights. The samples of a part are numbered on from those of the part before it. Of the
    /// weights, which are above 0, only the ratios count.
    ///
    /// An epoch has as many positions as the parts together have samples, unless told [otherwise](Self::with_samples), and
    /// parts are shuffled anew in every pass.
    ///
    /// # Errors
    /// `InvalidParameter` for no part or more than 1024, for a weight that is 0, negative or no number, and for one that
    /// rounding to 65,536ths would change by more than a hundredth; `EmptyDataset` for a part without samples;
    /// `LimitExceeded` for more samples than can be counted.
    pub fn new(parts: &[(u64, f64)]) -> Result<Self> {
        if !(1..=PARTS_MAX).contains(&parts.len()) {
            return Err(Error::invalid_parameter("the number of parts", parts.len(), "1 to 1024 are mixed")
                .with_remedy("name at least one, and load small ones as one part together"));
        }
        let places = places(&parts.iter().map(|(_, weight)| *weight).collect::<Vec<_>>())?;
        let (mut list, mut first) = (Vec::with_capacity(parts.len()), 0u64);
        for (number, (&(samples, _), places)) in parts.iter().zip(places).enumerate() {
            if samples == 0 {
                return Err(Error::new(ErrorKind::EmptyDataset, format!("part {number} of the mixture has no sample"))
                    .with_remedy("check the path or the filter that its samples come from, or leave it out"));
            }
            list.push(Part { first, samples, places });
            first = first.checked_add(samples).ok_or_else(|| {
                Error::new(ErrorKind::LimitExceeded, "the parts of the mixture have more samples than can be counted")
            })?;
        }
        let before = table(&list);
        let mixture =
            Self { parts: Arc::new(list), before: Arc::new(before), samples: first, shuffle: Shuffle::Full, digest: 0 };
        Ok(mixture.digested())
    }

    /// The order of a pass through a part. Default [`Shuffle::Full`].
    ///
    /// # Errors
    /// Those of [`Order::new`].
    pub fn with_shuffle(mut self, shuffle: Shuffle) -> Result<Self> {
        Order::new(1, 0, shuffle)?;
        self.shuffle = shuffle;
        Ok(self.digested())
    }

    /// Another number of positions of an epoch. What comes at which place of a run does not depend on it, only where epochs
    /// end, and the random parameters, which are by epoch.
    ///
    /// # Errors
    /// `InvalidParameter` for 0.
    pub fn with_samples(mut self, samples: u64) -> Result<Self> {
        if samples == 0 {
            return Err(Error::invalid_parameter("the samples of an epoch", 0, "an epoch has at least one"));
        }
        self.samples = samples;
        Ok(self)
    }

    /// Positions of an epoch.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The part, from 0, that a sample is of.
    ///
    /// # Panics
    /// If there is no such sample.
    pub fn part_of(&self, sample: u64) -> usize {
        let part = self.parts.partition_point(|part| part.first <= sample) - 1;
        let Part { first, samples, .. } = self.parts[part];
        assert!(sample - first < samples, "{sample} is not below {}", first + samples);
        part
    }

    /// The weight of a part as it is kept: a whole number of 65,536ths.
    ///
    /// # Panics
    /// If there is no such part.
    pub fn share(&self, part: usize) -> f64 {
        f64::from(self.parts[part].places) / f64::from(BLOCK)
    }

    /// What an order of this mixture is, in a few bytes.
    pub fn shuffle(&self) -> Shuffle {
        Shuffle::Mixed { samples: self.samples, digest: self.digest }
    }

    /// The sample at a position of an epoch.
    pub(super) fn at(&self, seed: u64, epoch: u64, position: u64) -> u64 {
        let Turn { part, pass, position } = self.turn(seed, epoch, position);
        let Part { first, samples, .. } = self.parts[part];
        let seed = key(key(seed, xxh3_64(b"a part of a mixture")), part as u64);
        first + Order::unchecked(samples, seed, self.shuffle).at(pass, position)
    }

    /// The pass through its part that the sample at a position is of.
    pub(super) fn pass(&self, seed: u64, epoch: u64, position: u64) -> u64 {
        self.turn(seed, epoch, position).pass
    }

    fn turn(&self, seed: u64, epoch: u64, position: u64) -> Turn {
        assert!(position < self.samples, "{position} is not below {}", self.samples);
        // The epochs of a run can have more positions than 64 bits count.
        let place = u128::from(epoch) * u128::from(self.samples) + u128::from(position);
        let (block, in_block) = (place / u128::from(BLOCK), (place % u128::from(BLOCK)) as u32);
        let (stratum, within) = ((in_block / STRATUM) as usize, (in_block % STRATUM) as usize);
        let arranged = self.arranged(stratum, key(seed, (place / u128::from(STRATUM)) as u64));
        let part = arranged[within];
        let before_here = arranged[..within].iter().filter(|other| **other == part).count();
        let part = usize::from(part);
        let before = self.before[stratum * self.parts.len() + part];
        let Part { samples, places, .. } = self.parts[part];
        let ordinal = block * u128::from(places) + u128::from(before) + before_here as u128;
        let samples = u128::from(samples);
        Turn { part, pass: (ordinal / samples) as u64, position: (ordinal % samples) as u64 }
    }

    /// Which part stands where in a stratum of a block: those that are due in random order.
    fn arranged(&self, stratum: usize, stratum_key: u64) -> [u16; STRATUM as usize] {
        let mut arranged = [0; STRATUM as usize];
        let now = &self.before[stratum * self.parts.len()..][..self.parts.len()];
        let next = &self.before[(stratum + 1) * self.parts.len()..][..self.parts.len()];
        let mut filled = 0;
        for (part, (now, next)) in now.iter().zip(next).enumerate() {
            let due = (next - now) as usize;
            arranged[filled..filled + due].fill(part as u16);
            filled += due;
        }
        // Fisher and Yates, from the end, with a number for each step.
        let stratum_key = key(stratum_key, xxh3_64(b"a stratum of a mixture"));
        for end in (1..arranged.len()).rev() {
            let chosen = ((key(stratum_key, end as u64) >> u32::BITS) * (end as u64 + 1)) >> u32::BITS;
            arranged.swap(end, chosen as usize);
        }
        arranged
    }

    /// With the digest of parts, weights and their order.
    fn digested(mut self) -> Self {
        let mut hash = Xxh3::new();
        for Part { samples, places, .. } in self.parts.iter() {
            hash.update(&samples.to_le_bytes());
            hash.update(&places.to_le_bytes());
        }
        let shuffle = match self.shuffle {
            Shuffle::Sequential => [0, 0],
            Shuffle::Block { samples_per_block } => [1, samples_per_block],
            Shuffle::Full | Shuffle::Weighted { .. } | Shuffle::Mixed { .. } => [2, 0],
        };
        shuffle.iter().for_each(|number| hash.update(&number.to_le_bytes()));
        self.digest = hash.digest();
        self
    }
}

/// The places of a block that each part gets, by the method of largest remainders.
fn places(weights: &[f64]) -> Result<Vec<u32>> {
    for (part, &weight) in weights.iter().enumerate() {
        if !(weight > 0.0 && weight.is_finite()) {
            let name = format!("the weight of part {part}");
            return Err(Error::invalid_parameter(&name, weight, "weights are finite and above 0")
                .with_remedy("leave out what is not to come"));
        }
    }
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let sum: f64 = weights.iter().map(|weight| weight / largest).sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / largest / sum * f64::from(BLOCK)).collect();
    let mut places: Vec<u32> = shares.iter().map(|share| *share as u32).collect();
    let mut by_rest: Vec<usize> = (0..weights.len()).collect();
    by_rest.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()));
    // What is left is less than one for each, but for what the sum of fractions has lost.
    let left = BLOCK.saturating_sub(places.iter().sum()) as usize;
    by_rest.iter().cycle().take(left).for_each(|&part| places[part] += 1);
    for (part, (&places, share)) in places.iter().zip(shares).enumerate() {
        let off = (f64::from(places) - share).abs() / share;
        if places == 0 || off > ROUNDING_MAX {
            let share = share / f64::from(BLOCK);
            let (percent, off) = (share * 100.0, off * 100.0);
            let message = format!(
                "the weight of part {part} is {}, {percent:.4} % of all, and would come to {places} of {BLOCK} places, \
                 {off:.1} % off",
                weights[part],
            );
            let least = 1.0 / ROUNDING_MAX / f64::from(BLOCK) * 100.0;
            return Err(Error::new(ErrorKind::InvalidParameter, message)
                .with_remedy(format!("give it {least:.2} % or more, join it with another part, or leave it out")));
        }
    }
    Ok(places)
}

/// Of each stratum, and at the end of all: how many places of each part the strata before it take.
fn table(parts: &[Part]) -> Vec<u32> {
    let mut table = vec![0; (STRATA as usize + 1) * parts.len()];
    for stratum in 0..STRATA {
        let first = stratum.reverse_bits() >> (STRATA - 1).leading_zeros();
        // The stratum's places below one.
        let below = |place: u32| (place + STRATA - 1 - first) / STRATA;
        let (row, mut start) = (stratum as usize * parts.len(), 0);
        for (number, part) in parts.iter().enumerate() {
            let end = start + part.places;
            table[row + parts.len() + number] = table[row + number] + below(end) - below(start);
            start = end;
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_aligned_run_of_strata_has_its_shares(weights in prop::collection::vec(0.01..1.0f64, 1..12)) {
            let parts: Vec<_> = weights.iter().map(|&weight| (5, weight)).collect();
            let mixture = Mixture::new(&parts).unwrap();
            let count = mixture.parts.len();
            prop_assert_eq!(mixture.parts.iter().map(|part| part.places).sum::<u32>(), BLOCK);
            for (number, part) in mixture.parts.iter().enumerate() {
                let sum: f64 = weights.iter().sum();
                prop_assert!((f64::from(part.places) - weights[number] / sum * f64::from(BLOCK)).abs() < 1.0);
                let before = |stratum: usize| mixture.before[stratum * count + number];
                prop_assert_eq!(before(STRATA as usize), part.places);
                for run in (0..=10).map(|bits| 1usize << bits) {
                    let share = f64::from(part.places) * run as f64 / f64::from(STRATA);
                    for start in (0..STRATA as usize).step_by(run) {
                        let taken = f64::from(before(start + run) - before(start));
                        prop_assert!((taken - share).abs() < 1.0, "{} of {} in {} strata", taken, share, run);
                    }
                }
            }
            for stratum in 0..STRATA as usize {
                let all: u32 = (0..count).map(|part| {
                    mixture.before[(stratum + 1) * count + part] - mixture.before[stratum * count + part]
                }).sum();
                prop_assert_eq!(all, STRATUM);
            }
        }
    }

    #[test]
    fn a_place_beyond_64_bits_is_a_place() {
        let mixture = Mixture::new(&[(3, 1.0), (u64::MAX - 3, 2.0)]).unwrap();
        let sample = mixture.at(1, u64::MAX, u64::MAX - 1);
        assert!(mixture.part_of(sample) < 2);
        assert_eq!(mixture.at(1, u64::MAX, u64::MAX - 1), sample);
    }
}
