//! How pixels pass from a decoder to an augmentation: rectangles and rows.
//!
//! A decoder writes rows straight into memory that its consumer hands out, so no image is ever
//! copied between the two and neither holds a whole image unless its format forces it to.

/// Bytes past the end of a row that a decoder may overwrite with anything, so that vector stores need
/// no tail.
pub const ROW_PADDING_BYTES: usize = 64;

/// A rectangle in pixels, from the top left corner of the image as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Columns left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// The whole of a `width` x `height` image.
    pub const fn whole(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    /// Whether it has at least one pixel and lies inside a `width` x `height` image.
    pub fn fits(&self, width: u32, height: u32) -> bool {
        self.width > 0
            && self.height > 0
            && self.x.checked_add(self.width).is_some_and(|right| right <= width)
            && self.y.checked_add(self.height).is_some_and(|bottom| bottom <= height)
    }
}

/// How much smaller an image is decoded than it is stored.
///
/// JPEG can be decoded at a half, a quarter or an eighth of its size for a part of the cost, from the
/// lower frequencies of each block alone: the pixels are those of libjpeg-turbo's `scale_denom`, near to
/// but not the same as those of resizing the full image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scale {
    /// As it is stored.
    #[default]
    Full,
    /// 1/2 of the columns and rows.
    Half,
    /// 1/4.
    Quarter,
    /// 1/8.
    Eighth,
}

impl Scale {
    /// All of them, largest image first.
    pub const ALL: [Self; 4] = [Self::Full, Self::Half, Self::Quarter, Self::Eighth];

    /// Stored columns, or rows, that become one: 1, 2, 4 or 8.
    pub const fn denominator(self) -> u32 {
        1 << self as u32
    }

    /// The length of a side that is stored with `len` pixels; a remainder makes a pixel too.
    pub const fn len(self, len: u32) -> u32 {
        len.div_ceil(self.denominator())
    }
}

/// What a decoder is asked for: a rectangle of the image at a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// How much smaller than it is stored the image is decoded.
    pub scale: Scale,
    /// The rectangle, in pixels of the scaled image.
    pub region: Rect,
}

impl View {
    /// Whether the rectangle has at least one pixel and lies inside an image that is stored with `width` x
    /// `height` pixels.
    pub fn fits(&self, width: u32, height: u32) -> bool {
        self.region.fits(self.scale.len(width), self.scale.len(height))
    }
}

impl From<Rect> for View {
    /// The rectangle at full scale.
    fn from(region: Rect) -> Self {
        Self { scale: Scale::Full, region }
    }
}

/// Takes the rows of a region, top to bottom, each written in place.
///
/// The region and so the row length are agreed beforehand between the two sides. For every row the
/// decoder calls [`row`](Self::row), writes all of it, and calls [`commit`](Self::commit).
pub trait RowSink {
    /// The memory of the next row: its red, green and blue samples in a plane each. Every plane is at
    /// least the region's width plus [`ROW_PADDING_BYTES`] long; bytes past the width are scratch.
    fn row(&mut self) -> [&mut [u8]; 3];

    /// The row handed out last is complete.
    fn commit(&mut self);
}
