//! JPEG decoding on one thread: whole images, and rectangles as RandomResizedCrop draws them, without entry
//! points and with; and writing these down.
//!
//! ```text
//! cargo bench --bench decode
//! ```

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::jpeg::{Decoder, EntryPoints, Grain, Header, Piece};
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
        let (w, h) = (u32::from(width), u32::from(height));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let header = Header::parse(&bytes).expect("just encoded");
        let mut entries = Vec::new();
        decoder.index(&bytes, &header, Grain::default(), &mut entries).expect("just encoded");
        let entries = EntryPoints::new(&entries);
        group.bench_function(BenchmarkId::new(name, "entry points"), |bencher| {
            bencher.iter(|| {
                let mut entries = Vec::new();
                decoder.index(black_box(&bytes), &header, Grain::default(), &mut entries).expect("just encoded")
            });
        });
        for (region_name, region) in [
            ("whole", Rect::whole(w, h)),
            ("half the area", Rect { x: w / 5, y: h / 8, width: w * 7 / 10, height: h * 7 / 10 }),
            ("a tenth of the area", Rect { x: w / 2, y: h / 2, width: w * 3 / 10, height: h * 3 / 10 }),
        ] {
            group.bench_function(BenchmarkId::new(name, region_name), |bencher| {
                bencher.iter(|| {
                    let header = Header::parse(black_box(&bytes)).expect("just encoded");
                    decoder.decode(&bytes, &header, region, &mut sink).expect("just encoded");
                });
            });
            group.bench_function(BenchmarkId::new(name, format!("{region_name}, indexed")), |bencher| {
                let file = [Piece { offset: 0, bytes: &bytes }];
                bencher.iter(|| {
                    decoder
                        .decode_indexed(black_box(&file), &header, entries, region, &mut sink)
                        .expect("just indexed");
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
