//! Files that lie in device memory, of which the host looks at no byte: nvJPEG's backends for that.
//!
//! There are two, and a device may have one or both: its JPEG hardware, and kernels of the library's. Off by default,
//! since nobody has measured them for us; chosen by name for files that cuFile lands on the device, or that are
//! uploaded whole.
//!
//! # What they take
//!
//! Whole images alone: of the batched calls NVIDIA documents those with parts for the hardware with host memory, so the
//! planes hold the image from edge to edge. Baseline JPEG in one scan, by NVIDIA's documentation of the backends
//! without 4:1:1 from the hardware and without restart intervals from the kernels. Of a header of each kind the library
//! is asked when it is opened; what neither takes is for the host. The index tells of what kind an image is
//! ([`Kinds::takes`]).
//!
//! # Images that are refused
//!
//! A batched call fails as a whole and does not say over which image. So it is tried again in halves, down to the one
//! that fails alone: of n images a bad one costs up to 2 log2(n) calls more, and the others are decoded. What the
//! hardware refuses the kernels get, where they take its kind; what they refuse too has a verdict of its own. Which
//! backend decodes an image depends on the image and the device alone.
//!
//! Neither backend tells of errors in the coded data. What was sound when the index was built may have been damaged
//! since: that is for `forebay verify` to find.
//!
//! # Streams
//!
//! Each backend has a stream of its own and two states. The library reads headers while it is called, and the hardware
//! keeps to no stream's order (<https://github.com/meta-pytorch/torchcodec/pull/1634>). So a call waits on the host for
//! all that the caller's stream was given before: the bytes have landed then, and nobody reads the planes any more.

use std::fmt;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, sys::CUdeviceptr};
use nvjpeg_sys::sys::nvjpegBackend_t;
use nvjpeg_sys::{Error as Answer, Library};

use super::handles::Opened;
use super::hybrid::Failure;
use super::kinds::{Kind, Kinds, Sampling};
use super::memory::Memory;
use super::round::{Arrays, Round};
use super::{Engine, Refusal, Verdict, explain, flags};
use crate::device::cuda::{Gpu, error};
use crate::error::{Error, ErrorKind, Result};

/// A file in device memory to decode, which [`Kinds::takes`] has let pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceImage {
    /// Where the file starts.
    pub address: CUdeviceptr,
    /// Its bytes.
    pub len_bytes: usize,
    /// What it is.
    pub kind: Kind,
    /// Columns of the image as stored.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Where red, green and blue of the whole image go.
    pub planes: [CUdeviceptr; 3],
    /// Bytes from row to row of a plane, at least the width.
    pub pitch: usize,
}

/// nvJPEG on one device, for files in its memory.
pub(crate) struct NvJpegDevice {
    gpu: Gpu,
    // In the order in which they may be dropped.
    hardware: Option<Backend>,
    kernels: Option<Backend>,
    memory: Memory,
    /// Recorded on the caller's stream when a batch begins.
    begin: CudaEvent,
    batch_size: usize,
    /// Places of the batch by backend.
    by_hardware: Vec<usize>,
    by_kernels: Vec<usize>,
    library: String,
}

/// Fields are in the order in which they may be dropped.
struct Backend {
    engine: Engine,
    kinds: Kinds,
    rounds: [Round; 2],
    next: usize,
    arrays: Arrays,
    /// Parts of a batch that are still to be tried.
    parts: Vec<Range<usize>>,
    stream: Arc<CudaStream>,
    joined: CudaEvent,
    opened: Opened,
}

impl NvJpegDevice {
    /// Opens the library for batches of at most so many images.
    ///
    /// # Errors
    ///
    /// `Unavailable` where there is no library, or where none of the two backends works on the device; `OutOfMemory`;
    /// `DeviceLost`.
    pub(crate) fn new(gpu: &Gpu, batch_size: usize) -> Result<Self> {
        let library = Library::open().map_err(|error| unavailable(error.to_string()).with_source(error))?;
        gpu.context().bind_to_thread().map_err(|code| error("cuCtxSetCurrent", code))?;
        let mut memory = Memory::new();
        let opened = open(gpu, library, &mut memory).map_err(|failure| match failure {
            Failure::Other(error) => error,
            Failure::NvJpeg(answer) => explain(gpu, &memory, answer),
        })?;
        let Opening { hardware, kernels, library, refusals } = opened;
        if hardware.is_none() && kernels.is_none() {
            let cause = format!("{library} decodes nothing from the memory of cuda:{}", gpu.ordinal());
            return Err(unavailable(format!("{cause}: {}", refusals.join(", "))));
        }
        Ok(Self {
            gpu: gpu.clone(),
            hardware,
            kernels,
            memory,
            begin: gpu.host_event()?,
            batch_size,
            by_hardware: Vec::with_capacity(batch_size),
            by_kernels: Vec::with_capacity(batch_size),
            library,
        })
    }

