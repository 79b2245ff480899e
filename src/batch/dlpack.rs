//! Batches for other libraries, by DLPack: PyTorch, JAX, CuPy, TVM, NumPy.
//!
//! The structures are those of `dlpack.h` version 1.0 (<https://dmlc.github.io/dlpack>), which later 1.x versions leave as
//! they are, and the older unversioned one that many consumers still ask for. Nothing is copied: the managed
//! tensor is the batch, and its deleter drops it, as dropping a [`Batch`] does, from whatever thread.
//!
//! A consumer on a device tells on which stream it will use the tensor (the `stream` of Python's `__dlpack__`); that
//! stream waits for the tensor, and when the deleter is called the slot's next round waits for the stream. A handle
//! from another library becomes such a stream by cudarc's `CudaContext::wrap_borrowed_stream`.
//!
//! ```no_run
//! # fn consume(tensor: std::ptr::NonNull<forebay::batch::dlpack::DLManagedTensorVersioned>) {}
//! # fn f(batch: forebay::Batch, stream: &std::sync::Arc<cudarc::driver::CudaStream>) -> forebay::Result<()> {
//! let tensor = batch.into_dlpack(Some(stream))?.into_versioned();
//! consume(tensor); // calls `tensor.deleter` once, when it is done
//! # Ok(())
//! # }
//! ```

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::tensor::Form;
use super::{Batch, no_tensor};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::plan::DType;

/// Version of the structures: `major` changes with the ABI, `minor` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DLPackVersion {
    /// 1.
    pub major: u32,
    /// 0.
    pub minor: u32,
}

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DLDevice {
    /// [`DL_CPU`] or [`DL_CUDA`].
    pub device_type: i32,
    /// The device's ordinal; 0 for the host.
    pub device_id: i32,
}

/// `kDLCPU`: host memory.
pub const DL_CPU: i32 = 1;
/// `kDLCUDA`: memory of a CUDA device.
pub const DL_CUDA: i32 = 2;

/// The type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DLDataType {
    /// [`DL_UINT`], [`DL_FLOAT`] or [`DL_BFLOAT`].
    pub code: u8,
    /// Bits of an element.
    pub bits: u8,
    /// 1.
    pub lanes: u16,
}

/// `kDLUInt`: an unsigned integer.
pub const DL_UINT: u8 = 1;
/// `kDLFloat`: an IEEE floating-point number.
pub const DL_FLOAT: u8 = 2;
/// `kDLBfloat`: the upper half of a 32-bit one.
pub const DL_BFLOAT: u8 = 4;

/// A tensor that something else owns.
#[derive(Debug)]
#[repr(C)]
pub struct DLTensor {
    /// The first element, in the memory of `device`.
    pub data: *mut c_void,
    /// Where it lies.
    pub device: DLDevice,
    /// Dimensions: 4.
    pub ndim: i32,
    /// The type of an element.
    pub dtype: DLDataType,
    /// `ndim` extents.
    pub shape: *mut i64,
    /// `ndim` distances, in elements; row-major without padding.
    pub strides: *mut i64,
    /// 0.
    pub byte_offset: u64,
}

/// A tensor with what ends its life, since version 1.0.
#[derive(Debug)]
#[repr(C)]
pub struct DLManagedTensorVersioned {
    /// Of these structures.
    pub version: DLPackVersion,
    /// The producer's.
    pub manager_ctx: *mut c_void,
    /// To be called once, with this tensor, from any thread.
    pub deleter: Option<unsafe extern "C" fn(*mut Self)>,
    /// 0: it may be written, and is no copy.
    pub flags: u64,
    /// The tensor.
    pub dl_tensor: DLTensor,
}

/// A tensor with what ends its life, before version 1.0.
#[derive(Debug)]
#[repr(C)]
pub struct DLManagedTensor {
    /// The tensor.
    pub dl_tensor: DLTensor,
    /// The producer's.
    pub manager_ctx: *mut c_void,
    /// To be called once, with this tensor, from any thread.
    pub deleter: Option<unsafe extern "C" fn(*mut Self)>,
}

/// A batch about to become a managed tensor of one form or the other. Dropped instead, it drops the batch.
pub struct DlpackTensor {
    batch: Arc<Batch>,
    form: Form,
    data: *mut c_void,
}

// SAFETY: the pointer is into the batch's own memory, which may be used from any thread; the batch may be dropped on any.
unsafe impl Send for DlpackTensor {}

/// What that rests on, since the tensors of several groups share a batch.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Batch>();
};

impl Batch {
    /// Makes the images, those of the first group of views, a DLPack tensor: `[N, 3, H, W]` or `[N, H, W, 3]`, as the layout says. On a device `stream` is
    /// the consumer's, and waits for the images; on the host none is needed.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` on a device without a stream, `Unsupported` for images of various sizes, and those of
    /// [`on`](Batch::on). The batch is dropped then.
    pub fn into_dlpack(self, stream: Option<&Arc<CudaStream>>) -> Result<DlpackTensor> {
        let mut groups = self.into_dlpack_groups(stream)?;
        Ok(groups.swap_remove(0))
    }

