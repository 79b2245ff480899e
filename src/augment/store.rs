//! Where a finished row goes in the output.

use bytemuck::Pod;

use super::host::Isa;
use crate::error::{Error, Result};
use crate::plan::{DType, Layout, SamplePlan};

/// The output's memory by element type. Half types are handled as their bits.
pub(super) enum Output<'a> {
    U8(&'a mut [u8]),
    F16(&'a mut [u16]),
    BF16(&'a mut [u16]),
    F32(&'a mut [f32]),
}

impl<'a> Output<'a> {
    pub(super) fn new(bytes: &'a mut [u8], plan: &SamplePlan) -> Result<Self> {
        if bytes.len() != plan.output_bytes() {
            let allowed = format!("the sample's output has {} bytes", plan.output_bytes());
            return Err(Error::invalid_parameter("output.len()", bytes.len(), &allowed));
        }
        match plan.dtype() {
            DType::U8 => Ok(Self::U8(bytes)),
            DType::F16 => Ok(Self::F16(elements(bytes)?)),
            DType::BF16 => Ok(Self::BF16(elements(bytes)?)),
            DType::F32 => Ok(Self::F32(elements(bytes)?)),
        }
    }
}

fn elements<T: Pod>(bytes: &mut [u8]) -> Result<&mut [T]> {
    let address = bytes.as_ptr().addr();
    bytemuck::try_cast_slice_mut(bytes).map_err(|_| {
        let allowed = format!("an output is aligned to its element, {} bytes", size_of::<T>());
        Error::invalid_parameter("output.as_ptr()", format_args!("{address:#x}"), &allowed)
    })
}

/// How rows, which run along the stored image's, lie in the output.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    layout: Layout,
    transposed: bool,
    reversed: bool,
    /// Elements of a row, and rows.
    across: usize,
    down: usize,
}

impl Frame {
    pub(super) fn new(plan: &SamplePlan) -> Self {
        Self {
            layout: plan.layout(),
            transposed: plan.is_transposed(),
            reversed: plan.x().flip,
            across: plan.x().output_len as usize,
            down: plan.y().output_len as usize,
        }
    }

    pub(super) fn row_len(&self) -> usize {
        self.across
    }

    /// Whether the elements of a row run against the stored image's.
    pub(super) fn is_reversed(&self) -> bool {
        self.reversed
    }

    /// Whether each channel of a row is contiguous in the output, so that it can be written in place.
    pub(super) fn is_planar(&self) -> bool {
        self.layout == Layout::Nchw && !self.transposed
    }

    /// A row's place in each plane; only where [`is_planar`](Self::is_planar).
    pub(super) fn plane_rows<'a, T>(&self, output: &'a mut [T], row: usize) -> [&'a mut [T]; 3] {
        debug_assert!(self.is_planar());
        let (red, others) = output.split_at_mut(self.across * self.down);
        let (green, blue) = others.split_at_mut(self.across * self.down);
        [red, green, blue].map(|plane| &mut plane[row * self.across..][..self.across])
    }

    /// Converts a row to the output's type and stores it, by way of `scratch` where it must be scattered.
    pub(super) fn cast<T: Pod>(
        &self,
        isa: Isa,
        convert: impl Fn(Isa, &[f32], &mut [T]),
        row_values: [&[f32]; 3],
        scratch: &mut [Vec<T>; 3],
        output: &mut [T],
        row: usize,
    ) {
        if self.is_planar() {
            for (values, place) in row_values.into_iter().zip(self.plane_rows(output, row)) {
                convert(isa, values, place);
            }
            return;
        }
        for (values, converted) in row_values.into_iter().zip(scratch.iter_mut()) {
            convert(isa, values, &mut converted[..self.across]);
        }
        self.store(isa, scratch.each_ref().map(|converted| &converted[..self.across]), output, row);
    }

    /// Stores a row of the output's type.
    pub(super) fn store<T: Pod>(&self, isa: Isa, values: [&[T]; 3], output: &mut [T], row: usize) {
        if self.transposed {
            return self.store_column(values, output, row);
        }
        match self.layout {
            Layout::Nchw => {
                self.plane_rows(output, row)
                    .into_iter()
                    .zip(values)
                    .for_each(|(place, row)| place.copy_from_slice(row));
            }
            Layout::Nhwc => isa.interleave(values, &mut output[row * self.across * 3..][..self.across * 3]),
        }
    }

    /// Stores a row as column `row` of the output, whose rows are `down` long.
    fn store_column<T: Copy>(&self, values: [&[T]; 3], output: &mut [T], row: usize) {
        for (channel, values) in values.into_iter().enumerate() {
            for (j, value) in values.iter().enumerate() {
                let index = match self.layout {
                    Layout::Nchw => (channel * self.across + j) * self.down + row,
                    Layout::Nhwc => (j * self.down + row) * 3 + channel,
                };
                output[index] = *value;
            }
        }
    }
}
