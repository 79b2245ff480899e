//! What of an image the kernels decode and resample, and the scratch memory that takes.

use std::ops::Range;

use super::abi::{
    self, COLOUR_GREY, COLOUR_RGB, COLOUR_YCBCR, Image, SOURCE_BITS, SOURCE_PIXELS, SOURCE_SAMPLES, TILE_COLUMNS,
};
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::{ColourModel, Facts, Geometry, Layout, Plane, Upsampling};
use crate::pixels::{Rect, Scale};
use crate::plan::{Axis, SamplePlan};
use crate::raw;

/// Samples along a side of a block.
const SIDE: usize = 8;

/// Outputs that a row of a tap table is rounded up to.
const TAP_STRIDE: u32 = 32;

/// No upload is longer ([`UploadLayout`](crate::memory::UploadLayout)).
const UPLOAD_BYTES_MAX: u64 = i32::MAX as u64;

/// Scratch memory of one image, and how far its kernels reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Coefficient blocks.
    pub(crate) blocks: u32,
    /// Those of the plane with the most.
    pub(crate) plane_blocks: u32,
    /// Bytes of samples.
    pub(crate) samples: u64,
    /// Words of tap tables.
    pub(crate) taps: u32,
    /// Segments, and words that their data takes without stuffing.
    pub(crate) segments: u32,
    pub(crate) words: u32,
}

impl Needs {
    /// What a sample needs but for its segments, by its record; `None` where it is none for the kernels.
    ///
    /// # Errors
    /// Those of [`Facts::layout`].
    pub(crate) fn of(facts: &Facts, plan: &SamplePlan) -> Result<Option<Self>> {
        let (geometry, _) = facts.layout(plan.view())?;
        Ok(is_taken(plan).then(|| geometry.planes().iter().fold(Self::of_taps(plan), |needs, plane| needs.with(plane))))
    }

    /// What raw pixels need; `None` where they are none for the kernels.
    ///
    /// # Errors
    /// Those of [`raw::Facts::range`].
    pub(crate) fn of_pixels(facts: &raw::Facts, plan: &SamplePlan) -> Result<Option<Self>> {
        facts.range(plan.region())?;
        Ok(region_image(plan, facts, 0).ok().map(|(_, needs)| needs))
    }

    fn of_taps(plan: &SamplePlan) -> Self {
        Self { taps: table_words(plan.x()) + table_words(plan.y()), ..Self::default() }
    }

    fn with(self, plane: &Plane) -> Self {
        let blocks = (blocks(&plane.columns).len() * blocks(&plane.rows).len()) as u32;
        self.with_blocks(blocks)
    }

    fn with_blocks(self, blocks: u32) -> Self {
        Self {
            blocks: self.blocks + blocks,
            plane_blocks: self.plane_blocks.max(blocks),
            samples: self.samples + (SIDE * SIDE) as u64 * u64::from(blocks),
            ..self
        }
    }
}

/// Whether the kernels can resample by this plan.
pub(super) fn is_taken(plan: &SamplePlan) -> bool {
    plan.scale() == Scale::Full && tile(plan.x()) > 0
}

/// The image of a streamed JPEG, but for its segments and tables, and what it needs.
pub(super) fn coded_image(
    plan: &SamplePlan,
    colour: ColourModel,
    geometry: &Geometry,
    layout: &Layout,
) -> Result<(Image, Needs)> {
    let (mut image, mut needs) = resampled(plan)?;
    image.source = SOURCE_BITS;
    image.colour = match colour {
        ColourModel::Grey => COLOUR_GREY,
        ColourModel::Rgb => COLOUR_RGB,
        _ => COLOUR_YCBCR,
    };
    image.plane_count = geometry.planes().len() as u32;
    image.block_count = layout.mcu_blocks() as u8;
    for (to, (plane, part)) in image.planes.iter_mut().zip(geometry.planes().iter().zip(layout.parts())) {
        let (columns, rows) = (blocks(&plane.columns), blocks(&plane.rows));
        *to = abi::Plane {
            samples: needs.samples,
            blocks: needs.blocks,
            block_column: columns.start as u16,
            block_row: rows.start as u16,
            block_columns: columns.len() as u16,
            block_rows: rows.len() as u16,
            width: plane.width as u16,
            height: plane.height as u16,
            h: part.h as u8,
            v: part.v as u8,
            upsampling: upsampling(plane.upsampling),
            expansion_x: plane.expansion.0 as u8,
            expansion_y: plane.expansion.1 as u8,
            ..abi::Plane::default()
        };
        needs = needs.with(plane);
    }
    Ok((image, needs))
}

