//! WebDataset: tar archives whose entries of one key are a sample.

mod archive;
mod header;
mod shard;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

pub(super) use self::shard::Shard;
use super::index::{
    HEADERLESS, Listed, Modified, Residency, Sidecar, fallback, find_shard, modified, refuse_flags, settle,
};
use super::labels::Label;
use super::names::out_of_range;
use super::notes::Seen;
use super::parallel::{LISTING_THREADS, in_parallel};
use super::{
    Columns, Extent, IndexMode, IndexOptions, Record, Source, StoredShard, UNLABELLED, refill_key, refill_path,
};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

const UNINDEXED: &str = "shards without an index, whose samples are read whole";

/// Tar shards as WebDataset writes them, read where they lie.
///
/// Consecutive files that share the name up to the first dot of its last part (the key) are a sample.
/// Its image is the file that ends in `.jpg`, `.jpeg`, `.png` or `.webp`; where there is none, that whose extension is
/// `.npy`, `.raw` or `.bin` and no more: raw pixels ([`raw`](crate::raw)). Its label is the integer in its `.cls`, else under `label`, `cls` or `class_id` in its `.json`. Samples are in the order of the
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
    shards: Vec<Opened>,
    /// The number of the first sample of each shard, and at the end that of all samples.
    starts: Vec<u64>,
    residency: Residency,
    notes: Vec<String>,
    fallbacks: Vec<Fallback>,
}

/// A shard, and where its samples are known from.
struct Opened {
    path: PathBuf,
    /// Its length and when it was modified, before it was opened.
    size_bytes: u64,
    modified: Modified,
    samples: Samples,
    /// Why an index that is there is not used.
    unfit: Option<Error>,
}

enum Samples {
    Scanned(Shard),
    Indexed(Sidecar),
}

impl TarShards {
    /// Reads the headers of all shards, several at once.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `Truncated`, `Corrupt`, `Unsupported` or `LimitExceeded`, naming the first shard
    /// that has something wrong, the place in it and the remedy; `EmptyDataset` if there is no sample.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        Self::open_with(paths, &IndexOptions { mode: IndexMode::Off, dir: None })
    }

    /// Takes what the index beside a shard says, where there is one that fits, and reads the headers of
    /// the others.
    ///
    /// # Errors
    /// As [`open`](Self::open); `IndexStale` or `NotFound` where an index is
    /// [required](IndexMode::Required).
    pub fn open_with(paths: &[PathBuf], options: &IndexOptions) -> Result<Self> {
        let mut shards = open_all(paths, options)?;
        let mut seen = Seen::default();
        let mut starts = vec![0];
        let (mut samples, mut unindexed_samples) = (0u64, 0);
        let mut unfit = Vec::new();
        let has_index = shards.iter().any(|shard| matches!(shard.samples, Samples::Indexed(_)));
        for shard in &mut shards {
            seen.merge(shard.take_seen(), b"");
            if has_index && shard.unfit.is_none() && matches!(shard.samples, Samples::Scanned(_)) {
                seen.add(UNINDEXED, shard.path.as_os_str().as_encoded_bytes());
            }
            unindexed_samples += if shard.unfit.is_some() { shard.len() } else { 0 };
            unfit.extend(shard.unfit.take());
            samples = samples.checked_add(shard.len()).ok_or_else(too_many)?;
            starts.push(samples);
        }
        let notes = seen.lines();
        if samples == 0 {
            return Err(empty(paths, &notes));
        }
        let residency = Residency::new(shards.iter().filter_map(Opened::index));
        Ok(Self { shards, starts, residency, notes, fallbacks: fallback(unfit, unindexed_samples) })
    }

    /// The shard of a sample, its number, and the sample's number within it.
    fn find(&self, sample: u64) -> Result<(usize, &Opened, u64)> {
        self.residency.count(|| self.shards.iter().filter_map(Opened::index));
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
        let (offset, len_bytes) = match &shard.samples {
            Samples::Scanned(scanned) => match scanned.place(sample) {
                Some(place) => place,
                None => shard.range(scanned.listed(sample)?)?,
            },
            Samples::Indexed(sidecar) => shard.range(sidecar.listed(sample)?)?,
        };
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
        match shard.label(sample)? {
            Label::Is(label) => Ok(label),
            Label::Missing => Ok(UNLABELLED),
            Label::Unreadable => {
                let message = format!("shard {}: its .cls or .json holds no integer label", shard.path.display());
                let mut key = Vec::new();
                shard.key(sample, &mut key)?;
                let error = Error::new(ErrorKind::Corrupt, message).with_sample(String::from_utf8_lossy(&key));
                Err(error.with_remedy("a .cls holds one integer as text; a .json is an object, of up to 1 MiB"))
            }
        }
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        let (_, shard, sample) = self.find(sample)?;
        refill_key(key, |bytes| shard.key(sample, bytes))
    }

    fn is_headerless(&self, sample: u64) -> Result<bool> {
        let (_, shard, sample) = self.find(sample)?;
        match &shard.samples {
            Samples::Scanned(scanned) => Ok(scanned.is_headerless(sample)),
            Samples::Indexed(sidecar) => Ok(sidecar.listed(sample)?.flags & HEADERLESS != 0),
        }
    }

    fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        let (_, shard, sample) = self.find(sample)?;
        match &shard.samples {
            Samples::Scanned(_) => Ok(None),
            Samples::Indexed(sidecar) => sidecar.record(sample),
        }
    }

    fn columns(&self, sample: u64) -> Result<Option<Columns<'_>>> {
        let (_, shard, sample) = self.find(sample)?;
        match &shard.samples {
            Samples::Scanned(_) => Ok(None),
            Samples::Indexed(sidecar) => sidecar.columns(sample).map(Some),
        }
    }

    fn shards(&self) -> Vec<StoredShard> {
        let stored = |shard: &Opened| StoredShard {
            path: shard.path.clone(),
            size_bytes: shard.size_bytes,
            modified: shard.modified,
            samples: shard.len(),
        };
        self.shards.iter().map(stored).collect()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn index_fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }
}

