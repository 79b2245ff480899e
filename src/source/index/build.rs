//! Building sidecars.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::describe::{COLOURS, Described, Describer, Format};
use super::head::{DataKind, Head, escape};
use super::lookup::find_shard;
use super::map::Sidecar;
use super::old::{OldRows, is_up_to_date};
use super::part::Part;
use super::place::{Parts, of_shard};
use super::recorder::Recorded;
use super::row::Listed;
use super::schema::{FORMAT_VERSION, ROWS_PER_BATCH};
use super::unit::{Files, Listing, Reader, Unit};
use super::work::{Task, run};
use super::write::Writer;
use crate::error::{Error, Result};
use crate::jpeg::Grain;
use crate::report::lock;
use crate::source::notes::Seen;
use crate::source::open::{DataSet, FileSet};

/// Samples without entry points that a summary names.
const NAMED_MAX: usize = 10;

/// What is built, and how.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// How far apart entry points lie.
    pub grain: Grain,
    /// The share of the data set that is this process's: of tar shards whole ones, of a folder or list a
    /// run of its samples.
    pub part: Part,
    /// The folder that indexes are written to; beside the data where there is none.
    pub dir: Option<PathBuf>,
    /// Threads.
    pub threads: usize,
    /// Build what is up to date too.
    pub force: bool,
}

/// What was built.
#[derive(Debug, Default)]
pub struct Built {
    /// Samples indexed, those taken over from an older index included.
    pub samples: u64,
    /// Samples that were not read, since an older index or the loader that writes this one knows what they are.
    pub taken_over: u64,
    /// Bytes of the samples indexed.
    pub data_bytes: u64,
    /// Bytes of the index files written.
    pub index_bytes: u64,
    /// Index files written.
    pub files: u64,
    /// Index files that were up to date.
    pub up_to_date: u64,
    /// Index files that could not be built, in the order of their data.
    pub failed: Vec<Error>,
    /// How many samples have no entry points, by what they are.
    pub without_entries: BTreeMap<String, u64>,
    /// Samples that cannot be read or decoded, the first few: name and cause.
    pub unreadable: Vec<(String, String)>,
}