/// The image of a `width` x `height` picture of which another decoder leaves an area, which starts at multiples of 8 and
/// holds the plan's region, in the sample buffer: as a red, a green and a blue plane, whose rows are
/// `8 * block_columns` bytes apart.
///
/// # Errors
/// `Unsupported` for what the kernels do not resample.
pub(crate) fn samples_image(plan: &SamplePlan, (width, height): (u32, u32), area: Rect) -> Result<(Image, Needs)> {
    debug_assert!(area.x.is_multiple_of(SIDE as u32) && area.y.is_multiple_of(SIDE as u32) && area.fits(width, height));
    let (mut image, mut needs) = resampled(plan)?;
    check_sides(width, height)?;
    (image.source, image.colour, image.plane_count) = (SOURCE_SAMPLES, COLOUR_RGB, 3);
    let (columns, rows) = (area.width.div_ceil(SIDE as u32), area.height.div_ceil(SIDE as u32));
    for plane in &mut image.planes {
        *plane = abi::Plane {
            samples: needs.samples,
            block_column: (area.x / SIDE as u32) as u16,
            block_row: (area.y / SIDE as u32) as u16,
            block_columns: columns as u16,
            block_rows: rows as u16,
            width: width as u16,
            height: height as u16,
            h: 1,
            v: 1,
            expansion_x: 1,
            expansion_y: 1,
            ..abi::Plane::default()
        };
        needs = needs.with_blocks(columns * rows);
    }
    Ok((image, Needs { blocks: 0, plane_blocks: 0, ..needs }))
}

/// The image of a `width` x `height` picture of interleaved bytes, 3 a pixel or 1 where it is grey, of which whole rows
/// landed, one behind the other and at any alignment: `rows` of them, from upload offset `at` on.
///
/// # Errors
/// `Unsupported` for what the kernels do not resample, and where a row of the plan's region did not land or is out of
/// the reach of upload offsets.
pub(super) fn pixels_image(
    plan: &SamplePlan,
    (width, height): (u32, u32),
    channels: u32,
    rows: Range<u32>,
    at: u32,
) -> Result<(Image, Needs)> {
    let (mut image, needs) = resampled(plan)?;
    check_sides(width, height)?;
    if channels != 1 && channels != 3 {
        return Err(unsupported(format!("image has {channels} channels, not 1 or 3")));
    }
    let region = plan.region();
    let have = rows.start..rows.end.min(height);
    if !region.fits(width, height) || region.y < have.start || region.y + region.height > have.end {
        return Err(unsupported(format!("{region:?} of {width}x{height} is not in the rows {rows:?} that landed")));
    }
    // A side has 16 bits.
    let row_bytes = width * channels;
    let pixels = u64::from(at) + u64::from(region.y - rows.start) * u64::from(row_bytes);
    let end = pixels + u64::from(region.height) * u64::from(row_bytes);
    if end > UPLOAD_BYTES_MAX {
        return Err(unsupported(format!("its rows end at byte {end} of the upload, past {UPLOAD_BYTES_MAX}")));
    }
    (image.source, image.colour) = (SOURCE_PIXELS, COLOUR_RGB);
    (image.pixels, image.row_bytes, image.channels) = (pixels as u32, row_bytes, channels);
    Ok((image, needs))
}

/// The same of raw pixels, of which the rows of the plan's region landed from upload offset `at` on.
///
/// # Errors
/// As for [`pixels_image`].
pub(super) fn region_image(plan: &SamplePlan, facts: &raw::Facts, at: u32) -> Result<(Image, Needs)> {
    let (raw::Shape { height, width, channels }, region) = (facts.shape, plan.region());
    let rows = region.y..region.y.saturating_add(region.height);
    pixels_image(plan, (width, height), channels.into(), rows, at)
}

/// Refuses images with sides that the kernels' 16 bits do not hold.
fn check_sides(width: u32, height: u32) -> Result<()> {
    if width.max(height) > u32::from(u16::MAX) {
        return Err(unsupported(format!("image is {width}x{height}, a side over 65535")));
    }
    Ok(())
}

/// The part of an image that says how it is resampled.
fn resampled(plan: &SamplePlan) -> Result<(Image, Needs)> {
    if !is_taken(plan) {
        return Err(unsupported(format!("{} columns become one", plan.x().box_len)));
    }
    let region = plan.region();
    let mut image = Image {
        x: axis(plan.x(), plan.x().flip),
        y: axis(plan.y(), false),
        transposed: plan.is_transposed().into(),
        rows_reversed: plan.y().flip.into(),
        region_x: region.x,
        region_y: region.y,
        region_width: region.width,
        region_height: region.height,
        tile: tile(plan.x()),
        ..Image::default()
    };
    image.y.tables = table_words(plan.x());
    Ok((image, Needs::of_taps(plan)))
}

fn axis(axis: &Axis, reversed: bool) -> abi::Axis {
    let filter = axis.filter();
    abi::Axis {
        scale: filter.scale,
        offset: filter.offset,
        support: filter.support,
        per_support: filter.per_support,
        len: filter.len,
        window_start: axis.window_start,
        output_len: axis.output_len,
        // At full scale, which is all that the kernels take, no axis is longer than 65535.
        origin: (axis.source_range().0 - axis.first_pixel()) as u16,
        reversed: reversed.into(),
        tables: 0,
        taps_max: taps_max(axis),
    }
}

