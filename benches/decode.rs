//! JPEG decoding on one thread: whole images, and rectangles as RandomResizedCrop draws them, without and with
//! entry points.
//!
//! ```text
//! cargo bench --bench decode
//! ```

use std::hint::black_box;
use std::ops::Range;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::jpeg::{Decoder, EntryPoints, Facts, Grain, Header, Piece};
use forebay::pixels::{ROW_PADDING_BYTES, Rect, RowSink};

/// A consumer that looks at no row.
struct Discard([Vec<u8>; 3]);

impl RowSink for Discard {
    fn row(&mut self) -> [&mut [u8]; 3] {
        let [red, green, blue] = &mut self.0;
        [red, green, blue]
    }

    fn commit(&mut self) {
        black_box(&self.0);
    }
}

/// A photo-like picture: smooth shading, edges, and noise that takes most of the bits.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let mut noise = 1_u32;
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = (noise >> 27) as i32 - 16;
            let edge = if (x / 40 + y / 30) % 3 == 0 { 60 } else { 0 };
            for shade in [x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)] {
                rgb.push((shade as i32 + edge + grain).clamp(0, 255) as u8);
            }
        }
    }
    rgb
}

fn encode(width: u16, height: u16, sampling: jpeg_encoder::SamplingFactor) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 92);
    encoder.set_sampling_factor(sampling);
    encoder.set_optimized_huffman_tables(true);
    let rgb = picture(width.into(), height.into());
    encoder.encode(&rgb, width, height, jpeg_encoder::ColorType::Rgb).expect("encodes into memory");
    bytes
}

/// What a sidecar holds of a file.
struct Index {
    facts: Facts,
    entries: Vec<u8>,
    quant: Vec<u8>,
    huffman: Vec<u8>,
}

impl Index {
    fn new(decoder: &mut Decoder, bytes: &[u8]) -> Self {
        let header = Header::parse(bytes).expect("just encoded");
        let (mut entries, mut quant, mut huffman) = Default::default();
        let facts = decoder.index(bytes, &header, Grain::default(), &mut entries).expect("just encoded");
        header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
        Self { facts, entries, quant, huffman }
    }

    /// As the loader does: the ranges of bytes first, then these alone.
    fn decode(&self, decoder: &mut Decoder, bytes: &[u8], region: Rect, sink: &mut Discard) {
        let entries = EntryPoints::new(&self.entries);
        let mut ranges = Vec::new();
        self.facts.ranges(entries, region, &mut ranges).expect("just indexed");
        let piece =
            |range: &Range<u64>| Piece { offset: range.start, bytes: &bytes[range.start as usize..range.end as usize] };
        let pieces: Vec<_> = ranges.iter().map(piece).collect();
        let header = self.facts.header(&self.quant, &self.huffman).expect("just indexed");
        decoder.decode_indexed(&pieces, &header, entries, region, sink).expect("just indexed");
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let mut sink = Discard([(); 3].map(|()| vec![0; 4096 + ROW_PADDING_BYTES]));
    let mut decoder = Decoder::new();
    for (name, width, height, sampling) in [
        ("500x375 4:4:4", 500, 375, jpeg_encoder::SamplingFactor::R_4_4_4),
        ("500x375 4:2:0", 500, 375, jpeg_encoder::SamplingFactor::R_4_2_0),
        ("4000x3000 4:2:0", 4000, 3000, jpeg_encoder::SamplingFactor::R_4_2_0),
    ] {
        let bytes = encode(width, height, sampling);
        let index = Index::new(&mut decoder, &bytes);
        let (w, h) = (u32::from(width), u32::from(height));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        for (region_name, region) in [
            ("whole", Rect::whole(w, h)),
            ("half the area", Rect { x: w / 5, y: h / 8, width: w * 7 / 10, height: h * 7 / 10 }),
            ("a tenth of the area", Rect { x: w / 2, y: h / 2, width: w * 3 / 10, height: h * 3 / 10 }),
            ("a thirtieth of the area", Rect { x: w / 2, y: h / 2, width: w * 2 / 11, height: h * 2 / 11 }),
        ] {
            group.bench_function(BenchmarkId::new(name, region_name), |bencher| {
                bencher.iter(|| {
                    let header = Header::parse(black_box(&bytes)).expect("just encoded");
                    decoder.decode(&bytes, &header, region, &mut sink).expect("just encoded");
                });
            });
            let indexed = format!("{region_name}, indexed");
            group.bench_function(BenchmarkId::new(name, indexed), |bencher| {
                bencher.iter(|| index.decode(&mut decoder, black_box(&bytes), region, &mut sink));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
