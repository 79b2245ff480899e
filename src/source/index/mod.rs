//! Sidecar indexes: what is known of every sample before it is read.
//!
//! An index is a set of [Arrow IPC files](https://arrow.apache.org/docs/format/Columnar.html) (file format,
//! uncompressed), which polars, pandas and DuckDB open. The data is never changed.
//!
//! | data set | its index | beside the data | in a folder for indexes |
//! |---|---|---|---|
//! | tar shards | one file a shard | `train-000.tar.index.arrow` | the same name |
//! | folder | n parts of its samples | `.forebay/index-00000-of-00001.arrow` in it | `NAME.index-00000-of-00001.arrow` |
//! | list file | n parts of its samples | `LIST.index-00000-of-00001.arrow` | the same name |
//!
//! Row n is the n-th sample of the shard or part, whatever is wrong with it, so that sample numbers are the
//! same with and without an index. Null is stored as 0 or no bytes too.
//!
//! | column | type | what, unit |
//! |---|---|---|
//! | `key` | Utf8 | the sample's name, as [`Source::key`](super::Source::key) gives it |
//! | `path` | Binary | of the file below its root, with extension, every byte of it; null in shards |
//! | `label` | Int64 | null where there is none or it is unreadable |
//! | `offset`, `length` | UInt64 | the sample's bytes in its object |
//! | `modified_seconds`, `modified_nanoseconds` | Int64, UInt32 | last modification of the sample's own file, since 1970; null in shards |
//! | `flags` | UInt8 | sum of 1 no label, 2 unreadable label, 4 stored sparsely, 8 of 4 GiB or more, 16 raw pixels without a header |
//! | `listing_checksum` | UInt64 | XXH3-64 of the columns before, bound to this row of this file |
//! | `format` | UInt8 | what the image is; names in the metadata. 0 is baseline JPEG in one scan, 13 raw pixels |
//! | `width`, `height` | UInt32 | pixels, as stored |
//! | `orientation` | UInt8 | EXIF, 1 to 8 |
//! | `components`, `colour` | UInt8 | of the JPEG, and channels of raw pixels; names of colours in the metadata |
//! | `sampling` | UInt32 | factors as digits h v h v h v: 221111 is 4:2:0 |
//! | `slots` | UInt32 | of each component's quantisation, DC and AC tables, as 9 digits |
//! | `restart_interval` | UInt16 | MCUs; 0 where there are no restarts |
//! | `scan_offset`, `scan_bytes` | UInt64 | the entropy-coded data, or the raw pixels, within the sample |
//! | `quant_row`, `huffman_row` | UInt32 | the rows of this file whose `quant` and `huffman` hold the tables |
//! | `data_checksum` | UInt64 | XXH3-64 of the sample's bytes |
//! | `record_checksum` | UInt64 | XXH3-64 of `listing_checksum`, the columns from `format` on and the tables |
//! | `cause` | Utf8 | why the image cannot be decoded, where it cannot |
//! | `quant`, `huffman` | Binary | payloads of DQT and DHT segments, in the first row that uses them |
//! | `entries` | Binary | [entry points](crate::jpeg::EntryPoints) |
//!
//! The schema's metadata holds under `forebay` a JSON object: version of the format, identity of what was indexed
//! (length and time of the shard or list; of a folder, every folder in it and its time), class names, what
//! listing left out, which part of how many, the grain, and the names of codes.
//!
//! # Example
//! ```python
//! import polars as pl
//!
//! index = pl.read_ipc("train/*.index.arrow")
//! index.group_by("width", "height").len().sort("len", descending=True)
//! index.filter(pl.col("cause").is_not_null()).select("key", "cause")
//!
//! import pyarrow as pa                                    # pandas, and DuckDB over pyarrow
//! table = pa.ipc.open_file(pa.memory_map("train/train-000.tar.index.arrow")).read_all()
//! table.drop(["entries"]).to_pandas()
//! duckdb.sql("select label, avg(width * height) from table group by label")
//! ```
//!
//! # What is checked when
//! Opening checks that the file is whole, that its head is as written, and that the data is what was indexed:
//! one `stat` a shard or list, one a folder. Every look-up checks the row's own checksum. So an index that is
//! stale, damaged, torn or of another version is [`IndexStale`](crate::ErrorKind::IndexStale) or passed over with
//! a [`Fallback`](crate::report::Fallback), and never gives wrong pixels. The checksums find damage; they are no
//! protection from one who means to forge an index, whose every number is checked again where it is used.
//!
//! Files are mapped to be read, which samples never are: an index is written under another name, brought to the disk, and
//! renamed, so that a reader keeps the one it has opened. On file systems that do not keep a replaced file for
//! those who have it open on another machine (NFS), write new indexes while nobody reads the old.