/// No output of an axis has more taps: they lie in an interval of twice the support.
fn taps_max(axis: &Axis) -> u32 {
    (2.0 * axis.filter().support).ceil() as u32 + 1
}

/// Words of an axis's tap table: the first and the one past the last tap of each output, and the weights.
fn table_words(axis: &Axis) -> u32 {
    axis.output_len.next_multiple_of(TAP_STRIDE) * (2 + taps_max(axis))
}

/// Neighbouring outputs whose taps span no more columns than the resize kernel holds; 0 where those of one do.
fn tile(axis: &Axis) -> u32 {
    let filter = axis.filter();
    // From the first tap of the first output to the last of the last: (n - 1) * scale + 2 * support, and what
    // rounding to whole columns adds.
    let room = f64::from(TILE_COLUMNS) - 2.0 - 2.0 * filter.support;
    if room < 0.0 { 0 } else { ((room / filter.scale) as u32).saturating_add(1).min(axis.output_len) }
}

/// The blocks that hold a range of samples.
fn blocks(samples: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    samples.start / SIDE..samples.end.div_ceil(SIDE)
}

pub(super) fn upsampling(upsampling: Upsampling) -> u8 {
    match upsampling {
        Upsampling::None => abi::UPSAMPLE_NONE,
        Upsampling::FancyH2V1 => abi::UPSAMPLE_H2V1,
        Upsampling::FancyH1V2 => abi::UPSAMPLE_H1V2,
        Upsampling::FancyH2V2 => abi::UPSAMPLE_H2V2,
        Upsampling::Repeat { .. } => abi::UPSAMPLE_REPEAT,
    }
}

pub(super) fn unsupported(cause: String) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the kernels do not take it: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::plan::{Augment, Geometry as Resizing, Orientation, SampleKey, Size};
    use proptest::prelude::*;

    #[test]
    fn pixels_are_those_of_rows_that_landed() {
        let crop = Size { height: 4, width: 10 };
        let augment = Augment::builder(Resizing::ResizeCenterCrop { resize: 10, crop }).build().unwrap();
        let key = SampleKey { seed: 0, epoch: 0, sample: 0, view: 0 };
        let plan = augment.plan(key, 20, 10, Orientation::AS_STORED).unwrap();
        let (top, bottom) = (plan.region().y, plan.region().y + plan.region().height);
        assert!(top >= 2 && bottom <= 8);
        let image = |channels, rows, at| pixels_image(&plan, (20, 10), channels, rows, at);
        for (channels, rows, at) in [(3, 0..10, 7), (1, top..bottom, 16), (3, 1..bottom, 0)] {
            let (image, needs) = image(channels, rows.clone(), at).unwrap();
            let row_bytes = 20 * channels;
            assert_eq!((image.row_bytes, image.pixels), (row_bytes, at + (top - rows.start) * row_bytes));
            assert_eq!(needs, Needs { taps: needs.taps, ..Needs::default() });
        }
        #[expect(clippy::reversed_empty_ranges)]
        let absent = [top + 1..10, 0..bottom - 1, 9..1, 10..20];
        for rows in absent {
            let error = image(3, rows.clone(), 0).unwrap_err();
            assert!(
                error.kind() == ErrorKind::Unsupported && error.to_string().contains("landed"),
                "{rows:?}: {error}"
            );
        }
        for channels in [0, 2, 4, u32::MAX] {
            assert!(image(channels, 0..10, 0).unwrap_err().to_string().contains("channels"));
        }
        let last = i32::MAX as u32 - bottom * 60;
        assert_eq!(image(3, 0..10, last).unwrap().0.pixels, last + top * 60);
        for at in [last + 1, u32::MAX] {
            assert!(image(3, 0..10, at).unwrap_err().to_string().contains("past"));
        }
        // Of another picture than what was planned.
        assert!(pixels_image(&plan, (20, 5), 3, 0..10, 0).is_err());
        assert!(pixels_image(&plan, (12, 10), 3, 0..10, 0).is_err());
    }

    proptest! {
        /// The bounds that stand in for looking at every output.
        #[test]
        fn taps_and_tiles_are_bounded(len in 1_u32..65_536, output_len in 1_u32..1500, window in 0_u64..500) {
            let axis = Axis { window_start: window, resized_len: u64::from(output_len) + window, ..Axis::resized(0, len, output_len) };
            let filter = axis.filter();
            let taps = |j: u32| filter.range(filter.center(axis.window_start + u64::from(j)));
            let (max, tile) = (taps_max(&axis), tile(&axis));
            for j in 0..output_len {
                let (first, end) = taps(j);
                prop_assert!(end - first <= max, "{} taps, over {}", end - first, max);
                if tile > 0 && j % tile == 0 {
                    let last = (j + tile).min(output_len) - 1;
                    prop_assert!(taps(last).1 - first <= TILE_COLUMNS);
                }
            }
            prop_assert!(tile > 0 || 2 * len / axis.resized_len as u32 > TILE_COLUMNS - 8);
        }
    }
}
