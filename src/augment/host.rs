//! The augmentation on the host, streaming: rows in, tensor out.

mod isa;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

pub use isa::Isa;

use super::store::{Frame, Output};
use super::taps::{LANES, Taps, grow};
use crate::error::{Error, ErrorKind, Result};
use crate::pixels::{ROW_PADDING_BYTES, RowSink};
use crate::plan::{Augment, DType, SamplePlan};

/// A vector's or a decoder's store may start anywhere in a row and run past its end by this much.
const SLACK: usize = ROW_PADDING_BYTES;

/// Turns decoded rows into finished tensors; one per thread, reused for every sample.
///
/// Its memory grows to what the largest image so far needed and then stays, until it is [released](Self::release): as many
/// rows of the decoded region as one output row has taps, and a few rows of the output.
#[derive(Debug)]
pub struct Resizer {
    isa: Isa,
    affine: [(f32, f32); 3],
    across: Taps,
    down: Taps,
    /// Slots of three planes; the first starts at `ring_start`, on a cache line.
    ring: Vec<u8>,
    ring_start: usize,
    scratch: Scratch,
}

/// One row at its stages.
#[derive(Debug, Default)]
struct Scratch {
    /// The taps of the row being made: where in the ring each one's slot starts, and its weight.
    taps: Vec<(usize, f32)>,
    /// Resampled down the columns, a plane each.
    columns: [Vec<f32>; 3],
    /// Resampled both ways and normalised.
    finished: [Vec<f32>; 3],
    /// In the output's type, where it cannot be written there at once.
    halves: [Vec<u16>; 3],
    bytes: [Vec<u8>; 3],
}

impl Resizer {
    /// A resizer for plans of this augmentation, with the fastest instructions that the processor has.
    pub fn new(augment: &Augment) -> Self {
        Self::with_isa(augment, Isa::detect())
    }

    /// The same with chosen instructions, for tests and benchmarks. All give the same bits.
    ///
    /// # Panics
    ///
    /// If the processor lacks them.
    pub fn with_isa(augment: &Augment, isa: Isa) -> Self {
        assert!(isa.is_available(), "this processor has no {isa:?}");
        Self {
            isa,
            affine: augment.affine(),
            across: Taps::default(),
            down: Taps::default(),
            ring: Vec::new(),
            ring_start: 0,
            scratch: Scratch::default(),
        }
    }

    /// The instructions in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Bytes of memory that a sample takes at most: what [`held_bytes`](Self::held_bytes) of a new resizer grows to.
    pub fn memory_bytes(plan: &SamplePlan) -> u64 {
        let width = u64::from(plan.region().width);
        let slack = SLACK as u64;
        let plane_stride = (width + slack).next_multiple_of(slack);
        if is_copy(plan) {
            return 3 * plane_stride + slack + 3 * width;
        }
        let (across, down) = (Taps::count_bound(plan.x()), Taps::count_bound(plan.y()));
        let stride = u64::from(plan.x().output_len).next_multiple_of(LANES as u64);
        let columns = width.next_multiple_of(slack) + across + slack;
        let rows = 3 * (4 * columns + (4 + 2 + 1) * stride);
        // A vector that is pushed to has up to twice the room that it needs, or four elements.
        let taps = 2 * (down + 4) * size_of::<(usize, f32)>() as u64;
        3 * plane_stride * down + slack + rows + taps + Taps::memory_bytes(plan.x()) + Taps::memory_bytes(plan.y())
    }

    /// Bytes of memory that it holds.
    pub fn held_bytes(&self) -> usize {
        let Scratch { taps, columns, finished, halves, bytes } = &self.scratch;
        let words = columns.iter().chain(finished).map(Vec::capacity).sum::<usize>();
        let halves = halves.iter().map(Vec::capacity).sum::<usize>();
        let bytes = bytes.iter().map(Vec::capacity).sum::<usize>() + self.ring.capacity();
        let tables = self.across.held_bytes() + self.down.held_bytes();
        taps.capacity() * size_of::<(usize, f32)>() + 4 * words + 2 * halves + bytes + tables
    }

