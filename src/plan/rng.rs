//! The counter-based generator behind every random parameter: Philox4x32-10.
//!
//! J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw: Parallel Random Numbers: As Easy as 1, 2, 3,
//! SC'11, <https://doi.org/10.1145/2063384.2063405>. A block of four words is a pure function of a key
//! and a counter, so any parameter of any sample is had without drawing those before it, by any thread
//! or device. Everything here is integer arithmetic and exact conversions, which a GPU repeats to the bit.
//!
//! ```text
//! epoch key = first two words of philox(key = seed, counter = [epoch low, epoch high, TAG, view high])
//! block     = philox(key = epoch key, counter = [sample low, sample high, view low, stream << 16 | index])
//! ```

/// Names one view of one sample in one epoch: all that its random parameters depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SampleKey {
    /// The run's seed.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The sample's number within its source.
    pub sample: u64,
    /// Which of several views of the sample; 0 where there is one: see [`numbered`](Self::numbered).
    pub view: u64,
}

impl SampleKey {
    /// The number of a view: `view << 32 | draw`. `draw` is [`Order::view`](crate::order::Order::view), not 0 only where a
    /// sample can come again in an epoch, or [`Order::stand_in_view`](crate::order::Order::stand_in_view) where it stands in
    /// for a bad one; `view` counts the views that a batch holds of the sample, from 0, through all groups
    /// ([`LoaderBuilder::views`](crate::LoaderBuilder::views)). So no view of a draw is one of another draw, and view 0 is
    /// what a loader with one view makes.
    pub const fn numbered(draw: u32, view: u32) -> u64 {
        (view as u64) << 32 | draw as u64
    }
}

/// What a block of words is drawn for. Streams never share a block, so that adding a parameter to one
/// leaves all others as they were. The numbers are part of the format of a seed: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Stream {
    /// The crop box; a block an attempt.
    Crop = 0,
    /// Whether to flip.
    Flip = 1,
}

/// The random words of one view of one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generator {
    key: [u32; 2],
    sample: [u32; 2],
    view_low: u32,
}

impl Generator {
    pub(crate) fn new(key: SampleKey) -> Self {
        // Seed, epoch and sample are 192 bits, a view is 64 more and what is drawn 32: the epoch and the upper half of
        // the view are folded into the key by the generator itself. The tag keeps these blocks apart in the source text;
        // they are also under another key.
        const TAG: u32 = 0x6570_6f63; // "epoc"
        let [epoch_low, epoch_high] = words(key.epoch);
        let [view_low, view_high] = words(key.view);
        let [a, b, ..] = philox4x32_10([epoch_low, epoch_high, TAG, view_high], words(key.seed));
        Self { key: [a, b], sample: words(key.sample), view_low }
    }

    /// Four random words; the same for the same arguments.
    pub(crate) fn block(&self, stream: Stream, index: u16) -> [u32; 4] {
        let draw = u32::from(stream as u16) << 16 | u32::from(index);
        philox4x32_10([self.sample[0], self.sample[1], self.view_low, draw], self.key)
    }
}

/// A number in [0, 1) with 24 random bits, exact in `f32` and `f64`: `(word >> 8) / 2^24`.
pub(crate) fn unit(word: u32) -> f64 {
    f64::from(word >> 8) * (1.0 / 16_777_216.0)
}

/// A number in [low, high] uniformly: `low + (high - low) * unit(word)`.
pub(crate) fn uniform(word: u32, low: f64, high: f64) -> f64 {
    low + (high - low) * unit(word)
}

/// An integer in [0, n): the high half of `word * n` (Lemire, <https://doi.org/10.1145/3230636>,
/// without rejection: no value is more than n / 2^32 likelier than another). `n` is at least 1.
pub(crate) fn below(word: u32, n: u32) -> u32 {
    debug_assert!(n > 0);
    ((u64::from(word) * u64::from(n)) >> 32) as u32
}

/// Ten rounds of Philox on four 32-bit words.
pub(crate) fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    // Multipliers and Weyl increments of the paper, section 4.3.
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

fn words(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `philox4x32 10` lines of Random123's `kat_vectors`.
    #[test]
    fn known_answers() {
        let vectors = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in vectors {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let base = SampleKey { seed: 1, epoch: 2, sample: 3, view: 4 };
        let block = |key| Generator::new(key).block(Stream::Crop, 0);
        let high = 1 << 40;
        for other in [
            SampleKey { seed: 2, ..base },
            SampleKey { seed: 1 + high, ..base },
            SampleKey { epoch: 3, ..base },
            SampleKey { epoch: 2 + high, ..base },
            SampleKey { sample: 4, ..base },
            SampleKey { sample: 3 + high, ..base },
            SampleKey { view: 5, ..base },
            SampleKey { view: 4 + (1 << 32), ..base },
            SampleKey { view: SampleKey::numbered(0, 4), ..base },
        ] {
            assert_ne!(block(base), block(other), "{other:?}");
        }
        let generator = Generator::new(base);
        assert_ne!(generator.block(Stream::Crop, 0), generator.block(Stream::Crop, 1));
        assert_ne!(generator.block(Stream::Crop, 0), generator.block(Stream::Flip, 0));
    }

    #[test]
    fn draws_stay_in_range_and_reach_both_ends() {
        assert_eq!(unit(0), 0.0);
        assert!(unit(u32::MAX) < 1.0 && unit(u32::MAX) > 0.999_999_9);
        assert_eq!((below(0, 7), below(u32::MAX, 7)), (0, 6));
        assert_eq!(below(u32::MAX, 1), 0);
        assert_eq!(below(u32::MAX, u32::MAX), u32::MAX - 1);
    }

    #[test]
    fn draws_are_uniform() {
        let mut counts = [0u32; 10];
        let mut sum = 0.0;
        let total = 100_000;
        for sample in 0..total {
            let generator = Generator::new(SampleKey { sample, ..SampleKey::default() });
            let [a, b, ..] = generator.block(Stream::Crop, 0);
            counts[below(a, 10) as usize] += 1;
            sum += unit(b);
        }
        // Five standard deviations of a binomial and of a mean of uniforms.
        assert!(counts.iter().all(|&count| (count as f64 - 10_000.0).abs() < 5.0 * 95.0), "{counts:?}");
        assert!((sum / total as f64 - 0.5).abs() < 5.0 * 0.2887 / (total as f64).sqrt(), "{sum}");
    }
}
