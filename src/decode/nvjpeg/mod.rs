//! NVIDIA's decoder for samples without an index: from page-locked host bytes to planes on the device.
//!
//! Two engines share a batch ([`split`]): the device's JPEG hardware, where it has some, takes its images in one call;
//! the hybrid takes the others one at a time, Huffman decoding on host threads and the rest on the device. With the hybrid
//! alone all devices serve. Files that lie in device memory have a decoder of their own ([`device`]).
//!
//! What nvJPEG sees has been checked by the host ([`takes`]). An image that it refuses all the same gets a verdict of its own
//! and goes to the host decoder; where the hardware refuses a batch, without saying because of which image, the hybrid
//! decodes it image by image.
//!
//! # Threads and streams
//!
//! One [`NvJpeg`] serves all slots, from one thread at a time. The hardware has a stream and two states, and each host thread
//! of the hybrid a stream, a state and two page-locked buffers. A call makes these streams wait for the caller's, and the
//! caller's for them; a stream or state is never shared by two of them, and what nvJPEG reads on the host is not
//! touched before an event says so. The hardware keeps to no stream's order: a call that uses it waits on the host for
//! what the caller's stream was given before.
//!
//! # How exact it is
//!
//! nvJPEG's inverse transform and colour conversion round differently from libjpeg-turbo's, by its version and engine. A
//! sample of either is within 1 of the exact inverse transform (IEEE 1180, which T.83 builds on), so two of them
//! within 2 at the very most and within 1 on nearly every sample; the largest factor of the colour conversion is 1.772.
//! With differences of 1 in luma and chroma and a rounding each side that is at most 1 + 1.772 + 1, with 2 in one of
//! them at most 5: the bound that the tests hold, 5 levels, and 1 in the mean. Averaging by the resampling does not
//! widen it. It needs chroma that is interpolated as libjpeg-turbo does it, which the library can from 12.1 on; an older one
//! repeats it and is further off along edges of colour. That NVIDIA's library keeps to it is for `forebay doctor --gpu` to say
//! where there is a GPU.
//!
//! Which engine takes an image depends on the batch and the device alone, so that an epoch gives the same tensors again.

mod area;
mod device;
mod facts;
mod handles;
mod hardware;
mod hybrid;
mod kinds;
mod memory;
mod round;
mod split;
mod takes;

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, sys::CUdeviceptr};
use nvjpeg_sys::Library;
use nvjpeg_sys::sys::{self, nvjpegBackend_t, nvjpegStatus_t};

pub(crate) use area::area;
pub(crate) use takes::takes;
pub(crate) use {
    device::{DeviceImage, NvJpegDevice},
    facts::Eligible,
    kinds::{Kind, Kinds},
};

use crate::device::cuda::{Gpu, error};
use crate::error::{Error, ErrorKind, Result};
use crate::pixels::Rect;
use handles::Opened;
use hardware::Hardware;
use hybrid::{Failure, Hybrid};
use memory::Memory;

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;

/// The first version whose chroma upsampling can interpolate.
const INTERPOLATION: [i32; 2] = [12, 1];

/// An image to decode, which [`takes`] has let pass.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    /// The file up to its end, in page-locked memory.
    pub bytes: &'a [u8],
    /// Columns of the image as stored.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The part to decode.
    pub area: Rect,
    /// Where red, green and blue of that part go.
    pub planes: [CUdeviceptr; 3],
    /// Bytes from row to row of a plane, at least the part's width.
    pub pitch: usize,
}

/// Who decoded an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The device's JPEG hardware.
    Hardware,
    /// Host and device together.
    Hybrid,
    /// Kernels of the library's, from files in device memory.
    Kernels,
}

/// Why nvJPEG did not decode an image: the call, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(nvjpeg_sys::Error);

/// What became of an image. `Ok`: it will be in its planes when the stream has come so far. `Err`: what is in them is of no
/// value.
pub(crate) type Verdict = Result<Engine, Refusal>;

/// nvJPEG on one device.
pub(crate) struct NvJpeg {
    gpu: Gpu,
    // In the order in which they may be dropped.
    hardware: Option<Hardware>,
    hybrid: Hybrid,
    memory: Memory,
    /// Recorded on the caller's stream when a batch begins.
    begin: CudaEvent,
    /// Of each image of the batch: its bytes, and whether the hardware takes it.
    candidates: Vec<(u64, bool)>,
    /// Places of the batch by engine.
    by_hardware: Vec<usize>,
    by_hybrid: Vec<usize>,
    library: String,
}

