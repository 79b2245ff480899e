//! forebay keeps computer-vision training fed from storage.
//!
//! Everything that decides a batch is known before a byte is read: seed, epoch and position fix which
//! sample comes next, and which crop and which other random parameters it gets. So the path plans
//! first, and the same seed gives the same tensors, to the byte, with every engine, number of threads
//! and form of the data set.
//!
//! ```text
//! source -> order -> plan -> engine -> memory -> decode -> augment -> batch -> consumer
//! what      which    how     moves     page-     pixels    one pass   tensors,
//! exists    next     much    bytes     locked                         labels
//! ```
//!
//! The modules stand in that order. [`Loader`] is the front door:
//!
//! ```no_run
//! use forebay::{Augment, Loader};
//!
//! # fn step(images: &[f32], labels: &[i64]) {}
//! # fn main() -> forebay::Result<()> {
//! let mut loader = Loader::open("train-{000..146}.tar")
//!     .batch_size(256)
//!     .augment(Augment::imagenet_train(224).build()?)
//!     .seed(7)
//!     .build()?;
//! for batch in loader.epochs(0..90) {
//!     let batch = batch?;
//!     if let Some(images) = batch.images().and_then(|images| images.as_f32()) {
//!         step(images, batch.labels()); // [256, 3, 224, 224], normalised
//!     }
//! }
//! println!("{}", loader.report());
//! # Ok(())
//! # }
//! ```
//!
//! On a CUDA device ([`LoaderBuilder::device`]) the bytes of the crops are uploaded in one copy a batch and decoded and
//! augmented there, to the same bits; what a consumer's stream then waits for, and what waits for it, is in
//! [`batch`]:
//!
//! ```text
//! source -> order -> plan -> engine -> memory -> upload -> kernels, or nvJPEG -> augment -> batch -> consumer's
//!                                      page-locked         on the slot's stream             in GPU   stream
//!                                                                                           memory
//! ```
//!
//! Where storage and device allow it, those bytes never touch host memory: cuFile reads them straight into the device's
//! ([`engine::cufile`]), and the report says of every byte by which path it came.
//!
//! A data set with an [index](source::index) beside it (`forebay index`) is read only where its crops lie: from the
//! plan of a crop follow the entry points to start decoding at, and from those the bytes to read. The tensors
//! are the same to the bit. Images may also be stored decoded, as arrays of bytes ([`raw`]; `forebay pack --raw` makes
//! such data sets): of these a crop reads its rows.
//!
//! # What is promised
//!
//! - **Exactness.** Baseline JPEG decodes to the pixels of libjpeg-turbo's defaults, to the bit, whole
//!   or in part ([`jpeg`]). Resampling is antialiased as in PIL and torchvision, in arithmetic that is
//!   written down and the same in scalar and vector code ([`augment`]).
//! - **Determinism.** [`batch::Digest`] over an epoch is the same for every engine, thread count and
//!   form of the data set, with an index and without, on the host and on a device. Those of ranks add up to it. nvJPEG alone rounds in its own way;
//!   what it may differ by is stated, and it decodes only what no index describes.
//! - **Ranks and resuming.** Several processes share an epoch ([`LoaderBuilder::shard`]), disjoint and complete, in equal
//!   steps. A run that ends anywhere is continued with exactly the batches that would have come
//!   ([`LoaderBuilder::resume`]), on any number of ranks.
//! - **Bad samples.** One of them ends a run, or is replaced or skipped, as [`OnError`] says: counted, named and within
//!   an [`ErrorBudget`]; never a hang, and what is delivered stays a function of data and seed.
//! - **Bounded memory.** Everything is allocated when the loader is built; [`Loader::memory`] says how
//!   much. A sample that does not fit is refused by name.
//! - **No silent degradation.** What could not be had is in [`Report::fallbacks`](report::Report::fallbacks),
//!   logged once, and an error where it was asked for by name.
//! - **Hostile input.** Bytes from storage lead to an [`Error`] that names the sample, the cause and
//!   the remedy; never to a panic, an unbounded allocation or a wrong pixel.
//!
//! # Several loaders
//!
//! Loaders of one process, for several GPUs or for training and validation, share decode threads and reads in flight
//! through a [`Pool`]: evenly or by weight, and what one does not use is the others'.
//!
//! # Features
//!
//! `cli` (default) builds the `forebay` binary. A program that links the crate alone turns the default
//! features off; the library is the same either way, but for `parquet` (part of `cli`): without it a
//! [`LabelTable`](source::LabelTable) that is a Parquet file is refused.
#![deny(missing_docs)]

// In the order of the data flow.
pub mod source;
pub mod order;
pub mod plan;
pub mod storage;
pub mod engine;
pub mod memory;
pub mod jpeg;
pub mod raw;
pub mod decode;
pub mod augment;
pub mod batch;
pub mod device;
pub mod loader;
pub mod pool;
pub mod report;

// What every stage uses.
pub mod error;
mod launcher;
pub mod limits;
pub mod pixels;

pub use batch::Batch;
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;
pub use loader::{Epochs, ErrorBudget, Loader, LoaderBuilder, OnError, Refreshed, State};
pub use order::Shard;
pub use pixels::{Rect, Scale, View};
pub use plan::{Augment, DType, Geometry, Layout};
pub use pool::{Pool, PoolOptions};
pub use report::Report;