/// Builds what is missing of the index of a data set, or out of date.
///
/// A shard that cannot be indexed does not keep others from being; see [`Built::failed`]. `progress` hears
/// of samples done and of samples known so far, from any thread.
///
/// # Errors
/// Those of opening the data set; `InvalidParameter`; `Io` and others where the index of a folder or list
/// cannot be built at all.
pub fn build(dataset: impl AsRef<Path>, options: &BuildOptions, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Built> {
    build_all([dataset], options, progress)
}

/// [`build`] of several data sets: a [`Part`](super::Part) is one of the shards of all of them together, and one of each folder
/// or list.
///
/// # Errors
/// Those of [`build`]; `InvalidParameter` also for two that would have one index file.
pub fn build_all(
    datasets: impl IntoIterator<Item = impl AsRef<Path>>,
    options: &BuildOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Built> {
    build_from(DataSet::find_all(datasets)?, options, None, progress)
}

/// [`build`], reading only what was not recorded.
pub(super) fn build_from(
    sets: Vec<DataSet>,
    options: &BuildOptions,
    recorded: Option<&Recorded>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Built> {
    check(options)?;
    if let Some(dir) = &options.dir {
        fs::create_dir_all(dir).map_err(|error| {
            Error::io(format!("cannot make folder {}", dir.display()), error).with_remedy("name another --index-dir")
        })?;
    }
    let task = Build { options, recorded, targets: targets(sets, options)?, tally: Mutex::default() };
    run(&task, task.targets.len(), options.threads.max(1), progress);
    let Tally { mut built, mut failed } = task.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_by_key(|(number, _)| *number);
    built.failed = failed.into_iter().map(|(_, error)| error).collect();
    Ok(built)
}

fn check(options: &BuildOptions) -> Result<()> {
    match options.grain {
        Grain::Bits(bits) if !(64..=1 << 30).contains(&bits) => {
            Err(Error::invalid_parameter("entry-bits", bits, "64 to 1073741824, or rows"))
        }
        _ => Ok(()),
    }
}

/// What one index file is built for.
enum Target {
    Shard(PathBuf),
    /// A part of a folder or list.
    Files(Box<FilesTarget>),
}

struct FilesTarget {
    files: Arc<Files>,
    samples: Range<u64>,
    parts: Parts,
    head: Head,
}

fn targets(sets: Vec<DataSet>, options: &BuildOptions) -> Result<Vec<Target>> {
    let dir = options.dir.as_deref();
    let (mut shards, mut file_sets) = (Vec::new(), Vec::new());
    for set in sets {
        match set {
            DataSet::Shards(paths) => shards.extend(paths),
            DataSet::Files(set) => file_sets.push(set),
        }
    }
    let of_shards = shards.iter().map(|shard| (of_shard(shard, dir), shard.as_path()));
    let of_files = file_sets.iter().map(|set| (Parts::of(set, dir).path(0, 1), set.path()));
    check_distinct(of_shards.chain(of_files))?;
    let range = options.part.range(shards.len() as u64);
    let shards = shards.drain(range.start as usize..range.end as usize).map(|shard| Ok(Target::Shard(shard)));
    shards.chain(file_sets.iter().map(|set| target_of_files(set, options))).collect()
}

/// Refuses two that would write one index file.
fn check_distinct<'a>(places: impl Iterator<Item = (PathBuf, &'a Path)>) -> Result<()> {
    let mut owners = HashMap::new();
    for (place, data) in places {
        match owners.entry(place) {
            Entry::Vacant(entry) => _ = entry.insert(data),
            Entry::Occupied(other) => {
                let found = format!("both {} and {}", other.get().display(), data.display());
                let allowed = format!(
                    "{} would be the index of both: name each once, and leave out --index-dir if their names are alike",
                    other.key().display()
                );
                return Err(Error::invalid_parameter("DATASET", found, &allowed));
            }
        }
    }
    Ok(())
}

fn target_of_files(set: &FileSet, options: &BuildOptions) -> Result<Target> {
    let parts = Parts::of(set, options.dir.as_deref());
    // Before listing, since a new folder changes the time of the one that it lies in.
    fs::create_dir_all(parts.folder()).map_err(|error| {
        Error::io(format!("cannot make folder {}", parts.folder().display()), error)
            .with_remedy("give this user the rights to write there, or name another folder with --index-dir")
    })?;
    let files = Files::list(set)?;
    let samples = options.part.range(files.len());
    let mut head = match &files.listing {
        Listing::Folder(walked) => Head {
            kind: DataKind::Folder,
            folders: walked.folders.iter().map(|(path, modified)| (escape(path), *modified)).collect(),
            classes: walked.classes.clone(),
            seen: walked.seen.clone(),
            ..new_head(options.grain)
        },
        Listing::List(listing, size_bytes, modified) => Head {
            kind: DataKind::List,
            seen: listing.seen.clone(),
            size_bytes: *size_bytes,
            modified: *modified,
            ..new_head(options.grain)
        },
    };
    (head.part, head.parts) = (options.part.number(), options.part.of());
    (head.first, head.rows, head.total) = (samples.start, samples.end - samples.start, files.len());
    Ok(Target::Files(Box::new(FilesTarget { files: Arc::new(files), samples, parts, head })))
}

pub(super) fn new_head(grain: Grain) -> Head {
    Head {
        format: FORMAT_VERSION,
        forebay: env!("CARGO_PKG_VERSION").to_owned(),
        kind: DataKind::Tar,
        grain: grain_name(grain),
        part: 0,
        parts: 1,
        first: 0,
        total: 0,
        rows: 0,
        rows_per_batch: ROWS_PER_BATCH,
        size_bytes: 0,
        modified: (0, 0),
        folders: Vec::new(),
        classes: Vec::new(),
        seen: Seen::default(),
        formats: Format::ALL.iter().map(|format| format.name().to_owned()).collect(),
        colours: COLOURS.iter().map(|(_, name)| (*name).to_owned()).collect(),
    }
}

struct Build<'a> {
    options: &'a BuildOptions,
    recorded: Option<&'a Recorded>,
    targets: Vec<Target>,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    built: Built,
    failed: Vec<(usize, Error)>,
}

