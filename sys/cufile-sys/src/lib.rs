//! NVIDIA's cuFile (GPUDirect Storage), found at run time.
//!
//! - [`sys`]: types, constants and the types of functions, made by bindgen from `cufile.h` (`bindings write`).
//! - [`result`]: a [`Library`] opened by its name, with a method for each function that reading takes. A method bears
//!   the name of the function, so that NVIDIA's documentation is its documentation, and gives a `Result` instead of a
//!   status.
//! - [`stats`]: what the reads took, per GPU, from structs that are not the same in every version of the library.
//!
//! Nothing here needs CUDA to build or to start. The libraries of CUDA 11, 12 and 13 all serve: a function that one of
//! them lacks is an [`Error::Missing`] when it is called.
//!
//! # What the libraries do
//!
//! NVIDIA's reference leaves some of this open. It was found with the libraries 1.11 to 1.20 (CUDA 12.6 to 13) in
//! compatibility mode; forebay's tests/cufile_real.rs holds them to what a program has to know.
//!
//! - Without `/proc/modules`, `cuFileDriverOpen` never returns: look first.
//! - Without a driver or a device it says `CU_FILE_NVFS_SETUP_ERROR` or `CU_FILE_CUDA_DRIVER_ERROR` up to 1.15. Since
//!   1.16 it opens, so that being open says nothing of a GPU.
//! - Without nvidia-fs it opens in compatibility mode. With `allow_compat_mode` false in `cufile.json` it does not:
//!   `CU_FILE_DRIVER_NOT_INITIALIZED`.
//! - Without udev's entry of the disk there is no handle: `CU_FILE_INTERNAL_ERROR`, since 1.15
//!   `CU_FILE_HANDLE_NOT_REGISTERED`.
//! - A handle goes by its descriptor's number: give it back before the file is closed. Registering takes some 30 µs,
//!   for the first file of a disk 1 ms.
//! - Threads share handles and buffers, with a batch each. No context need be current on them.
//! - Any alignment works. In compatibility mode entries of batches whose offset and size are multiples of 4096, of a
//!   descriptor with `O_DIRECT`, go by AIO, all others by the library's threads. Where in the buffer they go is all
//!   one.
//! - A batch has up to `max_batch_io_size` entries, 128 by default; 1.11 does not check. Up to 1.14 an entry has at
//!   most `max_direct_io_size` KiB. That an entry stays within its buffer is checked by some versions for some entries:
//!   check it before.
//! - At the end of a file fewer bytes are read, or none, and nothing fails.
//! - A submission that fails, and one that is cancelled, takes all that its batch has in flight with it: no events
//!   come.
//! - The statistics per GPU are of `cuFileRead` and `cuFileReadAsync` alone, in bytes as asked for; those of batches
//!   are in bytes as read.
#![deny(missing_docs)]

mod layouts;
pub mod result;
pub mod stats;
#[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
pub mod sys;

pub use result::{Error, Library, OpenError, bytes_read, status_name};
pub use stats::{BatchReads, GpuReads};
