//! Finds out what a path or pattern names, and opens it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::several::Several;
use super::tar::has_tar_extension;
use super::{Folder, IndexMode, IndexOptions, List, Source, TarShards, has_image_extension, pattern};
use crate::error::{Error, ErrorKind, Result};

const REMEDY: &str = "name a folder of images, a folder of .tar shards, shards such as `train-{000..146}.tar` or \
                      `train-*.tar`, or a .txt, .lst, .tsv or .csv list of paths and labels";

/// Opens the data set at a path or pattern:
///
/// - a folder in which `.tar` files lie: those shards, by name ([`TarShards`]);
/// - any other folder: the images in and below it ([`Folder`]);
/// - a `.tar` file: that shard;
/// - a `.txt`, `.lst`, `.tsv` or `.csv` file: the samples listed in it ([`List`]);
/// - where no such file exists: a pattern of shards, with braces (`{000..146}`, `{a,b}`) all of which
///   must exist, in that order, and wildcards (`*`, `?`) that match those that do, by name.
///
/// # Errors
/// `NotFound` if there is no such thing, `Unsupported` if it is something else, and those of
/// [`Folder::open`], [`TarShards::open`] and [`List::open`].
pub fn open(spec: impl AsRef<Path>) -> Result<Arc<dyn Source>> {
    open_with(spec, &IndexOptions { mode: IndexMode::Off, dir: None })
}

/// [`open`] with indexes.
///
/// # Errors
/// As `open`; `IndexStale` or `NotFound` where an index is [required](IndexMode::Required).
pub fn open_with(spec: impl AsRef<Path>, index: &IndexOptions) -> Result<Arc<dyn Source>> {
    DataSet::find(spec.as_ref())?.open(index)
}

/// Opens several data sets as one, such as the parts of one that is spread over drives or mounts: the samples of each, in
/// the order given. A class that several folders have is one class.
///
/// # Errors
/// As [`open_with`]; `InvalidParameter` if none is named.
pub fn open_all(specs: impl IntoIterator<Item = impl AsRef<Path>>, index: &IndexOptions) -> Result<Arc<dyn Source>> {
    let mut sources: Vec<Arc<dyn Source>> = Vec::new();
    let mut shards = Vec::new();
    for spec in specs {
        match DataSet::find(spec.as_ref())? {
            // Those that follow one another are opened at once.
            DataSet::Shards(paths) => shards.extend(paths),
            other => {
                open_shards(&mut shards, index, &mut sources)?;
                sources.push(other.open(index)?);
            }
        }
    }
    open_shards(&mut shards, index, &mut sources)?;
    join(sources)
}

/// A data set that is open, one of several.
pub(crate) struct Opened {
    /// Its path or pattern.
    pub(crate) path: PathBuf,
    pub(crate) source: Arc<dyn Source>,
}

/// Opens several data sets, each on its own.
pub(crate) fn open_each(paths: &[PathBuf], index: &IndexOptions) -> Result<Vec<Opened>> {
    paths.iter().map(|path| Ok(Opened { path: path.clone(), source: open_with(path, index)? })).collect()
}

/// Makes one of several, of which there has to be one.
pub(crate) fn join(mut sources: Vec<Arc<dyn Source>>) -> Result<Arc<dyn Source>> {
    match (sources.pop(), sources.is_empty()) {
        (None, _) => Err(Error::invalid_parameter("data sets", 0, "at least one has to be named")),
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            sources.push(last);
            Ok(Arc::new(Several::new(sources)?))
        }
    }
}

fn open_shards(shards: &mut Vec<PathBuf>, index: &IndexOptions, sources: &mut Vec<Arc<dyn Source>>) -> Result<()> {
    if !shards.is_empty() {
        sources.push(DataSet::Shards(std::mem::take(shards)).open(index)?);
    }
    Ok(())
}

/// What a path or pattern names.
pub(super) enum DataSet {
    Shards(Vec<PathBuf>),
    Files(FileSet),
}

/// A data set whose samples are files of their own.
pub(super) enum FileSet {
    Folder(PathBuf),
    List(PathBuf),
}

impl FileSet {
    /// The folder or the list file.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::List(path) => path,
        }
    }
}

impl DataSet {
    fn open(self, index: &IndexOptions) -> Result<Arc<dyn Source>> {
        Ok(match self {
            Self::Shards(paths) => Arc::new(TarShards::open_with(&paths, index)?),
            Self::Files(FileSet::Folder(root)) => Arc::new(Folder::open_with(root, index)?),
            Self::Files(FileSet::List(path)) => Arc::new(List::open_with(path, index)?),
        })
    }

    /// Finds out what each of several paths or patterns names.
    pub(super) fn find_all(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<Vec<Self>> {
        paths.into_iter().map(|path| Self::find(path.as_ref())).collect()
    }

    /// Finds out, without opening it.
    pub(super) fn find(path: &Path) -> Result<Self> {
        let spec = path.as_os_str().as_bytes();
        if spec.windows(3).any(|part| part == b"://") {
            let message = format!("{} is an address; only files on this machine can be read", path.display());
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_remedy("copy or mount the data set, and name its path"));
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let shards = shards_in(path)?;
                Ok(if shards.is_empty() { Self::Files(FileSet::Folder(path.to_owned())) } else { Self::Shards(shards) })
            }
            Ok(_) if has_tar_extension(path) => Ok(Self::Shards(vec![path.to_owned()])),
            Ok(_) if is_list(path) => Ok(Self::Files(FileSet::List(path.to_owned()))),
            Ok(_) => Err(no_dataset(path)),
            Err(_) if pattern::is_pattern(spec) => Ok(Self::Shards(pattern::expand(path)?)),
            Err(error) => {
                Err(Error::io(format!("cannot open data set \"{}\"", path.display()), error).with_remedy(REMEDY))
            }
        }
    }
}

/// The `.tar` files that lie in a folder itself, by name.
fn shards_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| {
        let error = Error::io(format!("cannot list folder {}", folder.display()), error);
        error.with_remedy("give this user the rights to read and enter it, or name another")
    };
    let mut shards = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if has_tar_extension(Path::new(&name)) && !name.as_bytes().starts_with(b".") && !entry.path().is_dir() {
            shards.push(entry.path());
        }
    }
    shards.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(shards)
}

fn is_list(path: &Path) -> bool {
    let lists = ["txt", "lst", "tsv", "csv"];
    path.extension().is_some_and(|extension| lists.iter().any(|list| extension.eq_ignore_ascii_case(list)))
}

fn no_dataset(path: &Path) -> Error {
    let is_image = has_image_extension(path.as_os_str().as_bytes());
    let cause = if is_image { "is one image, no data set" } else { "is of no kind that is known" };
    Error::new(ErrorKind::Unsupported, format!("data set {} {cause}", path.display())).with_remedy(REMEDY)
}
