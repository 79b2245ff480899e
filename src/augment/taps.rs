//! The taps of an axis, tabulated for one image.

use crate::plan::Axis;

/// Outputs are padded to a multiple of this, the most that a vector holds, by repeating the last.
pub(super) const LANES: usize = 16;

/// Which source pixels each output of an axis is made of, and their weights.
///
/// Tables are rebuilt for every image in memory that is kept: with 448 outputs for a 224x224 tensor
/// that cost matters, so they are laid out tap by tap, in loops over outputs that vectorise.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// The first tap of each output, from the start of the axis's source range.
    pub(crate) first: Vec<u32>,
    /// The one past the last.
    pub(crate) end: Vec<u32>,
    /// Weight `tap` of output `i` is at `tap * stride + i`; 0 past an output's last tap.
    pub(crate) weights: Vec<f32>,
    /// Outputs, rounded up to [`LANES`].
    pub(crate) stride: usize,
    /// The most taps of an output.
    pub(super) count_max: usize,
    /// Pixels of the source range; no tap lies past it.
    pub(super) source_len: usize,
    centers: Vec<f64>,
    sums: Vec<f64>,
    raw: Vec<f64>,
}

impl Taps {
    /// Tabulates an axis. With `reversed`, entry `i` is that of the `i`-th output from the end.
    pub(crate) fn build(&mut self, axis: &Axis, reversed: bool) {
        let len = axis.output_len as usize;
        let filter = axis.filter();
        let (source_start, source_len) = axis.source_range();
        self.source_len = source_len as usize;
        let offset = source_start - axis.first_pixel();
        self.stride = len.next_multiple_of(LANES);
        resize(&mut self.first, self.stride);
        resize(&mut self.end, self.stride);
        resize(&mut self.centers, self.stride);
        let last = axis.window_start + u64::from(axis.output_len) - 1;
        self.count_max = 0;
        for i in 0..self.stride {
            let step = i.min(len - 1) as u64;
            let center = filter.center(if reversed { last - step } else { axis.window_start + step });
            let (first, end) = filter.range(center);
            self.centers[i] = center;
            (self.first[i], self.end[i]) = (first, end);
            self.count_max = self.count_max.max((end - first) as usize);
        }
        self.weigh(|k, center| filter.raw(k, center));
        for i in 0..self.stride {
            self.first[i] -= offset;
            self.end[i] -= offset;
        }
    }

    /// Bytes that the tables of an axis take, at most.
    pub(super) fn memory_bytes(axis: &Axis) -> u64 {
        let stride = u64::from(axis.output_len).next_multiple_of(LANES as u64);
        let of_output = 2 * size_of::<u32>() + 2 * size_of::<f64>();
        let of_tap = size_of::<f32>() + size_of::<f64>();
        stride * (of_output as u64 + Self::count_bound(axis) * of_tap as u64)
    }

    /// Taps that an output of an axis has, at most.
    pub(super) fn count_bound(axis: &Axis) -> u64 {
        let filter = axis.filter();
        (2.0 * filter.support + 2.0).min(filter.len.max(1.0)) as u64
    }

    /// Bytes that it holds.
    pub(super) fn held_bytes(&self) -> usize {
        let Self { first, end, weights, centers, sums, raw, .. } = self;
        let words = first.capacity() + end.capacity() + weights.capacity();
        words * size_of::<u32>() + (centers.capacity() + sums.capacity() + raw.capacity()) * size_of::<f64>()
    }

    /// Fills the weights from the tap positions, each output's summing to 1.
    #[inline(always)]
    fn weigh(&mut self, raw_weight: impl Fn(u32, f64) -> f64) {
        let stride = self.stride;
        resize(&mut self.weights, stride * self.count_max);
        resize(&mut self.raw, stride * self.count_max);
        resize(&mut self.sums, stride);
        self.sums.fill(0.0);
        let (first, end, centers) = (&self.first[..stride], &self.end[..stride], &self.centers[..stride]);
        let sums = &mut self.sums[..stride];
        for (tap, raw) in self.raw.chunks_exact_mut(stride).enumerate() {
            for i in 0..stride {
                let k = first[i] + tap as u32;
                raw[i] = if k < end[i] { raw_weight(k, centers[i]) } else { 0.0 };
                sums[i] += raw[i];
            }
        }
        for (weights, raw) in self.weights.chunks_exact_mut(stride).zip(self.raw.chunks_exact(stride)) {
            for i in 0..stride {
                weights[i] = (raw[i] / sums[i]) as f32;
            }
        }
    }
}

impl Taps {
    /// What vector code relies on: tables are complete, and no first tap lies past the source.
    pub(super) fn assert_consistent(&self) {
        assert!(self.stride.is_multiple_of(LANES) && self.first.len() == self.stride);
        assert!(self.weights.len() == self.stride * self.count_max);
        debug_assert!(self.first.iter().all(|&first| (first as usize) < self.source_len));
    }
}

/// Changes the length without filling what is about to be overwritten.
fn resize<T: Copy + Default>(vector: &mut Vec<T>, len: usize) {
    if vector.len() < len {
        grow(vector, len);
    } else {
        vector.truncate(len);
    }
}

/// Makes a vector at least this long, whose content is then anything that was written there or 0. Not longer, and never both
/// the old and the new at once, so that it takes what was planned for it.
pub(super) fn grow<T: Copy + Default>(vector: &mut Vec<T>, len: usize) {
    if vector.len() >= len {
        return;
    }
    if vector.capacity() < len {
        *vector = Vec::new();
        vector.reserve_exact(len);
    }
    vector.resize(len, T::default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Scale;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn weights_sum_to_one_and_lie_in_the_range(
            (len, start, box_len) in (1u32..3000).prop_flat_map(|len| (Just(len), 0..len))
                .prop_flat_map(|(len, start)| (Just(len), Just(start), 1..=len - start)),
            output_len in 1u32..400,
            reversed: bool,
            scale in prop::sample::select(&Scale::ALL[..]),
        ) {
            let axis = Axis { flip: reversed, scale, ..Axis::resized(start, box_len, output_len) };
            let (range_start, range_len) = axis.source_range();
            prop_assert!(range_start >= start / scale.denominator());
            prop_assert!(range_start + range_len <= scale.len(start + box_len) && start + box_len <= len);
            let mut taps = Taps::default();
            taps.build(&axis, reversed);
            for i in 0..output_len as usize {
                let count = (taps.end[i] - taps.first[i]) as usize;
                prop_assert!(count >= 1 && count <= taps.count_max && taps.end[i] <= range_len);
                let sum: f64 = (0..taps.count_max).map(|tap| f64::from(taps.weights[tap * taps.stride + i])).sum();
                prop_assert!((sum - 1.0).abs() < 1e-5, "{}", sum);
                for tap in count..taps.count_max {
                    prop_assert_eq!(taps.weights[tap * taps.stride + i], 0.0);
                }
            }
        }

        #[test]
        fn reversed_is_the_same_table_backwards(box_len in 1u32..500, output_len in 1u32..100) {
            let axis = Axis::resized(3, box_len, output_len);
            let (mut forward, mut backward) = (Taps::default(), Taps::default());
            forward.build(&axis, false);
            backward.build(&axis, true);
            for i in 0..output_len as usize {
                let j = output_len as usize - 1 - i;
                prop_assert_eq!(forward.first[i], backward.first[j]);
                for tap in 0..forward.count_max {
                    prop_assert_eq!(forward.weights[tap * forward.stride + i], backward.weights[tap * backward.stride + j]);
                }
            }
        }
    }
}