impl NvJpeg {
    /// Opens the library for batches of at most so many images, and so many threads for what the host does of them.
    ///
    /// # Errors
    ///
    /// `Unavailable` where there is no library, or where it refuses to work on the device; `OutOfMemory`; `DeviceLost`.
    pub(crate) fn new(gpu: &Gpu, batch_size: usize, threads: usize) -> Result<Self> {
        let library = Library::open().map_err(|error| unavailable(error.to_string()).with_source(error))?;
        gpu.context().bind_to_thread().map_err(|code| error("cuCtxSetCurrent", code))?;
        let mut memory = Memory::new();
        let opened = open(gpu, library, batch_size, threads.max(1), &mut memory);
        let (hardware, hybrid, library) = opened.map_err(|failure| match failure {
            Failure::Other(error) => error,
            Failure::NvJpeg(error) => explain(gpu, &memory, error),
        })?;
        Ok(Self {
            gpu: gpu.clone(),
            hardware,
            hybrid,
            memory,
            begin: gpu.host_event()?,
            candidates: Vec::with_capacity(batch_size),
            by_hardware: Vec::with_capacity(batch_size),
            by_hybrid: Vec::with_capacity(batch_size),
            library,
        })
    }

    /// Decodes images into their planes, in the order of `stream`: after what it was given before, before what it is given
    /// next. Returns when the host's part is done. From one thread at a time.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` or `DeviceLost`; the planes are of no value then. Of one image, its verdict.
    ///
    /// # Safety
    ///
    /// Until an event that is recorded on `stream` after this call has completed, `bytes` stay as they are and the planes
    /// are device memory of `pitch` times the part's height each, which no other stream touches.
    ///
    /// # Panics
    ///
    /// If there are more images than the batch size, or as many verdicts as images there are not.
    pub(crate) unsafe fn decode(
        &mut self,
        stream: &Arc<CudaStream>,
        images: &[Image<'_>],
        verdicts: &mut [Verdict],
    ) -> Result<()> {
        assert!(images.len() == verdicts.len() && images.len() <= self.candidates.capacity(), "{}", images.len());
        debug_assert!(images.iter().all(Image::is_sound));
        stream.context().bind_to_thread().map_err(|code| error("cuCtxSetCurrent", code))?;
        self.begin.record(stream).map_err(|code| error("cuEventRecord", code))?;
        self.deal(images);
        // SAFETY: as the caller promises.
        unsafe { self.decode_by_hardware(stream, images, verdicts) }?;
        // SAFETY: as the caller promises.
        unsafe { self.hybrid.decode(&self.begin, stream, images, &self.by_hybrid, verdicts) }?;
        // An image that there was no memory for is no fault of the image.
        let starved = verdicts.iter().filter_map(|verdict| verdict.err()).find(Refusal::is_for_want_of_memory);
        match starved {
            Some(Refusal(error)) => Err(explain(&self.gpu, &self.memory, error)),
            None => Ok(()),
        }
    }

    /// Fills the lists of who decodes what.
    fn deal(&mut self, images: &[Image<'_>]) {
        self.candidates.clear();
        for (place, image) in images.iter().enumerate() {
            let engine = self.hardware.as_mut().is_some_and(|hardware| hardware.takes(place, image));
            self.candidates.push((image.bytes.len() as u64, engine));
        }
        let cores = self.hardware.as_ref().map_or(0, |hardware| hardware.cores);
        split::split(self.candidates.iter().copied(), cores, &mut self.by_hardware, &mut self.by_hybrid);
    }

    /// # Safety
    ///
    /// As [`decode`](Self::decode).
    unsafe fn decode_by_hardware(
        &mut self,
        stream: &CudaStream,
        images: &[Image<'_>],
        verdicts: &mut [Verdict],
    ) -> Result<()> {
        let Some(hardware) = self.hardware.as_mut().filter(|_| !self.by_hardware.is_empty()) else { return Ok(()) };
        self.begin.synchronize().map_err(|code| error("cuEventSynchronize", code))?;
        // SAFETY: as the caller promises; the host has waited.
        match unsafe { hardware.decode(stream, images, &self.by_hardware) }? {
            Ok(()) => self.by_hardware.iter().for_each(|&place| verdicts[place] = Ok(Engine::Hardware)),
            Err(refusal) => {
                log::debug!("the JPEG hardware refuses {} images: {refusal}", self.by_hardware.len());
                // What is left of its work must not meet the hybrid's in the same planes.
                self.begin.record(stream).map_err(|code| error("cuEventRecord", code))?;
                self.by_hybrid.append(&mut self.by_hardware);
            }
        }
        Ok(())
    }

    /// Bytes that the library holds for itself: of the device, and page-locked ones of the host. Grows with the largest
    /// images that were met.
    pub(crate) fn held_bytes(&self) -> (u64, u64) {
        self.memory.held_bytes()
    }
}

/// The library's version and engines.
impl fmt::Display for NvJpeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hardware {
            Some(hardware) => write!(f, "{}, hybrid and hardware of {} cores", self.library, hardware.cores),
            None => write!(f, "{}, hybrid", self.library),
        }
    }
}

impl Drop for NvJpeg {
    fn drop(&mut self) {
        let (device, pinned) = self.held_bytes();
        log::debug!("nvJPEG held {device} bytes of the device and {pinned} of page-locked host memory");
        // Handles may be destroyed when nothing uses them, with the context current.
        let _ = self.gpu.context().bind_to_thread();
        self.hybrid.finish();
        if let Some(hardware) = &self.hardware {
            hardware.finish();
        }
    }
}

impl Image<'_> {
    fn is_whole(&self) -> bool {
        self.area == Rect::whole(self.width, self.height)
    }

