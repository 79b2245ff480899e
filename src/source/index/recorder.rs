//! What is learned of samples while they are loaded anyway, so that building their index need not read them again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::build::{BuildOptions, Built, build_from};
use super::describe::Described;
use super::identity::{Modified, settled_before};
use super::place::Parts;
use super::row::{RecordNumbers, Stored};
use crate::error::{Error, Result};
use crate::report::lock;
use crate::source::open::DataSet;

/// Takes descriptions of samples from any thread and in any order, each sample's once, until the index is written.
///
/// They go to a file without a name in the folder of the index. A bit of memory for every sample stays, and 16 bytes
/// for every one recorded.
pub(super) struct Recorder {
    dataset: PathBuf,
    options: BuildOptions,
    /// A bit a sample: it was seen.
    seen: Box<[AtomicU64]>,
    /// What was modified since may have been modified again without showing it.
    settled_before: Modified,
    state: Mutex<State>,
}

enum State {
    Empty,
    Recording(Spill),
    /// The index is written, or cannot be: why is said once.
    Over(Option<Error>),
}

/// The bytes that a sample was described from.
pub(crate) struct Origin<'a> {
    pub path: &'a Path,
    pub offset: u64,
    pub len_bytes: u64,
    /// Of the file, when it was opened.
    pub modified: Modified,
}

impl Recorder {
    /// For a data set of so many samples. Nothing is written before the first of them is recorded.
    pub(super) fn new(dataset: PathBuf, options: BuildOptions, samples: u64) -> Self {
        let words = usize::try_from(samples.div_ceil(64)).unwrap_or(0);
        Self {
            dataset,
            options,
            seen: (0..words).map(|_| AtomicU64::new(0)).collect(),
            settled_before: settled_before(),
            state: Mutex::new(State::Empty),
        }
    }

    /// Whether a sample is to be described: the first time that it is asked for.
    pub(super) fn wants(&self, sample: u64) -> bool {
        let bit = 1 << (sample % 64);
        let word = usize::try_from(sample / 64).ok().and_then(|word| self.seen.get(word));
        word.is_some_and(|word| word.fetch_or(bit, Relaxed) & bit == 0)
    }

    /// Keeps a description. What cannot be kept is read again when the index is written.
    pub(super) fn record(&self, origin: &Origin<'_>, described: &Described) {
        let mut state = lock(&self.state);
        if let State::Empty = *state {
            *state = match Spill::create(&self.dataset, self.options.dir.as_deref()) {
                Ok(spill) => State::Recording(spill),
                Err(error) => State::Over(Some(error)),
            };
        }
        // What is not kept counts as missing from the index all the same.
        if let State::Recording(spill) = &mut *state
            && origin.modified < self.settled_before
            && let Err(error) = spill.push(origin, described)
        {
            *state = State::Over(Some(cannot_write(&self.dataset, error)));
        }
    }

    /// Writes what is missing of the index, once, from what was recorded; other samples are read. `None` if there is
    /// nothing to write.
    ///
    /// # Errors
    /// As for building an index, the first where there are several; those of recording.
    pub(super) fn write_index(&self) -> Result<Option<Built>> {
        let state = std::mem::replace(&mut *lock(&self.state), State::Over(None));
        let spill = match state {
            State::Empty | State::Over(None) => return Ok(None),
            State::Over(Some(error)) => return Err(error),
            State::Recording(spill) => spill,
        };
        let recorded = spill.finish().map_err(|error| cannot_write(&self.dataset, error))?;
        let mut built = build_from(vec![DataSet::find(&self.dataset)?], &self.options, Some(&recorded), &|_, _| {})?;
        if built.failed.is_empty() { Ok(Some(built)) } else { Err(built.failed.swap_remove(0)) }
    }
}

/// The descriptions, in the order in which they came.
struct Spill {
    file: BufWriter<File>,
    len_bytes: u64,
    /// Hash of the origin, and where the description starts.
    places: Vec<(u64, u64)>,
    row: Vec<u8>,
}

