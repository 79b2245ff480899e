//! The kernels that decode, and their scratch memory.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut};

use super::abi::{DESTUFF_THREADS, ENTROPY_THREADS, IDCT_THREADS};
use super::wave::{COEFFICIENT_BYTES, Capacity, WORD_BYTES, Wave};
use crate::device::cuda::{Gpu, KernelName, download, launch, zero};
use crate::error::Result;

/// Threads that work on one segment's stuffing, and on one block.
const THREADS_PER_SEGMENT: u32 = 32;
const THREADS_PER_BLOCK: u32 = 8;

/// The scratch memory of one slot: between the bytes that were uploaded and the samples that are resampled.
pub(crate) struct Scratch {
    words: CudaSlice<u8>,
    coefficients: CudaSlice<u8>,
    samples: CudaSlice<u8>,
    /// A word for each place of the batch.
    status: CudaSlice<u8>,
}

/// Where on the device a wave's images are described, and what their offsets count from.
#[derive(Clone, Copy)]
pub(crate) struct Images {
    pub(crate) upload: u64,
    pub(crate) first: u64,
}

impl Scratch {
    /// Allocates it. Kernels read in units of which a part may not have been written, so all of it is zeroed once.
    pub(crate) fn new(gpu: &Gpu, stream: &Arc<CudaStream>, capacity: &Capacity, places: usize) -> Result<Self> {
        let alloc = |len_bytes: usize| zeroed(gpu, stream, len_bytes);
        Ok(Self {
            words: alloc(capacity.words * WORD_BYTES)?,
            coefficients: alloc(capacity.blocks as usize * COEFFICIENT_BYTES)?,
            samples: alloc(capacity.samples as usize)?,
            status: alloc(places * WORD_BYTES)?,
        })
    }

    /// Starts a batch: nothing is wrong with it yet.
    ///
    /// # Safety
    /// No other stream works with this memory.
    pub(crate) unsafe fn begin(&mut self, stream: &CudaStream) -> Result<()> {
        let all = 0..self.status.len();
        // SAFETY: as the caller promises.
        unsafe { zero(stream, &mut self.status, all) }
    }

    /// Decodes the coefficients of a wave.
    ///
    /// # Safety
    /// The images, their segments and tables were written by a [`Describer`](super::Describer) and given scratch memory
    /// of this capacity by [`cut`](super::cut), and lie on the device in the stream's order, behind `images`, as do the
    /// bytes that their segments name. No other stream works with this memory.
    pub(crate) unsafe fn entropy(&mut self, gpu: &Gpu, stream: &CudaStream, images: Images, wave: &Wave) -> Result<()> {
        if wave.segments == 0 {
            return Ok(());
        }
        let used = 0..wave.blocks as usize * COEFFICIENT_BYTES;
        // SAFETY: as the caller promises.
        unsafe { zero(stream, &mut self.coefficients, used)? };
        let count = wave.places.len() as u32;
        let Images { mut upload, mut first } = images;
        let (mut words, mut coefficients) = (address(&mut self.words, stream), address(&mut self.coefficients, stream));
        let mut status = address(&mut self.status, stream) + (wave.places.start * WORD_BYTES) as u64;
        let grid = [(wave.segments * THREADS_PER_SEGMENT).div_ceil(DESTUFF_THREADS), count, 1];
        let mut parameters = [of(&mut upload), of(&mut first), of(&mut words)];
        // SAFETY: parameters, grid and block are those of kernels/abi.cuh; the memory is the caller's promise.
        unsafe { launch(stream, gpu.kernel(KernelName::Destuff), grid, DESTUFF_THREADS, &mut parameters)? };
        let grid = [wave.segments.div_ceil(ENTROPY_THREADS), count, 1];
        let mut parameters = [of(&mut upload), of(&mut first), of(&mut words), of(&mut coefficients), of(&mut status)];
        // SAFETY: as above.
        unsafe { launch(stream, gpu.kernel(KernelName::Entropy), grid, ENTROPY_THREADS, &mut parameters) }
    }

    /// Turns the coefficients of a wave into samples.
    ///
    /// # Safety
    /// As for [`entropy`](Self::entropy), which came before.
    pub(crate) unsafe fn transform(
        &mut self,
        gpu: &Gpu,
        stream: &CudaStream,
        images: Images,
        wave: &Wave,
    ) -> Result<()> {
        if wave.plane_blocks == 0 {
            return Ok(());
        }
        let Images { mut upload, mut first } = images;
        let (mut coefficients, mut samples) =
            (address(&mut self.coefficients, stream), address(&mut self.samples, stream));
        let blocks = (wave.plane_blocks * THREADS_PER_BLOCK).div_ceil(IDCT_THREADS);
        let mut parameters = [of(&mut upload), of(&mut first), of(&mut coefficients), of(&mut samples)];
        let grid = [blocks, 3, wave.places.len() as u32];
        // SAFETY: as above.
        unsafe { launch(stream, gpu.kernel(KernelName::Idct), grid, IDCT_THREADS, &mut parameters) }
    }

    /// Copies what the kernels said of the first `places` places to the host.
    ///
    /// # Safety
    /// `into` holds as many words, which nobody touches until the stream has come past this.
    pub(crate) unsafe fn download_status(&self, stream: &CudaStream, places: usize, into: *mut u8) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { download(stream, &self.status, 0..places * WORD_BYTES, into) }
    }

    /// Where the samples are.
    pub(crate) fn samples(&self, stream: &CudaStream) -> u64 {
        self.samples.device_ptr(stream).0
    }
}

/// Memory that is zero before anything else happens on the stream.
pub(crate) fn zeroed(gpu: &Gpu, stream: &Arc<CudaStream>, len_bytes: usize) -> Result<CudaSlice<u8>> {
    let mut slice = gpu.alloc(stream, len_bytes.next_multiple_of(16))?;
    let all = 0..slice.len();
    // SAFETY: nobody else knows the memory.
    unsafe { zero(stream, &mut slice, all)? };
    Ok(slice)
}

/// The address of memory that kernels on the stream write.
pub(crate) fn address(slice: &mut CudaSlice<u8>, stream: &CudaStream) -> u64 {
    slice.device_ptr_mut(stream).0
}

/// A kernel's parameter.
pub(crate) fn of<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}
