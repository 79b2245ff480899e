//! Data sets with something for an index to say, and everything that a source says of them.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::Result;
use forebay::jpeg::Grain;
use forebay::source::index::{BuildOptions, Built, Part, build};
use forebay::source::{Extent, IndexMode, IndexOptions, RecordedImage, RecordedJpeg, Source, open_with};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::common;

/// A JPEG in one scan, which has entry points; every fifth in several, which has none.
pub fn jpeg(number: usize) -> Vec<u8> {
    if number % 5 == 4 {
        return common::jpeg(number);
    }
    let (width, height) = (90 + number % 40, 70 + number % 23);
    let mut bytes = vec![];
    let mut encoder = Encoder::new(&mut bytes, 80 + (number % 15) as u8);
    encoder.set_sampling_factor(if number.is_multiple_of(4) { SamplingFactor::F_2_2 } else { SamplingFactor::F_1_1 });
    let rgb = common::pixels(number, width, height);
    encoder.encode(&rgb, width as u16, height as u16, ColorType::Rgb).expect("encoding");
    bytes
}

/// `count` samples in `classes` classes: name without extension, label, bytes.
pub fn samples(count: usize, classes: usize) -> Vec<(String, usize, Vec<u8>)> {
    let per_class = count.div_ceil(classes);
    (0..count).map(|n| (format!("class{}/{n:05}", n / per_class), n / per_class, jpeg(n))).collect()
}

pub fn options() -> BuildOptions {
    BuildOptions { grain: Grain::default(), part: Part::WHOLE, dir: None, threads: 3, force: false }
}

/// Builds an index, in which nothing may fail.
pub fn index_as(dataset: impl AsRef<Path>, options: &BuildOptions) -> Built {
    let built = build(dataset, options, &|_, _| {}).unwrap();
    assert!(built.failed.is_empty(), "{:?}", built.failed);
    built
}

pub fn index(dataset: impl AsRef<Path>) -> Built {
    index_as(dataset, &options())
}

pub fn with(mode: IndexMode, dataset: impl AsRef<Path>) -> Result<Arc<dyn Source>> {
    open_with(dataset, &IndexOptions { mode, dir: None })
}

pub fn required(dataset: impl AsRef<Path>) -> Arc<dyn Source> {
    with(IndexMode::Required, dataset).unwrap()
}

/// Everything that a source says of its samples, in words.
pub fn said(source: &dyn Source) -> Vec<String> {
    let mut lines = vec![format!("{:?} {:?}", source.classes(), source.notes())];
    lines.extend((0..source.len()).map(|sample| said_of(source, sample)));
    lines
}

/// Everything but the record that a source says of a sample.
pub fn said_of(source: &dyn Source, sample: u64) -> String {
    let (mut key, mut path) = (String::from("before"), PathBuf::from("before"));
    let named = source.key(sample, &mut key).map_err(|error| error.to_string());
    let extent = source.extent(sample).map_err(|error| error.to_string());
    if let Ok(Extent::Object(object) | Extent::Range { object, .. }) = &extent
        && let Err(error) = source.object_path(*object, &mut path)
    {
        return error.to_string();
    }
    let label = source.label(sample).map_err(|error| error.to_string());
    format!("{named:?} {key:?} {label:?} {extent:?} {path:?}")
}

/// The bytes of a sample.
pub fn bytes(source: &dyn Source, sample: u64) -> Vec<u8> {
    let mut path = PathBuf::new();
    let (object, part) = match source.extent(sample).unwrap() {
        Extent::Object(object) => (object, None),
        Extent::Range { object, offset, len_bytes } => (object, Some((offset, len_bytes))),
    };
    source.object_path(object, &mut path).unwrap();
    let bytes = fs::read(path).unwrap();
    part.map_or(bytes.clone(), |(offset, len)| bytes[offset as usize..][..len as usize].to_vec())
}

/// A record in words.
pub fn record(source: &dyn Source, sample: u64) -> Result<String> {
    Ok(match source.record(sample)? {
        None => "none".into(),
        Some(record) => {
            let image = match record.image {
                RecordedImage::Jpeg(RecordedJpeg { facts, entries, quant, huffman }) => {
                    format!("{facts:?} {:?} {quant:?} {huffman:?}", entries.as_bytes())
                }
                RecordedImage::Raw(facts) => format!("{facts:?}"),
            };
            format!("{image} {} {:?}", record.len_bytes, record.modified)
        }
    })
}

/// All records in words.
pub fn records(source: &dyn Source) -> Vec<String> {
    (0..source.len()).map(|sample| record(source, sample).unwrap()).collect()
}