impl Opened {
    fn open(path: &Path, options: &IndexOptions) -> Result<Self> {
        // What is wrong with the file is said by what opens it.
        let metadata = std::fs::metadata(path).ok();
        let (size_bytes, modified) = metadata.map_or((0, (0, 0)), |metadata| (metadata.len(), modified(&metadata)));
        let (indexed, unfit) = settle(options, path, |dir| find_shard(path, dir))?;
        let samples = match indexed {
            Some(sidecar) => Samples::Indexed(sidecar),
            None => Samples::Scanned(Shard::scan(path)?),
        };
        Ok(Self { path: path.to_owned(), size_bytes, modified, samples, unfit })
    }

    fn index(&self) -> Option<&Sidecar> {
        match &self.samples {
            Samples::Scanned(_) => None,
            Samples::Indexed(sidecar) => Some(sidecar),
        }
    }

    fn len(&self) -> u64 {
        match &self.samples {
            Samples::Scanned(shard) => shard.keys.len(),
            Samples::Indexed(sidecar) => sidecar.len(),
        }
    }

    fn take_seen(&mut self) -> Seen {
        match &mut self.samples {
            Samples::Scanned(shard) => std::mem::take(&mut shard.seen),
            Samples::Indexed(sidecar) => sidecar.seen(),
        }
    }

    fn label(&self, sample: u64) -> Result<Label> {
        match &self.samples {
            Samples::Scanned(shard) => Ok(shard.label(sample)),
            Samples::Indexed(sidecar) => Ok(sidecar.listed(sample)?.label),
        }
    }

    fn key(&self, sample: u64, bytes: &mut Vec<u8>) -> Result<()> {
        match &self.samples {
            Samples::Scanned(shard) => shard.keys.append(sample, bytes),
            Samples::Indexed(sidecar) => {
                bytes.extend_from_slice(sidecar.listed(sample)?.key.as_bytes());
                Ok(())
            }
        }
    }

    /// Offset and length in bytes of a sample, or why it has none.
    fn range(&self, listed: Listed<'_>) -> Result<(u64, u64)> {
        let Some((cause, remedy)) = refuse_flags(listed.flags) else {
            return Ok((listed.offset, listed.length));
        };
        let error = Error::new(ErrorKind::Unsupported, format!("shard {}: {cause}", self.path.display()));
        Err(error.with_sample(listed.key).with_remedy(remedy))
    }
}

/// All shards in order, or the error of the first bad one: shards are begun in order, so that no error
/// of an earlier one can be missed.
fn open_all(paths: &[PathBuf], options: &IndexOptions) -> Result<Vec<Opened>> {
    let next = AtomicUsize::new(0);
    let first_bad = AtomicUsize::new(usize::MAX);
    let opened: Mutex<Vec<(usize, Result<Opened>)>> = Mutex::default();
    in_parallel(LISTING_THREADS.min(paths.len()), || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(number) else { return };
            if first_bad.load(Ordering::Relaxed) < number {
                return;
            }
            let shard = Opened::open(path, options);
            if shard.is_err() {
                first_bad.fetch_min(number, Ordering::Relaxed);
            }
            opened.lock().unwrap_or_else(PoisonError::into_inner).push((number, shard));
        }
    });
    let mut opened = opened.into_inner().unwrap_or_else(PoisonError::into_inner);
    opened.sort_unstable_by_key(|(number, _)| *number);
    opened.into_iter().map(|(_, shard)| shard).collect()
}

fn too_many() -> Error {
    Error::new(ErrorKind::IndexStale, "the indexes declare more samples than can be counted")
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
