//! What an input may ask for before it is refused.

use crate::error::{Error, ErrorKind, Result};

/// Bounds that are checked before anything is allocated from a number that an input declares.
///
/// What decoding takes of memory follows from them: baseline JPEG takes rows, but the other formats whole images, up to 28
/// bytes a pixel and 4 an encoded byte. A loader's threads share a budget of as much as the largest image takes
/// ([`MemoryPlan::decode_bytes`](crate::memory::MemoryPlan::decode_bytes); 3 GB by default), or of what
/// [`memory_mib`](crate::LoaderBuilder::memory_mib) leaves: so that several such images wait for each other, and one that is
/// beyond the budget is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of one image. Default 100 million.
    pub max_pixels: u64,
    /// Columns or rows of one image. Default 65,535, the most a JPEG can declare.
    pub max_side: u32,
    /// Encoded bytes of one sample. Default 64 MiB.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 100_000_000, max_side: 65_535, max_bytes: 64 << 20 }
    }
}

impl Limits {
    /// Refuses an image of these dimensions if it is beyond the limits.
    pub fn check_dimensions(&self, width: u32, height: u32) -> Result<()> {
        if width.max(height) > self.max_side {
            return Err(exceeded(format!("image is {width}x{height}, a side over {}", self.max_side), "max_side"));
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels {
            return Err(exceeded(format!("image is {width}x{height}, over {} pixels", self.max_pixels), "max_pixels"));
        }
        Ok(())
    }

    /// Refuses a sample of this many encoded bytes if it is beyond the limits.
    pub fn check_bytes(&self, len_bytes: u64) -> Result<()> {
        if len_bytes > self.max_bytes {
            return Err(exceeded(format!("sample is {len_bytes} bytes, over {}", self.max_bytes), "max_bytes"));
        }
        Ok(())
    }
}

fn exceeded(message: String, field: &str) -> Error {
    Error::new(ErrorKind::LimitExceeded, message)
        .with_remedy(format!("raise Limits::{field} if such images are meant to be there"))
}
