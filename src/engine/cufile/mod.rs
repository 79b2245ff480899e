//! cuFile, NVIDIA's GPUDirect Storage: reads that end in device memory, and the truth about the way they took.
//!
//! [`CuFile`] is the library, open in this process, with the device memory that it may write, registered once. An
//! [`Engine`](super::Engine) [with it](super::Engine::with_cufile) reads through one of three interfaces:
//!
//! ```text
//!                   +- Batch:   one thread, cuFileBatchIOSubmit, polled        -+
//! read_device(..) --+- Stream:  one thread, cuFileReadAsync on a few streams   -+--> Transfer --> completion
//!                   +- Threads: cuFileRead on the threads of the pread engine  -+
//! ```
//!
//! Requests start and end at multiples of 4 KiB, in files and in memory, since anything else takes cuFile's bounce buffers;
//! what a file system asks for beyond that is asked for too. Short reads, errors and the end of a file go the same way as
//! those of every other engine (module `transfer`), but that the page cache cannot help out.
//!
//! # Receipts
//!
//! cuFile reads through host memory where it cannot do otherwise ("compatibility mode"), and says so only if asked. So it is
//! asked after every few reads: [`Receipts`] count reads and bytes by path, from the library's own statistics where it has
//! them (1.15, CUDA 13.0) and else from its properties; what neither states is counted as that.
//! [`RequirePath::Direct`](super::RequirePath::Direct) makes everything but DMA an error.
//!
//! # Threads
//!
//! Everything here may be used from any thread.

mod api;
mod batch;
mod driver;
pub mod gds;
mod handle;
mod open;
mod receipts;
mod session;
mod stream;

pub(super) use driver::Driver;
pub(super) use handle::Handle;
pub use receipts::{Passage, ReadPath, Receipts};
pub use session::CuFile;
