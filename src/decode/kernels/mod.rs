//! Our CUDA kernels as a decoder: from entry points and landed bytes to what the kernels work on.

#[allow(dead_code)] // Until the loader uses it.
pub(crate) mod abi;
#[cfg(test)]
mod parity;
