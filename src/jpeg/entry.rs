//! Entry points: places in a scan where decoding can start, and the facts needed to do so without the file's header.

use std::ops::Range;

use super::header::{ColourModel, Header};
use super::markers::unsupported;
use crate::error::Result;
use crate::pixels::Rect;

/// How far apart entry points lie. Every MCU row and every restart interval begins with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// One an MCU row.
    Rows,
    /// Within a row, also at the first MCU that begins this many bits or more behind the last entry point.
    Bits(u32),
}

impl Default for Grain {
    fn default() -> Self {
        Self::Bits(4096)
    }
}

/// All that an index holds of a JPEG that is decoded in one scan, but for its tables and entry points.
///
/// The fields are as hostile as the bytes that they were read from until [`check`](Self::check) has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Grey, YCbCr or RGB; grey has one component, the others three.
    pub colour: ColourModel,
    /// Sampling factors of each component, horizontal and vertical; (0, 0) where there is none.
    pub sampling: [(u8, u8); 3],
    /// The slots of each component's quantisation, DC and AC tables.
    pub slots: [[u8; 3]; 3],
    /// MCUs between restart markers; 0 where there are none.
    pub restart_interval: u16,
    /// EXIF orientation, 1..=8.
    pub orientation: u8,
    /// Where the entropy-coded data starts, in bytes from the start of the file.
    pub scan_offset: u64,
    /// Its bytes, up to the marker that ends it.
    pub scan_bytes: u64,
}

/// A place in a scan where decoding can start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryPoint {
    /// The MCU row.
    pub row: u32,
    /// The MCU within its row.
    pub column: u32,
    /// Its first bit, from the start of the scan's data, stuffed bytes and markers included.
    pub bit: u64,
    /// The DC predictions of the components.
    pub dc: [i16; 3],
}

/// The entry points of a scan in the compact form that an index stores.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryPoints<'a> {
    bytes: &'a [u8],
}

/// Some bytes of a file.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Where they start in the file.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl Facts {
    /// Whether the fields make sense together, as those of a JPEG that is decoded in one scan do.
    ///
    /// # Errors
    /// `Corrupt`, naming the field.
    pub fn check(&self) -> Result<()> {
        Err(unsupported("facts"))
    }

    /// The header of the file, given the payloads of its DQT and DHT segments that the index holds.
    ///
    /// # Errors
    /// `Corrupt` as for a file's own header.
    pub fn header(&self, _quant: &[u8], _huffman: &[u8]) -> Result<Header> {
        Err(unsupported("facts"))
    }

    /// The bytes of the file that a region needs: for every MCU row it touches, from the entry point at or
    /// before its first MCU to the one behind its last. Ascending; ranges that touch or overlap are one.
    ///
    /// # Errors
    /// `Corrupt` for entry points that contradict themselves or the facts.
    pub fn ranges(&self, _entries: EntryPoints<'_>, _region: Rect, _ranges: &mut Vec<Range<u64>>) -> Result<()> {
        Err(unsupported("facts"))
    }
}

impl<'a> EntryPoints<'a> {
    /// Of bytes that [`Decoder::index`](super::Decoder::index) wrote, or claim to be.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The compact form.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The entry points in the order of the scan.
    pub fn iter(&self, _facts: &Facts) -> impl Iterator<Item = Result<EntryPoint>> + 'a {
        std::iter::empty()
    }
}
