//! NVIDIA's cuFile (GPUDirect Storage), found at run time.
//!
//! - [`sys`]: types, constants and the types of functions, made by bindgen from `cufile.h` (`bindings write`).
//! - [`result`]: a [`Library`] opened by its name, with a method for each function that reading takes. A method bears the
//!   name of the function, so that NVIDIA's documentation is its documentation, and gives a `Result` instead of a status.
//! - [`stats`]: what the reads took, per GPU, from structs that are not the same in every version of the library.
//!
//! Nothing here needs CUDA to build or to start. The libraries of CUDA 11, 12 and 13 all serve: a function that one of
//! them lacks is an [`Error::Missing`] when it is called.
#![deny(missing_docs)]

mod layouts;
pub mod result;
pub mod stats;
#[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
pub mod sys;

pub use result::{Error, Library, OpenError, bytes_read, status_name};
pub use stats::{BatchReads, GpuReads};
