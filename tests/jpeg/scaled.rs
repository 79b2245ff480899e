//! Images decoded at 1/2, 1/4 and 1/8 have the pixels of libjpeg-turbo's `djpeg -scale`, whole or in part.

use crate::support::{Expected, Image, Random, fixtures_at, shared_at};
use forebay::ErrorKind;
use forebay::jpeg::{Decodability, Decoder, EntryPoints, Grain, Header, Piece};
use forebay::pixels::{Rect, Scale, View};

const SCALES: [Scale; 3] = [Scale::Half, Scale::Quarter, Scale::Eighth];

fn assert_digests(mut decoder: Decoder, scale: Scale, files: &[Expected]) {
    assert!(!files.is_empty());
    for file in files {
        let bytes = std::fs::read(&file.path).unwrap();
        let name = file.path.display();
        let image = Image::decode_at(&mut decoder, &bytes, scale, None);
        let image = image.unwrap_or_else(|error| panic!("{name} at {scale:?}: {error}"));
        assert_eq!((image.width, image.rows.len()), (file.width as usize, file.height as usize), "{name} at {scale:?}");
        assert_eq!(image.digest(), file.digest, "{name} at {scale:?}: pixels differ from libjpeg-turbo's");
    }
}

#[test]
fn fixtures_match_libjpeg_turbo() {
    for scale in SCALES {
        assert_digests(Decoder::new(), scale, &fixtures_at(scale));
    }
}

#[test]
fn fixtures_match_libjpeg_turbo_without_vector_instructions() {
    for scale in SCALES {
        assert_digests(Decoder::scalar(), scale, &fixtures_at(scale));
    }
}

#[test]
fn photos_match_libjpeg_turbo() {
    for scale in SCALES {
        if let Some(files) = shared_at("photos", scale) {
            assert_eq!(files.len(), 400);
            assert_digests(Decoder::new(), scale, &files);
        }
    }
}

/// Decodes random rectangles and compares them with the whole image's.
fn assert_regions(scale: Scale, files: &[Expected], regions_per_file: usize) {
    let (mut random, mut decoder) = (Random(2), Decoder::new());
    for file in files {
        let bytes = std::fs::read(&file.path).unwrap();
        let whole = Image::decode_at(&mut decoder, &bytes, scale, None).unwrap();
        for _ in 0..regions_per_file {
            let region = random.region(file.width, file.height);
            let image = Image::decode_at(&mut decoder, &bytes, scale, Some(region)).unwrap();
            assert!(image == whole.crop(region), "{} at {scale:?}: {region:?} differs", file.path.display());
        }
    }
}

#[test]
fn regions_of_fixtures_are_crops_of_the_whole() {
    for scale in SCALES {
        let files = fixtures_at(scale);
        assert_regions(scale, &files, 5_000 / files.len() + 1);
    }
}

#[test]
fn regions_of_photos_are_crops_of_the_whole() {
    for scale in SCALES {
        if let Some(files) = shared_at("photos", scale) {
            assert_regions(scale, &files, 10);
        }
    }
}

/// Decodes a view from entry points, and only the bytes of the file that it needs.
fn indexed(decoder: &mut Decoder, bytes: &[u8], view: View) -> Image {
    let header = Header::parse(bytes).unwrap();
    let (mut entries, mut ranges) = (Vec::new(), Vec::new());
    let facts = decoder.index(bytes, &header, Grain::Bits(600), &mut entries).unwrap();
    let entries = EntryPoints::new(&entries);
    facts.ranges(entries, view, &mut ranges).unwrap();
    let pieces: Vec<_> = (ranges.iter())
        .map(|range| Piece { offset: range.start, bytes: &bytes[range.start as usize..range.end as usize] })
        .collect();
    Image::collect(view.region, |sink| decoder.decode_indexed(&pieces, &header, entries, view, sink)).unwrap()
}

#[test]
fn regions_from_entry_points_are_crops_of_the_whole() {
    let (mut random, mut decoder, mut compared) = (Random(4), Decoder::new(), 0);
    for scale in SCALES {
        for file in fixtures_at(scale) {
            let bytes = std::fs::read(&file.path).unwrap();
            if Header::parse(&bytes).unwrap().support() != Decodability::Streamed {
                continue;
            }
            let whole = Image::decode_at(&mut decoder, &bytes, scale, None).unwrap();
            for _ in 0..15 {
                let region = random.region(file.width, file.height);
                let image = indexed(&mut decoder, &bytes, View { scale, region });
                assert!(image == whole.crop(region), "{} at {scale:?}: {region:?} differs", file.path.display());
                compared += 1;
            }
        }
    }
    assert!(compared > 5000, "{compared}");
}

/// A region is judged by the scaled image: the last pixel of a side that 8 does not divide is inside.
#[test]
fn regions_are_in_pixels_of_the_scaled_image() {
    let file = &fixtures_at(Scale::Eighth).into_iter().find(|file| file.path.ends_with("420_131x97.jpg")).unwrap();
    let bytes = std::fs::read(&file.path).unwrap();
    let header = Header::parse(&bytes).unwrap();
    assert_eq!((header.width, header.height, file.width, file.height), (131, 97, 17, 13));
    let mut decoder = Decoder::new();
    let corner = Rect { x: 16, y: 12, width: 1, height: 1 };
    Image::decode_at(&mut decoder, &bytes, Scale::Eighth, Some(corner)).unwrap();
    let beyond = Rect { x: 17, ..corner };
    let error = Image::decode_at(&mut decoder, &bytes, Scale::Eighth, Some(beyond)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    assert!(error.to_string().contains("17x13"), "{error}");
}
