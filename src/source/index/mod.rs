//! Sidecar indexes: what is known of every sample before it is read.

mod atomic;
mod build;
mod describe;
mod head;
mod identity;
mod lookup;
mod map;
mod old;
mod options;
mod part;
mod place;
mod row;
mod schema;
mod unit;
mod verify;
mod work;
mod write;

use std::path::Path;

pub use build::{BuildOptions, Built, build};
pub(crate) use identity::{Modified, modified, wait_out_tick};
pub(super) use lookup::{Set, fallback, find_shard, settle};
pub(super) use map::Sidecar;
pub use options::{IndexMode, IndexOptions};
pub use part::Part;
pub(super) use row::{Listed, SPARSE, TOO_LONG, refuse_flags};
pub use verify::{Verified, VerifyOptions, verify};

use crate::error::{Error, ErrorKind};
use crate::jpeg::{EntryPoints, Facts};

const REMEDY: &str = "build it with `forebay index DATASET`, or use none with `--index off`";

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

/// An index that cannot be used, and why.
fn stale(index: &Path, cause: &str) -> Error {
    Error::new(ErrorKind::IndexStale, format!("index {}: {cause}", index.display())).with_remedy(REMEDY)
}
