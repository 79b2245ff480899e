//! Which samples, blocks and MCUs a rectangle of the image needs.

use std::ops::Range;

use super::header::{Component, Header, Scan};
use crate::pixels::{Rect, View};

/// Coefficients, and at full scale samples, along a side of a block.
pub const BLOCK_SIDE: usize = 8;

/// How a component becomes as large as the image (libjpeg-turbo, jdsample.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upsampling {
    /// It is as large.
    None,
    /// Twice as wide, by a triangle filter.
    FancyH2V1,
    /// Twice as high, by a triangle filter.
    FancyH1V2,
    /// Twice as wide and high, by a triangle filter.
    FancyH2V2,
    /// So many times as wide and high, by repetition.
    Repeat {
        /// Columns a sample makes.
        h: usize,
        /// Rows a sample makes.
        v: usize,
    },
}

/// What of one component a rectangle needs.
#[derive(Clone, Debug)]
pub struct Plane {
    /// Samples along a side of a block: 8, or fewer where the image is scaled down.
    pub side: usize,
    /// Blocks of it in an interleaved MCU, horizontally.
    pub h: usize,
    /// And vertically.
    pub v: usize,
    /// Its size in samples; those past it in the last blocks mean nothing.
    pub width: usize,
    /// Its size in samples.
    pub height: usize,
    /// How it becomes as large as the image.
    pub upsampling: Upsampling,
    /// Image columns and rows that a sample covers.
    pub expansion: (usize, usize),
    /// Sample columns needed, the upsampling's context included.
    pub columns: Range<usize>,
    /// Sample rows needed, the upsampling's context included.
    pub rows: Range<usize>,
}

/// What of an image a rectangle needs. All pixels and samples are those of the scaled image.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// The rectangle.
    pub region: Rect,
    planes: [Plane; 3],
    plane_count: usize,
    image: (usize, usize),
    /// Columns and rows of an interleaved MCU.
    mcu: (usize, usize),
}

/// The MCUs of a scan, and which of them a rectangle needs.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Its components: which plane, and blocks in an MCU horizontally and vertically.
    pub parts: [Part; 3],
    /// How many components there are.
    pub part_count: usize,
    /// MCUs in a row.
    pub mcus_per_row: usize,
    /// MCU columns needed.
    pub columns: Range<usize>,
    /// MCU rows needed.
    pub rows: Range<usize>,
    /// Image rows that an MCU covers, where the scan is interleaved.
    pub mcu_height: usize,
}

/// A component of a scan.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// Its plane.
    pub plane: usize,
    /// Blocks in an MCU horizontally.
    pub h: usize,
    /// Blocks in an MCU vertically.
    pub v: usize,
    /// Sample columns of an MCU.
    pub columns: usize,
    /// Sample rows of an MCU.
    pub rows: usize,
}

impl Geometry {
    /// For a rectangle inside an image of one or three components whose factors divide the largest.
    pub fn new(header: &Header, view: View) -> Self {
        let View { scale, region } = view;
        let max = header.max_sampling();
        let side = BLOCK_SIDE / scale.denominator() as usize;
        let mcu = (usize::from(max.0) * side, usize::from(max.1) * side);
        let image = (scale.len(header.width) as usize, scale.len(header.height) as usize);
        let absent = Component { h: 1, v: 1, ..Component::default() };
        let planes = std::array::from_fn(|i| {
            Plane::new(header.components().get(i).unwrap_or(&absent), side, mcu, image, region)
        });
        Self { region, planes, plane_count: header.components().len(), image, mcu }
    }

    /// The components' planes.
    pub fn planes(&self) -> &[Plane] {
        &self.planes[..self.plane_count]
    }

    /// Whether rows need samples of the MCU row below theirs.
    pub fn needs_row_below(&self) -> bool {
        self.planes().iter().any(|plane| matches!(plane.upsampling, Upsampling::FancyH1V2 | Upsampling::FancyH2V2))
    }
}

