//! PIXELS: encoded bytes to rows, whichever decoder the format needs.
//!
//! Baseline JPEG goes to our own decoder, which reads only the region; every other format goes to a
//! library that decodes the whole image, from which the region's rows are taken. The format is told
//! by its first bytes, never by a file's name.

mod other;

use crate::error::{Error, ErrorKind, Result};
use crate::jpeg;
use crate::limits::Limits;
use crate::pixels::{Rect, RowSink};

/// The decoder that takes a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Baseline JPEG, by this crate.
    Jpeg,
    /// Progressive, arithmetic-coded, CMYK and other JPEG, by a library.
    OtherJpeg,
    /// PNG, by a library.
    Png,
    /// WebP, by a library.
    WebP,
}

impl Route {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Jpeg, Self::OtherJpeg, Self::Png, Self::WebP];

    /// The name used in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "baseline JPEG decoder",
            Self::OtherJpeg => "library for other JPEG",
            Self::Png => "PNG library",
            Self::WebP => "WebP library",
        }
    }
}

/// What is known of an image before its pixels are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Columns as stored, before any orientation.
    pub width: u32,
    /// Rows as stored.
    pub height: u32,
    /// The EXIF orientation, 1 to 8; 1 where there is none.
    pub orientation: u8,
    /// Who decodes it.
    pub route: Route,
}
