//! Holding every byte of a data set against its index, and every image against its decoder.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::describe::{Described, Describer};
use super::head::parse_grain;
use super::lookup::{Set, find_shard};
use super::map::Sidecar;
use super::row::Listed;
use super::unit::{Files, Reader, Unit};
use super::work::{Task, run};
use crate::decode::Decoder;
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::Grain;
use crate::limits::Limits;
use crate::pixels::{ROW_PADDING_BYTES, Rect, RowSink};
use crate::raw::Shape;
use crate::report::lock;
use crate::source::open::{DataSet, FileSet};

/// Problems that are kept to be named.
const NAMED_MAX: usize = 20;

/// Samples of files that are one unit.
const FILES_PER_UNIT: u64 = 1 << 16;

/// What a data set is verified against.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The folder that indexes lie in; beside the data where there is none.
    pub dir: Option<PathBuf>,
    /// Threads.
    pub threads: usize,
    /// The dimensions of samples that are pixels without a header, which are a problem while it is not given.
    pub raw_shape: Option<Shape>,
}

/// What verifying found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Samples read and decoded.
    pub samples: u64,
    /// Samples compared with an index.
    pub indexed: u64,
    /// Bytes of the samples.
    pub data_bytes: u64,
    /// Shards, folders or lists without an index.
    pub without_index: u64,
    /// How many things are wrong.
    pub problems: u64,
    /// The first of them, each naming its sample or file, in the order of the data set.
    pub named: Vec<Error>,
}

/// Lists a data set anew, reads and decodes every sample, and compares with the index all that it says: places,
/// labels, checksums of the bytes, facts, entry points. Without an index it decodes only.
///
/// # Errors
/// Those of opening the data set. What is wrong with shards and samples is in [`Verified::named`].
pub fn verify(
    dataset: impl AsRef<Path>,
    options: &VerifyOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Verified> {
    verify_all([dataset], options, progress)
}

/// [`verify`] of several data sets, one after the other.
///
/// # Errors
/// Those of opening any of them, before another is verified.
pub fn verify_all(
    datasets: impl IntoIterator<Item = impl AsRef<Path>>,
    options: &VerifyOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Verified> {
    let mut verified = Verified::default();
    for set in DataSet::find_all(datasets)? {
        let task = match set {
            DataSet::Shards(paths) => Verify::new(options, Targets::Shards(paths)),
            DataSet::Files(set) => Verify::of_files(options, &set)?,
        };
        let before = verified.samples;
        let progress = |done, known| progress(before + done, before + known);
        run(&task, task.targets.len(), options.threads.max(1), &progress);
        let mut found = task.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(number, _)| *number);
        found.into_iter().for_each(|(_, part)| verified.add(part));
    }
    Ok(verified)
}

enum Targets {
    Shards(Vec<PathBuf>),
    Files { files: Arc<Files>, index: Option<Arc<Set>> },
}

impl Targets {
    fn len(&self) -> usize {
        match self {
            Self::Shards(paths) => paths.len(),
            Self::Files { files, .. } => files.len().div_ceil(FILES_PER_UNIT) as usize,
        }
    }
}

struct Verify<'a> {
    options: &'a VerifyOptions,
    targets: Targets,
    /// What was found in each unit; by its number, but what concerns the index as a whole comes first.
    found: Mutex<Vec<(usize, Verified)>>,
}

struct VerifyUnit {
    number: usize,
    unit: Unit,
    index: Option<Index>,
}

#[allow(clippy::large_enum_variant, reason = "there is one a shard")]
enum Index {
    Shard(Sidecar),
    /// And the number of the unit's first sample.
    Files(Arc<Set>, u64),
}

impl Index {
    fn row(&self, sample: u64) -> Result<(&Sidecar, u64)> {
        match self {
            Self::Shard(sidecar) => Ok((sidecar, sample)),
            Self::Files(set, first) => set.find_row(first + sample),
        }
    }

    fn grain(&self) -> Grain {
        self.row(0).ok().and_then(|(file, _)| parse_grain(&file.head.grain)).unwrap_or_default()
    }
}

