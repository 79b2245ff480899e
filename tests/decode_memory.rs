//! What decoding takes of memory, beside what it says that it takes at most: every route, by an allocator that counts.

mod common;
mod memory_support;

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::pixels;
use forebay::augment::Resizer;
use forebay::decode::{Decoder, Route};
use forebay::pixels::RowSink;
use forebay::plan::{Augment, Geometry, Orientation, SampleKey};
use forebay::{DType, ErrorKind, Limits, Rect};
use image::{ExtendedColorType, ImageEncoder};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use memory_support::{flat_planes, flat_progressive, flat_webp, webp_with_large_frame};

/// Counts the bytes that are out, and the most of them.
struct Counting;

static OUT: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    MOST.fetch_max(OUT.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: the system's allocator does the work. `realloc` is the default: a new piece, a copy, and the old one back, as
// the system's does it at worst.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Memory) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Memory) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Memory) {
        OUT.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What decoding and augmenting an image was said to take, what it took, and whether it could be decoded.
struct Outcome {
    route: Route,
    said: u64,
    taken: u64,
    is_decoded: bool,
}

/// Takes no rows.
struct Nowhere;

impl RowSink for Nowhere {
    fn row(&mut self) -> [&mut [u8]; 3] {
        panic!("there are no rows")
    }

    fn commit(&mut self) {}
}

/// Decodes and augments an image by a new decoder.
fn decode(bytes: &[u8], augment: &Augment, epoch: u64) -> Outcome {
    let (mut decoder, mut resizer) = (Decoder::new(Limits::default()), Resizer::new(augment));
    let before = OUT.load(Relaxed);
    MOST.store(before, Relaxed);
    let info = decoder.inspect(bytes).expect("header");
    let inspected = MOST.load(Relaxed) - before;
    assert!(inspected < 64 << 10, "inspecting {:?} took {inspected} bytes", info.route);
    let key = SampleKey { seed: 1, epoch, sample: 5, view: 0 };
    let plan = augment.plan(key, info.width, info.height, Orientation::AS_STORED).expect("plan");
    let said = Resizer::memory_bytes(&plan) + decoder.memory_bytes(bytes, &info, plan.view()).expect("facts");
    let mut output = vec![0u8; plan.output_bytes()];
    let before = OUT.load(Relaxed);
    MOST.store(before, Relaxed);
    let mut rows = resizer.begin(&plan, &mut output).expect("output");
    let is_decoded = decoder.decode(bytes, &info, plan.view(), &mut rows).is_ok();
    if is_decoded {
        rows.finish().expect("all rows");
    }
    Outcome { route: info.route, said, taken: (MOST.load(Relaxed) - before) as u64, is_decoded }
}

fn jpeg(progressive: bool, sampling: SamplingFactor, colour: ColorType, (width, height): (usize, usize)) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = Encoder::new(&mut bytes, 95);
    encoder.set_sampling_factor(sampling);
    encoder.set_progressive(progressive);
    let samples: Vec<u8> = match colour {
        ColorType::Luma => pixels(3, width, height).into_iter().step_by(3).collect(),
        ColorType::Rgb => pixels(3, width, height),
        _ => pixels(3, width, height).chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 20]).collect(),
    };
    encoder.encode(&samples, width as u16, height as u16, colour).expect("encoding");
    bytes
}

fn png(colour: ExtendedColorType, bytes_per_pixel: usize, (width, height): (usize, usize)) -> Vec<u8> {
    let mut bytes = vec![];
    let samples: Vec<u8> =
        pixels(4, width, height).into_iter().cycle().take(width * height * bytes_per_pixel).collect();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&samples, width as u32, height as u32, colour)
        .expect("PNG");
    bytes
}

fn webp(alpha: bool, (width, height): (usize, usize)) -> Vec<u8> {
    let mut bytes = vec![];
    let (colour, count) = if alpha { (ExtendedColorType::Rgba8, 4) } else { (ExtendedColorType::Rgb8, 3) };
    let samples: Vec<u8> = pixels(4, width, height).into_iter().cycle().take(width * height * count).collect();
    image::codecs::webp::WebPEncoder::new_lossless(&mut bytes)
        .encode(&samples, width as u32, height as u32, colour)
        .expect("WebP");
    bytes
}

fn twelve_bits(
    components: usize,
    subsampling: libjpeg_turbo_rs::Subsampling,
    (width, height): (usize, usize),
) -> Vec<u8> {
    let samples: Vec<i16> = (0..width * height * components).map(|n| (n * 37 % 4096) as i16).collect();
    libjpeg_turbo_rs::precision::compress_12bit(&samples, width, height, components, 90, subsampling).expect("12 bits")
}

