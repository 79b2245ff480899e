//! What the fuzz targets share: images that compare, numbers drawn from an input, inputs as files.

mod image;
mod indexed;
mod scratch;
mod tail;

pub use image::{Image, is_small};
pub use indexed::{Indexed, Pieces, displace, shorten};
pub use scratch::Scratch;
pub use tail::Tail;
