//! The photos that are decoded, in memory, with their entry points.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use forebay::jpeg::{Decoder, EntryPoints, Facts, Grain, Header};
use forebay::plan::{Orientation, SampleKey};
use forebay::source::{self, Extent, Source};
use forebay::{Augment, Error, ErrorKind, Limits, Rect, Result};

use crate::datagen::{Options, Recipe};

/// Bytes of photos that are held at most; the rest of a larger selection is left out, and counted.
const HELD_BYTES_MAX: u64 = 1 << 30;
/// Photos made where none are named.
const MADE: u64 = 64;

/// What is decoded.
pub struct Samples {
    pub list: Vec<Sample>,
    pub len_bytes: u64,
    /// What was left out, a line each.
    pub notes: Vec<String>,
}

/// A JPEG that this crate's own decoder takes.
pub struct Sample {
    pub number: usize,
    pub name: String,
    pub bytes: Vec<u8>,
    pub header: Header,
    pub index: Result<Index>,
}

/// What a sidecar would hold of a sample.
pub struct Index {
    pub facts: Facts,
    entries: Vec<u8>,
    pub quant: Vec<u8>,
    pub huffman: Vec<u8>,
}

impl Samples {
    /// Reads `count` samples of what the inputs name, or makes some where they name nothing.
    pub fn load(inputs: &[String], count: u64) -> Result<Self> {
        let mut samples = Self { list: Vec::new(), len_bytes: 0, notes: Vec::new() };
        let mut left_out = Vec::new();
        if inputs.is_empty() {
            let recipe = Recipe::new(Options { count: count.min(MADE), ..Options::default() });
            for number in 0..recipe.len() {
                let sample = recipe.make(number);
                samples.add(sample.key, sample.jpeg, &mut left_out);
            }
        }
        for input in inputs {
            let path = Path::new(input);
            if is_jpeg(path) {
                samples.add(input.clone(), read(path, 0, None)?, &mut left_out);
            } else {
                samples.add_some(&*source::open(path)?, count, &mut left_out)?;
            }
        }
        if let Some(first) = left_out.first() {
            samples.notes.push(format!("left out {} files, such as {first}", left_out.len()));
        }
        if samples.list.is_empty() {
            let error = Error::new(ErrorKind::EmptyDataset, "no JPEG that the baseline decoder takes");
            let found = left_out.first().map_or("nothing was found".to_owned(), Clone::clone);
            return Err(error.with_remedy(format!("name baseline JPEG files or a data set of them; {found}")));
        }
        Ok(samples)
    }

    /// The crops of a round, one a sample.
    pub fn regions(&self, augment: &Augment, seed: u64, round: u64) -> Result<Vec<Rect>> {
        let region = |sample: &Sample| {
            let key = SampleKey { seed, epoch: round, sample: sample.number as u64, view: 0 };
            let Header { width, height, .. } = sample.header;
            Ok(augment.plan(key, width, height, Orientation::AS_STORED)?.region())
        };
        self.list.iter().map(region).collect()
    }

    /// Samples of a data set at even distances.
    fn add_some(&mut self, source: &dyn Source, count: u64, left_out: &mut Vec<String>) -> Result<()> {
        let count = count.min(source.len());
        let (mut path, mut key) = (PathBuf::new(), String::new());
        for number in 0..count {
            let sample = (u128::from(number) * u128::from(source.len()) / u128::from(count)) as u64;
            source.key(sample, &mut key)?;
            if self.len_bytes >= HELD_BYTES_MAX {
                left_out.push(format!("{key} (more than {HELD_BYTES_MAX} bytes are not held)"));
                continue;
            }
            let (object, offset, len_bytes) = match source.extent(sample)? {
                Extent::Object(object) => (object, 0, None),
                Extent::Range { object, offset, len_bytes } => (object, offset, Some(len_bytes)),
            };
            source.object_path(object, &mut path)?;
            self.add(key.clone(), read(&path, offset, len_bytes)?, left_out);
        }
        Ok(())
    }

    fn add(&mut self, name: String, bytes: Vec<u8>, left_out: &mut Vec<String>) {
        let header = match Header::parse(&bytes) {
            Ok(header) if header.support().is_ours() => header,
            Ok(header) => return left_out.push(format!("{name} ({})", header.support().name())),
            Err(error) => return left_out.push(format!("{name} ({error})")),
        };
        if let Err(error) = Limits::default().check_dimensions(header.width, header.height) {
            return left_out.push(format!("{name} ({error})"));
        }
        let index = Index::new(&bytes, &header);
        self.len_bytes += bytes.len() as u64;
        self.list.push(Sample { number: self.list.len(), name, bytes, header, index });
    }
}

impl Sample {
    /// All of it.
    pub fn whole(&self) -> Rect {
        Rect::whole(self.header.width, self.header.height)
    }
}

impl Index {
    fn new(bytes: &[u8], header: &Header) -> Result<Self> {
        let (mut entries, mut quant, mut huffman) = Default::default();
        let facts = Decoder::new().index(bytes, header, Grain::default(), &mut entries)?;
        header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
        Ok(Self { facts, entries, quant, huffman })
    }

    /// The entry points.
    pub fn entries(&self) -> EntryPoints<'_> {
        EntryPoints::new(&self.entries)
    }
}

fn is_jpeg(path: &Path) -> bool {
    let mut start = [0; 2];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == [0xFF, 0xD8]
}

/// A part of a file, or all of it.
fn read(path: &Path, offset: u64, len_bytes: Option<u64>) -> Result<Vec<u8>> {
    let failed = |error| {
        let error = Error::io(format!("cannot read {}", path.display()), error);
        error.with_remedy("check that the file is there and that this user may read it")
    };
    let file = File::open(path).map_err(failed)?;
    let len_bytes = match len_bytes {
        Some(len_bytes) => len_bytes,
        None => file.metadata().map_err(failed)?.len(),
    };
    Limits::default().check_bytes(len_bytes)?;
    let mut bytes = vec![0; len_bytes as usize];
    file.read_exact_at(&mut bytes, offset).map_err(failed)?;
    Ok(bytes)
}
