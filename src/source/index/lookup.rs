//! Finding the sidecars of a data set, and deciding what becomes of one that is missing or does not fit.

use std::fs;
use std::path::Path;

use super::head::{DataKind, Head};
use super::identity::{check_file, check_folders};
use super::map::Sidecar;
use super::options::{IndexMode, IndexOptions};
use super::place::{Parts, of_shard};
use super::residency::Residency;
use super::{Columns, Record, stale};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;
use crate::source::UNLABELLED;
use crate::source::labels::Label;
use crate::source::names::out_of_range;

/// The sidecar of a tar shard; `None` where there is none.
///
/// # Errors
/// `IndexStale` if it is damaged or the shard is not the one that was indexed; `Io` if it cannot be read.
pub(in crate::source) fn find_shard(shard: &Path, dir: Option<&Path>) -> Result<Option<Sidecar>> {
    let path = of_shard(shard, dir);
    let Some(sidecar) = Sidecar::open(path)? else { return Ok(None) };
    // A shard that is not there is not the index's fault: opening it says so.
    let Ok(metadata) = fs::metadata(shard) else { return Ok(None) };
    let head = &sidecar.head;
    if head.kind != DataKind::Tar || (head.parts, head.rows) != (1, head.total) {
        return Err(stale(sidecar.path(), "it is no index of a tar shard"));
    }
    check_file(sidecar.path(), head, shard, &metadata)?;
    Ok(Some(sidecar))
}

/// The sidecars of a folder or list: all parts, in order.
pub(in crate::source) struct Set {
    files: Vec<Sidecar>,
    /// The first sample of each, and at the end that of all.
    starts: Vec<u64>,
    residency: Residency,
}

impl Set {
    /// The sidecars of a folder; `None` where there are none.
    ///
    /// # Errors
    /// As [`find_shard`].
    pub(in crate::source) fn of_folder(root: &Path, dir: Option<&Path>) -> Result<Option<Self>> {
        let parts = Parts::of_folder(root, dir);
        Self::find(&parts, DataKind::Folder, |index, head| check_folders(index, head, root))
    }

    /// The sidecars of a list file; `None` where there are none.
    ///
    /// # Errors
    /// As [`find_shard`].
    pub(in crate::source) fn of_list(list: &Path, dir: Option<&Path>) -> Result<Option<Self>> {
        let Ok(metadata) = fs::metadata(list) else { return Ok(None) };
        let parts = Parts::of_list(list, dir);
        Self::find(&parts, DataKind::List, |index, head| check_file(index, head, list, &metadata))
    }

    /// The first complete set of parts that fits; else what is wrong with the first that does not.
    pub(super) fn find(
        parts: &Parts,
        kind: DataKind,
        fits: impl Fn(&Path, &Head) -> Result<()>,
    ) -> Result<Option<Self>> {
        let listed = parts.list()?;
        let mut unfit = None;
        for same_count in listed.chunk_by(|(a, _), (b, _)| a == b) {
            let count = same_count[0].0;
            let opened = Self::open(parts, count, same_count, kind).and_then(|set| {
                set.files.first().map_or(Ok(()), |first| fits(first.path(), &first.head))?;
                Ok(set)
            });
            match opened {
                Ok(set) => {
                    let residency = Residency::new(set.files.iter());
                    return Ok(Some(Self { residency, ..set }));
                }
                Err(error) => unfit = unfit.or(Some(error)),
            }
        }
        unfit.map_or(Ok(None), Err)
    }

    fn open(parts: &Parts, count: u64, listed: &[(u64, u64)], kind: DataKind) -> Result<Self> {
        let mut set = Self { files: Vec::new(), starts: vec![0], residency: Residency::new([].into_iter()) };
        // As many as there are names, not as the names say.
        for (number, (_, part)) in listed.iter().enumerate() {
            let path = parts.path(*part, count);
            if *part != number as u64 {
                return Err(stale(&path, &format!("part {number} of {count} is missing")));
            }
            set.push(Sidecar::open(path)?, kind)?;
        }
        let is_complete = |first: &Sidecar| set.files.len() as u64 == count && set.len() == first.head.total;
        if set.files.first().is_some_and(is_complete) && set.len() > 0 {
            return Ok(set);
        }
        Err(stale(&parts.path(0, count), &format!("{} of {count} parts are there", set.files.len())))
    }

    fn push(&mut self, sidecar: Option<Sidecar>, kind: DataKind) -> Result<()> {
        // Gone between listing and opening: as if it had not been there.
        let Some(sidecar) = sidecar else { return Ok(()) };
        let head = &sidecar.head;
        if head.kind != kind || head.part != self.files.len() as u64 || head.first != self.len() {
            return Err(stale(sidecar.path(), "it is the index of something else"));
        }
        if self.files.first().is_some_and(|first| !first.head.is_of_one_listing(head)) {
            return Err(stale(sidecar.path(), "it was built at another time than part 0, of other files"));
        }
        self.starts.push(self.len() + head.rows);
        self.files.push(sidecar);
        Ok(())
    }

