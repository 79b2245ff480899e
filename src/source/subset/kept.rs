//! A compact list of the samples that a subset has.

use crate::error::{Error, ErrorKind, Result};

/// Words of a block of the bitmap: 512 samples.
const BLOCK_WORDS: usize = 8;

/// Kept samples from one hint of where to look to the next.
const HINT_SAMPLES: u64 = 512;

/// Which samples are kept. By numbers in ascending order, whichever form takes least; else as listed.
///
/// The bitmap with counts is a rank directory and [`at`](Self::at) a select on it (Jacobson, "Space-efficient static
/// trees and graphs", FOCS 1989): 0.14 bytes for each sample there is, so it is less than a list from one kept in 29 on.
pub(super) enum Kept {
    /// One after another.
    Run {
        first: u64,
        len: u64,
    },
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
    Bitmap(Bitmap),
}

/// A bit for each sample there is.
pub(super) struct Bitmap {
    words: Vec<u64>,
    /// Kept samples before each block, and at the end all of them.
    before: Vec<u64>,
    /// The block that each [`HINT_SAMPLES`]th kept sample lies in.
    hints: Vec<u32>,
    len: u64,
}

impl Kept {
    /// The samples whose bits are set.
    ///
    /// # Errors
    /// `LimitExceeded` if there is no memory for it.
    pub fn of_bits(words: Vec<u64>) -> Result<Self> {
        let len: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
        let Some((first, last)) = ends(&words) else { return Ok(Self::Run { first: 0, len: 0 }) };
        if last - first + 1 == len {
            return Ok(Self::Run { first, len });
        }
        let is_narrow = last <= u64::from(u32::MAX);
        let list_bytes = len.saturating_mul(if is_narrow { 4 } else { 8 });
        if (words.len() as u64 * 9) < list_bytes || words.len() / BLOCK_WORDS >= u32::MAX as usize {
            return Bitmap::new(words, len).map(Self::Bitmap);
        }
        if is_narrow {
            let mut list = fallible(len)?;
            list.extend(ones(&words).map(|sample| sample as u32));
            return Ok(Self::Narrow(list));
        }
        let mut list = fallible(len)?;
        list.extend(ones(&words));
        Ok(Self::Wide(list))
    }

    /// Samples in any order; the same may come again.
    pub fn listed(numbers: Vec<u64>) -> Self {
        match numbers.iter().map(|&number| u32::try_from(number).ok()).collect() {
            Some(narrow) => Self::Narrow(narrow),
            None => Self::Wide(numbers),
        }
    }

    pub fn len(&self) -> u64 {
        match self {
            Self::Run { len, .. } => *len,
            Self::Narrow(list) => list.len() as u64,
            Self::Wide(list) => list.len() as u64,
            Self::Bitmap(bitmap) => bitmap.len,
        }
    }

    /// The kept sample of a number below [`len`](Self::len).
    pub fn at(&self, number: u64) -> Option<u64> {
        if number >= self.len() {
            return None;
        }
        match self {
            Self::Run { first, .. } => Some(first + number),
            Self::Narrow(list) => list.get(number as usize).copied().map(u64::from),
            Self::Wide(list) => list.get(number as usize).copied(),
            Self::Bitmap(bitmap) => Some(bitmap.select(number)),
        }
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Run { .. } => 0,
            Self::Narrow(list) => 4 * list.capacity(),
            Self::Wide(list) => 8 * list.capacity(),
            Self::Bitmap(bitmap) => {
                8 * (bitmap.words.capacity() + bitmap.before.capacity()) + 4 * bitmap.hints.capacity()
            }
        }
    }
}

impl Bitmap {
    fn new(words: Vec<u64>, len: u64) -> Result<Self> {
        let mut before = fallible(words.len().div_ceil(BLOCK_WORDS) as u64 + 1)?;
        let mut hints = fallible(len / HINT_SAMPLES + 1)?;
        let mut so_far = 0;
        for (block, words) in words.chunks(BLOCK_WORDS).enumerate() {
            before.push(so_far);
            so_far += words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
            while (hints.len() as u64) * HINT_SAMPLES < so_far {
                hints.push(block as u32);
            }
        }
        before.push(so_far);
        Ok(Self { words, before, hints, len })
    }

