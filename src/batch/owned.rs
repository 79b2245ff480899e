//! Tensors that have left the pool.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::cuda::on_the_host;
use super::tensor::{Form, HostBytes};
use super::{Batch, CudaTensor, Tensor, no_tensor};
use crate::device::Device;
use crate::device::cuda::Output;
use crate::error::Result;

/// The images of a batch's first group of views in memory that is the caller's own, for as long as it is kept: it outlives the loader.
///
/// On a device, dropping it frees its memory behind all that the streams given to [`on`](Self::on) do until then.
pub struct OwnedTensor {
    form: Form,
    memory: Memory,
}

enum Memory {
    Host(HostBytes),
    Cuda(Box<Output>),
}

impl Batch {
    /// Takes the images out of the loader's memory: on a device the slot gets a new allocation in place of the
    /// one that leaves, and nothing is copied; on the host they are copied. The slot is free again when this returns.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` where the device has no room for another tensor, and then the batch is dropped; `Unsupported`
    /// for images of various sizes.
    pub fn into_tensor(mut self) -> Result<OwnedTensor> {
        let form = self.form(0).ok_or_else(no_tensor)?;
        let memory = match self.filled.slot.output_mut() {
            Some(output) => Memory::Cuda(Box::new(output.take()?)),
            None => Memory::Host(HostBytes::copy_of(self.bytes_of(0))),
        };
        Ok(OwnedTensor { form, memory })
    }
}

impl OwnedTensor {
    /// Where it lies.
    pub fn device(&self) -> Device {
        match &self.memory {
            Memory::Host(_) => Device::Host,
            Memory::Cuda(output) => Device::Cuda(output.gpu().ordinal()),
        }
    }

    /// The tensor in host memory; `None` where it lies on a device.
    pub fn images(&self) -> Option<Tensor<'_>> {
        match &self.memory {
            Memory::Host(bytes) => Some(Tensor::new(self.form, bytes.as_slice())),
            Memory::Cuda(_) => None,
        }
    }

    /// The tensor for work on `stream`, which is made to wait until it is complete.
    ///
    /// # Errors
    ///
    /// Those of [`Batch::on`].
    pub fn on(&self, stream: &Arc<CudaStream>) -> Result<CudaTensor<'_>> {
        match &self.memory {
            Memory::Host(_) => Err(on_the_host("tensor")),
            Memory::Cuda(output) => CudaTensor::new(self.form, output, 0..self.form.len_bytes(), stream),
        }
    }
}
