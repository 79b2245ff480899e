//! Numbers drawn from an input's end.

use forebay::pixels::Rect;

/// Takes bytes from an input's end. Behind its last marker a JPEG may hold anything, so files as they are make good
/// inputs, and inputs that were found make valid files. An empty input gives zeros.
#[derive(Clone)]
pub struct Tail<'a>(&'a [u8]);

impl<'a> Tail<'a> {
    /// Of an input that is also used for something else.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_last().unwrap_or((&0, &[]));
        self.0 = rest;
        *byte
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u32) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), 0]) % end
    }

    /// A rectangle inside an image.
    pub fn region(&mut self, width: u32, height: u32) -> Rect {
        let (x, y) = (self.below(width), self.below(height));
        Rect { x, y, width: 1 + self.below(width - x), height: 1 + self.below(height - y) }
    }
}
