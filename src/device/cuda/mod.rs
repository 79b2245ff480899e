//! CUDA through its driver alone, found at run time: what is there, a device with our kernels, memory and order.
//!
//! Nothing here needs CUDA to compile or to start: the driver's library is opened when a device is asked for, and a
//! machine without one gets an error that says so. cudarc's types do the calls; where it would panic (without the
//! library even an error's text does) this module asks first or names errors itself.
//!
//! # Threads
//!
//! A CUDA context is current per thread. Everything here binds the context to the thread that calls, so that
//! any thread may call anything, and a batch may be dropped anywhere.
//!
//! # Order
//!
//! Work of one stream runs in order; between streams only events order. cudarc's own tracking of events is switched off:
//! a slot's output knows which stream writes a batch and which streams read it, and needs an event each where cudarc would
//! record one at every call. [`batch`](crate::batch) says what a consumer has to do.

mod bandwidth;
mod error;
mod gpu;
mod memory;
mod module;
mod output;
mod probe;
mod uploads;

pub use bandwidth::{Bandwidth, bandwidth};
pub(crate) use error::error;
pub(crate) use gpu::Gpu;
pub(crate) use memory::{DeviceMemory, Registered, download, move_down, upload, zero};
pub(crate) use module::{KernelName, launch};
pub(crate) use output::Output;
pub use probe::{CudaDevice, CudaProbe, probe};
pub use uploads::Uploads;

#[cfg(test)]
#[path = "../../../tests/cuda_support/mod.rs"]
pub(crate) mod support;
#[cfg(test)]
mod tests;