    /// Gives it back.
    pub fn release(&mut self) {
        (self.across, self.down, self.scratch) = Default::default();
        (self.ring, self.ring_start) = (Vec::new(), 0);
    }

    /// Starts a sample: the rows of `plan.view()` are to follow, then [`Rows::finish`]. `plan` is one of
    /// the augmentation that the resizer was made for, and `output` the sample's place in the batch.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](ErrorKind::InvalidParameter) if `output` has another length than
    /// [`SamplePlan::output_bytes`] or is not aligned to its element type.
    pub fn begin<'a>(&'a mut self, plan: &SamplePlan, output: &'a mut [u8]) -> Result<Rows<'a>> {
        let frame = Frame::new(plan);
        let output = Output::new(output, plan)?;
        let region = plan.region();
        let is_copy = is_copy(plan);
        if is_copy {
            self.scratch.bytes.iter_mut().for_each(|bytes| grow(bytes, region.width as usize));
        } else {
            self.across.build(plan.x(), plan.x().flip);
            self.down.build(plan.y(), false);
            self.scratch.grow(region.width as usize, &self.across);
        }
        let ring_rows = if is_copy { 1 } else { self.down.count_max };
        let plane_stride = (region.width as usize + SLACK).next_multiple_of(SLACK);
        self.grow_ring(3 * plane_stride * ring_rows);
        Ok(Rows {
            is_copy,
            height: region.height,
            width: region.width as usize,
            rows_reversed: plan.y().flip,
            output_rows: plan.y().output_len as usize,
            plane_stride,
            ring_rows,
            committed: 0,
            slot: 0,
            emitted: 0,
            frame,
            output,
            resizer: self,
        })
    }

    fn grow_ring(&mut self, len: usize) {
        grow(&mut self.ring, len + SLACK);
        self.ring_start = self.ring.as_ptr().align_offset(SLACK).min(SLACK);
    }
}

impl Scratch {
    fn grow(&mut self, width: usize, across: &Taps) {
        // A horizontal tap may look past the row's end with weight 0, and what it finds must be finite;
        // everything that is ever written here is.
        let columns_len = width.next_multiple_of(SLACK) + across.count_max + SLACK;
        for plane in 0..3 {
            grow(&mut self.columns[plane], columns_len);
            grow(&mut self.finished[plane], across.stride);
            grow(&mut self.halves[plane], across.stride);
            grow(&mut self.bytes[plane], across.stride);
        }
    }
}

/// Whether a plan is a plain copy of bytes, which needs no arithmetic: the rows are stored as they come.
fn is_copy(plan: &SamplePlan) -> bool {
    plan.dtype() == DType::U8 && plan.x().is_copy() && plan.y().is_copy()
}

/// Takes the rows of one sample's region; see [`RowSink`].
#[must_use = "the output is complete only after finish"]
pub struct Rows<'a> {
    resizer: &'a mut Resizer,
    output: Output<'a>,
    frame: Frame,
    is_copy: bool,
    rows_reversed: bool,
    width: usize,
    height: u32,
    output_rows: usize,
    plane_stride: usize,
    ring_rows: usize,
    committed: u32,
    slot: usize,
    emitted: usize,
}

impl RowSink for Rows<'_> {
    /// # Panics
    ///
    /// If the region has no further row.
    fn row(&mut self) -> [&mut [u8]; 3] {
        assert!(self.committed < self.height, "the region has {} rows and all were delivered", self.height);
        let start = self.resizer.ring_start + self.slot * 3 * self.plane_stride;
        let slot = &mut self.resizer.ring[start..start + 3 * self.plane_stride];
        let (red, others) = slot.split_at_mut(self.plane_stride);
        let (green, blue) = others.split_at_mut(self.plane_stride);
        [red, green, blue]
    }

    fn commit(&mut self) {
        assert!(self.committed < self.height, "the region has {} rows and all were delivered", self.height);
        self.committed += 1;
        if self.is_copy {
            self.emit_copy();
        }
        // The slot that comes round next holds a row that only outputs before `emitted` needed: an output
        // has at most as many taps as the ring has slots.
        while !self.is_copy && self.emitted < self.output_rows && self.resizer.down.end[self.emitted] <= self.committed
        {
            self.emit();
        }
        self.slot = if self.slot + 1 == self.ring_rows { 0 } else { self.slot + 1 };
    }
}

