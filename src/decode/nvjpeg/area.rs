//! How much of an image is decoded for a region of it.

use crate::pixels::Rect;

/// What parts are rounded outward to: two blocks of luma, so that a part starts where blocks do with every sampling.
const GRID: u32 = 16;

/// Pixels around the region that are decoded too. Where a part ends nvJPEG interpolates chroma differently (before CUDA
/// 13.3 wrongly): up to 4 pixels with 4:1:1 sampling.
const MARGIN: u32 = 8;

/// The part of a `width` x `height` image to decode for a region that fits it. Left and top are multiples of 16.
///
/// All the Huffman codes are decoded in any case; a part saves inverse transforms, colour conversion and memory. It is
/// the whole image where it would save less than a quarter of these.
pub(crate) fn area(region: Rect, width: u32, height: u32) -> Rect {
    let (x, columns) = span(region.x, region.width, width);
    let (y, rows) = span(region.y, region.height, height);
    let (part, whole) = (u64::from(columns) * u64::from(rows), u64::from(width) * u64::from(height));
    if part * 4 > whole * 3 { Rect::whole(width, height) } else { Rect { x, y, width: columns, height: rows } }
}

/// Start and length along one axis.
fn span(start: u32, len: u32, limit: u32) -> (u32, u32) {
    let first = start.saturating_sub(MARGIN) / GRID * GRID;
    let end = start.saturating_add(len).saturating_add(MARGIN).div_ceil(GRID).saturating_mul(GRID).min(limit);
    (first, end - first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_region_is_decoded_alone_and_a_large_one_with_the_rest() {
        let small = Rect { x: 100, y: 200, width: 50, height: 60 };
        assert_eq!(area(small, 640, 480), Rect { x: 80, y: 192, width: 80, height: 80 });
        let corner = Rect { x: 600, y: 470, width: 40, height: 10 };
        assert_eq!(area(corner, 640, 480), Rect { x: 592, y: 448, width: 48, height: 32 });
        let large = Rect { x: 20, y: 20, width: 590, height: 400 };
        assert_eq!(area(large, 640, 480), Rect::whole(640, 480));
    }

    proptest! {
        #[test]
        fn an_area_holds_its_region_with_the_margin_and_fits_the_image(
            (width, height) in (1_u32..=65_535, 1_u32..=65_535), (x, y, w, h) in (0.0..1.0, 0.0..1.0, 0.0..1.0, 0.0..1.0)
        ) {
            let part = |fraction: f64, of: u32| (fraction * f64::from(of)) as u32;
            let (x, y) = (part(x, width), part(y, height));
            let region = Rect { x, y, width: 1 + part(w, width - x - 1), height: 1 + part(h, height - y - 1) };
            let area = area(region, width, height);
            prop_assert!(area.fits(width, height));
            prop_assert!(area.x.is_multiple_of(GRID) && area.y.is_multiple_of(GRID));
            let (right, bottom) = (area.x + area.width, area.y + area.height);
            prop_assert!(area.x <= region.x.saturating_sub(MARGIN) && area.y <= region.y.saturating_sub(MARGIN));
            prop_assert!(right >= (region.x + region.width + MARGIN).min(width));
            prop_assert!(bottom >= (region.y + region.height + MARGIN).min(height));
        }
    }
}
