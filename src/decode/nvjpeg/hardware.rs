//! Whole batches at a time: the engine that some devices have for JPEG alone.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream};
use nvjpeg_sys::sys::nvjpegDecodeParams;

use super::handles::{Opened, Params, Parsed};
use super::hybrid::Failure;
use super::round::{Arrays, Round};
use super::{Image, Refusal};
use crate::device::cuda::{Gpu, error};
use crate::error::Result;

/// The engine with two states. Fields are in the order in which they may be dropped.
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

/// The arrays that a call takes, filled anew each time.
#[derive(Default)]
struct Calls {
    arrays: Arrays,
    params: Vec<*mut nvjpegDecodeParams>,
}

// SAFETY: the pointers in `calls` are used during a call alone.
unsafe impl Send for Hardware {}

impl Hardware {
    /// Of the device whose context is current; none where it has no engine.
    pub(super) fn new(gpu: &Gpu, opened: Opened, batch_size: usize) -> Result<Option<Self>, Failure> {
        let cores = opened.hardware_cores()?;
        if cores == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            rounds: [Round::new(gpu, &opened)?, Round::new(gpu, &opened)?],
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

    /// Decodes the images at some places, which it [`takes`](Self::takes). `stream` waits for the end of its work. The
    /// inner result is for all of them: the library does not say which one it stumbled over.
    ///
    /// # Errors
    ///
    /// What the driver says.
    ///
    /// # Safety
    ///
    /// As [`NvJpeg::decode`](super::NvJpeg::decode); the context is current, and the host has waited for all that comes
    /// before: the engine begins when it is called, whatever its stream is to wait for
    /// (<https://github.com/meta-pytorch/torchcodec/pull/1634>).
    pub(super) unsafe fn decode(
        &mut self,
        stream: &CudaStream,
        images: &[Image<'_>],
        places: &[usize],
    ) -> Result<Result<(), Refusal>> {
        let round = &mut self.rounds[self.next];
        self.next = (self.next + 1) % 2;
        self.calls.fill(images, places, &self.params);
        let Calls { arrays: Arrays { data, lengths, destinations }, params } = &mut self.calls;
        let (library, raw_stream) = (self.opened.library, self.stream.cu_stream().cast());
        // SAFETY: the arrays are as long as the state is prepared for; the rest is as the caller promises.
        let decoded = unsafe {
            round.decode(&self.opened, data.len(), &self.stream, |handle, state| {
                library.nvjpegDecodeBatchedEx(
                    handle,
                    state,
                    data.as_ptr(),
                    lengths.as_ptr(),
                    destinations.as_mut_ptr(),
                    params.as_mut_ptr(),
                    raw_stream,
                )
            })
        }?;
        self.joined.record(&self.stream).map_err(|code| error("cuEventRecord", code))?;
        stream.wait(&self.joined).map_err(|code| error("cuStreamWaitEvent", code))?;
        Ok(decoded.map_err(Refusal))
    }

    /// Waits for what it still does.
    pub(super) fn finish(&self) {
        // On a device that was lost there is nothing to wait for.
        let _ = self.stream.synchronize();
    }
}

impl Calls {
    fn fill(&mut self, images: &[Image<'_>], places: &[usize], params: &[Params]) {
        self.arrays.clear();
        for image in places.iter().map(|&place| &images[place]) {
            self.arrays.push(image.bytes.as_ptr(), image.bytes.len(), image.planes, image.pitch);
        }
        self.params.clear();
        self.params.extend(places.iter().map(|&place| params[place].raw()));
    }
}
