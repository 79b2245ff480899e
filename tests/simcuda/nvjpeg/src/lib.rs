//! A stand-in for NVIDIA's nvJPEG where there is no GPU.
//!
//! It exports the functions that decoding takes, decodes on the host with a decoder of its own, and moves the pixels as
//! the real library does: the host phase of an image fills page-locked memory, a transfer copies that to device memory,
//! a last phase writes the planes, each at its turn in a stream of the simulated driver (`simcuda`), which must be the
//! libcuda of the process. Memory comes from the allocators that the program gives.
//!
//! Batches are decoded by the backends `HARDWARE`, `GPU_HYBRID_DEVICE` and `HARDWARE_DEVICE`, the latter two from
//! device memory: the headers are read within the call, the rest at its turn. The hardware's work keeps to no stream's
//! order: it may run as soon as the call is made, whatever the stream was given before, as
//! <https://github.com/meta-pytorch/torchcodec/pull/1634> found NVIDIA's to do; what the stream is given afterwards
//! waits for it. A batch that is refused because of one image is decoded up to that one.
//!
//! # What it reports
//!
//! To the driver's reports (`SIMCUDA_REPORT`), by kind:
//! - `nvjpeg-lifetime`: a handle that is not live, not of its kind, destroyed while something uses it, or never
//!   destroyed;
//! - `nvjpeg-order`: phases out of turn, one state on two streams at once, page-locked memory filled again before its
//!   transfer has run, a batch given to a state that still decodes one;
//! - `nvjpeg-thread`: an object that two threads use at once;
//! - `nvjpeg-input`: a file that its versions before CUDA 13 may crash on, or that is no baseline JPEG of 8 bits;
//! - `nvjpeg-argument`: everything else that the documentation forbids.
//!
//! The driver itself reports accesses that are out of bounds, not ordered, or of memory that was never written, and
//! bytes that change before a stream has read them.
//!
//! # Pixels
//!
//! Those of libjpeg-turbo, less exact: most stay, one in four differs by 1 and one in 64 by 3, by its place and the
//! backend. Along the edges of a region within an image 4 pixels are wrong, as NVIDIA's release notes tell of the
//! versions before CUDA 13.3. Chroma is repeated where the flag for interpolation is not set.
//!
//! # Settings
//!
//! - `SIMNVJPEG_ENGINES=1x5`: engines and cores of each; without it there is no hardware. The exported function
//!   `simnvjpeg_engines(1, 5)` sets the same.
//! - `SIMNVJPEG_VERSION=12.4.0`.
//! - `SIMCUDA_FAIL=nvjpegDecodeJpegHost#3:3` and the like: the driver's rules count these functions too.
#![deny(missing_docs)]

mod api;
mod batch;
mod driver;
mod image;
mod objects;
mod work;
