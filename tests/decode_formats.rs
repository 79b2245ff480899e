//! Formats that a library decodes: the right pixels, the right route, refusals in place of panics.

mod common;

use forebay::decode::{Decoder, Route};
use forebay::pixels::{ROW_PADDING_BYTES, RowSink};
use forebay::{ErrorKind, Limits, Rect, Result, Scale, View};
use image::ImageEncoder;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

const WIDTH: usize = 77;
const HEIGHT: usize = 53;

/// Collects interleaved rows.
struct Rows {
    width: usize,
    planes: [Vec<u8>; 3],
    rgb: Vec<u8>,
}

impl RowSink for Rows {
    fn row(&mut self) -> [&mut [u8]; 3] {
        self.planes.each_mut().map(Vec::as_mut_slice)
    }

    fn commit(&mut self) {
        for x in 0..self.width {
            self.rgb.extend(self.planes.each_ref().map(|plane| plane[x]));
        }
    }
}

fn decode(bytes: &[u8], limits: Limits) -> Result<(Route, Vec<u8>)> {
    let mut decoder = Decoder::new(limits);
    let info = decoder.inspect(bytes)?;
    let width = info.width as usize;
    let mut rows = Rows { width, planes: [(); 3].map(|()| vec![0; width + ROW_PADDING_BYTES]), rgb: vec![] };
    decoder.decode(bytes, &info, Rect::whole(info.width, info.height), &mut rows)?;
    Ok((info.route, rows.rgb))
}

fn jpeg(progressive: bool, sampling: SamplingFactor) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = Encoder::new(&mut bytes, 88);
    encoder.set_sampling_factor(sampling);
    encoder.set_progressive(progressive);
    let rgb = common::pixels(3, WIDTH, HEIGHT);
    encoder.encode(&rgb, WIDTH as u16, HEIGHT as u16, ColorType::Rgb).expect("encoding");
    bytes
}

#[test]
fn a_progressive_jpeg_has_the_pixels_of_the_same_jpeg_in_baseline() {
    for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2] {
        let (route, baseline) = decode(&jpeg(false, sampling), Limits::default()).expect("baseline");
        assert_eq!(route, Route::Jpeg);
        let (route, progressive) = decode(&jpeg(true, sampling), Limits::default()).expect("progressive");
        assert_eq!(route, Route::OtherJpeg);
        assert!(baseline == progressive, "{sampling:?} differs");
    }
}

#[test]
fn twelve_bits_become_eight() {
    let samples: Vec<i16> = (0..64 * 48).map(|n| ((n % 64) * 40 + n / 64 * 20) as i16).collect();
    let bytes =
        libjpeg_turbo_rs::precision::compress_12bit(&samples, 64, 48, 1, 98, libjpeg_turbo_rs::Subsampling::S444);
    let (route, rgb) = decode(&bytes.expect("encoding"), Limits::default()).expect("12-bit");
    assert_eq!((route, rgb.len()), (Route::OtherJpeg, 64 * 48 * 3));
    for (pixel, &sample) in rgb.chunks_exact(3).zip(&samples) {
        assert!(pixel.iter().all(|&level| level.abs_diff((sample >> 4) as u8) <= 2), "{pixel:?} for {sample}");
    }
}

#[test]
fn png_and_webp_are_exact() {
    let rgb = common::pixels(5, WIDTH, HEIGHT);
    let (width, height) = (WIDTH as u32, HEIGHT as u32);
    let mut png = vec![];
    image::codecs::png::PngEncoder::new(&mut png)
        .write_image(&rgb, width, height, image::ExtendedColorType::Rgb8)
        .expect("PNG");
    assert_eq!(decode(&png, Limits::default()).expect("PNG"), (Route::Png, rgb.clone()));
    let mut webp = vec![];
    image::codecs::webp::WebPEncoder::new_lossless(&mut webp)
        .encode(&rgb, width, height, image::ExtendedColorType::Rgb8)
        .expect("WebP");
    assert_eq!(decode(&webp, Limits::default()).expect("WebP"), (Route::WebP, rgb));
    for bytes in [png, webp] {
        for cut in 0..bytes.len() {
            let _ = decode(&bytes[..cut], Limits::default());
        }
        let tight = Limits { max_pixels: (WIDTH * HEIGHT - 1) as u64, ..Limits::default() };
        assert_eq!(decode(&bytes, tight).expect_err("too large").kind(), ErrorKind::LimitExceeded);
    }
}

#[test]
fn hostile_progressive_files_are_refused_or_decoded_never_a_panic() {
    let bytes = jpeg(true, SamplingFactor::F_2_2);
    for cut in 0..bytes.len() {
        let _ = decode(&bytes[..cut], Limits::default());
    }
    let mut state = 1u32;
    for _ in 0..3000 {
        let mut mutant = bytes.clone();
        for _ in 0..4 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (state >> 8) as usize % mutant.len();
            mutant[at] ^= 1 << (state % 8);
        }
        // A mutant may well declare a large image; what it may cost is bounded by the limits.
        let _ = decode(&mutant, Limits { max_pixels: 1 << 20, ..Limits::default() });
    }
}

/// The odd files that are not sequential: as libjpeg-turbo decodes them, or refused where it refuses.
#[test]
fn odd_files_of_other_processes_match_libjpeg_turbo() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/odd");
    let Ok(entries) = std::fs::read_dir(folder) else {
        println!("skipped: {folder} is not there");
        return;
    };
    let expected = include_str!("fixtures/odd_other.digests");
    let ours = include_str!("fixtures/odd.digests");
    for entry in entries {
        let path = entry.expect("entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let line = |list: &str| list.lines().find(|line| line.split(' ').next() == Some(&name)).map(str::to_owned);
        let decoded = decode(&std::fs::read(&path).expect("file"), Limits::default());
        match (line(expected), line(ours), decoded) {
            (Some(line), _, Ok((route, rgb))) => {
                assert_eq!(route, Route::OtherJpeg, "{name}");
                let digest = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&rgb));
                assert!(line.ends_with(&digest), "{name}: {digest} is not {line}");
            }
            (None, Some(_), Ok((route, _))) => assert_eq!(route, Route::Jpeg, "{name}"),
            (None, None, Err(error)) => println!("{name}: {error}"),
            (_, _, decoded) => panic!("{name}: {:?}", decoded.map(|(route, rgb)| (route, rgb.len()))),
        }
    }
}

#[test]
fn a_scale_is_refused_where_the_decoder_has_none() {
    let region = Rect { x: 0, y: 0, width: 20, height: 10 };
    for (bytes, scales) in [(jpeg(false, SamplingFactor::F_2_2), true), (jpeg(true, SamplingFactor::F_1_1), false)] {
        let mut decoder = Decoder::new(Limits::default());
        let info = decoder.inspect(&bytes).expect("header");
        assert_eq!(info.route.scales(), scales);
        let mut rows = Rows { width: 20, planes: [(); 3].map(|()| vec![0; 20 + ROW_PADDING_BYTES]), rgb: vec![] };
        let result = decoder.decode(&bytes, &info, View { scale: Scale::Half, region }, &mut rows);
        match result {
            Ok(()) => assert!(scales && rows.rgb.len() == 20 * 10 * 3),
            Err(error) => assert!(!scales && error.kind() == ErrorKind::Unsupported, "{error}"),
        }
    }
}
