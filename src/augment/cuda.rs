//! The augmentation on a CUDA device: samples of a decoder, or pixels that landed, in; tensors out.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream};

use crate::decode::kernels::abi::{Affine, Image, LAYOUT_NCHW, LAYOUT_NHWC, RESIZE_THREADS, TAPS_THREADS};
use crate::decode::kernels::cuda::{Images, address, of, zeroed};
use crate::decode::kernels::{Capacity, WORD_BYTES, Wave};
use crate::device::cuda::{Gpu, KernelName, launch};
use crate::error::Result;
use crate::plan::{Augment, DType, Layout, Views};
use std::ops::Range;

/// Resamples the images of a slot; the arithmetic is the [host's](super).
pub(crate) struct Resampler {
    taps: CudaSlice<u8>,
    groups: Vec<Group>,
}

/// How the views of a group are made.
struct Group {
    /// Their numbers.
    views: Range<usize>,
    kernel: KernelName,
    affine: Affine,
    layout: u32,
}

impl Resampler {
    /// For plans of these views.
    pub(crate) fn new(gpu: &Gpu, stream: &Arc<CudaStream>, capacity: &Capacity, views: &Views) -> Result<Self> {
        let groups =
            views.groups().iter().map(|group| Group::new(group.first..group.first + group.count, &group.augment));
        let taps = zeroed(gpu, stream, capacity.taps as usize * WORD_BYTES)?;
        Ok(Self { taps, groups: groups.collect() })
    }

    /// Makes the tensors of a wave, of a batch of `batch` samples, from the first address, its samples of components, or
    /// pixels in the upload, to the second.
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
        batch: usize,
        (mut samples, mut output): (u64, u64),
    ) -> Result<()> {
        let Images { mut upload, mut first } = images;
        let (mut taps, count) = (address(&mut self.taps, stream), wave.places.len() as u32);
        let mut parameters = [of(&mut first), of(&mut taps)];
        // SAFETY: parameters, grid and block are those of kernels/abi.cuh; the memory is the caller's promise.
        unsafe { launch(stream, gpu.kernel(KernelName::Taps), [2, count, 1], TAPS_THREADS, &mut parameters)? };
        for Group { views, kernel, affine, layout } in &self.groups {
            let (mut affine, mut layout) = (*affine, *layout);
            let places = wave.places.start.max(views.start * batch)..wave.places.end.min(views.end * batch);
            if places.is_empty() {
                continue;
            }
            let mut first = first + ((places.start - wave.places.start) * size_of::<Image>()) as u64;
            let mut parameters = [
                of(&mut upload),
                of(&mut first),
                of(&mut samples),
                of(&mut taps),
                of(&mut output),
                of(&mut affine),
                of(&mut layout),
            ];
            let grid = [wave.rows, places.len() as u32, 1];
            // SAFETY: as above.
            unsafe { launch(stream, gpu.kernel(*kernel), grid, RESIZE_THREADS, &mut parameters)? };
        }
        Ok(())
    }
}

impl Group {
    fn new(views: Range<usize>, augment: &Augment) -> Self {
        let affine = augment.affine();
        Self {
            views,
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
        }
    }
}
