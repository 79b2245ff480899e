//! HAND over: tensors, labels, keys.

mod digest;

pub use digest::Digest;

use half::{bf16, f16};

use crate::loader::Tray;
use crate::plan::{DType, Layout};

/// One batch: images, labels, keys and sample numbers, in the epoch's order.
///
/// It owns its slot of the loader's memory; dropping it, on any thread, gives the slot back to be
/// filled again. Hold no more batches at once than the loader has slots less one, or it starves.
pub struct Batch(pub(crate) Tray);

/// One image of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// The pixels: three channels (R, G, B) in the batch's layout and type, tightly packed.
    pub bytes: &'a [u8],
}

/// All images of a batch whose images have one size.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// `[samples, 3, height, width]` for NCHW, `[samples, height, width, 3]` for NHWC.
    pub shape: [usize; 4],
    /// The type of an element.
    pub dtype: DType,
    /// The order of the dimensions.
    pub layout: Layout,
    /// The elements, row-major, tightly packed, in the machine's byte order.
    pub bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// The elements, if they are of type f32.
    pub fn as_f32(&self) -> Option<&'a [f32]> {
        (self.dtype == DType::F32).then(|| bytemuck::cast_slice(self.bytes))
    }

    /// The elements, if they are of type f16.
    pub fn as_f16(&self) -> Option<&'a [f16]> {
        (self.dtype == DType::F16).then(|| bytemuck::cast_slice(self.bytes))
    }

    /// The elements, if they are of type bf16.
    pub fn as_bf16(&self) -> Option<&'a [bf16]> {
        (self.dtype == DType::BF16).then(|| bytemuck::cast_slice(self.bytes))
    }

    /// The elements, if they are of type u8.
    pub fn as_u8(&self) -> Option<&'a [u8]> {
        (self.dtype == DType::U8).then_some(self.bytes)
    }
}

impl Batch {
    /// The number of samples: the batch size, or fewer in a partial last batch.
    pub fn len(&self) -> usize {
        self.0.samples.len()
    }

    /// Whether it holds no sample; never true of a batch that a loader gave out.
    pub fn is_empty(&self) -> bool {
        self.0.samples.is_empty()
    }

    /// The epoch it belongs to.
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Its number within the epoch, from 0.
    pub fn step(&self) -> u64 {
        self.0.step
    }

    /// The images as one tensor; `None` where every image has its own size (`Geometry::None`).
    pub fn images(&self) -> Option<Tensor<'_>> {
        let augment = &self.0.augment;
        let [a, b, c] = augment.output_shape()?;
        let bytes = self.0.slot.bytes(self.len() * augment.output_bytes()?);
        Some(Tensor { shape: [self.len(), a, b, c], dtype: augment.dtype(), layout: augment.layout(), bytes })
    }

    /// One image.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> Image<'_> {
        let (height, width, bytes) = self.0.slot.sample(index);
        Image { height, width, bytes }
    }

    /// The labels, [`UNLABELLED`](crate::source::UNLABELLED) where a sample has none.
    pub fn labels(&self) -> &[i64] {
        &self.0.labels
    }

    /// The samples' numbers within the source.
    pub fn samples(&self) -> &[u64] {
        &self.0.samples
    }

    /// The key of one sample: its name within the data set.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn key(&self, index: usize) -> &str {
        self.0.key(index)
    }
}
