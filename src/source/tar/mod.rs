//! WebDataset: tar archives whose entries of one key are a sample.

mod archive;
mod header;
mod shard;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use self::shard::Shard;
use super::names::out_of_range;
use super::notes::Seen;
use super::parallel::{LISTING_THREADS, in_parallel};
use super::{Extent, Source, refill_key, refill_path};
use crate::error::{Error, ErrorKind, Result};

/// Tar shards as WebDataset writes them, read where they lie.
///
/// Consecutive files that share the name up to the first dot of its last part (the key) are a sample.
/// Its image is the file that ends in `.jpg`, `.jpeg`, `.png` or `.webp`, its label the integer in its
/// `.cls`, else under `label`, `cls` or `class_id` in its `.json`. Samples are in the order of the
/// shards, then of the archive. A leading `./` of a name is dropped, so that keys are those of the
/// same files in a folder (unless their names hold further dots).
///
/// GNU and PAX names and sizes are understood. Links, devices and keys without an image are left out
/// and counted in [`notes`](Source::notes), as are archives without an end marker and keys that come
/// again later in their shard; both samples of such a key are kept, as in WebDataset, since a key is only
/// a name. Names are never opened. Sparse images and unreadable labels are errors of their sample. All
/// else that is wrong with an archive is an error on opening: damaged headers, an end inside an entry,
/// a file that comes twice in one sample.
///
/// Memory is about 20 bytes a sample.
pub struct TarShards {
    shards: Vec<Shard>,
    /// The number of the first sample of each shard, and at the end that of all samples.
    starts: Vec<u64>,
    notes: Vec<String>,
}

impl TarShards {
    /// Reads the headers of all shards, several at once.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `Truncated`, `Corrupt`, `Unsupported` or `LimitExceeded`, naming the first shard
    /// that has something wrong, the place in it and the remedy; `EmptyDataset` if there is no sample.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut shards = scan_all(paths)?;
        let mut seen = Seen::default();
        let mut starts = vec![0];
        let mut samples = 0;
        for shard in &mut shards {
            seen.merge(std::mem::take(&mut shard.seen), b"");
            samples += shard.keys.len();
            starts.push(samples);
        }
        let notes = seen.lines();
        if samples == 0 {
            return Err(empty(paths, &notes));
        }
        Ok(Self { shards, starts, notes })
    }

    /// The shard of a sample, its number, and the sample's number within it.
    fn find(&self, sample: u64) -> Result<(usize, &Shard, u64)> {
        let shard = self.starts.partition_point(|start| *start <= sample) - 1;
        match self.shards.get(shard) {
            Some(found) => Ok((shard, found, sample - self.starts[shard])),
            None => Err(out_of_range(sample, self.len())),
        }
    }
}

impl Source for TarShards {
    fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        let (object, shard, sample) = self.find(sample)?;
        let (offset, len_bytes) = shard.range(sample)?;
        Ok(Extent::Range { object: object as u64, offset, len_bytes })
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        let shard = usize::try_from(object).ok().and_then(|object| self.shards.get(object));
        let Some(shard) = shard else {
            let message = format!("shard {object} does not exist: the data set has {}", self.shards.len());
            return Err(Error::new(ErrorKind::InvalidParameter, message));
        };
        refill_path(path, |bytes| {
            bytes.extend_from_slice(shard.path.as_os_str().as_encoded_bytes());
            Ok(())
        })
    }

    fn label(&self, sample: u64) -> Result<i64> {
        let (_, shard, sample) = self.find(sample)?;
        shard.labels.label(sample).ok_or_else(|| {
            let message = format!("shard {}: its .cls or .json holds no integer label", shard.path.display());
            let error = Error::new(ErrorKind::Corrupt, message).with_sample(shard.key_lossy(sample));
            error.with_remedy("a .cls holds one integer as text; a .json is an object, of up to 1 MiB")
        })
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        let (_, shard, sample) = self.find(sample)?;
        refill_key(key, |bytes| shard.keys.append(sample, bytes))
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// All shards in order, or the error of the first bad one: shards are begun in order, so that no error
/// of an earlier one can be missed.
fn scan_all(paths: &[PathBuf]) -> Result<Vec<Shard>> {
    let next = AtomicUsize::new(0);
    let first_bad = AtomicUsize::new(usize::MAX);
    let scanned: Mutex<Vec<(usize, Result<Shard>)>> = Mutex::default();
    in_parallel(LISTING_THREADS.min(paths.len()), || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(number) else { return };
            if first_bad.load(Ordering::Relaxed) < number {
                return;
            }
            let shard = Shard::scan(path);
            if shard.is_err() {
                first_bad.fetch_min(number, Ordering::Relaxed);
            }
            scanned.lock().unwrap_or_else(PoisonError::into_inner).push((number, shard));
        }
    });
    let mut scanned = scanned.into_inner().unwrap_or_else(PoisonError::into_inner);
    scanned.sort_unstable_by_key(|(number, _)| *number);
    scanned.into_iter().map(|(_, shard)| shard).collect()
}

fn empty(paths: &[PathBuf], notes: &[String]) -> Error {
    let which = match paths {
        [] => "no shard was named".to_owned(),
        [only] => format!("shard {} holds no sample", only.display()),
        [first, .., last] => {
            format!("the {} shards from {} to {} hold no sample", paths.len(), first.display(), last.display())
        }
    };
    let seen = if notes.is_empty() { String::new() } else { format!("; seen: {}", notes.join("; ")) };
    Error::new(ErrorKind::EmptyDataset, format!("{which}{seen}"))
        .with_remedy("a sample is an image such as 000001.jpg, with its label beside it in 000001.cls")
}

/// Whether a file is taken as a shard.
pub(super) fn has_tar_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}
