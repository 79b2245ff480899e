//! One axis of a resampling: where its taps lie and what they weigh.

use crate::pixels::Scale;

/// How one axis of the stored image becomes one axis of the output.
///
/// A box of the stored axis is resized to `resized_len`, of which a window becomes the output, in
/// reverse if `flip`. Nothing outside the box is ever looked at, as if it had been cut out first.
///
/// The filter is the triangle, widened by the scale when it shrinks (antialiased bilinear: Pillow's
/// `BILINEAR`, torchvision's `antialias=True`). In `f64`, in this order of operations:
///
/// ```text
/// scale   = box_len / resized_len
/// support = max(scale, 1)
/// center  = (i + 0.5) * scale                            i: position on the resized axis
/// first   = max(0, trunc(center - support + 0.5))        positions within the box
/// end     = min(box_len, trunc(center + support + 0.5)), less one if the last weight is 0
/// raw(k)  = max(0, 1 - |(k - center + 0.5) * (1 / support)|)
/// weight  = f32(raw(k) / sum)                            sum: over k = first, first + 1, ..
/// ```
///
/// Where the image is decoded at 1/`n` ([`scale`](Self::scale)), positions are those of its pixels, of
/// which the box may begin and end within one. The same formulas hold, with
///
/// ```text
/// scale   = box_len / resized_len / n
/// center  = (i + 0.5) * scale + offset                   offset = (box_start mod n) / n
/// ```
///
/// and the pixels that the box touches, whole or in part, in place of `box_len` as the limit of `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// First pixel of the box on the stored axis.
    pub box_start: u32,
    /// Pixels of the box, at least 1.
    pub box_len: u32,
    /// Pixels that the box is resized to, at least 1.
    pub resized_len: u64,
    /// First pixel of the output's window on the resized axis.
    pub window_start: u64,
    /// Pixels of the window, which is the output's length, at least 1.
    pub output_len: u32,
    /// Whether the window is written in reverse.
    pub flip: bool,
    /// How much smaller than it is stored the image is decoded. The box is in stored pixels all the same.
    pub scale: Scale,
}

impl Axis {
    /// An axis that is taken as it is.
    pub(crate) fn whole(len: u32) -> Self {
        Self::resized(0, len, len)
    }

    /// A box that is resized to the output's length.
    pub(crate) fn resized(box_start: u32, box_len: u32, output_len: u32) -> Self {
        Self {
            box_start,
            box_len,
            resized_len: output_len.into(),
            window_start: 0,
            output_len,
            flip: false,
            scale: Scale::Full,
        }
    }

    /// The same axis seen from its other end, on a stored axis of `len` pixels.
    pub(crate) fn mirrored(self, len: u32) -> Self {
        Self {
            box_start: len - self.box_start - self.box_len,
            window_start: self.resized_len - self.window_start - u64::from(self.output_len),
            flip: !self.flip,
            ..self
        }
    }

    /// Whether the output holds the box's pixels unchanged but for their order.
    pub fn is_copy(&self) -> bool {
        u64::from(self.box_len) == self.resized_len && self.scale == Scale::Full
    }

    /// Whether the box, decoded at a scale, still has as many pixels as it is resized to.
    pub(crate) fn allows(&self, scale: Scale) -> bool {
        u64::from(self.box_len) >= self.resized_len.saturating_mul(scale.denominator().into())
    }

    /// The interval of the decoded axis that some tap with a weight touches: first pixel and length.
    pub fn source_range(&self) -> (u32, u32) {
        let filter = self.filter();
        let last = self.window_start + u64::from(self.output_len) - 1;
        let (first, _) = filter.range(filter.center(self.window_start));
        let (_, end) = filter.range(filter.center(last));
        (self.first_pixel() + first, end - first)
    }

    /// The decoded pixel that the box begins in: where the filter's positions count from.
    pub(crate) fn first_pixel(&self) -> u32 {
        self.box_start / self.scale.denominator()
    }

    pub(crate) fn filter(&self) -> Filter {
        let denominator = self.scale.denominator();
        let scale = f64::from(self.box_len) / self.resized_len as f64 / f64::from(denominator);
        let support = scale.max(1.0);
        let within = self.box_start % denominator;
        Filter {
            scale,
            offset: f64::from(within) / f64::from(denominator),
            support,
            per_support: 1.0 / support,
            len: f64::from(self.scale.len(within + self.box_len)),
        }
    }
}

/// The filter of an axis, by the formulas at [`Axis`]. Positions are in decoded pixels, from the one that
/// the box begins in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter {
    pub(crate) scale: f64,
    /// Where in its first pixel the box begins.
    pub(crate) offset: f64,
    pub(crate) support: f64,
    pub(crate) per_support: f64,
    /// Pixels that the box touches.
    pub(crate) len: f64,
}

impl Filter {
    /// The centre of a resized pixel.
    #[inline(always)]
    pub(crate) fn center(&self, i: u64) -> f64 {
        (i as f64 + 0.5) * self.scale + self.offset
    }

    /// The taps around a centre: the first and the one past the last.
    #[inline(always)]
    pub(crate) fn range(&self, center: f64) -> (u32, u32) {
        // Truncating conversions saturate, so the negative side is clamped to 0 by them.
        let first = (center - self.support + 0.5) as u32;
        let end = (center + self.support + 0.5).min(self.len) as u32;
        // The weight is exactly 0 where the last pixel's centre lies on the edge of the triangle.
        (first, end - u32::from(self.raw(end - 1, center) <= 0.0))
    }

    /// The weight of a tap before normalisation.
    #[inline(always)]
    pub(crate) fn raw(&self, k: u32, center: f64) -> f64 {
        (1.0 - ((f64::from(k) - center + 0.5) * self.per_support).abs()).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_copy_has_one_tap_a_pixel() {
        let filter = Axis::whole(17).filter();
        for i in 0..17 {
            assert_eq!(filter.range(filter.center(i)), (i as u32, i as u32 + 1));
        }
    }

    #[test]
    fn halving_has_the_weights_of_the_triangle() {
        let filter = Axis::resized(0, 8, 4).filter();
        let center = filter.center(1);
        assert_eq!((center, filter.range(center)), (3.0, (1, 5)));
        let raw: Vec<f64> = (1..5).map(|k| filter.raw(k, center)).collect();
        assert_eq!(raw, [0.25, 0.75, 0.75, 0.25]);
    }

    proptest! {
        #[test]
        fn taps_lie_in_the_box_advance_and_have_weight(len in 1u32..70_000, resized in 1u64..3000, from in 0u64..3000) {
            let axis = Axis { resized_len: resized, ..Axis::whole(len) };
            let filter = axis.filter();
            let mut previous = (0, 0);
            for i in from.min(resized - 1)..resized.min(from + 40) {
                let center = filter.center(i);
                let (first, end) = filter.range(center);
                prop_assert!(first < end && end <= len);
                prop_assert!(first >= previous.0 && end >= previous.1);
                prop_assert!((first..end).map(|k| filter.raw(k, center)).sum::<f64>() > 0.0);
                prop_assert!(filter.raw(end - 1, center) > 0.0);
                prop_assert!(end == len || filter.raw(end, center) <= 0.0);
                prop_assert!(first == 0 || filter.raw(first - 1, center) < 1e-9);
                previous = (first, end);
            }
        }
    }
}