impl<'a> Verify<'a> {
    fn new(options: &'a VerifyOptions, targets: Targets) -> Self {
        Self { options, targets, found: Mutex::default() }
    }

    fn of_files(options: &'a VerifyOptions, set: &FileSet) -> Result<Self> {
        let mut verified = Verified::default();
        let index = match set {
            FileSet::Folder(root) => Set::of_folder(root, options.dir.as_deref()),
            FileSet::List(path) => Set::of_list(path, options.dir.as_deref()),
        };
        let index = verified.usable(index);
        let files = Arc::new(Files::list(set)?);
        if let Some(index) = index.as_ref().filter(|index| index.len() != files.len()) {
            verified.problem(other_count(index.files()[0].path(), index.len(), files.len()));
        }
        let task = Self::new(options, Targets::Files { files, index: index.map(Arc::new) });
        task.tell(0, verified);
        Ok(task)
    }

    fn tell(&self, number: usize, verified: Verified) {
        lock(&self.found).push((number, verified));
    }

    fn begin(&self, number: usize, verified: &mut Verified) -> Result<VerifyUnit> {
        match &self.targets {
            Targets::Shards(paths) => {
                let index = verified.usable(find_shard(&paths[number], self.options.dir.as_deref()));
                let unit = Unit::of_shard(&paths[number])?;
                if let Some(index) = index.as_ref().filter(|index| index.len() != unit.len()) {
                    verified.problem(other_count(index.path(), index.len(), unit.len()));
                }
                Ok(VerifyUnit { number, unit, index: index.map(Index::Shard) })
            }
            Targets::Files { files, index } => {
                let first = number as u64 * FILES_PER_UNIT;
                let samples = first..files.len().min(first + FILES_PER_UNIT);
                let index = index.as_ref().map(|set| Index::Files(Arc::clone(set), first));
                Ok(VerifyUnit { number, unit: Unit::Files { files: Arc::clone(files), samples }, index })
            }
        }
    }
}

impl Task for Verify<'_> {
    type Unit = VerifyUnit;
    type Taker = Verified;
    type Worker = Worker;
    type Output = Verified;

    fn open(&self, number: usize) -> Option<(VerifyUnit, Verified)> {
        let mut verified = Verified::default();
        match self.begin(number, &mut verified) {
            Ok(unit) => Some((unit, verified)),
            Err(error) => {
                verified.problem(error);
                self.tell(number, verified);
                None
            }
        }
    }

    fn len(&self, unit: &VerifyUnit) -> u64 {
        unit.unit.len()
    }

    fn chunk_end(&self, unit: &VerifyUnit, from: u64) -> u64 {
        unit.unit.chunk_end(from)
    }

    fn worker(&self) -> Worker {
        Worker::default()
    }

    fn work(&self, worker: &mut Worker, unit: &VerifyUnit, chunk: Range<u64>) -> Result<Verified> {
        let mut verified = Verified::default();
        worker.reader.begin(&unit.unit, &chunk)?;
        for sample in chunk {
            let mut listed = unit.unit.listed(sample)?;
            let checked =
                catch_unwind(AssertUnwindSafe(|| worker.check(unit, sample, &mut listed, self.options.raw_shape)));
            let problem = checked.unwrap_or_else(|_| {
                // The scratch may be half written.
                worker.decoder = Decoder::new(Limits::default());
                Err(Error::new(ErrorKind::Internal, "the decoder panicked on these bytes"))
            });
            let problem = problem.err();
            verified.samples += 1;
            verified.indexed += u64::from(unit.index.is_some());
            verified.data_bytes += listed.length;
            if let Some(error) = problem {
                verified.problem(error.with_sample(unit.unit.name(&listed)));
            }
        }
        Ok(verified)
    }

    fn take(&self, _: &VerifyUnit, all: &mut Verified, verified: Verified) -> Result<()> {
        all.add(verified);
        Ok(())
    }

    fn close(&self, unit: &VerifyUnit, mut all: Verified, result: Result<()>) {
        if let Err(error) = result.and_then(|()| unit.unit.check_unchanged()) {
            all.problem(error);
        }
        self.tell(unit.number, all);
    }
}

