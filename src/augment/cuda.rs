//! The augmentation on a CUDA device: samples of a decoder, or pixels that landed, in; tensors out.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream};

use crate::decode::kernels::abi::{Affine, LAYOUT_NCHW, LAYOUT_NHWC, RESIZE_THREADS, TAPS_THREADS};
use crate::decode::kernels::cuda::{Images, address, of, zeroed};
use crate::decode::kernels::{Capacity, WORD_BYTES, Wave};
use crate::device::cuda::{Gpu, KernelName, launch};
use crate::error::Result;
use crate::plan::{Augment, DType, Layout};

/// Resamples the images of a slot; the arithmetic is the [host's](super).
pub(crate) struct Resampler {
    taps: CudaSlice<u8>,
    kernel: KernelName,
    affine: Affine,
    layout: u32,
}

impl Resampler {
    /// For plans of this augmentation.
    pub(crate) fn new(gpu: &Gpu, stream: &Arc<CudaStream>, capacity: &Capacity, augment: &Augment) -> Result<Self> {
        let affine = augment.affine();
        Ok(Self {
            taps: zeroed(gpu, stream, capacity.taps as usize * WORD_BYTES)?,
            kernel: match augment.dtype() {
                DType::U8 => KernelName::ResizeU8,
                DType::F16 => KernelName::ResizeF16,
                DType::BF16 => KernelName::ResizeBf16,
                DType::F32 => KernelName::ResizeF32,
            },
            affine: Affine { factor: affine.map(|(factor, _)| factor), addend: affine.map(|(_, addend)| addend) },
            layout: match augment.layout() {
                Layout::Nchw => LAYOUT_NCHW,
                Layout::Nhwc => LAYOUT_NHWC,
            },
        })
    }

    /// Makes the tensors of a wave from its samples, or pixels in the upload.
    ///
    /// # Safety
    /// As for [`Scratch::entropy`](crate::decode::kernels::cuda::Scratch::entropy); the samples, or the
    /// pixels of a [`pixels_image`](crate::decode::kernels::pixels_image), were written before in the stream's order, and
    /// `output` holds every place of the batch.
    pub(crate) unsafe fn resample(
        &mut self,
        gpu: &Gpu,
        stream: &CudaStream,
        images: Images,
        wave: &Wave,
        mut samples: u64,
        mut output: u64,
    ) -> Result<()> {
        let Images { mut upload, mut first } = images;
        let (mut taps, count) = (address(&mut self.taps, stream), wave.places.len() as u32);
        let mut parameters = [of(&mut first), of(&mut taps)];
        // SAFETY: parameters, grid and block are those of kernels/abi.cuh; the memory is the caller's promise.
        unsafe { launch(stream, gpu.kernel(KernelName::Taps), [2, count, 1], TAPS_THREADS, &mut parameters)? };
        let (mut affine, mut layout) = (self.affine, self.layout);
        let mut parameters = [
            of(&mut upload),
            of(&mut first),
            of(&mut samples),
            of(&mut taps),
            of(&mut output),
            of(&mut affine),
            of(&mut layout),
        ];
        // SAFETY: as above.
        unsafe { launch(stream, gpu.kernel(self.kernel), [wave.rows, count, 1], RESIZE_THREADS, &mut parameters) }
    }
}
