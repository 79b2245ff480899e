//! From the samples of the components to the rows of the consumer.

use std::ops::Range;

use super::colour;
use super::geometry::{Geometry, Plane, Upsampling};
use super::header::ColourModel;
use super::simd::Simd;
use super::upsample;
use crate::pixels::{ROW_PADDING_BYTES, RowSink};

/// Samples before the first and after the last column of a plane: room for the filters' context and for
/// kernels that work on whole vectors.
const MARGIN: usize = 64;

/// Some rows of a component.
#[derive(Default)]
pub struct Samples {
    bytes: Vec<u8>,
    stride: usize,
    first_row: usize,
    first_column: usize,
}

impl Samples {
    /// Makes room for `rows` rows of the columns `columns`, whose content is then anything.
    pub fn reset(&mut self, columns: Range<usize>, rows: usize) {
        self.stride = columns.len() + 2 * MARGIN;
        self.first_column = columns.start;
        make_room(&mut self.bytes, self.stride * rows + MARGIN);
    }

    /// Bytes for `rows` rows of `columns` columns.
    pub fn len_bytes(columns: usize, rows: usize) -> usize {
        (columns + 2 * MARGIN) * rows + MARGIN
    }

    /// Bytes that it holds.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Distance of rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The memory from a sample to the end.
    pub fn tail_mut(&mut self, column: usize, row: usize) -> &mut [u8] {
        let at = self.at(column, row);
        &mut self.bytes[at..]
    }

    /// Stores the component's row `row` behind `context` rows that were kept, those below it after it.
    pub fn start_band(&mut self, row: usize, context: usize) {
        // In the first band of an image "one before" wraps; no row is asked for that lies there.
        self.first_row = row.wrapping_sub(context);
    }

    /// Keeps the last of a band's `rows` rows as the context of the next band.
    pub fn keep_last_row(&mut self, rows: usize) {
        let from = rows * self.stride;
        self.bytes.copy_within(from..from + self.stride, 0);
    }

    /// Repeats the edge samples outside the component, where the filters look for neighbours.
    pub fn pad(&mut self, plane: &Plane, rows: Range<usize>) {
        if !matches!(plane.upsampling, Upsampling::FancyH2V1 | Upsampling::FancyH2V2) {
            return;
        }
        for row in rows {
            if plane.columns.start == 0 {
                let at = self.at(0, row);
                self.bytes[at - 1] = self.bytes[at];
            }
            if plane.columns.end == plane.width {
                let at = self.at(plane.width, row);
                self.bytes[at] = self.bytes[at - 1];
            }
        }
    }

    /// A row from a column on, or one before where `before` is 1.
    fn row(&self, column: usize, row: usize, before: usize) -> &[u8] {
        let at = self.at(column, row) - before;
        &self.bytes[at..]
    }

    fn at(&self, column: usize, row: usize) -> usize {
        row.wrapping_sub(self.first_row) * self.stride + MARGIN + column - self.first_column
    }
}

/// Makes a vector at least this long, whose content is then anything: never longer, and never both the old and the new at
/// once, so that it takes what was planned for it.
fn make_room(bytes: &mut Vec<u8>, len: usize) {
    if bytes.len() < len {
        *bytes = Vec::new();
        *bytes = vec![0; len];
    }
}

/// Upsamples and converts rows.
pub struct Output {
    simd: Simd,
    /// An upsampled row a component.
    rows: [Vec<u8>; 3],
}

impl Output {
    pub fn new(simd: Simd) -> Self {
        Self { simd, rows: Default::default() }
    }

    /// Makes room for rows of the region.
    pub fn reset(&mut self, geometry: &Geometry) {
        let len = Self::row_bytes(geometry.region.width);
        self.rows.iter_mut().for_each(|row| make_room(row, len));
    }

    /// Bytes of each of three rows, for a region of a width.
    pub fn row_bytes(width: u32) -> usize {
        width as usize + 4 * MARGIN
    }

    /// Bytes that it holds.
    pub fn held_bytes(&self) -> usize {
        self.rows.iter().map(Vec::capacity).sum()
    }

    /// Hands the rows `rows` of the image to the sink.
    pub fn emit(
        &mut self,
        geometry: &Geometry,
        colour: ColourModel,
        samples: &[Samples; 3],
        rows: Range<usize>,
        sink: &mut impl RowSink,
    ) {
        let (x, width) = (geometry.region.x as usize, geometry.region.width as usize);
        for y in rows {
            let mut scratch = self.rows.iter_mut();
            let mut sources: [&[u8]; 3] = [&[]; 3];
            for ((source, plane), samples) in sources.iter_mut().zip(geometry.planes()).zip(samples) {
                let Some(scratch) = scratch.next() else { break };
                *source = upsampled(self.simd, plane, samples, scratch, x..x + width, y);
            }
            let out = sink.row();
            assert!(
                out.iter().all(|row| row.len() >= width + ROW_PADDING_BYTES),
                "RowSink::row hands out planes shorter than the region and its padding"
            );
            match colour {
                ColourModel::YCbCr => colour::ycbcr_to_rgb(self.simd, sources, out, width),
                ColourModel::Grey => out.into_iter().for_each(|row| row[..width].copy_from_slice(&sources[0][..width])),
                _ => out.into_iter().zip(sources).for_each(|(row, from)| row[..width].copy_from_slice(&from[..width])),
            }
            sink.commit();
        }
    }
}

/// Row `y` of a component at the image's resolution, from the first of `columns` on.
fn upsampled<'a>(
    simd: Simd,
    plane: &Plane,
    samples: &'a Samples,
    scratch: &'a mut [u8],
    columns: Range<usize>,
    y: usize,
) -> &'a [u8] {
    let (first, last) = (columns.start / plane.expansion.0, (columns.end - 1) / plane.expansion.0);
    let count = last - first + 1;
    let near = y / plane.expansion.1;
    // The nearer of the rows above and below; the edges repeat.
    let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(plane.height - 1) };
    match plane.upsampling {
        Upsampling::None => return samples.row(first, near, 0),
        Upsampling::FancyH2V1 => upsample::h2v1(simd, samples.row(first, near, 1), count, scratch),
        Upsampling::FancyH2V2 => {
            upsample::h2v2(simd, samples.row(first, near, 1), samples.row(first, far, 1), count, scratch);
        }
        Upsampling::FancyH1V2 => {
            let bias = if y.is_multiple_of(2) { 1 } else { 2 };
            upsample::h1v2(simd, samples.row(first, near, 0), samples.row(first, far, 0), bias, count, scratch);
        }
        Upsampling::Repeat { h, .. } => {
            let row = samples.row(first, near, 0);
            for (&sample, out) in row.iter().zip(scratch.chunks_mut(h)).take(count) {
                out.fill(sample);
            }
        }
    }
    &scratch[columns.start - first * plane.expansion.0..]
}
