//! The JPEG format itself: header, tables, entropy, inverse DCT, upsampling, colour. No I/O.
//!
//! [`Header::parse`] reads the facts of a file; [`Decoder::decode`] turns a rectangle of it into rows.
//! What is decoded here is sequential Huffman JPEG of 8 bits, grey, YCbCr or RGB: all but a few of the
//! photos that training sets hold. [`Header::support`] says why anything else needs another decoder.
//!
//! ```text
//! bytes -> header -> geometry            which blocks the rectangle and its upsampling context touch
//!       -> window  -> entropy            stuffing removed piece by piece; symbols to coefficients
//!       -> idct -> upsample -> colour    one MCU row at a time, straight into the consumer's rows
//! ```
//!
//! A region needs a part of the file only. [`Decoder::index`] passes over a file once and writes down its
//! [`EntryPoints`]; [`Facts::ranges`] says which bytes a region needs, and [`Decoder::decode_indexed`] makes
//! the same pixels of these alone:
//!
//! ```text
//! pieces -> guide                        from entry point to entry point, each passed one compared
//!        -> window -> ..                 as above
//! ```
//!
//! A decoder that works on many stretches of a scan at once gets them, each with what checks its end, from
//! `Facts::stretches`.
//!
//! The pixels are those of libjpeg-turbo with its defaults (accurate integer inverse DCT, fancy
//! upsampling) on a machine with its SIMD extensions, to the bit, also where arithmetic wraps or
//! saturates on coefficients that no encoder writes; at a [`Scale`](crate::Scale) below full, those of its
//! `scale_num / scale_denom`. The `scalar` files are the specification; the
//! vector files agree with them for every input.

mod colour;
mod compact;
mod decoder;
mod entropy;
mod entry;
mod exif;
mod geometry;
mod guide;
mod header;
mod huffman;
mod idct;
mod index;
mod markers;
mod output;
mod reader;
#[cfg(test)]
pub(crate) mod reference;
mod scans;
mod segments;
mod simd;
mod tables;
mod upsample;
mod window;

pub use decoder::Decoder;
pub use entry::{EntryPoint, EntryPoints, Facts, Grain, Piece};
pub(crate) use geometry::{Geometry, Layout, Plane, Upsampling};
pub use header::{ColourModel, Component, Decodability, Header, Process, Scan, ScanComponent};
pub(crate) use segments::{Stretch, StretchEnd};
pub use tables::{HuffmanSpec, QuantTable, Tables};

/// Natural (row-major) position of each coefficient in zigzag order (T.81, figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// The 64 coefficients of a block in natural order, not yet dequantised.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block([i16; 64]);

impl Block {
    const ZERO: Self = Self([0; 64]);
}
