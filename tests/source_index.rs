//! Promises of sidecar indexes: the same samples with and without, nothing listed that an index knows, and
//! an index that does not fit is never used in silence.

mod common;

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{folder, jpeg, samples, shards};
use forebay::jpeg::{Decodability, Decoder, Grain, Header};
use forebay::source::index::{BuildOptions, Built, Part, build};
use forebay::source::{Extent, IndexMode, IndexOptions, Source, open, open_with};
use forebay::{ErrorKind, Result};
use tempfile::{TempDir, tempdir};

fn options() -> BuildOptions {
    BuildOptions { grain: Grain::default(), part: Part::WHOLE, dir: None, threads: 3, force: false }
}

fn index(dataset: impl AsRef<Path>) -> Built {
    index_as(dataset, &options())
}

fn index_as(dataset: impl AsRef<Path>, options: &BuildOptions) -> Built {
    let built = build(dataset, options, &|_, _| {}).unwrap();
    assert!(built.failed.is_empty(), "{:?}", built.failed);
    built
}

fn with(mode: IndexMode, dataset: impl AsRef<Path>) -> Result<Arc<dyn Source>> {
    open_with(dataset, &IndexOptions { mode, dir: None })
}

fn required(dataset: impl AsRef<Path>) -> Arc<dyn Source> {
    with(IndexMode::Required, dataset).unwrap()
}

/// Everything that a source says of its samples, in words.
fn said(source: &dyn Source) -> Vec<String> {
    let mut lines = vec![format!("{:?} {:?}", source.classes(), source.notes())];
    let (mut key, mut path) = (String::from("before"), PathBuf::from("before"));
    for sample in 0..source.len() {
        source.key(sample, &mut key).unwrap();
        let extent = source.extent(sample).map_err(|error| error.to_string());
        if let Ok(Extent::Object(object) | Extent::Range { object, .. }) = &extent {
            source.object_path(*object, &mut path).unwrap();
        }
        let label = source.label(sample).map_err(|error| error.to_string());
        lines.push(format!("{key:?} {label:?} {extent:?} {path:?}"));
    }
    lines
}

/// The bytes of a sample.
fn bytes(source: &dyn Source, sample: u64) -> Vec<u8> {
    let mut path = PathBuf::new();
    let (object, part) = match source.extent(sample).unwrap() {
        Extent::Object(object) => (object, None),
        Extent::Range { object, offset, len_bytes } => (object, Some((offset, len_bytes))),
    };
    source.object_path(object, &mut path).unwrap();
    let bytes = fs::read(path).unwrap();
    part.map_or(bytes.clone(), |(offset, len)| bytes[offset as usize..][..len as usize].to_vec())
}

/// Every record must be what the image's own header says, and only those that cannot have one have none.
fn check_records(source: &dyn Source) {
    let mut with_record = 0;
    for sample in 0..source.len() {
        let bytes = bytes(source, sample);
        let header = Header::parse(&bytes).unwrap();
        let record = source.record(sample).unwrap();
        assert_eq!(record.is_some(), header.support() == Decodability::Streamed, "sample {sample}");
        let Some(record) = record else { continue };
        with_record += 1;
        let mut entries = Vec::new();
        let facts = Decoder::new().index(&bytes, &header, Grain::default(), &mut entries).unwrap();
        assert_eq!(record.facts, facts);
        assert_eq!(record.entries.as_bytes(), entries);
        assert_eq!(record.len_bytes, bytes.len() as u64);
        let (mut quant, mut huffman) = (vec![], vec![]);
        header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
        assert_eq!((record.quant, record.huffman), (&quant[..], &huffman[..]));
        assert!(!quant.is_empty());
    }
    assert!(with_record > source.len() / 2);
}

#[test]
fn shards_are_the_same_with_and_without() {
    let dir = tempdir().unwrap();
    let pattern = shards(dir.path(), &samples(1100, 7), 600);
    let without = said(&*open(&pattern).unwrap());
    let built = index(&pattern);
    assert_eq!((built.files, built.samples, built.up_to_date), (2, 1100, 0));
    let source = required(&pattern);
    assert_eq!(said(&*source), without);
    check_records(&*source);
    assert!(source.record(1100).is_err() && source.extent(1100).is_err());
    let again = index(&pattern);
    assert_eq!((again.files, again.up_to_date), (0, 2));
}
