//! HAND over: tensors, labels, keys.

mod digest;

pub use digest::Digest;

use half::{bf16, f16};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::loader::Filled;
use crate::plan::{DType, Layout};

/// One batch: images, labels, keys and sample numbers, in the epoch's order.
///
/// It owns its slot of the loader's memory; dropping it, on any thread, gives the slot back to be
/// filled again. Hold no more batches at once than the loader has slots less one, or it starves.
pub struct Batch {
    filled: Filled,
    /// How many batches the consumer holds.
    held: Arc<AtomicUsize>,
}

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
    pub(crate) fn new(filled: Filled, held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self { filled, held: Arc::clone(held) }
    }

    /// The number of samples: the batch size, or fewer in a partial last batch.
    pub fn len(&self) -> usize {
        self.filled.tray.samples.len()
    }

    /// Whether it holds no sample; never true of a batch that a loader gave out.
    pub fn is_empty(&self) -> bool {
        self.filled.tray.samples.is_empty()
    }

    /// The epoch it belongs to.
    pub fn epoch(&self) -> u64 {
        self.filled.tray.epoch
    }

    /// Its number within the epoch, from 0.
    pub fn step(&self) -> u64 {
        self.filled.tray.step
    }

    /// The images as one tensor; `None` where every image has its own size (`Geometry::None`).
    pub fn images(&self) -> Option<Tensor<'_>> {
        let augment = &self.filled.tray.augment;
        let [a, b, c] = augment.output_shape()?;
        let bytes = self.filled.slot.all();
        Some(Tensor { shape: [self.len(), a, b, c], dtype: augment.dtype(), layout: augment.layout(), bytes })
    }

    /// One image.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> Image<'_> {
        let size = self.filled.tray.size(index);
        Image { height: size.height, width: size.width, bytes: self.filled.slot.sample(index) }
    }

    /// The labels, [`UNLABELLED`](crate::source::UNLABELLED) where a sample has none.
    pub fn labels(&self) -> &[i64] {
        &self.filled.tray.labels
    }

    /// The samples' numbers within the source.
    pub fn samples(&self) -> &[u64] {
        &self.filled.tray.samples
    }

    /// The key of one sample: its name within the data set.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn key(&self, index: usize) -> &str {
        self.filled.tray.key(index)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}