impl Layout {
    /// Of a scan of an image of up to three components.
    pub fn new(geometry: &Geometry, scan: &Scan) -> Self {
        let part_count = scan.components().len().min(3);
        let mut parts = [Part::default(); 3];
        for (part, component) in parts.iter_mut().zip(scan.components()) {
            let plane = usize::from(component.index);
            // A component alone is not interleaved: its MCU is a block whatever its factors (T.81, A.2.2).
            let Plane { side, h, v, .. } = geometry.planes[plane];
            let (h, v) = if part_count == 1 { (1, 1) } else { (h, v) };
            *part = Part { plane, h, v, columns: h * side, rows: v * side };
        }
        let needed = |mcus: fn(&Plane, Part) -> Range<usize>| {
            let of_parts = parts[..part_count].iter().map(|&part| mcus(&geometry.planes[part.plane], part));
            of_parts.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
        };
        let columns = needed(|plane, part| groups(&plane.columns, part.columns));
        let rows = needed(|plane, part| groups(&plane.rows, part.rows));
        let (width, mcu_width, mcu_height) = if part_count == 1 {
            let Plane { width, side, .. } = geometry.planes[parts[0].plane];
            (width, side, side)
        } else {
            (geometry.image.0, geometry.mcu.0, geometry.mcu.1)
        };
        Self { parts, part_count, mcus_per_row: width.div_ceil(mcu_width), columns, rows, mcu_height }
    }

    /// Its components.
    pub fn parts(&self) -> &[Part] {
        &self.parts[..self.part_count]
    }

    /// Blocks of an MCU.
    pub fn mcu_blocks(&self) -> usize {
        self.parts().iter().map(|part| part.h * part.v).sum()
    }
}

impl Plane {
    /// Of an image whose blocks at the highest sampling have `image_side` samples along a side.
    fn new(component: &Component, image_side: usize, mcu: (usize, usize), image: (usize, usize), region: Rect) -> Self {
        let (h, v) = (usize::from(component.h), usize::from(component.v));
        let side = block_side(image_side, (h, v), mcu);
        let expansion = (mcu.0 / (h * side), mcu.1 / (v * side));
        let (width, height) = (image.0.div_ceil(expansion.0), image.1.div_ceil(expansion.1));
        // libjpeg-turbo's conditions: the horizontal filters need three columns, and none is used at 1/8.
        let upsampling = match expansion {
            (1, 1) => Upsampling::None,
            (h, v) if image_side == 1 => Upsampling::Repeat { h, v },
            (2, 1) if width > 2 => Upsampling::FancyH2V1,
            (1, 2) => Upsampling::FancyH1V2,
            (2, 2) if width > 2 => Upsampling::FancyH2V2,
            (h, v) => Upsampling::Repeat { h, v },
        };
        let context = match upsampling {
            Upsampling::None | Upsampling::Repeat { .. } => (0, 0),
            Upsampling::FancyH2V1 => (1, 0),
            Upsampling::FancyH1V2 => (0, 1),
            Upsampling::FancyH2V2 => (1, 1),
        };
        let (x, y) = (region.x as usize, region.y as usize);
        let columns = needed(x..x + region.width as usize, expansion.0, context.0, width);
        let rows = needed(y..y + region.height as usize, expansion.1, context.1, height);
        Self { side, h, v, width, height, upsampling, expansion, columns, rows }
    }
}

/// Samples along a side of a component's blocks: a component that is sampled less is scaled down less, by
/// powers of two while both directions allow it, which saves upsampling (libjpeg-turbo, jdmaster.c).
fn block_side(image_side: usize, (h, v): (usize, usize), mcu: (usize, usize)) -> usize {
    let mut side = image_side;
    while side < BLOCK_SIDE && mcu.0.is_multiple_of(2 * side * h) && mcu.1.is_multiple_of(2 * side * v) {
        side *= 2;
    }
    side
}

/// The samples that pixels need: those that cover them and `context` more on each side, where there are.
fn needed(pixels: Range<usize>, expansion: usize, context: usize, len: usize) -> Range<usize> {
    let start = (pixels.start / expansion).saturating_sub(context);
    let end = (pixels.end.div_ceil(expansion) + context).min(len);
    start..end
}

/// The groups of `len` samples that hold a range of them.
fn groups(samples: &Range<usize>, len: usize) -> Range<usize> {
    samples.start / len..samples.end.div_ceil(len)
}