impl Spill {
    fn create(dataset: &Path, dir: Option<&Path>) -> Result<Self> {
        let folder = match (DataSet::find(dataset)?, dir) {
            (_, Some(dir)) => dir.to_owned(),
            (DataSet::Shards(paths), None) => {
                let first = paths.first().and_then(|path| path.parent());
                first.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
            }
            (DataSet::Files(files), None) => Parts::of(&files, None).folder().to_owned(),
        };
        let file = fs::create_dir_all(&folder).and_then(|()| unnamed_file(&folder));
        let file = file.map_err(|error| cannot_write(&folder, error))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 18, file), len_bytes: 0, places: Vec::new(), row: Vec::new() })
    }

    fn push(&mut self, origin: &Origin<'_>, described: &Described) -> io::Result<()> {
        self.row.clear();
        for number in origin.numbers().into_iter().chain(described.numbers(0, 0)) {
            self.row.extend_from_slice(&number.to_le_bytes());
        }
        for string in [described.cause.as_bytes(), &described.quant, &described.huffman, &described.entries] {
            self.row.extend_from_slice(&(string.len() as u64).to_le_bytes());
            self.row.extend_from_slice(string);
        }
        self.file.write_all(&(self.row.len() as u64).to_le_bytes())?;
        self.file.write_all(&self.row)?;
        self.places.push((origin.hash(), self.len_bytes));
        self.len_bytes += 8 + self.row.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> io::Result<Recorded> {
        self.places.sort_unstable();
        Ok(Recorded { file: self.file.into_inner()?, places: self.places })
    }
}

/// Descriptions to be found by their origin.
pub(super) struct Recorded {
    file: File,
    /// Sorted.
    places: Vec<(u64, u64)>,
}

impl Recorded {
    /// What these bytes were described as, if they were. A description that cannot be read is none.
    pub(super) fn find(&self, origin: &Origin<'_>) -> Option<Described> {
        let hash = origin.hash();
        let from = self.places.partition_point(|place| place.0 < hash);
        let mut same_hash = self.places[from..].iter().take_while(|place| place.0 == hash);
        same_hash.find_map(|(_, at)| self.read(*at, origin))
    }

    fn read(&self, at: u64, origin: &Origin<'_>) -> Option<Described> {
        let mut len = [0; 8];
        self.file.read_exact_at(&mut len, at).ok()?;
        let mut row = vec![0; usize::try_from(u64::from_le_bytes(len)).ok()?];
        self.file.read_exact_at(&mut row, at + 8).ok()?;
        let mut rest = &row[..];
        let mut is_same = true;
        for number in origin.numbers() {
            is_same &= take_number(&mut rest)? == number;
        }
        let mut numbers: RecordNumbers = Default::default();
        for number in &mut numbers {
            *number = take_number(&mut rest)?;
        }
        let [cause, quant, huffman, entries] =
            [take_string(&mut rest)?, take_string(&mut rest)?, take_string(&mut rest)?, take_string(&mut rest)?];
        let stored = Stored { numbers, cause, quant, huffman, entries };
        if is_same { stored.described().ok() } else { None }
    }
}

impl Origin<'_> {
    /// All that tells it from another but for its path.
    fn numbers(&self) -> [u64; 4] {
        [self.offset, self.len_bytes, self.modified.0 as u64, self.modified.1.into()]
    }

    /// Of its path and all else.
    fn hash(&self) -> u64 {
        let path = xxh3_64_with_seed(self.path.as_os_str().as_bytes(), 0);
        self.numbers().iter().fold(path, |hash, number| xxh3_64_with_seed(&number.to_le_bytes(), hash))
    }
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u64::from_le_bytes(*number))
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_number(rest)?).ok()?;
    let (string, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(string)
}