    /// The kinds of images that it takes.
    pub(crate) fn kinds(&self) -> Kinds {
        let kinds = |backend: &Option<Backend>| backend.as_ref().map_or(Kinds::default(), |backend| backend.kinds);
        kinds(&self.hardware).or(kinds(&self.kernels))
    }

    /// Decodes images into their planes: after what `stream` was given before, for which the host waits, and before
    /// what it is given next. From one thread at a time.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` or `DeviceLost`; the planes are of no value then. Of one image, its verdict.
    ///
    /// # Safety
    ///
    /// Each file lies in device memory, written before by what `stream` or the host has waited for. Until an event that
    /// is recorded on `stream` after this call has completed, it stays as it is, and the planes are device memory of
    /// `pitch` times the height each, which no other stream touches.
    ///
    /// # Panics
    ///
    /// If there are more images than the batch size, or as many verdicts as images there are not.
    pub(crate) unsafe fn decode(
        &mut self,
        stream: &Arc<CudaStream>,
        images: &[DeviceImage],
        verdicts: &mut [Verdict],
    ) -> Result<()> {
        assert!(images.len() == verdicts.len() && images.len() <= self.batch_size, "{}", images.len());
        debug_assert!(images.iter().all(DeviceImage::is_sound));
        if images.is_empty() {
            return Ok(());
        }
        stream.context().bind_to_thread().map_err(|code| error("cuCtxSetCurrent", code))?;
        self.begin.record(stream).map_err(|code| error("cuEventRecord", code))?;
        self.begin.synchronize().map_err(|code| error("cuEventSynchronize", code))?;
        self.deal(images, verdicts);
        if let Some(hardware) = &mut self.hardware {
            // SAFETY: as the caller promises; the host has waited.
            unsafe { hardware.decode(stream, images, &self.by_hardware, verdicts) }?;
        }
        if let Some(kernels) = &mut self.kernels {
            let refused = self.by_hardware.iter().filter(|&&place| verdicts[place].is_err());
            self.by_kernels.extend(refused.filter(|&&place| kernels.kinds.contains(images[place].kind)));
            // SAFETY: as the caller promises; the host has waited, and for what the hardware left behind too.
            unsafe { kernels.decode(stream, images, &self.by_kernels, verdicts) }?;
        }
        // An image that there was no memory for is no fault of the image.
        let starved = verdicts.iter().filter_map(|verdict| verdict.err()).find(Refusal::is_for_want_of_memory);
        match starved {
            Some(Refusal(answer)) => Err(explain(&self.gpu, &self.memory, answer)),
            None => Ok(()),
        }
    }

    /// Fills the lists of who decodes what: the hardware what it takes, the kernels the rest. What neither takes is
    /// refused.
    fn deal(&mut self, images: &[DeviceImage], verdicts: &mut [Verdict]) {
        let takes = |backend: &Option<Backend>, kind| backend.as_ref().is_some_and(|of| of.kinds.contains(kind));
        self.by_hardware.clear();
        self.by_kernels.clear();
        for (place, image) in images.iter().enumerate() {
            verdicts[place] = Err(Refusal::unsupported(SUPPORTED));
            if takes(&self.hardware, image.kind) {
                self.by_hardware.push(place);
            } else if takes(&self.kernels, image.kind) {
                self.by_kernels.push(place);
            }
        }
    }

    /// Bytes that the library holds for itself: of the device, and page-locked ones of the host. Grows with the largest
    /// batches that were met.
    pub(crate) fn held_bytes(&self) -> (u64, u64) {
        self.memory.held_bytes()
    }
}