impl Rows<'_> {
    /// Ends the sample.
    ///
    /// # Errors
    ///
    /// [`Internal`](ErrorKind::Internal) if rows are missing; the output is then not to be used.
    pub fn finish(self) -> Result<()> {
        if self.committed == self.height && self.emitted == self.output_rows {
            return Ok(());
        }
        let (got, expected) = (self.committed, self.height);
        Err(Error::new(ErrorKind::Internal, format!("the decoder delivered {got} of {expected} rows")))
    }

    /// The output row that is next, counted as it lies in memory.
    fn output_row(&self) -> usize {
        if self.rows_reversed { self.output_rows - 1 - self.emitted } else { self.emitted }
    }

    /// Makes the next output row from the rows in the ring.
    fn emit(&mut self) {
        let row = self.output_row();
        let Resizer { isa, affine, across, down, ring, ring_start, scratch, .. } = &mut *self.resizer;
        let (first, end) = (down.first[self.emitted] as usize, down.end[self.emitted] as usize);
        let slot_stride = 3 * self.plane_stride;
        scratch.taps.clear();
        for tap in 0..end - first {
            let slot = (first + tap) % self.ring_rows;
            let weight = down.weights[tap * down.stride + self.emitted];
            scratch.taps.push((*ring_start + slot * slot_stride, weight));
        }
        for (plane, columns) in scratch.columns.iter_mut().enumerate() {
            let len = self.width.next_multiple_of(SLACK);
            isa.resample_down(ring, plane * self.plane_stride, &scratch.taps, &mut columns[..len]);
        }
        let width = self.frame.row_len();
        let columns = scratch.columns.each_ref().map(|plane| &plane[..]);
        match &mut self.output {
            Output::F32(output) if self.frame.is_planar() => {
                isa.resample_across(columns, across, affine, self.frame.plane_rows(output, row));
            }
            output => {
                isa.resample_across(columns, across, affine, scratch.finished.each_mut().map(|row| &mut row[..width]));
                let finished = scratch.finished.each_ref().map(|row| &row[..width]);
                match output {
                    Output::F32(output) => self.frame.store(*isa, finished, output, row),
                    Output::F16(output) => {
                        self.frame.cast(*isa, Isa::cast_f16, finished, &mut scratch.halves, output, row);
                    }
                    Output::BF16(output) => {
                        self.frame.cast(*isa, Isa::cast_bf16, finished, &mut scratch.halves, output, row);
                    }
                    Output::U8(output) => {
                        self.frame.cast(*isa, Isa::cast_u8, finished, &mut scratch.bytes, output, row);
                    }
                }
            }
        }
        self.emitted += 1;
    }

    /// Stores the row in the ring's only slot as it is.
    fn emit_copy(&mut self) {
        let row = self.output_row();
        let Resizer { isa, ring, ring_start, scratch, .. } = &mut *self.resizer;
        let Output::U8(output) = &mut self.output else { unreachable!("only bytes are copied") };
        let planes: [&[u8]; 3] =
            std::array::from_fn(|plane| &ring[*ring_start + plane * self.plane_stride..][..self.width]);
        if self.frame.is_reversed() {
            // A mirrored row is turned on its way: the only copy of these bytes besides the store.
            for (bytes, plane) in scratch.bytes.iter_mut().zip(planes) {
                bytes.iter_mut().zip(plane.iter().rev()).for_each(|(to, from)| *to = *from);
            }
            self.frame.store(*isa, scratch.bytes.each_ref().map(|bytes| &bytes[..self.width]), output, row);
        } else {
            self.frame.store(*isa, planes, output, row);
        }
        self.emitted += 1;
    }
}
