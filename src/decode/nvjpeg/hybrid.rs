//! Images one at a time: Huffman decoding on the host, the rest on the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cudarc::driver::{CudaEvent, CudaStream};
use nvjpeg_sys::Library;
use nvjpeg_sys::sys::nvjpegBackend_t;

use super::handles::{Decoder, Opened, Params, Parsed, Pinned, Scratch, State};
use super::memory::Memory;
use super::round::destination;
use super::{Engine, Image, Refusal, Verdict};
use crate::device::cuda::{Gpu, error};
use crate::error::Result;

/// nvJPEG's hybrid with one lane a thread. Fields are in the order in which they may be dropped.
pub(super) struct Hybrid {
    lanes: Vec<Lane>,
    decoder: Decoder,
    opened: Opened,
}

/// What one thread decodes with: a stream and a state that work in its order.
struct Lane {
    state: State,
    // Attached to the state, which does not touch it when it is destroyed.
    _scratch: Scratch,
    params: Params,
    /// The host phase of an image fills one while the other's transfer may still run.
    turns: [Turn; 2],
    next: usize,
    stream: Arc<CudaStream>,
    joined: CudaEvent,
    /// By place in the batch.
    verdicts: Vec<(usize, Verdict)>,
}

struct Turn {
    parsed: Parsed,
    pinned: Pinned,
    transferred: CudaEvent,
}

/// The images of a batch that are the hybrid's, handed out one by one to whichever lane is free.
struct Queue<'a> {
    images: &'a [Image<'a>],
    places: &'a [usize],
    taken: AtomicUsize,
}

impl Hybrid {
    /// With so many lanes. The context is current.
    pub(super) fn new(gpu: &Gpu, opened: Opened, memory: &mut Memory, lanes: usize) -> Result<Self, Failure> {
        let decoder = opened.decoder(nvjpegBackend_t::NVJPEG_BACKEND_HYBRID)?;
        let lanes = (0..lanes).map(|_| Lane::new(gpu, &opened, &decoder, memory)).collect::<Result<_, _>>()?;
        Ok(Self { lanes, decoder, opened })
    }