    /// Samples of all parts.
    pub(in crate::source) fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The sidecar and the row of a sample.
    pub(super) fn find_row(&self, sample: u64) -> Result<(&Sidecar, u64)> {
        self.residency.count(|| self.files.iter());
        let part = self.starts.partition_point(|start| *start <= sample) - 1;
        match self.files.get(part) {
            Some(file) => Ok((file, sample - self.starts[part])),
            None => Err(out_of_range(sample, self.len())),
        }
    }

    /// Appends the path of a sample.
    ///
    /// # Errors
    /// `IndexStale` if the row is not as it was written, as for the methods below.
    pub(in crate::source) fn path(&self, sample: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let (file, row) = self.find_row(sample)?;
        bytes.extend_from_slice(&file.listed(row)?.path);
        Ok(())
    }

    /// The label of a sample.
    pub(in crate::source) fn label(&self, sample: u64) -> Result<i64> {
        let (file, row) = self.find_row(sample)?;
        Ok(match file.listed(row)?.label {
            Label::Is(label) => label,
            Label::Missing | Label::Unreadable => UNLABELLED,
        })
    }

    /// What the index says of a sample.
    pub(in crate::source) fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        let (file, row) = self.find_row(sample)?;
        file.record(row)
    }

    /// What the index says of a sample's image, decodable or not.
    pub(in crate::source) fn columns(&self, sample: u64) -> Result<Option<Columns<'_>>> {
        let (file, row) = self.find_row(sample)?;
        file.columns(row).map(Some)
    }

    /// Its files.
    pub(super) fn files(&self) -> &[Sidecar] {
        &self.files
    }

    /// Class names by label.
    pub(in crate::source) fn classes(&self) -> Vec<String> {
        self.files.first().map_or_else(Vec::new, |first| first.head.classes.clone())
    }

    /// What listing saw and left out: a line each.
    pub(in crate::source) fn notes(&self) -> Vec<String> {
        self.files.first().map_or_else(Vec::new, |first| first.head.seen.lines())
    }
}

impl Head {
    /// Whether two parts come of one and the same listing of the data set.
    pub(super) fn is_of_one_listing(&self, other: &Self) -> bool {
        self.parts == other.parts && self.is_of_listing(other)
    }

    /// Whether an index is of the listing that `other` is of, with entry points as far apart.
    pub(super) fn is_of_listing(&self, other: &Self) -> bool {
        let of = |head: &Self| (head.kind, head.total, head.size_bytes, head.modified);
        of(self) == of(other)
            && self.folders == other.folders
            && self.classes == other.classes
            && self.seen == other.seen
            && self.grain == other.grain
            // One that knew fewer formats says less.
            && self.formats == other.formats
    }
}

/// Decides by mode: the index to use, if any, and why one that is there is not used.
///
/// # Errors
/// Where an index is required, `NotFound` or what is wrong with it.
pub(in crate::source) fn settle<T>(
    options: &IndexOptions,
    data: &Path,
    find: impl FnOnce(Option<&Path>) -> Result<Option<T>>,
) -> Result<(Option<T>, Option<Error>)> {
    if options.mode == IndexMode::Off {
        return Ok((None, None));
    }
    match find(options.dir.as_deref()) {
        Ok(None) if options.mode == IndexMode::Required => {
            let place = options.dir.as_deref().map_or("beside it".into(), |dir| format!("in {}", dir.display()));
            let message = format!("{} has no index {place}, and one is required", data.display());
            Err(Error::new(ErrorKind::NotFound, message).with_remedy(super::REMEDY))
        }
        Err(error) if options.mode == IndexMode::Required => Err(error),
        Ok(found) => Ok((found, None)),
        Err(unfit) => Ok((None, Some(unfit))),
    }
}

/// Reports, and logs, that indexes are there and not used: `samples` are read whole.
pub(in crate::source) fn fallback(unfit: Vec<Error>, samples: u64) -> Vec<Fallback> {
    let Some(first) = unfit.first() else { return Vec::new() };
    let text = first.to_string();
    let remedy = first.remedy().unwrap_or(super::REMEDY).to_owned();
    let mut cause = text.strip_suffix(&format!(" ({remedy})")).unwrap_or(&text).to_owned();
    if unfit.len() > 1 {
        cause += &format!("; and {} more", unfit.len() - 1);
    }
    let fallback = Fallback {
        what: "index",
        instead: "listing the data and reading samples whole",
        cause,
        remedy,
        count: samples,
    };
    log::warn!("{fallback}");
    vec![fallback]
}