struct BuildUnit {
    number: usize,
    unit: Unit,
    /// What is known of its files from an older index.
    old: Option<OldRows>,
}

/// Writes a sidecar, and counts for the summary what it holds.
struct Taker {
    writer: Writer,
    path: PathBuf,
    built: Built,
}

/// What was found out about a sample, and whether it was known before.
struct Found {
    listed: Listed<'static>,
    described: Described,
    is_taken_over: bool,
}

impl Task for Build<'_> {
    type Unit = BuildUnit;
    type Taker = Taker;
    type Worker = (Reader, Describer);
    type Output = Vec<Found>;

    fn open(&self, number: usize) -> Option<(BuildUnit, Taker)> {
        match self.begin(number) {
            Ok(begun) => begun,
            Err(error) => {
                lock(&self.tally).failed.push((number, error));
                None
            }
        }
    }

    fn len(&self, unit: &BuildUnit) -> u64 {
        unit.unit.len()
    }

    fn chunk_end(&self, unit: &BuildUnit, from: u64) -> u64 {
        unit.unit.chunk_end(from)
    }

    fn worker(&self) -> (Reader, Describer) {
        (Reader::default(), Describer::new(self.options.grain))
    }

    fn work(
        &self,
        (reader, describer): &mut (Reader, Describer),
        unit: &BuildUnit,
        chunk: Range<u64>,
    ) -> Result<Vec<Found>> {
        let listed = chunk.clone().map(|sample| {
            let mut listed = unit.unit.listed(sample)?;
            let known = self.known(unit, &mut listed);
            Ok((listed, known))
        });
        let listed: Vec<_> = listed.collect::<Result<_>>()?;
        if listed.iter().any(|(_, known)| known.is_none()) {
            reader.begin(&unit.unit, &chunk)?;
        }
        let found = listed.into_iter().map(|(mut listed, known)| {
            let (is_taken_over, is_headerless) = (known.is_some(), listed.is_headerless());
            let described = known.unwrap_or_else(|| match reader.bytes(&unit.unit, &mut listed) {
                Ok(bytes) => describer.describe(bytes, is_headerless),
                Err(error) => Described::unread(&error),
            });
            Found { listed, described, is_taken_over }
        });
        Ok(found.collect())
    }

    fn take(&self, unit: &BuildUnit, taker: &mut Taker, found: Vec<Found>) -> Result<()> {
        for Found { listed, described, is_taken_over } in &found {
            taker.writer.push(listed, described)?;
            taker.built.count(&unit.unit, listed, described, *is_taken_over);
        }
        Ok(())
    }

    fn close(&self, unit: &BuildUnit, taker: Taker, result: Result<()>) {
        let Taker { writer, path, mut built } = taker;
        let finished = result.and_then(|()| unit.unit.check_unchanged()).and_then(|()| writer.finish());
        let mut tally = lock(&self.tally);
        match finished {
            Ok(()) => {
                built.files = 1;
                built.index_bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                tally.built.add(built);
                if let Target::Files(target) = &self.targets[unit.number] {
                    remove_other_counts(target);
                }
            }
            Err(error) => tally.failed.push((unit.number, error)),
        }
    }
}

