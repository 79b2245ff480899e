//! Batches on a CUDA device: who reads them, and when.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::{CUdeviceptr, CUevent, CUstream};
use cudarc::driver::{CudaStream, CudaView, DeviceRepr};

use super::tensor::{Element, Form};
use super::{Batch, no_tensor};
use crate::device::cuda::Output;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{DType, Layout};

/// All images of a batch, or of a group of views, in device memory, to be read by work on the stream that it was asked for. See [`Batch::on`].
#[derive(Debug)]
pub struct CudaTensor<'a> {
    /// `[images, 3, height, width]` for NCHW, `[images, height, width, 3]` for NHWC.
    pub shape: [usize; 4],
    /// The type of an element.
    pub dtype: DType,
    /// The order of the dimensions.
    pub layout: Layout,
    /// Where the elements start: row-major, tightly packed. A multiple of 256.
    pub pointer: CUdeviceptr,
    bytes: CudaView<'a, u8>,
}

impl<'a> CudaTensor<'a> {
    /// Those that lie at `place` in an output.
    pub(super) fn new(form: Form, output: &'a Output, place: Range<usize>, stream: &Arc<CudaStream>) -> Result<Self> {
        output.read_on(stream)?;
        let Form { shape, dtype, layout } = form;
        let pointer = output.pointer() + place.start as u64;
        Ok(Self { shape, dtype, layout, pointer, bytes: output.bytes().slice(place) })
    }

    /// The elements as cudarc takes them; `None` if they are of another type.
    pub fn view<T: Element + DeviceRepr>(&self) -> Option<CudaView<'a, T>> {
        let elements = self.bytes.len() / size_of::<T>();
        // SAFETY: every bit pattern is a value of an Element, and the allocation starts on a multiple of 256 bytes.
        (self.dtype == T::DTYPE).then(|| unsafe { self.bytes.transmute(elements) }).flatten()
    }

    /// The elements as bytes.
    pub fn bytes(&self) -> CudaView<'a, u8> {
        self.bytes.slice(..)
    }
}

/// A tensor on a device as a pointer and an event, for code that speaks to the driver itself. See [`Batch::raw`].
#[derive(Clone, Copy, Debug)]
pub struct RawTensor {
    /// `[images, 3, height, width]` for NCHW, `[images, height, width, 3]` for NHWC.
    pub shape: [usize; 4],
    /// The type of an element.
    pub dtype: DType,
    /// The order of the dimensions.
    pub layout: Layout,
    /// Where the elements start: row-major, tightly packed.
    pub pointer: CUdeviceptr,
    /// All of the tensor.
    pub len_bytes: usize,
    /// Behind the last write of the tensor.
    pub ready: CUevent,
}

impl Batch {
    /// Its images, of several groups of views those of the first, for work on `stream`, which is made to wait until they
    /// are complete. The host does not wait.
    ///
    /// Dropping the batch makes its slot's next round wait for all that `stream` was given until then. It may be asked
    /// for on several streams, and more than once on each.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a batch on the host, or of images of various sizes; `InvalidParameter` for a stream of another
    /// context than the device's primary one (`CudaContext::new(ordinal)`), or for the calling thread's default stream;
    /// `DeviceLost` and the like.
    pub fn on(&self, stream: &Arc<CudaStream>) -> Result<CudaTensor<'_>> {
        self.group_on(0, stream)
    }

    /// The images of a group of views, `[views * len, ..]`, as [`on`](Self::on) gives those of the first.
    ///
    /// # Errors
    ///
    /// Those of [`on`](Self::on).
    ///
    /// # Panics
    ///
    /// If `group` is not below [`groups`](Self::groups).
    pub fn group_on(&self, group: usize, stream: &Arc<CudaStream>) -> Result<CudaTensor<'_>> {
        let (form, place) = (self.form(group).ok_or_else(no_tensor)?, self.filled.slot.group(group));
        CudaTensor::new(form, self.output()?, place, stream)
    }

    /// As [`on`](Self::on) for a stream of another library.
    ///
    /// # Errors
    ///
    /// Those of [`on`](Self::on).
    ///
    /// # Safety
    ///
    /// `stream` is a stream of the primary context of the batch's device, and is not destroyed before the batch is
    /// dropped (or the [`OwnedTensor`](super::OwnedTensor) or DLPack tensor that it became).
    pub unsafe fn on_raw(&self, stream: CUstream) -> Result<CudaTensor<'_>> {
        // SAFETY: as the caller promises; the wrapper lives in the list of readers until the batch is dropped.
        let stream = unsafe { self.output()?.gpu().context().wrap_borrowed_stream(stream) };
        self.on(&stream)
    }

    /// Its labels in device memory for work on `stream`, as [`on`](Self::on) gives its images.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a batch on the host, and those of [`on`](Self::on).
    pub fn labels_on(&self, stream: &Arc<CudaStream>) -> Result<CudaView<'_, i64>> {
        let output = self.output()?;
        output.read_on(stream)?;
        let labels = output.bytes().slice(output.labels_at()..);
        // SAFETY: every bit pattern is an i64, and the labels lie on a multiple of 256 bytes.
        let labels = unsafe { labels.transmute(self.len()) };
        labels.ok_or_else(|| Error::new(ErrorKind::Internal, "the slot has no room for the labels"))
    }

    /// Its images, of several groups of views those of the first, as a pointer and an event; `None` on the host and where they
    /// are no one tensor.
    ///
    /// The contract, which nobody can check:
    /// - Both are valid until the batch is dropped.
    /// - Whoever reads first waits for `ready`: `cuStreamWaitEvent(stream, ready, 0)`, or `cuEventSynchronize(ready)`.
    /// - Before the batch is dropped those reads have ended, or their stream was given to [`on`](Self::on) or
    ///   [`on_raw`](Self::on_raw).
    pub fn raw(&self) -> Option<RawTensor> {
        self.raw_group(0)
    }

    /// The images of a group of views as a pointer and an event, with the contract of [`raw`](Self::raw).
    ///
    /// # Panics
    ///
    /// If `group` is not below [`groups`](Self::groups).
    pub fn raw_group(&self, group: usize) -> Option<RawTensor> {
        let (form, output) = (self.form(group)?, self.output().ok()?);
        let Form { shape, dtype, layout } = form;
        let pointer = output.pointer() + self.filled.slot.group(group).start as u64;
        let ready = output.ready().cu_event();
        Some(RawTensor { shape, dtype, layout, pointer, len_bytes: form.len_bytes(), ready })
    }

    fn output(&self) -> Result<&Output> {
        self.filled.slot.output().ok_or_else(|| on_the_host("batch"))
    }
}

/// Why something that works on a device does not take what lies on the host.
pub(super) fn on_the_host(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the {what} lies on the host, which no stream reads"))
        .with_remedy("load with a CUDA device, or read the images in host memory")
}