/// What a thread checks with.
struct Worker {
    reader: Reader,
    describer: Describer,
    decoder: Decoder,
    rows: Rows,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            reader: Reader::default(),
            describer: Describer::new(Grain::default()),
            decoder: Decoder::new(Limits::default()),
            rows: Rows::default(),
        }
    }
}

impl Worker {
    /// The first thing that is wrong with a sample.
    fn check(
        &mut self,
        unit: &VerifyUnit,
        sample: u64,
        listed: &mut Listed<'_>,
        raw_shape: Option<Shape>,
    ) -> Result<()> {
        let bytes = self.reader.bytes(&unit.unit, listed)?;
        if let Some(index) = &unit.index {
            self.describer.set_grain(index.grain());
            let (file, row) = index.row(sample)?;
            compare(file, row, listed, &self.describer.describe(bytes, listed.is_headerless()))?;
        }
        let info = if listed.is_headerless() {
            self.decoder.inspect_headerless(bytes, raw_shape)?
        } else {
            self.decoder.inspect(bytes)?
        };
        self.rows.width = info.width as usize;
        self.decoder.decode(bytes, &info, Rect::whole(info.width, info.height), &mut self.rows)
    }
}

/// Refuses a row that says anything else than the data does.
fn compare(file: &Sidecar, row: u64, listed: &Listed<'_>, described: &Described) -> Result<()> {
    let (old_listed, old) = (file.listed(row)?, file.described(row)?);
    let is_other = |what: &str| file.damaged(row, &format!("{what} is not what the data says"));
    if old_listed.key != listed.key || old_listed.path != listed.path || old_listed.label != listed.label {
        return Err(is_other("the key, path or label"));
    }
    if old.data_checksum != described.data_checksum || old_listed.length != listed.length {
        let error = Error::new(ErrorKind::Changed, "its bytes are not those that were indexed");
        return Err(error.with_remedy("copy it again from its origin, or, if the change was meant, build the index anew with `forebay index DATASET --force`"));
    }
    if (old_listed.offset, old_listed.flags) != (listed.offset, listed.flags) {
        return Err(is_other("the place"));
    }
    if (old.facts, old.raw) != (described.facts, described.raw)
        || (old.format, old.width, old.height) != (described.format, described.width, described.height)
    {
        return Err(is_other("what it says of the image"));
    }
    if (&old.quant, &old.huffman, &old.entries) != (&described.quant, &described.huffman, &described.entries) {
        return Err(is_other("its tables or entry points"));
    }
    // Of files, the time: a copy of the same bytes is read whole for fear that it is another.
    if old_listed.modified != listed.modified {
        return Err(is_other("the time of its last modification"));
    }
    Ok(())
}

fn other_count(index: &Path, indexed: u64, listed: u64) -> Error {
    super::stale(index, &format!("it has {indexed} samples, and the data has {listed}"))
}

impl Verified {
    /// An index that can be compared with, if there is one; a problem if it does not fit.
    fn usable<T>(&mut self, found: Result<Option<T>>) -> Option<T> {
        match found {
            Ok(found) => {
                self.without_index += u64::from(found.is_none());
                found
            }
            Err(error) => {
                self.problem(error);
                None
            }
        }
    }

    fn problem(&mut self, error: Error) {
        self.problems += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(error);
        }
    }

    fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.indexed += other.indexed;
        self.data_bytes += other.data_bytes;
        self.without_index += other.without_index;
        self.problems += other.problems;
        let room = NAMED_MAX - self.named.len();
        self.named.extend(other.named.into_iter().take(room));
    }
}

/// Takes rows and keeps none.
#[derive(Default)]
struct Rows {
    width: usize,
    planes: [Vec<u8>; 3],
}

impl RowSink for Rows {
    fn row(&mut self) -> [&mut [u8]; 3] {
        let len = self.width + ROW_PADDING_BYTES;
        for plane in self.planes.iter_mut().filter(|plane| plane.len() < len) {
            plane.resize(len, 0);
        }
        self.planes.each_mut().map(Vec::as_mut_slice)
    }

    fn commit(&mut self) {}
}
