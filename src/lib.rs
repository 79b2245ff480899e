//! forebay keeps computer-vision training fed from storage.
#![deny(missing_docs)]

// In the order of the data flow.
pub mod source;
pub mod order;
pub mod plan;
pub mod engine;
pub mod memory;
pub mod jpeg;
pub mod decode;
pub mod augment;
pub mod batch;
pub mod device;
pub mod loader;
pub mod report;

// What every stage uses.
pub mod error;
pub mod limits;
pub mod pixels;

pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;
pub use pixels::Rect;
