//! A keyed permutation of 0..n without a table.

/// Rounds of the Feistel network. Luby and Rackoff ("How to construct pseudorandom permutations from
/// pseudorandom functions", 1988) need 4 where each half has many values; 8 leave room.
const ROUNDS: u32 = 8;

/// Rounds over at most [`FEW_BITS`]. With halves of a few values each round adds little: over keys, all
/// orders of 6 numbers are equally likely (as far as a million keys show) from 24 rounds, those of 7 or
/// 8 from 32.
const ROUNDS_OF_FEW_BITS: u32 = 32;
const FEW_BITS: u32 = 12;

/// 2^64 divided by the golden ratio, made odd: the step of Steele, Lea and Flood's SplitMix generator
/// ("Fast splittable pseudorandom number generators", OOPSLA 2014).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// One of the permutations of 0..n, chosen by a key: a Feistel network over the fewest bits that can
/// count to n, with cycle walking.
///
/// The two halves of the number are mixed in turn by a keyed hash of the other. With an odd number of
/// bits one half has one more (an alternating unbalanced Feistel network, Hoang and Rogaway, "On
/// generalized Feistel networks", CRYPTO 2010), so that the domain has less than 2n numbers. A number
/// outside 0..n is permuted again until it is inside (Black and Rogaway, "Ciphers with arbitrary
/// finite domains", CT-RSA 2002): less than twice on average.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    len: u64,
    key: u64,
    rounds: u32,
    low_bits: u32,
    low_mask: u64,
    high_mask: u64,
}

impl Permutation {
    /// The permutation of 0..`len` with this key.
    pub fn new(len: u64, key: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let low_bits = bits / 2;
        let rounds = if bits <= FEW_BITS { ROUNDS_OF_FEW_BITS } else { ROUNDS };
        Self { len, key, rounds, low_bits, low_mask: mask(low_bits), high_mask: mask(bits - low_bits) }
    }

    /// Where `number` goes. It must be below the length, as the walk could never end otherwise.
    pub fn apply(&self, number: u64) -> u64 {
        assert!(number < self.len, "{number} is not below {}", self.len);
        let mut number = self.network(number);
        while number >= self.len {
            number = self.network(number);
        }
        number
    }

    /// Where `number` comes from.
    pub fn invert(&self, number: u64) -> u64 {
        assert!(number < self.len, "{number} is not below {}", self.len);
        let mut number = self.inverse_network(number);
        while number >= self.len {
            number = self.inverse_network(number);
        }
        number
    }

    fn network(&self, number: u64) -> u64 {
        let (mut high, mut low) = (number >> self.low_bits, number & self.low_mask);
        for round in (0..self.rounds).step_by(2) {
            high ^= self.round(round, low) & self.high_mask;
            low ^= self.round(round + 1, high) & self.low_mask;
        }
        high << self.low_bits | low
    }

    fn inverse_network(&self, number: u64) -> u64 {
        let (mut high, mut low) = (number >> self.low_bits, number & self.low_mask);
        for round in (0..self.rounds).step_by(2).rev() {
            low ^= self.round(round + 1, high) & self.low_mask;
            high ^= self.round(round, low) & self.high_mask;
        }
        high << self.low_bits | low
    }

    fn round(&self, round: u32, half: u64) -> u64 {
        mix(self.key.wrapping_add(u64::from(round).wrapping_mul(GOLDEN)) ^ half)
    }
}

/// A key from two numbers, any bit of which changes about half of its bits.
pub(super) fn key(a: u64, b: u64) -> u64 {
    mix(mix(a.wrapping_add(GOLDEN)).wrapping_add(b.wrapping_mul(GOLDEN)))
}

/// The finaliser of SplitMix64: Stafford's variant 13 of MurmurHash3's.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_a_bijection_for_every_small_length() {
        let mut hit = Vec::new();
        for len in 1..=5000u64 {
            let permutation = Permutation::new(len, key(len, 3));
            hit.clear();
            hit.resize(len as usize, false);
            for number in 0..len {
                let image = permutation.apply(number);
                assert!(!std::mem::replace(&mut hit[image as usize], true), "{image} of {len} comes twice");
                assert_eq!(permutation.invert(image), number);
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_inverted_at_every_length(len in 1u64..=u64::MAX, number: u64, key: u64) {
            let permutation = Permutation::new(len, key);
            let image = permutation.apply(number % len);
            prop_assert!(image < len);
            prop_assert_eq!(permutation.invert(image), number % len);
        }
    }

    /// Over many keys every permutation of up to 6 numbers must be equally frequent. Chi-square with the
    /// bound of mean + 5 standard deviations.
    #[test]
    fn every_permutation_of_few_numbers_is_equally_likely() {
        for len in 2..=6u64 {
            let classes: u64 = (1..=len).product();
            let draws = 1000 * classes;
            let mut counts = std::collections::HashMap::<Vec<u64>, u64>::new();
            for draw in 0..draws {
                let permutation = Permutation::new(len, key(99, draw));
                *counts.entry((0..len).map(|number| permutation.apply(number)).collect()).or_default() += 1;
            }
            assert_eq!(counts.len() as u64, classes, "length {len}");
            let expected = draws as f64 / classes as f64;
            let chi_square: f64 = counts.values().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
            let freedom = (classes - 1) as f64;
            assert!(chi_square < freedom + 5.0 * (2.0 * freedom).sqrt(), "length {len}: {chi_square} for {freedom}");
        }
    }
}
