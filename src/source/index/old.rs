//! Rows of an older index that still hold.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64;

use super::describe::{Described, Format};
use super::head::Head;
use super::lookup::Set;
use super::map::Sidecar;
use super::place::Parts;
use super::row::Listed;
use super::unit::Files;
use crate::source::parallel::in_parallel;

/// Samples whose files are looked at together.
const CHUNK_SAMPLES: u64 = 256;

/// The rows of all index files of a folder or list that can be read, by their paths.
#[derive(Default)]
pub(super) struct OldRows {
    files: Vec<Sidecar>,
    /// Hash of the path, file and row; sorted. 16 bytes a sample.
    places: Vec<(u64, u32, u32)>,
}

impl OldRows {
    /// Reads the paths of all index files of this grain, fitting or not.
    pub(super) fn read(parts: &Parts, head: &Head) -> Self {
        let mut old = Self::default();
        for (count, part) in parts.list().unwrap_or_default() {
            // What cannot be read is built anew.
            let Ok(Some(file)) = Sidecar::open(parts.path(part, count)) else { continue };
            if (file.head.kind, &file.head.grain) != (head.kind, &head.grain) {
                continue;
            }
            let number = old.files.len() as u32;
            let rows = u32::try_from(file.len()).unwrap_or(u32::MAX);
            // Ends at the first row that cannot be read, so that a declared count costs nothing.
            let listed = (0..rows).map_while(|row| file.listed(row.into()).ok().map(|listed| (row, listed)));
            old.places.extend(listed.map(|(row, listed)| (xxh3_64(&listed.path), number, row)));
            old.files.push(file);
        }
        old.places.sort_unstable();
        old
    }

    /// What is known of a file, if neither its length nor its time changed.
    pub(super) fn find(&self, listed: &Listed<'_>) -> Option<Described> {
        let hash = xxh3_64(&listed.path);
        let from = self.places.partition_point(|place| place.0 < hash);
        let mut same_hash = self.places[from..].iter().take_while(|place| place.0 == hash);
        same_hash.find_map(|(_, file, row)| {
            let file = &self.files[*file as usize];
            let old = file.listed(u64::from(*row)).ok().filter(|old| is_same_file(old, listed))?;
            // A file that could not be read may be readable by now.
            let described = file.described(u64::from(*row)).ok()?;
            // Nor does what an older version did not know stay unknown.
            let is_known = described.format != Format::Unknown || file.head.formats.len() >= Format::ALL.len();
            (old.length > 0 && described.data_checksum != 0 && is_known).then_some(described)
        })
    }
}

fn is_same_file(old: &Listed<'_>, new: &Listed<'_>) -> bool {
    (&old.path, old.length, old.modified) == (&new.path, new.length, new.modified)
}

/// Whether an index of exactly this listing is there and none of its files changed.
pub(super) fn is_up_to_date(parts: &Parts, head: &Head, files: &Files, threads: usize) -> bool {
    let own = Sidecar::open(parts.path(head.part, head.parts)).ok().flatten();
    if let Some(own) = own.filter(|own| own.head.is_of_one_listing(head) && own.head.part == head.part) {
        let row = |sample: u64| Some((&own, sample - head.first));
        return are_unchanged(files, head.first..head.first + head.rows, threads, row);
    }
    let Ok(Some(set)) = Set::find(parts, head.kind, |_, _| Ok(())) else { return false };
    let fits = set.files().first().is_some_and(|first| first.head.is_of_listing(head));
    fits && are_unchanged(files, 0..files.len(), threads, |sample| set.find_row(sample).ok())
}

fn are_unchanged<'a>(
    files: &Files,
    samples: Range<u64>,
    threads: usize,
    row: impl Fn(u64) -> Option<(&'a Sidecar, u64)> + Sync,
) -> bool {
    let next = AtomicU64::new(samples.start);
    let is_changed = AtomicBool::new(false);
    let is_same = |sample: u64| {
        let now = files.look_at(sample).ok();
        let old = row(sample).and_then(|(file, row)| Some((file.listed(row).ok()?, file.record(row).ok()?)));
        now.zip(old).is_some_and(|(now, (old, _))| is_same_file(&old, &now))
    };
    in_parallel(threads, || {
        while !is_changed.load(Relaxed) {
            let from = next.fetch_add(CHUNK_SAMPLES, Relaxed);
            if from >= samples.end {
                return;
            }
            let mut chunk = from..samples.end.min(from + CHUNK_SAMPLES);
            if !chunk.all(is_same) {
                is_changed.store(true, Relaxed);
            }
        }
    });
    !is_changed.into_inner()
}