/// One test in this binary, so that no other thread allocates while it counts.
#[test]
fn no_route_takes_more_than_it_says_and_none_says_much_more() {
    let size = (1400, 1000);
    let (full, half) = (SamplingFactor::F_1_1, SamplingFactor::F_2_2);
    let mut files = vec![
        ("baseline 4:4:4", jpeg(false, full, ColorType::Rgb, size)),
        ("baseline 4:2:0", jpeg(false, half, ColorType::Rgb, size)),
        ("baseline 4:1:1", jpeg(false, SamplingFactor::F_4_1, ColorType::Rgb, size)),
        ("baseline grey", jpeg(false, full, ColorType::Luma, size)),
        ("baseline wide", jpeg(false, half, ColorType::Rgb, (20_000, 64))),
        ("baseline tall", jpeg(false, half, ColorType::Rgb, (64, 20_000))),
        ("progressive 4:4:4", jpeg(true, full, ColorType::Rgb, size)),
        ("progressive 4:2:0", jpeg(true, half, ColorType::Rgb, size)),
        ("progressive 4:2:2", jpeg(true, SamplingFactor::F_2_1, ColorType::Rgb, size)),
        ("progressive grey", jpeg(true, full, ColorType::Luma, size)),
        ("progressive CMYK", jpeg(true, full, ColorType::Cmyk, size)),
        ("baseline CMYK", jpeg(false, full, ColorType::Cmyk, size)),
        ("baseline YCCK 4:2:0", jpeg(false, half, ColorType::CmykAsYcck, size)),
        ("progressive, nothing but colour", flat_progressive(3000, 2000, 3)),
        ("12 bits grey", twelve_bits(1, libjpeg_turbo_rs::Subsampling::S444, size)),
        ("12 bits 4:4:4", twelve_bits(3, libjpeg_turbo_rs::Subsampling::S444, size)),
        ("12 bits 4:2:0", twelve_bits(3, libjpeg_turbo_rs::Subsampling::S420, size)),
        ("PNG grey", png(ExtendedColorType::L8, 1, size)),
        ("PNG grey, alpha", png(ExtendedColorType::La8, 2, size)),
        ("PNG", png(ExtendedColorType::Rgb8, 3, size)),
        ("PNG alpha", png(ExtendedColorType::Rgba8, 4, size)),
        ("PNG 16 bits", png(ExtendedColorType::Rgb16, 6, size)),
        ("PNG 16 bits, alpha", png(ExtendedColorType::Rgba16, 8, size)),
        ("WebP", webp(false, size)),
        ("WebP alpha", webp(true, size)),
        ("scans of their own", flat_planes(3000, 2000)),
        ("WebP, nothing but colour", flat_webp(3000, 2000)),
    ];
    files.extend(shared("odd"));
    let augments = [
        Augment::imagenet_train(224).build().expect("augment"),
        Augment::builder(Geometry::Resize { size: 37.into() }).build().expect("augment"),
        Augment::builder(Geometry::None).dtype(DType::U8).layout(forebay::Layout::Nhwc).build().expect("augment"),
    ];
    let mut wrong = vec![];
    for (name, bytes) in &files {
        for (number, augment) in augments.iter().enumerate() {
            let Outcome { route, said, taken, is_decoded } = decode(bytes, augment, number as u64);
            println!("{name}, {}: {said} said, {taken} taken, {:.2}", route.name(), said as f64 / taken as f64);
            // What the codes of a lossless WebP take is known only when it is decoded.
            let is_tight = said <= taken * 5 / 2 + (2 << 20) || !is_decoded || name.starts_with("WebP");
            if taken > said || !is_tight {
                wrong.push(format!("{name} ({}) says {said} and takes {taken} bytes", route.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let undecoded = files.iter().filter(|(name, _)| *name != "odd");
    for (name, bytes) in undecoded {
        assert!(decode(bytes, &augments[0], 0).is_decoded, "{name} cannot be decoded");
    }

    // The library would allocate 400 MB for it before it compares.
    let bytes = webp_with_large_frame();
    let mut decoder = Decoder::new(Limits::default());
    let info = decoder.inspect(&bytes).expect("header");
    assert_eq!((info.width, info.height), (10, 10));
    let before = OUT.load(Relaxed);
    MOST.store(before, Relaxed);
    let region = Rect::whole(10, 10);
    assert_eq!(decoder.memory_bytes(&bytes, &info, region).expect_err("too large").kind(), ErrorKind::Corrupt);
    let error = decoder.decode(&bytes, &info, region, &mut Nowhere).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(MOST.load(Relaxed) - before < 64 << 10);
}

/// The images of a folder of shared test data, if it is there, that can be inspected.
fn shared(name: &'static str) -> Vec<(&'static str, Vec<u8>)> {
    let folder = format!("{}/../shared/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no folder {folder}");
        return vec![];
    };
    let files = entries.map(|entry| std::fs::read(entry.expect("entry").path()).expect("file"));
    let known = files.filter(|bytes| Decoder::new(Limits::default()).inspect(bytes).is_ok());
    known.map(|bytes| (name, bytes)).collect()
}
