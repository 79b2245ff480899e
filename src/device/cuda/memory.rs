//! Memory that both sides see: page-locked host memory, and copies to and from the device.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, sys};

use super::error::{OUT_OF_MEMORY, error};
use super::gpu::Gpu;
use crate::error::{Error, ErrorKind, Result};

/// `CU_MEMHOSTREGISTER_PORTABLE`: page-locked for every context, not for the calling one alone.
const PORTABLE: u32 = 1;

/// What cuFile wants memory to be aligned to.
const PAGE_BYTES: usize = 4096;

/// Host memory that is page-locked for the device for as long as this lives, so that copies are asynchronous and at
/// the full speed of the bus.
pub(crate) struct Registered {
    context: Arc<CudaContext>,
    start: NonNull<u8>,
}

// SAFETY: registration belongs to the process; the pointer is only handed back to the driver.
unsafe impl Send for Registered {}
// SAFETY: as above; a shared reference gives access to nothing.
unsafe impl Sync for Registered {}

impl Registered {
    /// Page-locks `len_bytes` from `start`. Nothing else may have registered a part of it with CUDA.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` where the system does not lock as much.
    ///
    /// # Safety
    ///
    /// The range stays mapped for as long as this lives, and every copy from or to it has ended before it is dropped.
    pub(crate) unsafe fn new(gpu: &Gpu, start: NonNull<u8>, len_bytes: usize) -> Result<Self> {
        bind(gpu.context())?;
        // SAFETY: the range is mapped, as the caller promises.
        let code = unsafe { sys::cuMemHostRegister_v2(start.as_ptr().cast::<c_void>(), len_bytes, PORTABLE) };
        code.result().map_err(|code| match code.0 as u32 {
            OUT_OF_MEMORY => {
                let message = format!("cannot page-lock {len_bytes} bytes of host memory for CUDA");
                Error::new(ErrorKind::OutOfMemory, message)
                    .with_remedy("use a smaller batch, fewer slots or a smaller arena, or free host memory")
            }
            _ => error("cuMemHostRegister", code),
        })?;
        Ok(Self { context: Arc::clone(gpu.context()), start })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // After a sticky error neither call succeeds; the process is about to end then.
        if bind(&self.context).is_ok() {
            // SAFETY: the start of a range that was registered and is still mapped.
            let _ = unsafe { sys::cuMemHostUnregister(self.start.as_ptr().cast::<c_void>()) };
        }
    }
}

/// Copies host bytes to offset `at` of device memory, in the stream's order.
///
/// # Safety
///
/// `from` stays as it is until the stream has come past the copy. No other stream touches that part of `to`
/// unless events order it.
///
/// # Panics
///
/// If the bytes do not fit there.
pub(crate) unsafe fn upload(stream: &CudaStream, to: &mut CudaSlice<u8>, at: usize, from: &[u8]) -> Result<()> {
    assert!(at <= to.len() && from.len() <= to.len() - at, "{} bytes to {at} of {}", from.len(), to.len());
    let (start, _no_event) = to.device_ptr_mut(stream);
    // SAFETY: as the caller promises.
    unsafe { copy_to_device(stream, start + at as u64, from) }
}

/// # Safety
///
/// As for [`upload`], of a valid range of device memory.
unsafe fn copy_to_device(stream: &CudaStream, to: sys::CUdeviceptr, from: &[u8]) -> Result<()> {
    if from.is_empty() {
        return Ok(());
    }
    bind(stream.context())?;
    // SAFETY: both ranges are valid and of this length; the caller keeps them so and in order.
    let code = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast::<c_void>(), from.len(), stream.cu_stream()) };
    code.result().map_err(|code| error("cuMemcpyHtoDAsync", code))
}

/// Copies a range of device memory to the host, in the stream's order.
///
/// # Safety
///
/// `into` is valid for as many bytes, and nobody else touches them, until the stream has come past the copy.
///
/// # Panics
///
/// If the range is not inside `from`.
pub(crate) unsafe fn download(
    stream: &CudaStream,
    from: &CudaSlice<u8>,
    at: Range<usize>,
    into: *mut u8,
) -> Result<()> {
    assert!(at.start <= at.end && at.end <= from.len(), "bytes {at:?} of {}", from.len());
    if at.is_empty() {
        return Ok(());
    }
    bind(stream.context())?;
    let (start, _no_event) = from.device_ptr(stream);
    // SAFETY: both ranges are valid and of this length; the caller keeps `into` so.
    let code = unsafe {
        sys::cuMemcpyDtoHAsync_v2(into.cast::<c_void>(), start + at.start as u64, at.len(), stream.cu_stream())
    };
    code.result().map_err(|code| error("cuMemcpyDtoHAsync", code))
}

/// Copies a range of device memory to a lower place, in the stream's order: in pieces that do not overlap their own places, since
/// CUDA's copies must not.
///
/// # Panics
///
/// If the place is another, or the range not inside `memory`.
///
/// # Safety
///
/// No other stream touches either unless events order it.
pub(crate) unsafe fn move_down(
    stream: &CudaStream,
    memory: &mut CudaSlice<u8>,
    from: Range<usize>,
    to: usize,
) -> Result<()> {
    assert!(from.start <= from.end && from.end <= memory.len() && to < from.start, "{from:?} to {to}");
    bind(stream.context())?;
    let (start, _no_event) = memory.device_ptr_mut(stream);
    let by = from.start - to;
    for at in from.clone().step_by(by) {
        let (target, source) = (start + (at - by) as u64, start + at as u64);
        // SAFETY: both ranges are valid and apart; the caller keeps them in order.
        let code = unsafe { sys::cuMemcpyDtoDAsync_v2(target, source, by.min(from.end - at), stream.cu_stream()) };
        code.result().map_err(|code| error("cuMemcpyDtoDAsync", code))?;
    }
    Ok(())
}

