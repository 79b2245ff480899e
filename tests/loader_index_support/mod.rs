//! A source whose index lies in memory, where a test can make it lie.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::jpeg::{Decoder, EntryPoints, Facts, Grain, Header};
use forebay::source::{self, Extent, Record, RecordedImage, RecordedJpeg, Source};
use forebay::{Error, ErrorKind, Result};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// A data set and what an index of it says.
pub struct Indexed {
    inner: Arc<dyn Source>,
    pub records: Vec<Option<Row>>,
    /// A sample whose record cannot be read.
    pub damaged: Option<u64>,
}

/// What the index says of one sample.
pub struct Row {
    pub facts: Facts,
    pub entries: Vec<u8>,
    pub quant: Vec<u8>,
    pub huffman: Vec<u8>,
    pub len_bytes: u64,
    pub object_bytes: u64,
    pub modified: Option<(i64, u32)>,
}

impl Indexed {
    /// Indexes every sample of a data set that an index can describe.
    pub fn open(data_set: impl AsRef<Path>, grain: Grain) -> Self {
        let inner = source::open(data_set).expect("data set");
        let records = (0..inner.len()).map(|sample| index(&*inner, sample, grain)).collect();
        Self { inner, records, damaged: None }
    }

    /// What the index says of a sample, to be changed.
    pub fn row(&mut self, sample: usize) -> &mut Row {
        self.records[sample].as_mut().expect("a record")
    }
}

fn index(source: &dyn Source, sample: u64, grain: Grain) -> Option<Row> {
    let (bytes, object) = read(source, sample);
    let header = Header::parse(&bytes).ok()?;
    let mut entries = vec![];
    let facts = Decoder::new().index(&bytes, &header, grain, &mut entries).ok()?;
    let (mut quant, mut huffman) = (vec![], vec![]);
    header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
    let modified = Some((object.mtime(), object.mtime_nsec() as u32));
    Some(Row { facts, entries, quant, huffman, len_bytes: bytes.len() as u64, object_bytes: object.len(), modified })
}

/// A sample's bytes, and what is known of the file that they lie in.
fn read(source: &dyn Source, sample: u64) -> (Vec<u8>, Metadata) {
    let mut path = PathBuf::new();
    let extent = source.extent(sample).expect("extent");
    let (Extent::Object(object) | Extent::Range { object, .. }) = extent;
    source.object_path(object, &mut path).expect("path");
    let file = File::open(&path).expect("object");
    let object = file.metadata().expect("metadata");
    let (offset, len_bytes) = match extent {
        Extent::Object(_) => (0, object.len()),
        Extent::Range { offset, len_bytes, .. } => (offset, len_bytes),
    };
    let mut bytes = vec![0; len_bytes as usize];
    file.read_exact_at(&mut bytes, offset).expect("bytes");
    (bytes, object)
}

impl Source for Indexed {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        self.inner.extent(sample)
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        self.inner.object_path(object, path)
    }

    fn label(&self, sample: u64) -> Result<i64> {
        self.inner.label(sample)
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        self.inner.key(sample, key)
    }

    fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        if self.damaged == Some(sample) {
            return Err(Error::new(ErrorKind::IndexStale, "the record's checksum is wrong").with_remedy("index again"));
        }
        Ok(self.records[sample as usize].as_ref().map(|row| Record {
            image: RecordedImage::Jpeg(RecordedJpeg {
                facts: row.facts,
                entries: EntryPoints::new(&row.entries),
                quant: &row.quant,
                huffman: &row.huffman,
            }),
            len_bytes: row.len_bytes,
            object_bytes: row.object_bytes,
            modified: row.modified,
        }))
    }
}

/// Photo-sized samples: enough bytes in an MCU row for the ranges of a crop to lie apart where they are `noisy`.
pub fn photos(count: usize, (width, height): (usize, usize), noisy: bool) -> Vec<(String, usize, Vec<u8>)> {
    let photo = |number: usize| {
        let mut state = number as u32 + 1;
        let mut rgb = super::common::pixels(number, width, height);
        for value in &mut rgb {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value = value.wrapping_add((state >> 24) as u8 >> if noisy { 1 } else { 4 });
        }
        let mut bytes = vec![];
        let mut encoder = Encoder::new(&mut bytes, 90);
        encoder.set_sampling_factor(if number.is_multiple_of(2) {
            SamplingFactor::F_2_2
        } else {
            SamplingFactor::F_1_1
        });
        if number.is_multiple_of(3) {
            encoder.set_restart_interval(50);
        }
        encoder.encode(&rgb, width as u16, height as u16, ColorType::Rgb).expect("encoding");
        bytes
    };
    (0..count).map(|number| (format!("class0/{number:05}"), 0, photo(number))).collect()
}
