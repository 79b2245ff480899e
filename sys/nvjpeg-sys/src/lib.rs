//! The decoder of NVIDIA's nvJPEG, found at run time.
//!
//! - [`sys`]: types, constants and the types of functions, made by bindgen from `nvjpeg.h` (`bindings write`).
//! - [`result`]: a [`Library`] opened by its name, with a method for each function that decoding takes. A method bears the
//!   name of the function, so that NVIDIA's documentation is its documentation, and gives a `Result` instead of a status.
//!
//! Nothing here needs CUDA to build or to start. The libraries of CUDA 11, 12 and 13 all serve: a function that one of
//! them lacks is an [`Error::Missing`] when it is called.
#![deny(missing_docs)]

pub mod result;
#[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
pub mod sys;

pub use result::{Error, Library, OpenError};
