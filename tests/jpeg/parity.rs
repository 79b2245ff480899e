//! The pixels are libjpeg-turbo's, of whole images and of any rectangle.

use crate::support::{Expected, Image, Random, fixtures, shared};
use forebay::jpeg::{Decoder, Header};
use forebay::pixels::Rect;

fn assert_digests(mut decoder: Decoder, files: &[Expected]) {
    assert!(!files.is_empty());
    for file in files {
        let bytes = std::fs::read(&file.path).unwrap();
        let name = file.path.display();
        let image = Image::decode(&mut decoder, &bytes, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((image.width, image.rows.len()), (file.width as usize, file.height as usize), "{name}");
        assert_eq!(image.digest(), file.digest, "{name}: pixels differ from libjpeg-turbo's");
    }
}

#[test]
fn fixtures_match_libjpeg_turbo() {
    assert_digests(Decoder::new(), &fixtures());
}

#[test]
fn fixtures_match_libjpeg_turbo_without_vector_instructions() {
    assert_digests(Decoder::scalar(), &fixtures());
}

#[test]
fn photos_match_libjpeg_turbo() {
    if let Some(files) = shared("photos") {
        assert_eq!(files.len(), 400);
        assert_digests(Decoder::new(), &files);
    }
}

#[test]
fn odd_files_match_libjpeg_turbo_or_say_why_not() {
    let Some(files) = shared("odd") else { return };
    assert_digests(Decoder::new(), &files);
    let folder = files[0].path.parent().unwrap();
    let mut decoder = Decoder::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let decoded = Image::decode(&mut decoder, &std::fs::read(&path).unwrap(), None);
        let is_expected = files.iter().any(|file| file.path == path);
        assert_eq!(decoded.is_ok(), is_expected, "{}", path.display());
        if let Err(error) = decoded {
            println!("{}: {error:?}", path.file_name().unwrap().display());
        }
    }
}

/// Decodes random rectangles and compares them with the whole image's.
fn assert_regions(files: &[Expected], regions_per_file: usize) {
    let (mut random, mut decoder) = (Random(1), Decoder::new());
    for file in files {
        let bytes = std::fs::read(&file.path).unwrap();
        let whole = Image::decode(&mut decoder, &bytes, None).unwrap();
        for _ in 0..regions_per_file {
            let region = random.region(file.width, file.height);
            let image = Image::decode(&mut decoder, &bytes, Some(region)).unwrap();
            assert!(image == whole.crop(region), "{}: {region:?} differs", file.path.display());
        }
    }
}

#[test]
fn regions_of_fixtures_are_crops_of_the_whole() {
    let files = fixtures();
    assert_regions(&files, 10_000 / files.len() + 1);
}

#[test]
fn regions_of_photos_are_crops_of_the_whole() {
    if let Some(files) = shared("photos") {
        assert_regions(&files, 25);
    }
}

#[test]
fn every_region_of_a_small_image() {
    for name in ["420_5x9", "mixed_hv_5x9", "440_5x9", "scans_single_420", "restart_blocks_420"] {
        let path = format!("{}/tests/fixtures/jpeg/{name}.jpg", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        let header = Header::parse(&bytes).unwrap();
        let mut decoder = Decoder::new();
        let whole = Image::decode(&mut decoder, &bytes, None).unwrap();
        let step = if header.width > 10 { 7 } else { 1 };
        for x in (0..header.width).step_by(step) {
            for y in (0..header.height).step_by(step) {
                for width in (1..=header.width - x).step_by(step) {
                    for height in (1..=header.height - y).step_by(step) {
                        let region = Rect { x, y, width, height };
                        let image = Image::decode(&mut decoder, &bytes, Some(region)).unwrap();
                        assert!(image == whole.crop(region), "{name}: {region:?} differs");
                    }
                }
            }
        }
    }
}