    fn is_sound(&self) -> bool {
        self.area.fits(self.width, self.height) && self.pitch >= self.area.width as usize && !self.planes.contains(&0)
    }
}

impl Refusal {
    /// For calls that answer "no" with success.
    fn unsupported(call: &'static str) -> Self {
        Self(nvjpeg_sys::Error::Failed { call, status: nvjpegStatus_t::NVJPEG_STATUS_JPEG_NOT_SUPPORTED })
    }

    fn is_for_want_of_memory(&self) -> bool {
        self.0.status() == Some(nvjpegStatus_t::NVJPEG_STATUS_ALLOCATOR_FAILURE)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Both engines, and the library in words. The context is current.
fn open(
    gpu: &Gpu,
    library: &'static Library,
    batch_size: usize,
    threads: usize,
    memory: &mut Memory,
) -> Result<(Option<Hardware>, Hybrid, String), Failure> {
    let version = library.version()?;
    // SAFETY: the context is current; `NvJpeg` drops the memory last.
    let mut open = |backend| unsafe { Opened::new(library, backend, memory, flags(version)) };
    let hybrid = open(nvjpegBackend_t::NVJPEG_BACKEND_HYBRID)?;
    let hardware = match open(nvjpegBackend_t::NVJPEG_BACKEND_HARDWARE) {
        Ok(opened) => Hardware::new(gpu, opened, batch_size)?,
        Err(refused) if Refusal(refused).is_for_want_of_memory() => return Err(refused.into()),
        // How a device without such an engine answers depends on the version.
        Err(refused) => {
            log::debug!("cuda:{} decodes no JPEG by hardware: {refused}", gpu.ordinal());
            None
        }
    };
    let [major, minor, patch] = version;
    Ok((hardware, Hybrid::new(gpu, hybrid, memory, threads)?, format!("nvJPEG {major}.{minor}.{patch}")))
}

/// What a library of this version is opened with.
fn flags([major, minor, _]: [i32; 3]) -> u32 {
    let interpolation = match [major, minor] >= INTERPOLATION {
        true => sys::NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION,
        false => 0,
    };
    sys::NVJPEG_FLAGS_BITSTREAM_STRICT | interpolation
}

/// The error for an answer that is no image's fault.
fn explain(gpu: &Gpu, memory: &Memory, error: nvjpeg_sys::Error) -> Error {
    if !Refusal(error).is_for_want_of_memory() {
        return unavailable(format!("on cuda:{} {error}", gpu.ordinal())).with_source(error);
    }
    let free = match gpu.memory() {
        Ok((free, total)) => format!("{free} of the device's {total} are free"),
        Err(_) => "the device does not say how many are free".to_owned(),
    };
    let message = format!("nvJPEG got no {} bytes on cuda:{}: {free}", memory.refused_bytes(), gpu.ordinal());
    Error::new(ErrorKind::OutOfMemory, message)
        .with_source(error)
        .with_remedy("use fewer threads, a smaller batch or fewer slots, or end what else uses the device")
}

fn unavailable(cause: String) -> Error {
    Error::new(ErrorKind::Unavailable, format!("nvJPEG cannot be used: {cause}")).with_remedy(
        "install the nvJPEG library of a CUDA version that the driver supports (`pip install nvidia-nvjpeg-cu12`) where the dynamic \
         linker finds it (LD_LIBRARY_PATH), or use another decoder (--decoder auto, kernels or host)",
    )
}
