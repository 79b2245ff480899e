//! WHAT exists: the samples of a data set and where their bytes lie.
//!
//! A source never reads a sample. It says which object (a file) holds it and which bytes of the
//! object are its own; the storage engine moves them.

use std::path::PathBuf;

use crate::error::Result;

/// The label of a sample that has none.
pub const UNLABELLED: i64 = -1;

/// Where the bytes of one sample lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of an object that holds this sample alone, such as a file in a folder. Its length is
    /// learned when it is opened.
    Object(u64),
    /// A part of an object that many samples share, such as a tar shard. The object stays open.
    Range {
        /// The object's number within the source.
        object: u64,
        /// The first byte of the sample.
        offset: u64,
        /// The sample's bytes.
        len_bytes: u64,
    },
}

/// The samples of a data set, numbered from 0 in an order that never changes between two openings of
/// the same data.
///
/// All methods are called from one thread at a time per call but from several threads at once, once a
/// sample, and must be quick: no I/O. An error is an error of that sample.
pub trait Source: Send + Sync {
    /// How many samples there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the bytes of a sample lie. `sample` is below [`len`](Self::len).
    fn extent(&self, sample: u64) -> Result<Extent>;

    /// Replaces `path` by the path of an object that [`extent`](Self::extent) named.
    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()>;

    /// The sample's label, or [`UNLABELLED`].
    fn label(&self, sample: u64) -> Result<i64>;

    /// Replaces `key` by the sample's name within the data set, the same whether it lies in a folder
    /// or in a tar: the path relative to the root without its extension.
    fn key(&self, sample: u64, key: &mut String) -> Result<()>;

    /// The names of the classes, by label, where the source knows them.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// What was seen and left out while listing, such as links or files of other kinds: a line each.
    fn notes(&self) -> &[String] {
        &[]
    }
}