impl Build<'_> {
    /// What is known of a sample without reading it.
    fn known(&self, unit: &BuildUnit, listed: &mut Listed<'_>) -> Option<Described> {
        if self.recorded.is_none() && unit.old.is_none() {
            return None;
        }
        unit.unit.complete(listed);
        let recorded = self.recorded.and_then(|recorded| unit.unit.with_origin(listed, |origin| recorded.find(origin)));
        recorded.or_else(|| unit.old.as_ref().and_then(|old| old.find(listed)))
    }

    fn begin(&self, number: usize) -> Result<Option<(BuildUnit, Taker)>> {
        let options = self.options;
        let (path, head, unit, old) = match &self.targets[number] {
            Target::Shard(shard) => {
                // Damage is mended here, as its error says.
                let is_current = |sidecar: &Sidecar| {
                    sidecar.head.grain == grain_name(options.grain)
                        && (0..sidecar.len()).all(|row| sidecar.record(row).is_ok())
                };
                let found = find_shard(shard, options.dir.as_deref()).ok().flatten();
                if !options.force && found.as_ref().is_some_and(is_current) {
                    return self.pass_over();
                }
                let unit = Unit::of_shard(shard)?;
                (of_shard(shard, options.dir.as_deref()), shard_head(&unit, options.grain), unit, None)
            }
            Target::Files(target) => {
                let FilesTarget { files, samples, parts, head } = &**target;
                if !options.force && is_up_to_date(parts, head, files, options.threads) {
                    return self.pass_over();
                }
                let old = (!options.force).then(|| OldRows::read(parts, head));
                let unit = Unit::Files { files: Arc::clone(files), samples: samples.clone() };
                (parts.path(head.part, head.parts), head.clone(), unit, old)
            }
        };
        let writer = Writer::create(&path, &head)?;
        Ok(Some((BuildUnit { number, unit, old }, Taker { writer, path, built: Built::default() })))
    }

    fn pass_over<T>(&self) -> Result<Option<T>> {
        lock(&self.tally).built.up_to_date += 1;
        Ok(None)
    }
}

fn shard_head(unit: &Unit, grain: Grain) -> Head {
    let Unit::Shard { shard, size_bytes, modified, .. } = unit else { return new_head(grain) };
    let (rows, seen) = (unit.len(), shard.seen.clone());
    Head { rows, total: rows, seen, size_bytes: *size_bytes, modified: *modified, ..new_head(grain) }
}

/// Once all parts of one count are there, those of other counts have no use.
fn remove_other_counts(target: &FilesTarget) {
    let Head { parts: count, kind, .. } = target.head;
    let listed = target.parts.list().unwrap_or_default();
    let is_complete = listed.iter().filter(|(parts, _)| *parts == count).count() as u64 == count;
    let of_listing = |number| {
        let file = Sidecar::open(target.parts.path(number, count)).ok().flatten();
        file.is_some_and(|file| file.head.kind == kind && file.head.is_of_one_listing(&target.head))
    };
    if is_complete && (0..count).all(of_listing) {
        for (parts, part) in listed.into_iter().filter(|(parts, _)| *parts != count) {
            // One that stays does no harm: it is found stale, or says the same.
            let _ = fs::remove_file(target.parts.path(part, parts));
        }
    }
}

impl Built {
    fn count(&mut self, unit: &Unit, listed: &Listed<'_>, described: &Described, is_taken_over: bool) {
        self.samples += 1;
        self.taken_over += u64::from(is_taken_over);
        self.data_bytes += listed.length;
        if !described.cause.is_empty() {
            *self.without_entries.entry("unreadable".to_owned()).or_default() += 1;
            if self.unreadable.len() < NAMED_MAX {
                self.unreadable.push((unit.name(listed), described.cause.clone()));
            }
        } else if described.facts.is_none() && described.raw.is_none() {
            *self.without_entries.entry(described.format.name().to_owned()).or_default() += 1;
        }
    }

    fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.taken_over += other.taken_over;
        self.data_bytes += other.data_bytes;
        self.index_bytes += other.index_bytes;
        self.files += other.files;
        for (cause, count) in other.without_entries {
            *self.without_entries.entry(cause).or_default() += count;
        }
        let room = NAMED_MAX - self.unreadable.len();
        self.unreadable.extend(other.unreadable.into_iter().take(room));
    }
}

/// The word for a grain in heads and on the command line.
pub(super) fn grain_name(grain: Grain) -> String {
    match grain {
        Grain::Rows => "rows".to_owned(),
        Grain::Bits(bits) => bits.to_string(),
    }
}
