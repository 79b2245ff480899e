//! Images that share the scratch memory at a time.

use std::ops::Range;

use super::Needs;
use super::abi::{Image, SOURCE_NONE};

/// Bytes of a block of coefficients, and of its samples.
pub(crate) const COEFFICIENT_BYTES: usize = 128;
pub(crate) const SAMPLE_BYTES: usize = 64;
/// Bytes of a word of tap tables and destuffed data.
pub(crate) const WORD_BYTES: usize = 4;

/// Tap tables of an image that are made room for: 16 taps for each output, of which a triangle that shrinks eightfold
/// has that many. What has more shares the room with fewer images.
const TAPS: usize = 16;

/// Images of a wave at most: what a grid's second dimension holds.
const IMAGES_MAX: usize = 65_535;

/// How much scratch memory a slot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Coefficient blocks.
    pub(crate) blocks: u32,
    /// Bytes of samples.
    pub(crate) samples: u64,
    /// Words of tap tables.
    pub(crate) taps: u32,
    /// Words of destuffed data.
    pub(crate) words: usize,
}

impl Capacity {
    /// As many blocks, each with its samples, as `scratch_bytes` hold, and tap tables for `outputs`: so many, with sides up
    /// to so much.
    pub(crate) fn new(scratch_bytes: usize, outputs: impl Iterator<Item = (usize, usize)>, words: usize) -> Self {
        let blocks = (scratch_bytes / (COEFFICIENT_BYTES + SAMPLE_BYTES)).min(i32::MAX as usize);
        // A single image may need more taps than all others together.
        let taps = outputs.fold(0_usize, |taps, (places, side)| {
            taps.saturating_add((2 * side.next_multiple_of(32) * (2 + TAPS)).saturating_mul(places))
        });
        let taps = taps.max(1 << 20);
        Self {
            blocks: blocks as u32,
            samples: (blocks * SAMPLE_BYTES) as u64,
            taps: taps.min(i32::MAX as usize) as u32,
            words,
        }
    }

    /// Whether an image finds room at all.
    pub(crate) fn holds(&self, needs: &Needs) -> bool {
        needs.blocks <= self.blocks && needs.samples <= self.samples && needs.taps <= self.taps
    }

    /// Bytes of device memory.
    pub(crate) fn len_bytes(&self) -> usize {
        self.blocks as usize * COEFFICIENT_BYTES
            + self.samples as usize
            + (self.taps as usize + self.words) * WORD_BYTES
    }
}

/// A run of places whose images have scratch memory at the same time. What is said of them is the most that one of
/// them needs, and of blocks the sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wave {
    pub(crate) places: Range<usize>,
    pub(crate) blocks: u32,
    pub(crate) plane_blocks: u32,
    pub(crate) segments: u32,
    /// Rows that are resampled, along the stored image's.
    pub(crate) rows: u32,
}

/// Gives the images of a batch that kernels work on their scratch memory, in as few waves as their order allows.
pub(crate) fn cut(
    images: &mut [Image],
    needs: impl Fn(usize) -> Option<Needs>,
    capacity: &Capacity,
    waves: &mut Vec<Wave>,
) {
    waves.clear();
    let mut wave = Wave::default();
    let mut taken = Needs::default();
    for (place, image) in images.iter_mut().enumerate() {
        let Some(needs) = needs(place) else {
            debug_assert_eq!(image.source, SOURCE_NONE);
            continue;
        };
        let is_empty = wave.places.is_empty();
        if !is_empty && (!capacity.holds(&sum(&taken, &needs)) || place - wave.places.start >= IMAGES_MAX) {
            waves.push(std::mem::take(&mut wave));
            taken = Needs::default();
        }
        if wave.places.is_empty() {
            wave.places.start = place;
        }
        wave.places.end = place + 1;
        for plane in &mut image.planes {
            plane.blocks += taken.blocks;
            plane.samples += taken.samples;
        }
        image.x.tables += taken.taps;
        image.y.tables += taken.taps;
        taken = sum(&taken, &needs);
        wave.blocks = taken.blocks;
        wave.plane_blocks = wave.plane_blocks.max(needs.plane_blocks);
        wave.segments = wave.segments.max(needs.segments);
        wave.rows = wave.rows.max(image.y.output_len);
    }
    if !wave.places.is_empty() {
        waves.push(wave);
    }
}

/// What two take together, where that adds up. No image needs more than a capacity, of half the type's range.
fn sum(a: &Needs, b: &Needs) -> Needs {
    Needs { blocks: a.blocks + b.blocks, samples: a.samples + b.samples, taps: a.taps + b.taps, ..*b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_hold_what_fits_and_places_in_them_do_not_overlap() {
        let capacity = Capacity { blocks: 10, samples: 640, taps: 1000, words: 0 };
        let needs = |place: usize| {
            let blocks = [4, 0, 6, 1, 9, 10][place];
            (blocks > 0).then(|| Needs {
                blocks,
                samples: 64 * u64::from(blocks),
                taps: 96,
                segments: place as u32,
                plane_blocks: blocks / 2,
                ..Needs::default()
            })
        };
        let mut images = [Image::default(); 6];
        let mut waves = vec![Wave::default()];
        cut(&mut images, needs, &capacity, &mut waves);
        let found: Vec<_> = waves.iter().map(|wave| (wave.places.clone(), wave.blocks, wave.segments)).collect();
        assert_eq!(found, [(0..3, 10, 2), (3..5, 10, 4), (5..6, 10, 5)]);
        let blocks = images.map(|image| image.planes[1].blocks);
        assert_eq!(blocks, [0, 0, 4, 0, 1, 0]);
        assert_eq!((images[2].planes[0].samples, images[2].x.tables, images[4].y.tables), (256, 96, 96));
    }

    #[test]
    fn a_batch_without_any_has_no_waves() {
        let mut waves = vec![Wave::default()];
        let capacity = Capacity { blocks: 1, samples: 64, taps: 1, words: 1 };
        cut(&mut [Image::default(); 3], |_| None, &capacity, &mut waves);
        assert!(waves.is_empty());
    }
}