/// The library's version and backends.
impl fmt::Display for NvJpegDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backends = match (&self.hardware, &self.kernels) {
            (Some(_), Some(_)) => "hardware and kernels",
            (Some(_), None) => "hardware",
            _ => "kernels",
        };
        write!(f, "{} from device memory, {backends}", self.library)
    }
}

impl Drop for NvJpegDevice {
    fn drop(&mut self) {
        let (device, pinned) = self.held_bytes();
        log::debug!("nvJPEG held {device} bytes of the device and {pinned} of page-locked host memory");
        // Handles may be destroyed when nothing uses them, with the context current.
        let _ = self.gpu.context().bind_to_thread();
        for backend in [&self.hardware, &self.kernels].into_iter().flatten() {
            // On a device that was lost there is nothing to wait for.
            let _ = backend.stream.synchronize();
        }
    }
}

impl DeviceImage {
    fn is_sound(&self) -> bool {
        self.address != 0
            && self.len_bytes > 0
            && self.height > 0
            && self.pitch >= self.width as usize
            && !self.planes.contains(&0)
    }
}

impl Backend {
    /// None where it takes no kind of image.
    fn new(gpu: &Gpu, opened: Opened, engine: Engine) -> Result<Option<Self>, Failure> {
        if engine == Engine::Hardware && opened.hardware_cores()? == 0 {
            return Ok(None);
        }
        let kinds = kinds(&opened, engine)?;
        if kinds.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            engine,
            kinds,
            rounds: [Round::new(gpu, &opened)?, Round::new(gpu, &opened)?],
            next: 0,
            arrays: Arrays::default(),
            parts: Vec::new(),
            stream: gpu.stream()?,
            joined: gpu.event()?,
            opened,
        }))
    }

    /// Decodes the images at some places, and gives each its verdict. `stream` waits for the end of its work.
    ///
    /// # Errors
    ///
    /// What the driver says.
    ///
    /// # Safety
    ///
    /// As [`NvJpegDevice::decode`]; the context is current, and the host has waited for all that comes before.
    unsafe fn decode(
        &mut self,
        stream: &CudaStream,
        images: &[DeviceImage],
        places: &[usize],
        verdicts: &mut [Verdict],
    ) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        self.parts.clear();
        self.parts.push(0..places.len());
        while let Some(part) = self.parts.pop() {
            // SAFETY: as the caller promises.
            let Err(answer) = (unsafe { self.attempt(images, &places[part.clone()]) })? else {
                places[part].iter().for_each(|&place| verdicts[place] = Ok(self.engine));
                continue;
            };
            // A part of it may be under way, into planes that are written again.
            self.stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))?;
            let refusal = Refusal(answer);
            if part.len() == 1 || refusal.is_for_want_of_memory() {
                places[part].iter().for_each(|&place| verdicts[place] = Err(refusal));
                continue;
            }
            log::debug!("nvJPEG's {:?} refuses {} images, which are halved: {refusal}", self.engine, part.len());
            let middle = part.start + part.len() / 2;
            self.parts.extend([middle..part.end, part.start..middle]);
        }
        self.joined.record(&self.stream).map_err(|code| error("cuEventRecord", code))?;
        stream.wait(&self.joined).map_err(|code| error("cuStreamWaitEvent", code))
    }

    /// One batched call. The inner result is for all of its images.
    ///
    /// # Safety
    ///
    /// As [`decode`](Self::decode).
    unsafe fn attempt(&mut self, images: &[DeviceImage], places: &[usize]) -> Result<Result<(), Answer>> {
        self.arrays.clear();
        for image in places.iter().map(|&place| &images[place]) {
            let data = ptr::with_exposed_provenance(image.address as usize);
            self.arrays.push(data, image.len_bytes, image.planes, image.pitch);
        }
        let Arrays { data, lengths, destinations } = &mut self.arrays;
        let round = &mut self.rounds[self.next];
        self.next = (self.next + 1) % 2;
        let (library, stream) = (self.opened.library, self.stream.cu_stream().cast());
        // SAFETY: the arrays are as long as the state is prepared for; the rest is as the caller promises.
        unsafe {
            round.decode(&self.opened, data.len(), &self.stream, |handle, state| {
                library.nvjpegDecodeBatched(
                    handle,
                    state,
                    data.as_ptr(),
                    lengths.as_ptr(),
                    destinations.as_mut_ptr(),
                    stream,
                )
            })
        }
    }
}

