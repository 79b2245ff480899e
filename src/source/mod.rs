//! WHAT exists: the samples of a data set and where their bytes lie.
//!
//! A source never reads a sample. It says which object (a file) holds it and which bytes of the
//! object are its own; the storage engine moves them. [`open`] finds out what a path or pattern is:
//! a [`Folder`], [`TarShards`] or a [`List`]; [`open_all`] takes several as one. Anything else can implement [`Source`].
//!
//! Sources are wrapped to be others: a [`Subset`] has some of the samples, a [`ClassMap`] renames, merges and drops classes,
//! [`Joined`] takes labels from a table.

mod class_map;
mod folder;
mod growth;
pub mod index;
mod join;
mod labels;
mod list;
mod names;
mod notes;
mod open;
mod parallel;
mod pattern;
mod several;
mod subset;
mod tar;
mod walk;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

pub use class_map::{ClassMap, Relabelled};
pub use folder::Folder;
pub use growth::StoredShard;
pub(crate) use growth::{First, check_grown, has_same_shards};
pub use index::{Columns, IndexMode, IndexOptions, Record, RecordedImage, RecordedJpeg};
pub use join::{Joined, LabelTable, Mismatch};
pub use list::List;
pub(crate) use open::{join, open_each};
pub use open::{open, open_all, open_with};
pub use subset::{Candidate, Filter, Subset};
pub use tar::TarShards;

use crate::error::Result;
use crate::report::Fallback;

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
/// The methods are called for each sample, from several threads at once, and must be quick: no I/O.
/// An error is an error of that sample, and goes to the error policy.
///
/// # Example
/// A list of paths and labels that a program already has:
///
/// ```
/// use std::path::PathBuf;
///
/// use forebay::source::{Extent, Source};
/// use forebay::{Error, ErrorKind, Result};
///
/// struct Rows(Vec<(PathBuf, i64)>);
///
/// impl Rows {
///     fn row(&self, number: u64) -> Result<&(PathBuf, i64)> {
///         let row = usize::try_from(number).ok().and_then(|number| self.0.get(number));
///         row.ok_or_else(|| Error::new(ErrorKind::InvalidParameter, format!("there is no row {number}")))
///     }
/// }
///
/// impl Source for Rows {
///     fn len(&self) -> u64 {
///         self.0.len() as u64
///     }
///
///     fn extent(&self, sample: u64) -> Result<Extent> {
///         Ok(Extent::Object(sample))
///     }
///
///     fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
///         path.clone_from(&self.row(object)?.0);
///         Ok(())
///     }
///
///     fn label(&self, sample: u64) -> Result<i64> {
///         Ok(self.row(sample)?.1)
///     }
///
///     fn key(&self, sample: u64, key: &mut String) -> Result<()> {
///         key.clear();
///         key.push_str(&self.row(sample)?.0.with_extension("").to_string_lossy());
///         Ok(())
///     }
/// }
///
/// let rows = Rows(vec![(PathBuf::from("cats/tom.jpg"), 0), (PathBuf::from("dogs/rex.jpg"), 1)]);
/// let mut key = String::new();
/// rows.key(1, &mut key)?;
/// assert_eq!((rows.label(1)?, key.as_str()), (1, "dogs/rex"));
/// # Ok::<(), Error>(())
/// ```
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

    /// Whether a sample is raw pixels without a header ([`raw`](crate::raw)), as its extension `.raw` or `.bin` says.
    fn is_headerless(&self, _sample: u64) -> Result<bool> {
        Ok(false)
    }

    /// What an index says of a sample, where there is one that covers it.
    ///
    /// # Errors
    /// `IndexStale` where the index contradicts itself.
    fn record(&self, _sample: u64) -> Result<Option<Record<'_>>> {
        Ok(None)
    }

    /// What an index says of a sample's image, where there is one that covers it: also of an image of which no part can be
    /// decoded alone, or that cannot be decoded at all.
    ///
    /// # Errors
    /// `IndexStale` where the index contradicts itself.
    fn columns(&self, _sample: u64) -> Result<Option<Columns<'_>>> {
        Ok(None)
    }

    /// The names of the classes, by label, where the source knows them.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// The objects that hold the samples, one after another, where they are known by more than their samples' keys; none
    /// where they are not. By them it is told in a moment whether a data set has [grown](crate::Loader::refresh).
    fn shards(&self) -> Vec<StoredShard> {
        Vec::new()
    }

    /// What was seen and left out while listing, such as links or files of other kinds: a line each.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// Indexes that are there and could not be used, and why. Logged already.
    fn index_fallbacks(&self) -> &[Fallback] {
        &[]
    }
}

/// What a file is by the extension of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// An encoded image, whose first bytes tell its format.
    Encoded,
    /// A NumPy array, which need not be an image.
    Array,
    /// Raw pixels without a header, if it is an image.
    Headerless,
}

/// Extensions of images, in any case.
const EXTENSIONS: [(&[u8], Form); 7] = [
    (b"jpg", Form::Encoded),
    (b"jpeg", Form::Encoded),
    (b"png", Form::Encoded),
    (b"webp", Form::Encoded),
    (b"npy", Form::Array),
    (b"raw", Form::Headerless),
    (b"bin", Form::Headerless),
];

impl Form {
    /// That of a file name; none of what is no image.
    fn of(name: &[u8]) -> Option<Self> {
        let dot = name.iter().rposition(|&byte| byte == b'.')?;
        let known = EXTENSIONS.iter().find(|(known, _)| name[dot + 1..].eq_ignore_ascii_case(known));
        known.map(|(_, form)| *form)
    }
}

/// Whether a file name ends in the extension of an image.
fn has_image_extension(name: &[u8]) -> bool {
    Form::of(name).is_some()
}

/// A path without the extension of its last part. A name that begins with its only dot has none.
fn without_extension(path: &[u8]) -> &[u8] {
    let base = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    match path[base..].iter().rposition(|&byte| byte == b'.') {
        None | Some(0) => path,
        Some(dot) => &path[..base + dot],
    }
}

/// A path without "./" before it, which `tar -c .` and `find .` write.
fn without_current_folder(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
    }
    path
}

/// Replaces a key by bytes, in the memory that it has. Bytes that are no UTF-8 become U+FFFD.
fn refill_key(key: &mut String, fill: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let mut bytes = std::mem::take(key).into_bytes();
    bytes.clear();
    fill(&mut bytes)?;
    *key =
        String::from_utf8(bytes).unwrap_or_else(|not_utf8| String::from_utf8_lossy(not_utf8.as_bytes()).into_owned());
    Ok(())
}

/// Replaces a path by bytes, in the memory that it has.
fn refill_path(path: &mut PathBuf, fill: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let mut bytes = std::mem::take(path).into_os_string().into_vec();
    bytes.clear();
    fill(&mut bytes)?;
    *path = OsString::from_vec(bytes).into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_those_of_the_last_part() {
        for (path, key) in [("a.b/c", "a.b/c"), ("a.b/c.d.JPG", "a.b/c.d"), ("a/.jpg", "a/.jpg"), (".x", ".x")] {
            assert_eq!(without_extension(path.as_bytes()), key.as_bytes());
        }
        for (name, form) in [
            ("a.JPEG", Some(Form::Encoded)),
            ("a.WebP", Some(Form::Encoded)),
            ("a.jpg.NPY", Some(Form::Array)),
            ("a.raw", Some(Form::Headerless)),
            ("a.Bin", Some(Form::Headerless)),
            ("jpg", None),
            ("a.jpg.txt", None),
        ] {
            assert_eq!(Form::of(name.as_bytes()), form, "{name}");
        }
    }
}
