//! The boxes: torchvision's rules, with our generator.

use super::math;
use super::rng::{Generator, Stream, below, uniform};
use super::{Axis, Size};

/// The crop box of torchvision's `RandomResizedCrop.get_params` as `(x, y)` axes of the upright image.
///
/// Ten attempts at an area uniform in `scale` and a ratio log-uniform in `ratio`; the first that fits
/// is placed uniformly. If none fits, the largest central box whose ratio is allowed. Attempt `n` uses
/// the four words of block `n` of the crop stream: area, ratio, top, left.
pub(super) fn random_resized(
    generator: &Generator,
    width: u32,
    height: u32,
    size: Size,
    scale: [f64; 2],
    ratio: [f64; 2],
) -> (Axis, Axis) {
    let area = f64::from(width) * f64::from(height);
    let log_ratio = ratio.map(math::ln);
    for attempt in 0..10 {
        let [for_area, for_ratio, for_top, for_left] = generator.block(Stream::Crop, attempt);
        let target_area = area * uniform(for_area, scale[0], scale[1]);
        let aspect = math::exp(uniform(for_ratio, log_ratio[0], log_ratio[1]));
        let w = math::round_half_even((target_area * aspect).sqrt());
        let h = math::round_half_even((target_area / aspect).sqrt());
        if w >= 1.0 && w <= f64::from(width) && h >= 1.0 && h <= f64::from(height) {
            let (w, h) = (w as u32, h as u32);
            // A side of 2^32 - 1 with a box of 1 still has an offset count that fits.
            let (top, left) = (below(for_top, height - h + 1), below(for_left, width - w + 1));
            return (Axis::resized(left, w, size.width), Axis::resized(top, h, size.height));
        }
    }
    let (w, h) = largest_allowed(width, height, ratio);
    (Axis::resized((width - w) / 2, w, size.width), Axis::resized((height - h) / 2, h, size.height))
}

/// The fallback box. Unlike torchvision's it is never empty: at least one pixel a side.
fn largest_allowed(width: u32, height: u32, ratio: [f64; 2]) -> (u32, u32) {
    let whole = f64::from(width) / f64::from(height);
    if whole < ratio[0] {
        let h = math::round_half_even(f64::from(width) / ratio[0]);
        (width, (h as u32).clamp(1, height))
    } else if whole > ratio[1] {
        let w = math::round_half_even(f64::from(height) * ratio[1]);
        ((w as u32).clamp(1, width), height)
    } else {
        (width, height)
    }
}

/// torchvision's `Resize(resize)` and `CenterCrop(crop)` as `(x, y)` axes of the upright image: the
/// short side becomes `resize`, the long one `int(resize * long / short)`, and the window starts at
/// `round((side - crop) / 2)`, halves to even.
pub(super) fn short_side_center(width: u32, height: u32, resize: u32, crop: Size) -> (Axis, Axis) {
    let (short, long) = (width.min(height), width.max(height));
    let resized_long = (u64::from(resize) * u64::from(long)) as f64 / f64::from(short);
    let resized = |side: u32| if side == short { u64::from(resize) } else { resized_long as u64 };
    let axis = |len: u32, output_len: u32| {
        let resized_len = resized(len);
        let margin = resized_len - u64::from(output_len);
        let window_start = math::round_half_even(margin as f64 / 2.0) as u64;
        Axis { resized_len, window_start, ..Axis::resized(0, len, output_len) }
    };
    (axis(width, crop.width), axis(height, crop.height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::SampleKey;
    use proptest::prelude::*;

    const TRAIN: ([f64; 2], [f64; 2]) = ([0.08, 1.0], [3.0 / 4.0, 4.0 / 3.0]);

    fn train(sample: u64, width: u32, height: u32) -> (Axis, Axis) {
        let generator = Generator::new(SampleKey { sample, ..SampleKey::default() });
        random_resized(&generator, width, height, Size::square(224), TRAIN.0, TRAIN.1)
    }

    /// Against a transcription of torchvision's `get_params` run 200,000 times in Python on 500x375:
    /// mean area 0.4326 of the image (deviation 0.2164), mean log ratio ln 1.0311 (0.1641). Large areas
    /// are rarer than drawn since fewer of their ratios fit.
    #[test]
    fn crops_have_torchvisions_law() {
        let mut areas = 0.0;
        let mut log_ratios = 0.0;
        let total = 20_000;
        for sample in 0..total {
            let (x, y) = train(sample, 500, 375);
            let area = f64::from(x.box_len) * f64::from(y.box_len) / (500.0 * 375.0);
            let ratio = f64::from(x.box_len) / f64::from(y.box_len);
            // Rounding both sides moves the area and ratio by less than 2 % at the smallest box.
            assert!((0.078..=1.0).contains(&area), "{area}");
            assert!((0.74..=1.35).contains(&ratio), "{ratio}");
            areas += area;
            log_ratios += ratio.ln();
        }
        let (area, ratio) = (areas / total as f64, (log_ratios / total as f64).exp());
        // Five standard deviations of the means.
        assert!((area - 0.4326).abs() < 5.0 * 0.2164 / 20_000f64.sqrt(), "{area}");
        assert!((ratio.ln() - 1.0311f64.ln()).abs() < 5.0 * 0.1641 / 20_000f64.sqrt(), "{ratio}");
    }

    #[test]
    fn a_strip_falls_back_to_the_centre() {
        let (x, y) = train(0, 1000, 10);
        assert_eq!((x.box_start, x.box_len, y.box_start, y.box_len), (493, 13, 0, 10));
        let (x, y) = train(0, 10, 1000);
        assert_eq!((x.box_start, x.box_len, y.box_start, y.box_len), (0, 10, 493, 13));
        let (x, y) = train(0, 1, 1);
        assert_eq!((x.box_len, y.box_len), (1, 1));
    }

    #[test]
    fn validation_geometry_is_torchvisions() {
        // 500x375: int(256 * 500 / 375) = 341; (341 - 224) / 2 = 58.5 rounds to 58.
        let (x, y) = short_side_center(500, 375, 256, Size::square(224));
        assert_eq!((x.resized_len, x.window_start), (341, 58));
        assert_eq!((y.resized_len, y.window_start), (256, 16));
        // (227 - 224) / 2 = 1.5 rounds to 2.
        let (x, y) = short_side_center(227, 225, 225, Size::square(224));
        assert_eq!((x.resized_len, x.window_start), (227, 2));
        assert_eq!((y.resized_len, y.window_start), (225, 0));
    }

    proptest! {
        #[test]
        fn boxes_fit(sample: u64, width in 1u32..5000, height in 1u32..5000) {
            let (x, y) = train(sample, width, height);
            prop_assert!(x.box_len >= 1 && x.box_start + x.box_len <= width);
            prop_assert!(y.box_len >= 1 && y.box_start + y.box_len <= height);
            for (axis, len) in [(x, width), (y, height)] {
                let (start, taps) = axis.source_range();
                prop_assert!(start >= axis.box_start && start + taps <= axis.box_start + axis.box_len);
                prop_assert_eq!(axis.mirrored(len).mirrored(len), axis);
            }
            let (x, y) = short_side_center(width, height, 256, Size::square(224));
            for axis in [x, y] {
                prop_assert!(axis.window_start + 224 <= axis.resized_len);
            }
        }
    }
}
