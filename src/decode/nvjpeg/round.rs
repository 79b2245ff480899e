//! States for batches, and the arrays that a batched call takes.

use std::ffi::c_int;
use std::ptr;

use cudarc::driver::{CudaEvent, CudaStream};
use nvjpeg_sys::Error;
use nvjpeg_sys::sys::{nvjpegChromaSubsampling_t, nvjpegHandle_t, nvjpegImage_t, nvjpegJpegState_t};

use super::handles::{OUTPUT, Opened, State};
use super::hybrid::Failure;
use crate::device::cuda::{Gpu, error};
use crate::error::Result;

const SAMPLING_444: nvjpegChromaSubsampling_t = nvjpegChromaSubsampling_t::NVJPEG_CSS_444;

/// A state for batches. With two of them a batch can be handed over while the last one is decoded. Fields are in the
/// order in which they may be dropped.
pub(super) struct Round {
    state: State,
    /// The size of the batches that the state is prepared for; 0 after a failure.
    prepared: usize,
    decoded: CudaEvent,
}

/// The arrays that every batched call takes, filled anew each time.
#[derive(Default)]
pub(super) struct Arrays {
    pub(super) data: Vec<*const u8>,
    pub(super) lengths: Vec<usize>,
    pub(super) destinations: Vec<nvjpegImage_t>,
}

// SAFETY: the pointers are used during a call alone.
unsafe impl Send for Arrays {}

impl Round {
    /// The context is current.
    pub(super) fn new(gpu: &Gpu, opened: &Opened) -> Result<Self, Failure> {
        let state = opened.state()?;
        // However small, it makes the library keep its memory from batch to batch; DALI's authors measured a gain.
        // Where it fails nothing is lost. SAFETY: both are live, and nothing decodes with the state.
        let _ = unsafe {
            opened.library.nvjpegDecodeBatchedPreAllocate(
                opened.handle.raw(),
                state.raw(),
                1,
                1,
                1,
                SAMPLING_444,
                OUTPUT,
            )
        };
        Ok(Self { state, prepared: 0, decoded: gpu.host_event()? })
    }

    /// Has `call` decode a batch of a size with the state, on `stream`, once what the state decoded before has ended.
    /// The inner result is the library's.
    ///
    /// # Errors
    ///
    /// What the driver says.
    ///
    /// # Safety
    ///
    /// The context is current. `call` uses the state on `stream` alone, and what it is given lives until that has come
    /// past it.
    pub(super) unsafe fn decode(
        &mut self,
        opened: &Opened,
        size: usize,
        stream: &CudaStream,
        call: impl FnOnce(nvjpegHandle_t, nvjpegJpegState_t) -> Result<(), Error>,
    ) -> Result<Result<(), Error>> {
        self.decoded.synchronize().map_err(|code| error("cuEventSynchronize", code))?;
        // SAFETY: the state decodes nothing.
        let prepared = unsafe { self.prepare(opened, size) };
        let decoded = prepared.and_then(|()| call(opened.handle.raw(), self.state.raw()));
        // A failure leaves the state to be prepared again.
        self.prepared = if decoded.is_ok() { size } else { 0 };
        // Also where it failed: a part of it may be under way.
        self.decoded.record(stream).map_err(|code| error("cuEventRecord", code))?;
        Ok(decoded)
    }

    /// # Safety
    ///
    /// What the state decoded has ended.
    unsafe fn prepare(&self, opened: &Opened, size: usize) -> Result<(), Error> {
        if self.prepared == size {
            return Ok(());
        }
        let (library, handle, state) = (opened.library, opened.handle.raw(), self.state.raw());
        // SAFETY: both are live, and the state decodes nothing. The number of threads is ignored, says NVIDIA.
        unsafe { library.nvjpegDecodeBatchedInitialize(handle, state, size as c_int, 1, OUTPUT) }
    }
}

impl Arrays {
    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.lengths.clear();
        self.destinations.clear();
    }

    /// Adds an image: where its file starts, in bytes, and where its planes go.
    pub(super) fn push(&mut self, data: *const u8, len_bytes: usize, planes: [u64; 3], pitch: usize) {
        self.data.push(data);
        self.lengths.push(len_bytes);
        self.destinations.push(destination(planes, pitch));
    }
}

/// Where an image's planes go.
pub(super) fn destination(planes: [u64; 3], pitch: usize) -> nvjpegImage_t {
    let [red, green, blue] = planes.map(|plane| ptr::with_exposed_provenance_mut(plane as usize));
    nvjpegImage_t { channel: [red, green, blue, ptr::null_mut()], pitch: [pitch, pitch, pitch, 0] }
}