    /// Makes each group of views a DLPack tensor, in order. The batch is dropped with the last of them.
    ///
    /// # Errors
    ///
    /// Those of [`into_dlpack`](Self::into_dlpack).
    pub fn into_dlpack_groups(mut self, stream: Option<&Arc<CudaStream>>) -> Result<Vec<DlpackTensor>> {
        let start = self.filled.slot.start().as_ptr();
        let batch = Arc::new(self);
        let of_group = |group: usize| {
            let form = batch.form(group).ok_or_else(no_tensor)?;
            let data = match (batch.device(), stream) {
                (Device::Host, _) => start.wrapping_add(batch.filled.slot.group(group).start).cast(),
                (_, Some(stream)) => std::ptr::without_provenance_mut(batch.group_on(group, stream)?.pointer as usize),
                (_, None) => {
                    let allowed = "the stream that will use the tensor has to be named, since it lies on a device";
                    return Err(Error::invalid_parameter("stream", "none", allowed));
                }
            };
            Ok(DlpackTensor { batch: Arc::clone(&batch), form, data })
        };
        (0..batch.groups()).map(of_group).collect()
    }
}

impl DlpackTensor {
    /// As version 1.0 has it: Python's capsule `dltensor_versioned`. Leaks unless its deleter is called.
    pub fn into_versioned(self) -> NonNull<DLManagedTensorVersioned> {
        Owner::leak(self, |dl_tensor, manager_ctx| DLManagedTensorVersioned {
            version: DLPackVersion { major: 1, minor: 0 },
            manager_ctx,
            deleter: Some(delete_versioned),
            flags: 0,
            dl_tensor,
        })
    }

    /// As it was before: Python's capsule `dltensor`. Leaks unless its deleter is called.
    pub fn into_legacy(self) -> NonNull<DLManagedTensor> {
        Owner::leak(self, |dl_tensor, manager_ctx| DLManagedTensor {
            dl_tensor,
            manager_ctx,
            deleter: Some(delete_legacy),
        })
    }

    /// The tensor but for its extents, which need an address of their own.
    fn tensor(&self) -> DLTensor {
        let device = match self.batch.device() {
            Device::Host => DLDevice { device_type: DL_CPU, device_id: 0 },
            Device::Cuda(ordinal) => DLDevice { device_type: DL_CUDA, device_id: ordinal as i32 },
        };
        let code = match self.form.dtype {
            DType::U8 => DL_UINT,
            DType::F16 | DType::F32 => DL_FLOAT,
            DType::BF16 => DL_BFLOAT,
        };
        DLTensor {
            data: self.data,
            device,
            ndim: 4,
            dtype: DLDataType { code, bits: 8 * self.form.dtype.size_bytes() as u8, lanes: 1 },
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        }
    }
}

/// What `manager_ctx` leads to.
struct Owner<M> {
    managed: MaybeUninit<M>,
    shape: [i64; 4],
    strides: [i64; 4],
    _batch: Arc<Batch>,
}

impl<M> Owner<M> {
    fn leak(tensor: DlpackTensor, managed: impl FnOnce(DLTensor, *mut c_void) -> M) -> NonNull<M> {
        let mut dl_tensor = tensor.tensor();
        let shape = tensor.form.shape.map(|extent| extent as i64);
        let strides = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1];
        let owner = Self { managed: MaybeUninit::uninit(), shape, strides, _batch: tensor.batch };
        let owner = Box::into_raw(Box::new(owner));
        // SAFETY: the box is valid and has just been let go, so these are the only pointers into it; the last is not null.
        unsafe {
            dl_tensor.shape = (&raw mut (*owner).shape).cast();
            dl_tensor.strides = (&raw mut (*owner).strides).cast();
            let place = (&raw mut (*owner).managed).cast::<M>();
            place.write(managed(dl_tensor, owner.cast()));
            NonNull::new_unchecked(place)
        }
    }

    /// # Safety
    ///
    /// `manager_ctx` is what [`leak`](Self::leak) gave, for the same `M`, and nothing uses it any more.
    unsafe fn drop(manager_ctx: *mut c_void) {
        // SAFETY: as the caller promises.
        drop(unsafe { Box::from_raw(manager_ctx.cast::<Self>()) });
    }
}

/// # Safety
///
/// `tensor` is null or came from [`DlpackTensor::into_versioned`] and was not deleted before.
unsafe extern "C" fn delete_versioned(tensor: *mut DLManagedTensorVersioned) {
    if !tensor.is_null() {
        // SAFETY: as the caller promises.
        unsafe { Owner::<DLManagedTensorVersioned>::drop((*tensor).manager_ctx) };
    }
}

/// # Safety
///
/// `tensor` is null or came from [`DlpackTensor::into_legacy`] and was not deleted before.
unsafe extern "C" fn delete_legacy(tensor: *mut DLManagedTensor) {
    if !tensor.is_null() {
        // SAFETY: as the caller promises.
        unsafe { Owner::<DLManagedTensor>::drop((*tensor).manager_ctx) };
    }
}
