//! What the fuzz targets share: images that compare, numbers drawn from an input, inputs as files.

mod image;
mod scratch;
mod tail;

pub use image::{Image, is_small};
pub use scratch::Scratch;
pub use tail::Tail;