    /// Decodes the images at some places. Their work on the device begins after `begin`, and `stream` waits for its end.
    ///
    /// Lanes beside the first run on threads of their own until this returns.
    ///
    /// # Errors
    ///
    /// What the driver says; `stream` waits nevertheless if it can.
    ///
    /// # Safety
    ///
    /// As [`NvJpeg::decode`](super::NvJpeg::decode); `begin` was recorded.
    pub(super) unsafe fn decode(
        &mut self,
        begin: &CudaEvent,
        stream: &CudaStream,
        images: &[Image<'_>],
        places: &[usize],
        verdicts: &mut [Verdict],
    ) -> Result<()> {
        let (opened, decoder) = (&self.opened, &self.decoder);
        let queue = Queue { images, places, taken: AtomicUsize::new(0) };
        let lanes = self.lanes.len().min(places.len());
        let Some((first, others)) = self.lanes[..lanes].split_first_mut() else { return Ok(()) };
        // SAFETY: as the caller promises.
        let run = |lane: &mut Lane| unsafe { lane.run(opened, decoder, begin, &queue) };
        let mut outcome = thread::scope(|scope| {
            let run = &run;
            let spawned = others.iter_mut().map(|lane| {
                thread::Builder::new().name("forebay-nvjpeg".into()).spawn_scoped(scope, move || run(lane))
            });
            // A lane whose thread cannot start leaves its share to the others.
            let spawned: Vec<_> = spawned.filter_map(|thread| thread.ok()).collect();
            let outcome = run(first);
            spawned.into_iter().fold(outcome, |outcome, thread| match thread.join() {
                Ok(other) => outcome.and(other),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        });
        for lane in &mut self.lanes[..lanes] {
            for (place, verdict) in lane.verdicts.drain(..) {
                verdicts[place] = verdict;
            }
            outcome = outcome.and(stream.wait(&lane.joined).map_err(|code| error("cuStreamWaitEvent", code)));
        }
        outcome
    }

    /// Waits for what the lanes still do.
    pub(super) fn finish(&self) {
        for lane in &self.lanes {
            // On a device that was lost there is nothing to wait for.
            let _ = lane.stream.synchronize();
        }
    }
}

/// What making a decoder can fail with.
pub(super) enum Failure {
    NvJpeg(nvjpeg_sys::Error),
    Other(crate::Error),
}

impl From<nvjpeg_sys::Error> for Failure {
    fn from(error: nvjpeg_sys::Error) -> Self {
        Self::NvJpeg(error)
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Self::Other(error)
    }
}

impl Lane {
    fn new(gpu: &Gpu, opened: &Opened, decoder: &Decoder, memory: &mut Memory) -> Result<Self, Failure> {
        let state = opened.state_of(decoder)?;
        let scratch = opened.scratch(memory)?;
        // SAFETY: both are live, and no phase runs.
        unsafe { opened.library.nvjpegStateAttachDeviceBuffer(state.raw(), scratch.raw()) }?;
        let mut turn = || -> Result<Turn, Failure> {
            Ok(Turn { parsed: opened.parsed()?, pinned: opened.pinned(memory)?, transferred: gpu.host_event()? })
        };
        Ok(Self {
            turns: [turn()?, turn()?],
            state,
            _scratch: scratch,
            params: opened.params()?,
            next: 0,
            stream: gpu.stream()?,
            joined: gpu.event()?,
            verdicts: Vec::new(),
        })
    }

    /// Decodes images of the queue until there are none, on the calling thread.
    ///
    /// # Safety
    ///
    /// As [`Hybrid::decode`].
    unsafe fn run(&mut self, opened: &Opened, decoder: &Decoder, begin: &CudaEvent, queue: &Queue<'_>) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(|code| error("cuCtxSetCurrent", code))?;
        self.stream.wait(begin).map_err(|code| error("cuStreamWaitEvent", code))?;
        let mut outcome = Ok(());
        while let (Ok(()), Some((place, image))) = (&outcome, queue.next()) {
            // SAFETY: as the caller promises.
            let verdict = unsafe { self.decode(opened, decoder, image) };
            outcome = verdict.map(|verdict| self.verdicts.push((place, verdict)));
        }
        outcome.and(self.joined.record(&self.stream).map_err(|code| error("cuEventRecord", code)))
    }

    /// # Safety
    ///
    /// As [`Hybrid::decode`]; the context is current.
    unsafe fn decode(&mut self, opened: &Opened, decoder: &Decoder, image: &Image<'_>) -> Result<Verdict> {
        let turn = &self.turns[self.next];
        self.next = (self.next + 1) % self.turns.len();
        // The transfer before the last read this turn's memory.
        turn.transferred.synchronize().map_err(|code| error("cuEventSynchronize", code))?;
        let library = opened.library;
        // SAFETY: as the caller promises; nothing reads this turn's memory any more.
        let prepared = unsafe { prepare(opened, decoder, &self.state, &mut self.params, turn, image) };
        if let Err(refusal) = prepared {
            return Ok(Err(refusal));
        }
        let stream = self.stream.cu_stream().cast();
        let (handle, state, parsed) = (opened.handle.raw(), self.state.raw(), turn.parsed.raw());
        // SAFETY: the host phase succeeded; this turn's memory stays until `transferred`, the image's bytes as the caller promises;
        // this stream alone uses the state's device buffer.
        let transfer =
            unsafe { library.nvjpegDecodeJpegTransferToDevice(handle, decoder.raw(), state, parsed, stream) };
        // Also where it failed: a part of it may be under way.
        turn.transferred.record(&self.stream).map_err(|code| error("cuEventRecord", code))?;
        if let Err(error) = transfer {
            return Ok(Err(Refusal(error)));
        }
        let mut destination = destination(image.planes, image.pitch);
        // SAFETY: the transfer succeeded; the planes are large enough, as the caller promises.
        let decoded = unsafe { library.nvjpegDecodeJpegDevice(handle, decoder.raw(), state, &mut destination, stream) };
        Ok(decoded.map(|()| Engine::Hybrid).map_err(Refusal))
    }
}

/// What is done on the host: parsing, asking whether the decoder takes the image, and the host phase.
///
/// # Safety
///
/// No transfer reads the turn's memory.
unsafe fn prepare(
    opened: &Opened,
    decoder: &Decoder,
    state: &State,
    params: &mut Params,
    turn: &Turn,
    image: &Image<'_>,
) -> Result<(), Refusal> {
    let library: &Library = opened.library;
    let (handle, parsed) = (opened.handle.raw(), turn.parsed.raw());
    let (data, length) = (image.bytes.as_ptr(), image.bytes.len());
    // SAFETY: all are live; the bytes stay until the transfer has ended.
    unsafe { library.nvjpegJpegStreamParse(handle, data, length, 0, 0, parsed) }.map_err(Refusal)?;
    opened.set_area(params, image).map_err(Refusal)?;
    let mut answer = -1;
    // SAFETY: all are live, the stream is parsed, the pointer is valid for a write.
    unsafe { library.nvjpegDecoderJpegSupported(decoder.raw(), parsed, params.raw(), &mut answer) }.map_err(Refusal)?;
    if answer != 0 {
        return Err(Refusal::unsupported("nvjpegDecoderJpegSupported"));
    }
    // SAFETY: all are live, no phase runs, and the caller sees to the turn's memory.
    unsafe {
        library.nvjpegStateAttachPinnedBuffer(state.raw(), turn.pinned.raw()).map_err(Refusal)?;
        library.nvjpegDecodeJpegHost(handle, decoder.raw(), state.raw(), params.raw(), parsed).map_err(Refusal)
    }
}

impl<'a> Queue<'a> {
    fn next(&self) -> Option<(usize, &'a Image<'a>)> {
        let place = *self.places.get(self.taken.fetch_add(1, Ordering::Relaxed))?;
        Some((place, &self.images[place]))
    }
}