    /// The sample of the `number`th bit that is set, of which there are more.
    fn select(&self, number: u64) -> u64 {
        let hint = (number / HINT_SAMPLES) as usize;
        let first = self.hints[hint] as usize;
        let last = self.hints.get(hint + 1).map_or(self.before.len() - 2, |&block| block as usize);
        let block = first + self.before[first + 1..=last].partition_point(|&before| before <= number);
        let mut left = number - self.before[block];
        let mut at = block * BLOCK_WORDS;
        loop {
            let ones = u64::from(self.words[at].count_ones());
            if left < ones {
                return at as u64 * 64 + u64::from(nth_one(self.words[at], left));
            }
            left -= ones;
            at += 1;
        }
    }
}

/// The place of a word's `n`th bit that is set.
fn nth_one(mut word: u64, n: u64) -> u32 {
    for _ in 0..n {
        word &= word - 1;
    }
    word.trailing_zeros()
}

/// The first and the last bit that are set.
fn ends(words: &[u64]) -> Option<(u64, u64)> {
    let first = words.iter().position(|&word| word != 0)?;
    let last = words.iter().rposition(|&word| word != 0)?;
    let first_bit = first as u64 * 64 + u64::from(words[first].trailing_zeros());
    Some((first_bit, last as u64 * 64 + 63 - u64::from(words[last].leading_zeros())))
}

fn ones(words: &[u64]) -> impl Iterator<Item = u64> {
    words.iter().enumerate().flat_map(|(at, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(at as u64 * 64 + u64::from(bit))
        })
    })
}

/// An empty list with room for so many.
pub(super) fn fallible<T>(len: u64) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(usize::try_from(len).unwrap_or(usize::MAX)).map_err(|error| {
        Error::new(ErrorKind::LimitExceeded, format!("there is no memory for a list of {len} samples: {error}"))
            .with_remedy("split the data set, or give the process more memory")
    })?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(kept: &[u64]) -> Vec<u64> {
        let mut words = vec![0u64; kept.last().map_or(0, |last| *last as usize / 64 + 1)];
        kept.iter().for_each(|&sample| words[sample as usize / 64] |= 1 << (sample % 64));
        words
    }

    proptest! {
        #[test]
        fn every_form_gives_the_samples_back(seed: u64, samples in 1u64..30_000, one_in in 1u64..200) {
            let kept: Vec<u64> = (0..samples).filter(|sample| {
                let hash = (sample ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                (hash >> 32) % one_in == 0 && (samples < 3000 || !(1000..2500).contains(sample))
            }).collect();
            let of_bits = Kept::of_bits(bits(&kept)).unwrap();
            let words = bits(&kept);
            let bitmap = Kept::Bitmap(Bitmap::new(words, kept.len() as u64).unwrap());
            for form in [of_bits, bitmap, Kept::listed(kept.clone())] {
                prop_assert_eq!(form.len(), kept.len() as u64);
                for (number, &sample) in kept.iter().enumerate() {
                    prop_assert_eq!(form.at(number as u64), Some(sample));
                }
                prop_assert_eq!(form.at(kept.len() as u64), None);
            }
        }
    }

    #[test]
    fn the_smallest_form_is_taken() {
        let every = |step: usize| Kept::of_bits(bits(&(0..1_000_000).step_by(step).collect::<Vec<_>>())).unwrap();
        assert!(matches!(every(1), Kept::Run { first: 0, len: 1_000_000 }));
        assert!(matches!(every(2), Kept::Bitmap(_)) && matches!(every(20), Kept::Bitmap(_)));
        assert!(matches!(every(40), Kept::Narrow(_)));
        for step in [2, 20, 40] {
            assert!(every(step).memory_bytes() as u64 <= 4 * every(step).len(), "one in {step}");
        }
        assert!(matches!(Kept::listed(vec![1 << 40, 3]), Kept::Wide(_)));
        assert_eq!(Kept::of_bits(vec![0, 0]).unwrap().len(), 0);
    }
}