/// The call that says what a backend takes.
const SUPPORTED: &str = "nvjpegDecodeBatchedSupported";

/// What opening the library came to.
struct Opening {
    hardware: Option<Backend>,
    kernels: Option<Backend>,
    library: String,
    /// Why a backend is not to be had, in words.
    refusals: Vec<String>,
}

/// The context is current; `memory` outlives what is opened.
fn open(gpu: &Gpu, library: &'static Library, memory: &mut Memory) -> Result<Opening, Failure> {
    let version = library.version()?;
    let mut refusals = Vec::new();
    let mut backend = |engine| -> Result<Option<Backend>, Failure> {
        let (backend, name) = match engine {
            Engine::Hardware => (nvjpegBackend_t::NVJPEG_BACKEND_HARDWARE_DEVICE, "HARDWARE_DEVICE"),
            _ => (nvjpegBackend_t::NVJPEG_BACKEND_GPU_HYBRID_DEVICE, "GPU_HYBRID_DEVICE"),
        };
        // SAFETY: the context is current; `NvJpegDevice` drops the memory last.
        let made = match unsafe { Opened::new(library, backend, memory, flags(version)) } {
            Ok(opened) => Backend::new(gpu, opened, engine)?,
            Err(refused) if Refusal(refused).is_for_want_of_memory() => return Err(refused.into()),
            // How a device without such an engine answers, and a library without such a backend, depends on the
            // version.
            Err(refused) => {
                refusals.push(format!("for {name} {refused}"));
                return Ok(None);
            }
        };
        if made.is_none() {
            refusals.push(format!("{name} takes no kind of image"));
        }
        Ok(made)
    };
    let (hardware, kernels) = (backend(Engine::Hardware)?, backend(Engine::Kernels)?);
    refusals.iter().for_each(|refusal| log::debug!("cuda:{}: {refusal}", gpu.ordinal()));
    let [major, minor, patch] = version;
    Ok(Opening { hardware, kernels, library: format!("nvJPEG {major}.{minor}.{patch}"), refusals })
}

/// What a backend takes: of the kinds that NVIDIA documents for it, those to which it does not say no.
fn kinds(opened: &Opened, engine: Engine) -> Result<Kinds, Answer> {
    let parsed = opened.parsed()?;
    let (library, handle) = (opened.library, opened.handle.raw());
    let mut taken = Vec::new();
    for kind in Kind::all().filter(|&kind| is_documented(kind, engine)) {
        let header = kind.specimen();
        let mut answer = -1;
        // SAFETY: all are live, the bytes are there during the call.
        let asked = unsafe { library.nvjpegJpegStreamParseHeader(handle, header.as_ptr(), header.len(), parsed.raw()) }
            // SAFETY: both are live, the header was parsed; the pointer is valid for a write.
            .and_then(|()| unsafe { library.nvjpegDecodeBatchedSupported(handle, parsed.raw(), &mut answer) });
        match asked {
            Ok(()) if answer != 0 => log::debug!("nvJPEG's {engine:?} takes no {kind:?}"),
            // A library that cannot be asked is taken at NVIDIA's word.
            Ok(()) | Err(Answer::Missing(_)) => taken.push(kind),
            Err(refused) if Refusal(refused).is_for_want_of_memory() => return Err(refused),
            Err(refused) => log::debug!("nvJPEG's {engine:?} takes no {kind:?}: {refused}"),
        }
    }
    Ok(taken.into_iter().collect())
}

/// By NVIDIA's documentation of `nvjpegBackend_t`.
fn is_documented(kind: Kind, engine: Engine) -> bool {
    match engine {
        Engine::Hardware => kind.sampling != Sampling::S411,
        _ => !kind.has_restarts,
    }
}

fn unavailable(cause: String) -> Error {
    let message = format!("nvJPEG cannot decode from device memory: {cause}");
    Error::new(ErrorKind::Unavailable, message).with_remedy(
        "install the nvJPEG library of a CUDA version that the driver supports (`pip install \
         nvidia-nvjpeg-cu12`), where the dynamic linker finds it (LD_LIBRARY_PATH), or use another decoder (--decoder \
         auto, kernels, nvjpeg or host)",
    )
}
