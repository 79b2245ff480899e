//! What is read next: blocks of a file, or the samples of a data set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::engine::{FileCache, OpenFile, estimate_data_set_bytes};
use forebay::order::{Order, Shuffle};
use forebay::source::{self, Extent, IndexMode, IndexOptions, Source};
use forebay::{Error, Result};

use super::Pattern;

/// Objects of a data set whose place in the page cache is looked at or given up.
const FILES_MAX: usize = 4096;
/// Samples that are looked at to find them, and to learn how large samples are.
const SAMPLES_LOOKED_AT: u64 = 1 << 16;

/// Something to read.
pub enum Piece {
    /// A part of an open file.
    Range {
        /// The file.
        file: Arc<OpenFile>,
        /// Where it starts.
        offset: u64,
        /// Its bytes.
        len_bytes: usize,
    },
    /// A file of its own, to be opened and read as a whole.
    File(PathBuf),
}

/// An endless sequence of pieces.
pub struct Pieces {
    kind: Kind,
    order: Order,
    epoch: u64,
    position: u64,
}

enum Kind {
    Blocks { path: PathBuf, len_bytes: u64, block: u64, file: Option<Arc<OpenFile>> },
    Samples { source: Arc<dyn Source>, files: FileCache, path: PathBuf },
}

impl Pieces {
    /// Of a file, or of data sets; `block` is the size of the blocks of a file.
    ///
    /// # Errors
    /// Those of looking at the path or opening the data set; `InvalidParameter` for a file without a block, or with the
    /// pattern of another kind of thing.
    pub fn new(paths: &[PathBuf], pattern: Pattern, block: u64, seed: u64) -> Result<Self> {
        let (kind, count, shuffle) = if pattern == Pattern::Dataset {
            let source = source::open_all(paths, &IndexOptions { mode: IndexMode::Off, dir: None })?;
            let count = source.len();
            (Kind::Samples { source, files: FileCache::default(), path: PathBuf::new() }, count, Shuffle::Full)
        } else {
            let Some(path) = paths.first() else { return Err(Error::invalid_parameter("PATH", "none", "name a file")) };
            let len_bytes = len_of(path)?;
            if len_bytes < block {
                let found = format!("{} of {len_bytes} bytes", path.display());
                let allowed = format!("a file has at least one block of {block} bytes; --create SIZE makes one");
                return Err(Error::invalid_parameter("PATH", found, &allowed));
            }
            let shuffle = if pattern == Pattern::Random { Shuffle::Full } else { Shuffle::Sequential };
            (Kind::Blocks { path: path.to_owned(), len_bytes, block, file: None }, len_bytes / block, shuffle)
        };
        Ok(Self { kind, order: Order::new(count, seed, shuffle)?, epoch: 0, position: 0 })
    }

    /// The next piece; after the last the first of another order. `open` opens a file that many pieces share.
    pub fn next(&mut self, open: impl Fn(&Path) -> Result<Arc<OpenFile>>) -> Result<Piece> {
        if self.position == self.order.samples() {
            (self.epoch, self.position) = (self.epoch + 1, 0);
        }
        let number = self.order.at(self.epoch, self.position);
        self.position += 1;
        match &mut self.kind {
            Kind::Blocks { path, block, file, .. } => {
                let file = match file {
                    Some(file) => Arc::clone(file),
                    None => Arc::clone(file.insert(open(path)?)),
                };
                Ok(Piece::Range { file, offset: number * *block, len_bytes: *block as usize })
            }
            Kind::Samples { source, files, path } => match source.extent(number)? {
                Extent::Object(object) => {
                    source.object_path(object, path)?;
                    Ok(Piece::File(path.clone()))
                }
                Extent::Range { object, offset, len_bytes } => {
                    let file = match files.lookup(object) {
                        Some(file) => file,
                        None => {
                            source.object_path(object, path)?;
                            let file = open(path)?;
                            files.insert(object, Arc::clone(&file));
                            file
                        }
                    };
                    Ok(Piece::Range { file, offset, len_bytes: len_bytes as usize })
                }
            },
        }
    }

    /// The size of the data, as far as it can be told.
    pub fn data_bytes(&self) -> Option<u64> {
        match &self.kind {
            Kind::Blocks { len_bytes, .. } => Some(*len_bytes),
            Kind::Samples { source, .. } => estimate_data_set_bytes(source.as_ref()),
        }
    }

    /// The size of the largest piece, of a large data set the largest of those looked at.
    pub fn piece_bytes_max(&self) -> u64 {
        match &self.kind {
            Kind::Blocks { block, .. } => *block,
            Kind::Samples { source, .. } => {
                let mut path = PathBuf::new();
                let sizes = looked_at(source.as_ref()).filter_map(|sample| match source.extent(sample).ok()? {
                    Extent::Range { len_bytes, .. } => Some(len_bytes),
                    Extent::Object(object) => {
                        source.object_path(object, &mut path).ok()?;
                        path.metadata().ok().map(|file| file.len())
                    }
                });
                sizes.max().unwrap_or(0)
            }
        }
    }

    /// The files of the data, of a large data set some thousands.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.kind {
            Kind::Blocks { path, .. } => vec![path.clone()],
            Kind::Samples { source, .. } => {
                let object = |sample| match source.extent(sample).ok()? {
                    Extent::Object(object) | Extent::Range { object, .. } => Some(object),
                };
                let mut objects = BTreeSet::new();
                for object in looked_at(source.as_ref()).filter_map(object) {
                    objects.insert(object);
                    if objects.len() == FILES_MAX {
                        break;
                    }
                }
                let path = |object| {
                    let mut path = PathBuf::new();
                    source.object_path(object, &mut path).ok().map(|()| path)
                };
                objects.into_iter().filter_map(path).collect()
            }
        }
    }
}

/// Samples at even distances.
fn looked_at(source: &dyn Source) -> impl Iterator<Item = u64> {
    let (len, count) = (source.len(), source.len().min(SAMPLES_LOOKED_AT));
    (0..count).map(move |number| (u128::from(number) * u128::from(len) / u128::from(count)) as u64)
}

/// The length of a regular file.
fn len_of(path: &Path) -> Result<u64> {
    let metadata = path.metadata().map_err(|error| {
        let error = Error::io(format_args!("{}", path.display()), error);
        error.with_remedy("name a file or a data set that is there, or let --create SIZE make a file")
    })?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    let allowed = "random and sequential read a file: name one, or leave out --pattern";
    Err(Error::invalid_parameter("--pattern", format!("that of a file and {} is none", path.display()), allowed))
}