mod atomic;
mod build;
mod columns;
mod describe;
mod head;
mod identity;
mod lookup;
mod map;
mod old;
mod options;
mod part;
mod place;
mod recorder;
mod recorders;
mod residency;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod unit;
mod verify;
mod work;
mod write;

use std::ops::Range;
use std::path::Path;

pub use build::{BuildOptions, Built, build, build_all};
pub use columns::Columns;
pub(crate) use describe::Describer;
pub(crate) use identity::{Modified, modified, wait_out_tick};
pub(super) use lookup::{Set, fallback, find_shard, settle};
pub(super) use map::Sidecar;
pub use options::{IndexMode, IndexOptions};
pub use part::Part;
pub(crate) use recorder::Origin;
pub(crate) use recorders::Recorders;
pub(super) use residency::Residency;
pub(super) use row::{HEADERLESS, Listed, SPARSE, TOO_LONG, refuse_flags};
pub use verify::{Verified, VerifyOptions, verify, verify_all};

use crate::decode::{ImageInfo, Route};
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::{EntryPoints, Facts};
use crate::pixels::View;
use crate::plan::Orientation;
use crate::raw;

const REMEDY: &str = "build it with `forebay index DATASET`, or use none with `--index off`";

/// What an index says of one sample of which a part can be decoded alone.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The image.
    pub image: RecordedImage<'a>,
    /// The sample's bytes when it was indexed.
    pub len_bytes: u64,
    /// The bytes of its object when it was indexed: more than its own in a shard.
    pub object_bytes: u64,
    /// When its object was last modified (seconds, nanoseconds), where that is known.
    pub modified: Option<(i64, u32)>,
}

/// What an index says of an image.
#[derive(Clone, Copy, Debug)]
pub enum RecordedImage<'a> {
    /// A JPEG that is decoded in one scan.
    Jpeg(RecordedJpeg<'a>),
    /// Raw pixels. Checked.
    Raw(raw::Facts),
}

/// What an index says of a JPEG that is decoded in one scan.
#[derive(Clone, Copy, Debug)]
pub struct RecordedJpeg<'a> {
    /// Dimensions, sampling, where the scan lies. Checked.
    pub facts: Facts,
    /// Its entry points.
    pub entries: EntryPoints<'a>,
    /// The payload of a DQT segment with its quantisation tables.
    pub quant: &'a [u8],
    /// The payload of a DHT segment with its Huffman tables.
    pub huffman: &'a [u8],
}

impl Record<'_> {
    /// What it says of a JPEG, where it is one.
    pub fn jpeg(&self) -> Option<&RecordedJpeg<'_>> {
        match &self.image {
            RecordedImage::Jpeg(jpeg) => Some(jpeg),
            RecordedImage::Raw(_) => None,
        }
    }
}

impl RecordedImage<'_> {
    /// What a decoder would say of the image.
    pub fn info(&self) -> ImageInfo {
        match self {
            Self::Jpeg(RecordedJpeg { facts, .. }) => ImageInfo {
                width: facts.width,
                height: facts.height,
                orientation: Orientation::from_exif(facts.orientation.into()),
                route: Route::Jpeg,
            },
            Self::Raw(facts) => ImageInfo::of_raw(facts.shape),
        }
    }

    /// The bytes of the sample that a view needs, appended in ascending order; ranges that touch are one.
    ///
    /// # Errors
    /// `IndexStale` for a record that contradicts itself; `InvalidParameter` for a view outside the image;
    /// `Unsupported` for raw pixels at another scale than full.
    pub fn ranges(&self, view: impl Into<View>, ranges: &mut Vec<Range<u64>>) -> Result<()> {
        match self {
            Self::Jpeg(jpeg) => jpeg.facts.ranges(jpeg.entries, view, ranges),
            Self::Raw(facts) => {
                let view = view.into();
                Route::Raw.check_scale(view.scale)?;
                ranges.push(facts.range(view.region)?);
                Ok(())
            }
        }
    }
}

/// An index that cannot be used, and why.
fn stale(index: &Path, cause: &str) -> Error {
    Error::new(ErrorKind::IndexStale, format!("index {}: {cause}", index.display())).with_remedy(REMEDY)
}

/// Whether a checksum is the one in the file.
///
/// The one place where a build for fuzzing differs: there every checksum is right, since who forges an index writes
/// them too. A configuration of the compiler and no feature, so that no other crate can ask for it.
fn is_as_written(computed: u64, written: u64) -> bool {
    cfg!(fuzzing) || computed == written
}
