//! Device memory that goes round: one stream writes it, others read it, and events keep the rounds apart.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DevicePtr};

use super::error::error;
use super::gpu::Gpu;
use super::memory;
use crate::error::{Error, Result};
use crate::report::lock;

/// Bytes of a label.
const LABEL_BYTES: usize = size_of::<i64>();
/// Labels start on a multiple of this many bytes behind the tensor: what CUDA's own allocations start on.
const LABEL_ALIGN_BYTES: usize = 256;
/// The handle that means "the calling thread's default stream".
const STREAM_PER_THREAD: usize = 2;

/// The device side of a slot: what a batch's tensor and labels lie in.
///
/// A round:
/// 1. [`begin`](Self::begin) makes its own stream wait for the readers of the round before, on the device; the host
///    goes on.
/// 2. Its own stream writes [`bytes_mut`](Self::bytes_mut) and the labels; [`end`](Self::end) records `ready` behind.
/// 3. [`read_on`](Self::read_on) makes a reader's stream wait for `ready`, from any thread.
/// 4. [`release`](Self::release), when the last reader has enqueued its work, records an event on each of those streams.
///
/// Dropped, its memory is freed in the order of its own stream behind the last readers.
pub(crate) struct Output {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    bytes: CudaSlice<u8>,
    labels_at: usize,
    ready: CudaEvent,
    /// The streams that this round's tensor was given to.
    readers: Mutex<Vec<Arc<CudaStream>>>,
    /// The first `released` of them stand behind reads that the next round has to wait for.
    read: Vec<CudaEvent>,
    released: usize,
    /// Why the end of a read is not known.
    failure: Option<Error>,
}

impl Output {
    /// Memory for a tensor of so many bytes and so many labels, written by `stream`.
    pub(crate) fn new(gpu: &Gpu, stream: &Arc<CudaStream>, tensor_bytes: usize, labels: usize) -> Result<Self> {
        let labels_at = tensor_bytes.next_multiple_of(LABEL_ALIGN_BYTES);
        Ok(Self {
            gpu: gpu.clone(),
            stream: Arc::clone(stream),
            bytes: gpu.alloc(stream, labels_at + labels * LABEL_BYTES)?,
            labels_at,
            ready: gpu.event()?,
            readers: Mutex::default(),
            read: Vec::new(),
            released: 0,
            failure: None,
        })
    }