/// A file that is gone with its last descriptor, whatever ends the process.
fn unnamed_file(folder: &Path) -> io::Result<File> {
    for number in 0.. {
        let path = folder.join(format!(".recording-{}-{number}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            created => {
                let file = created?;
                fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
    unreachable!("a number is free")
}

fn cannot_write(place: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot record an index in {}", place.display()), error)
        .with_remedy("make room and give this user the rights to write there, or name another folder for the index")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::Part;
    use super::super::describe::Describer;
    use super::*;
    use crate::jpeg::Grain;
    use crate::source::{self, Extent, IndexMode, IndexOptions};

    fn options() -> BuildOptions {
        BuildOptions { grain: Grain::default(), part: Part::WHOLE, dir: None, threads: 2, force: false }
    }

    fn jpeg(number: u16) -> Vec<u8> {
        let (width, height) = (40 + number, 30);
        let rgb: Vec<u8> = (0..width * height * 3).map(|value| (value % (7 + number)) as u8 * 20).collect();
        let mut bytes = vec![];
        let encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
        encoder.encode(&rgb, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
        bytes
    }

    /// A folder, a list of its files and a shard of them, all last written long ago.
    fn data_sets(root: &Path) -> [PathBuf; 3] {
        let [folder, list, shard] = ["folder", "list.txt", "shard.tar"].map(|name| root.join(name));
        fs::create_dir_all(folder.join("a")).unwrap();
        let mut tar = tar::Builder::new(File::create(&shard).unwrap());
        let mut lines = String::new();
        for number in 0..5 {
            let path = folder.join(format!("a/{number}.jpg"));
            fs::write(&path, jpeg(number)).unwrap();
            File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            tar.append_path_with_name(&path, format!("{number}.jpg")).unwrap();
            lines += &format!("folder/a/{number}.jpg 0\n");
        }
        tar.into_inner().unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        fs::write(&list, lines).unwrap();
        [folder, list, shard]
    }

    /// Records all samples but the first, with `change` done to what is said of their origin.
    fn record(dataset: &Path, change: impl Fn(&mut Origin<'_>)) -> Recorder {
        let source = source::open(dataset).unwrap();
        let recorder = Recorder::new(dataset.to_owned(), options(), source.len());
        let mut describer = Describer::new(Grain::default());
        for sample in 1..source.len() {
            let extent = source.extent(sample).unwrap();
            let (Extent::Object(object) | Extent::Range { object, .. }) = extent;
            let mut path = PathBuf::new();
            source.object_path(object, &mut path).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let mut offset = 0;
            if let Extent::Range { offset: start, len_bytes, .. } = extent {
                bytes = bytes[start as usize..][..len_bytes as usize].to_vec();
                offset = start;
            }
            let mut origin = Origin { path: &path, offset, len_bytes: bytes.len() as u64, modified: (0, 0) };
            change(&mut origin);
            assert!(recorder.wants(sample) && !recorder.wants(sample));
            recorder.record(&origin, &describer.describe(&bytes, false));
        }
        recorder
    }

    #[test]
    fn an_index_from_recorded_samples_is_the_one_from_read_samples() {
        let root = tempfile::tempdir().unwrap();
        for dataset in data_sets(root.path()) {
            let built = record(&dataset, |_| {}).write_index().unwrap().unwrap();
            assert_eq!((built.samples, built.taken_over), (5, 4), "{}", dataset.display());
            let index = IndexOptions { mode: IndexMode::Required, dir: None };
            let said = || -> Vec<_> {
                let source = source::open_with(&dataset, &index).unwrap();
                let record = |sample| format!("{:?}", source.record(sample).unwrap().expect("a record"));
                (0..source.len()).map(record).collect()
            };
            let recorded = said();
            super::super::build(&dataset, &BuildOptions { force: true, ..options() }, &|_, _| {}).unwrap();
            assert_eq!(recorded, said(), "{}", dataset.display());
        }
    }

    #[test]
    fn samples_that_changed_since_are_read_again() {
        let changes: [fn(&mut Origin<'_>); 4] = [
            |origin| origin.modified.1 += 1,
            |origin| origin.len_bytes += 1,
            |origin| origin.offset += 1,
            |origin| origin.path = Path::new("elsewhere.jpg"),
        ];
        for change in changes {
            let root = tempfile::tempdir().unwrap();
            for dataset in data_sets(root.path()) {
                let built = record(&dataset, change).write_index().unwrap().unwrap();
                assert_eq!((built.samples, built.taken_over), (5, 0), "{}", dataset.display());
            }
        }
    }

    #[test]
    fn what_was_just_written_is_not_trusted_and_nothing_is_left_behind() {
        let root = tempfile::tempdir().unwrap();
        let [.., shard] = data_sets(root.path());
        let now = settled_before();
        let recorder = record(&shard, |origin| origin.modified = (now.0 + 1, 0));
        let built = recorder.write_index().unwrap().unwrap();
        assert_eq!((built.samples, built.taken_over), (5, 0));
        fs::remove_file(root.path().join("shard.tar.index.arrow")).unwrap();
        let recorder = record(&shard, |_| {});
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3, "the recording has no name");
        assert!(recorder.write_index().unwrap().is_some() && recorder.write_index().unwrap().is_none());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 4);
    }
}
