//! Our CUDA kernels as a decoder: from entry points and landed bytes to what the kernels work on.
//!
//! [`Describer`] turns a sample's record and plan into an [`abi::Image`] with its segments and tables, and checks on
//! the way all that the kernels take on trust: whatever an index claims, they follow no offset that was not found
//! inside its buffer here. It looks at no landed byte, which may be in a device's memory alone: the kernels see for
//! themselves whether restart markers are where they are due.
//!
//! [`cut`] gives the images of a batch their scratch memory, in waves where it does not hold all of them, and
//! [`cuda::Scratch`] launches the kernels.
//!
//! Places in scratch memory and in the upload count from the image's own first; whoever gives it memory adds where
//! that starts.

pub(crate) mod abi;
pub(crate) mod cuda;
mod describe;
#[cfg(test)]
mod model;
#[cfg(test)]
mod parity;
mod shape;
mod wave;

pub(crate) use describe::{Describer, Description, describe_pixels};
pub(crate) use shape::{Needs, samples_image};
pub(crate) use wave::{Capacity, WORD_BYTES, Wave, cut};