    /// Starts a round: what its own stream does from now on happens after everything that read the last one.
    ///
    /// # Errors
    ///
    /// `DeviceLost` and the like, also where the end of a read could not be learned.
    pub(crate) fn begin(&mut self) -> Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        for event in &self.read[..self.released] {
            self.stream.wait(event).map_err(|code| error("cuStreamWaitEvent", code))?;
        }
        self.released = 0;
        Ok(())
    }

    /// What its own stream writes between [`begin`](Self::begin) and [`end`](Self::end): the tensor from byte 0 on.
    pub(crate) fn bytes_mut(&mut self) -> &mut CudaSlice<u8> {
        &mut self.bytes
    }

    /// Copies the labels behind the tensor.
    ///
    /// # Safety
    ///
    /// `labels` stay as they are until its own stream has come past this, or are not page-locked: CUDA has taken a copy of
    /// such memory when this returns.
    pub(crate) unsafe fn upload_labels(&mut self, labels: &[i64]) -> Result<()> {
        // SAFETY: as the caller promises; this is the stream that writes here.
        unsafe { memory::upload(&self.stream, &mut self.bytes, self.labels_at, bytemuck::cast_slice(labels)) }
    }

    /// Ends the writing of a round. May be called again after more was written, before a reader was let in.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.ready.record(&self.stream).map_err(|code| error("cuEventRecord", code))
    }

    /// Makes a stream wait until this round is written, and lets the next one wait for what that stream does until
    /// [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// `InvalidParameter` for a stream of another context, or for the default stream of whichever thread calls;
    /// `DeviceLost` and the like.
    pub(crate) fn read_on(&self, stream: &Arc<CudaStream>) -> Result<()> {
        self.check(stream)?;
        stream.wait(&self.ready).map_err(|code| error("cuStreamWaitEvent", code))?;
        let mut readers = lock(&self.readers);
        if !readers.contains(stream) {
            readers.push(Arc::clone(stream));
        }
        Ok(())
    }

    fn check(&self, stream: &CudaStream) -> Result<()> {
        if stream.cu_stream().addr() == STREAM_PER_THREAD {
            let allowed =
                "the batch may be dropped by a thread whose default stream is another: give a stream you made";
            return Err(Error::invalid_parameter("stream", "CU_STREAM_PER_THREAD", allowed));
        }
        if stream.context() != self.gpu.context() {
            let value = format!("one of another context, on device cuda:{}", stream.context().ordinal());
            let allowed = format!(
                "the batch lies in the primary context of device cuda:{}, so take one there",
                self.gpu.ordinal()
            );
            return Err(Error::invalid_parameter("stream", value, &allowed));
        }
        Ok(())
    }

    /// Ends the reading of a round: whatever the readers' streams hold now, the next round waits for. Never panics,
    /// on no thread, and costs nothing where nobody read.
    pub(crate) fn release(&mut self) {
        let Self { gpu, readers, read, released, failure, .. } = self;
        for stream in readers.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).drain(..) {
            let marked = mark(gpu, read, *released, &stream);
            match marked {
                Ok(()) => *released += 1,
                // The device can no longer be told to wait, so the host does.
                Err(error) if stream.synchronize().is_err() => *failure = Some(error),
                Err(_) => {}
            }
        }
    }

    /// Gives away this round, for good: what stays is newly allocated.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`; then nothing has changed.
    pub(crate) fn take(&mut self) -> Result<Self> {
        let labels = (self.bytes.len() - self.labels_at) / LABEL_BYTES;
        let fresh = Self::new(&self.gpu, &self.stream, self.labels_at, labels)?;
        Ok(std::mem::replace(self, fresh))
    }

    /// Copies tensors that lie at `places` to the same places on the host, and waits for them.
    pub(crate) fn copy_to_host(&self, places: impl Iterator<Item = Range<usize>>, into: &mut [u8]) -> Result<()> {
        for place in places {
            let into = &mut into[place.clone()];
            // SAFETY: its own stream wrote the tensor and is in order behind it. `into` is borrowed until the stream was
            // waited for below; where that fails the device is lost and copies nothing any more.
            unsafe { memory::download(&self.stream, &self.bytes, place, into.as_mut_ptr())? };
        }
        self.stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))
    }

    /// The memory, to be read by streams that were let in.
    pub(crate) fn bytes(&self) -> &CudaSlice<u8> {
        &self.bytes
    }

    /// Where in it the labels start.
    pub(crate) fn labels_at(&self) -> usize {
        self.labels_at
    }

    /// The event behind the last write of this round.
    pub(crate) fn ready(&self) -> &CudaEvent {
        &self.ready
    }

    /// Where the tensor starts, until the round is [taken](Self::take) away.
    pub(crate) fn pointer(&self) -> CUdeviceptr {
        // Of a context that tracks no events, asking for a pointer does nothing to the stream named.
        self.bytes.device_ptr(&self.stream).0
    }

    /// The device it lies on.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }
}

/// Records event number `place`, made when it is first needed.
fn mark(gpu: &Gpu, events: &mut Vec<CudaEvent>, place: usize, stream: &CudaStream) -> Result<()> {
    if events.len() == place {
        events.push(gpu.event()?);
    }
    events[place].record(stream).map_err(|code| error("cuEventRecord", code))
}

impl Drop for Output {
    fn drop(&mut self) {
        self.release();
        // Where this fails the device is lost, and freeing its memory hurts nobody.
        let _ = self.begin();
    }
}
