//! A simulated CUDA driver.
#![deny(missing_docs)]

pub mod ptx;