/// Zeroes a range of device memory, in the stream's order.
///
/// # Panics
///
/// If the range is not inside `to`.
///
/// # Safety
///
/// No other stream touches that range unless events order it.
pub(crate) unsafe fn zero(stream: &CudaStream, to: &mut CudaSlice<u8>, at: Range<usize>) -> Result<()> {
    assert!(at.start <= at.end && at.end <= to.len(), "bytes {at:?} of {}", to.len());
    if at.is_empty() {
        return Ok(());
    }
    bind(stream.context())?;
    let (start, _no_event) = to.device_ptr_mut(stream);
    // SAFETY: the range is valid; the caller keeps it in order.
    let code = unsafe { sys::cuMemsetD8Async(start + at.start as u64, 0, at.len(), stream.cu_stream()) };
    code.result().map_err(|code| error("cuMemsetD8Async", code))
}

/// Device memory that belongs to no stream, so that other libraries can be told of it: cuFile registers none that comes from a
/// stream's pool. Freed when dropped, which waits for everything that the context still does.
pub(crate) struct DeviceMemory {
    gpu: Gpu,
    /// What the driver gave.
    allocated: sys::CUdeviceptr,
    /// The first multiple of a page within.
    start: sys::CUdeviceptr,
    len_bytes: usize,
}

impl DeviceMemory {
    /// At least `len_bytes` from a multiple of 4096 on, whose content is whatever was there.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` says how much was requested and how much is free.
    pub(crate) fn new(gpu: &Gpu, len_bytes: usize) -> Result<Self> {
        bind(gpu.context())?;
        let (mut allocated, len_bytes) = (0, len_bytes.max(1).next_multiple_of(16));
        // The driver aligns to 256 bytes alone.
        let with_slack = len_bytes.saturating_add(PAGE_BYTES);
        // SAFETY: the pointer is valid for a write, all that the call asks for.
        let code = unsafe { sys::cuMemAlloc_v2(&mut allocated, with_slack) };
        code.result().map_err(|code| match code.0 as u32 {
            OUT_OF_MEMORY => gpu.out_of_memory(len_bytes),
            _ => error("cuMemAlloc", code),
        })?;
        let start = allocated.next_multiple_of(PAGE_BYTES as u64);
        Ok(Self { gpu: gpu.clone(), allocated, start, len_bytes })
    }

    /// Where it starts.
    pub(crate) fn address(&self) -> u64 {
        self.start
    }

    /// Its bytes.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The device it lies on.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Zeroes all of it, in the stream's order.
    ///
    /// # Safety
    ///
    /// No other stream touches it unless events order it.
    pub(crate) unsafe fn zero(&self, stream: &CudaStream) -> Result<()> {
        bind(stream.context())?;
        // SAFETY: the whole allocation; the caller keeps it in order.
        let code = unsafe { sys::cuMemsetD8Async(self.start, 0, self.len_bytes, stream.cu_stream()) };
        code.result().map_err(|code| error("cuMemsetD8Async", code))
    }

    /// Copies host bytes to offset `at`, in the stream's order.
    ///
    /// # Safety
    ///
    /// As for [`upload`].
    ///
    /// # Panics
    ///
    /// If the bytes do not fit there.
    pub(crate) unsafe fn upload(&self, stream: &CudaStream, at: usize, from: &[u8]) -> Result<()> {
        assert!(at <= self.len_bytes && from.len() <= self.len_bytes - at, "{} bytes to {at}", from.len());
        // SAFETY: the range was checked; the rest is as the caller promises.
        unsafe { copy_to_device(stream, self.start + at as u64, from) }
    }

    /// Copies a range to the host and waits for that. What others wrote there must be done.
    ///
    /// # Panics
    ///
    /// If the bytes do not lie within it.
    pub(crate) fn copy_to_host(&self, at: usize, into: &mut [u8]) -> Result<()> {
        assert!(at <= self.len_bytes && into.len() <= self.len_bytes - at, "{} bytes at {at}", into.len());
        if into.is_empty() {
            return Ok(());
        }
        bind(self.gpu.context())?;
        // SAFETY: both ranges are valid and of this length, and the call returns when the copy is done.
        let code = unsafe { sys::cuMemcpyDtoH_v2(into.as_mut_ptr().cast(), self.start + at as u64, into.len()) };
        code.result().map_err(|code| error("cuMemcpyDtoH", code))
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // After a sticky error neither call succeeds, and the memory goes with the process.
        if bind(self.gpu.context()).is_ok() {
            // SAFETY: what `new` allocated, freed once.
            let _ = unsafe { sys::cuMemFree_v2(self.allocated) };
        }
    }
}

fn bind(context: &Arc<CudaContext>) -> Result<()> {
    context.bind_to_thread().map_err(|code| error("cuCtxSetCurrent", code))
}
