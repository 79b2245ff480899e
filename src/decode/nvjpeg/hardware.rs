//! Whole batches at a time: the engine that some devices have for JPEG alone.

use std::ffi::c_int;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream};
use nvjpeg_sys::Error;
use nvjpeg_sys::sys::{nvjpegChromaSubsampling_t, nvjpegDecodeParams, nvjpegImage_t};

use super::handles::{OUTPUT, Opened, Params, Parsed, State, destination};
use super::hybrid::Failure;
use super::{Image, Refusal};
use crate::device::cuda::{Gpu, error};
use crate::error::Result;

const SAMPLING_444: nvjpegChromaSubsampling_t = nvjpegChromaSubsampling_t::NVJPEG_CSS_444;

/// The engine with two states, so that a batch can be handed over while the last one is decoded. Fields are in the order
/// in which they may be dropped.
pub(super) struct Hardware {
    rounds: [Round; 2],
    next: usize,
    /// To ask whether it takes an image.
    parsed: Parsed,
    /// One for each place of a batch.
    params: Vec<Params>,
    calls: Calls,
    stream: Arc<CudaStream>,
    joined: CudaEvent,
    opened: Opened,
    /// Cores of all its engines.
    pub(super) cores: u32,
}

struct Round {
    state: State,
    /// The size of the batches that the state is prepared for; 0 after a failure.
    prepared: usize,
    decoded: CudaEvent,
}

/// The arrays that a call takes, filled anew each time.
#[derive(Default)]
struct Calls {
    data: Vec<*const u8>,
    lengths: Vec<usize>,
    destinations: Vec<nvjpegImage_t>,
    params: Vec<*mut nvjpegDecodeParams>,
}

// SAFETY: the pointers in `calls` are used during a call alone.
unsafe impl Send for Hardware {}

impl Hardware {
    /// Of the device whose context is current; none where it has no engine.
    pub(super) fn new(gpu: &Gpu, opened: Opened, batch_size: usize) -> Result<Option<Self>, Failure> {
        let (mut engines, mut cores) = (0, 0);
        // SAFETY: the handle is live, the pointers are valid for writes.
        unsafe { opened.library.nvjpegGetHardwareDecoderInfo(opened.handle.raw(), &mut engines, &mut cores) }?;
        let cores = engines.saturating_mul(cores);
        if cores == 0 {
            return Ok(None);
        }
        let round = || -> Result<Round, Failure> {
            let state = opened.state()?;
            let (library, handle) = (opened.library, opened.handle.raw());
            // However small, it makes the library keep its memory from batch to batch; DALI's authors measured a gain. Where
            // it fails nothing is lost.
            // SAFETY: both are live, and nothing decodes with the state.
            let _ =
                unsafe { library.nvjpegDecodeBatchedPreAllocate(handle, state.raw(), 1, 1, 1, SAMPLING_444, OUTPUT) };
            Ok(Round { state, prepared: 0, decoded: gpu.host_event()? })
        };
        Ok(Some(Self {
            rounds: [round()?, round()?],
            next: 0,
            parsed: opened.parsed()?,
            params: (0..batch_size).map(|_| opened.params()).collect::<Result<_, _>>()?,
            calls: Calls::default(),
            stream: gpu.stream()?,
            joined: gpu.event()?,
            opened,
            cores,
        }))
    }

    /// Whether it takes the image at a place of the batch, which that place's parameters are then set for.
    pub(super) fn takes(&mut self, place: usize, image: &Image<'_>) -> bool {
        let params = &mut self.params[place];
        let (library, handle, parsed) = (self.opened.library, self.opened.handle.raw(), self.parsed.raw());
        let mut answer = -1;
        // SAFETY: all are live, the bytes are there during the call.
        let asked =
            unsafe { library.nvjpegJpegStreamParseHeader(handle, image.bytes.as_ptr(), image.bytes.len(), parsed) }
                .and_then(|()| self.opened.set_area(params, image))
                // SAFETY: all are live, the header was parsed; the pointer is valid for a write.
                .and_then(|()| unsafe {
                    library.nvjpegDecodeBatchedSupportedEx(handle, parsed, params.raw(), &mut answer)
                });
        asked.is_ok() && answer == 0
    }

    /// Decodes the images at some places, which it [`takes`](Self::takes). Its work begins after `begin`, and `stream` waits for
    /// its end. The inner result is for all of them: the library does not say which one it stumbled over.
    ///
    /// # Errors
    ///
    /// What the driver says.
    ///
    /// # Safety
    ///
    /// As [`NvJpeg::decode`](super::NvJpeg::decode); `begin` was recorded, the context is current.
    pub(super) unsafe fn decode(
        &mut self,
        begin: &CudaEvent,
        stream: &CudaStream,
        images: &[Image<'_>],
        places: &[usize],
    ) -> Result<Result<(), Refusal>> {
        let round = &mut self.rounds[self.next];
        self.next = (self.next + 1) % 2;
        round.decoded.synchronize().map_err(|code| error("cuEventSynchronize", code))?;
        self.stream.wait(begin).map_err(|code| error("cuStreamWaitEvent", code))?;
        self.calls.fill(images, places, &self.params);
        // SAFETY: as the caller promises; what the state decoded before has ended.
        let decoded = unsafe { round.decode(&self.opened, &mut self.calls, &self.stream) };
        // Also where it failed: a part of it may be under way.
        for event in [&round.decoded, &self.joined] {
            event.record(&self.stream).map_err(|code| error("cuEventRecord", code))?;
        }
        stream.wait(&self.joined).map_err(|code| error("cuStreamWaitEvent", code))?;
        Ok(decoded.map_err(Refusal))
    }

    /// Waits for what it still does.
    pub(super) fn finish(&self) {
        // On a device that was lost there is nothing to wait for.
        let _ = self.stream.synchronize();
    }
}

impl Round {
    /// # Safety
    ///
    /// What the state decoded before has ended; what `calls` point to is valid until the stream has come past this.
    unsafe fn decode(&mut self, opened: &Opened, calls: &mut Calls, stream: &CudaStream) -> Result<(), Error> {
        let (library, handle, state) = (opened.library, opened.handle.raw(), self.state.raw());
        let size = calls.data.len();
        if self.prepared != size {
            self.prepared = 0;
            // SAFETY: both are live, and the state decodes nothing. The number of threads is ignored, says NVIDIA.
            unsafe { library.nvjpegDecodeBatchedInitialize(handle, state, size as c_int, 1, OUTPUT) }?;
        }
        let (data, lengths) = (calls.data.as_ptr(), calls.lengths.as_ptr());
        let (destinations, params) = (calls.destinations.as_mut_ptr(), calls.params.as_mut_ptr());
        // SAFETY: the arrays are as long as the state is prepared for; the rest is as the caller promises.
        let decoded = unsafe {
            library.nvjpegDecodeBatchedEx(handle, state, data, lengths, destinations, params, stream.cu_stream().cast())
        };
        // A failure leaves the state to be prepared again.
        self.prepared = if decoded.is_ok() { size } else { 0 };
        decoded
    }
}

impl Calls {
    fn fill(&mut self, images: &[Image<'_>], places: &[usize], params: &[Params]) {
        let chosen = || places.iter().map(|&place| &images[place]);
        self.data.clear();
        self.data.extend(chosen().map(|image| image.bytes.as_ptr()));
        self.lengths.clear();
        self.lengths.extend(chosen().map(|image| image.bytes.len()));
        self.destinations.clear();
        self.destinations.extend(chosen().map(destination));
        self.params.clear();
        self.params.extend(places.iter().map(|&place| params[place].raw()));
    }
}
