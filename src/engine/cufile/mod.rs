//! Reads from storage into the memory of a CUDA device through NVIDIA's cuFile (GPUDirect Storage).
//!
//! [`gds`] says, without the library, whether the bytes would take the direct path on this machine.

pub mod gds;
