//! Sidecar indexes: what is known of every sample before it is read.

mod options;

pub use options::{IndexMode, IndexOptions};

use crate::jpeg::{EntryPoints, Facts};

/// What an index says of one sample that is a JPEG decoded in one scan.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Dimensions, sampling, where the scan lies. Checked.
    pub facts: Facts,
    /// Its entry points.
    pub entries: EntryPoints<'a>,
    /// The payload of a DQT segment with its quantisation tables.
    pub quant: &'a [u8],
    /// The payload of a DHT segment with its Huffman tables.
    pub huffman: &'a [u8],
    /// The sample's bytes when it was indexed.
    pub len_bytes: u64,
    /// When its object was last modified (seconds, nanoseconds), where the object is this sample's alone.
    pub modified: Option<(i64, u32)>,
}
