//! Entry points: any region decoded from the bytes that it needs alone, and none decoded wrongly from those that lie.

mod jpeg_support;

use std::ops::Range;

use forebay::jpeg::{Decodability, Decoder, EntryPoints, Facts, Grain, Header, Piece};
use forebay::pixels::Rect;
use forebay::{ErrorKind, Result};
use jpeg_support::{Expected, Image, Random, fixtures, shared};

const GRAINS: [Grain; 3] = [Grain::Rows, Grain::Bits(4096), Grain::Bits(512)];

/// A file as an index knows it.
struct Indexed {
    facts: Facts,
    entries: Vec<u8>,
    quant: Vec<u8>,
    huffman: Vec<u8>,
}

impl Indexed {
    fn new(decoder: &mut Decoder, bytes: &[u8], grain: Grain) -> Result<Self> {
        let header = Header::parse(bytes)?;
        let (mut entries, mut quant, mut huffman) = (Vec::new(), Vec::new(), Vec::new());
        let facts = decoder.index(bytes, &header, grain, &mut entries)?;
        header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
        Ok(Self { facts, entries, quant, huffman })
    }

    fn ranges(&self, region: Rect) -> Result<Vec<Range<u64>>> {
        let mut ranges = Vec::new();
        self.facts.ranges(EntryPoints::new(&self.entries), region, &mut ranges)?;
        Ok(ranges)
    }

    /// Decodes a region from a file of which only the ranges are there.
    fn decode(&self, decoder: &mut Decoder, bytes: &[u8], region: Rect) -> Result<Image> {
        let ranges = self.ranges(region)?;
        // Each in an allocation of its own: a byte behind it is not there.
        let held: Vec<_> =
            ranges.iter().map(|range| bytes[range.start as usize..range.end as usize].to_vec()).collect();
        let pieces: Vec<_> =
            ranges.iter().zip(&held).map(|(range, bytes)| Piece { offset: range.start, bytes }).collect();
        self.decode_pieces(decoder, &pieces, region)
    }

    fn decode_pieces(&self, decoder: &mut Decoder, pieces: &[Piece], region: Rect) -> Result<Image> {
        let header = self.facts.header(&self.quant, &self.huffman)?;
        let entries = EntryPoints::new(&self.entries);
        Image::collect(region, |sink| decoder.decode_indexed(pieces, &header, entries, region, sink))
    }
}

fn is_streamed(bytes: &[u8]) -> bool {
    Header::parse(bytes).unwrap().support() == Decodability::Streamed
}

/// Decodes random regions by entry points and compares them with the whole image's.
fn assert_regions(mut decoder: Decoder, files: &[Expected], regions_per_file: usize) {
    let (mut random, mut compared) = (Random(3), 0);
    for file in files {
        let bytes = std::fs::read(&file.path).unwrap();
        if !is_streamed(&bytes) {
            continue;
        }
        let whole = Image::decode(&mut decoder, &bytes, None).unwrap();
        let indexes = GRAINS.map(|grain| Indexed::new(&mut decoder, &bytes, grain).unwrap());
        for i in 0..regions_per_file {
            let region = random.region(file.width, file.height);
            let image = indexes[i % 3].decode(&mut decoder, &bytes, region);
            let image = image.unwrap_or_else(|error| panic!("{}: {region:?}: {error}", file.path.display()));
            assert!(image == whole.crop(region), "{}: {region:?} differs at {:?}", file.path.display(), GRAINS[i % 3]);
            compared += 1;
        }
    }
    println!("{compared} regions");
}

#[test]
fn regions_of_fixtures_are_crops_of_the_whole() {
    assert_regions(Decoder::new(), &fixtures(), 90);
}

#[test]
fn regions_of_fixtures_without_vector_instructions() {
    assert_regions(Decoder::scalar(), &fixtures(), 30);
}

#[test]
fn regions_of_photos_are_crops_of_the_whole() {
    if let Some(files) = shared("photos") {
        assert_regions(Decoder::new(), &files, 25);
    }
}
