//! Bad input is refused with an error that names the cause; it never panics and never passes for pixels
//! that are not there.

use crate::support::{Image, Random, fixture, fixtures};
use forebay::ErrorKind;
use forebay::jpeg::{ColourModel, Decodability, Decoder, Header, Process};
use forebay::pixels::Rect;

fn find(bytes: &[u8], marker: u8) -> usize {
    bytes.windows(2).position(|pair| pair == [0xFF, marker]).unwrap()
}

fn kind(bytes: &[u8]) -> ErrorKind {
    Image::decode(&mut Decoder::new(), bytes, None).unwrap_err().kind()
}

#[test]
fn what_is_no_jpeg_is_said_not_to_be() {
    for bytes in [&b""[..], b"hello", b"\x89PNG\r\n\x1a\n", b"\xFF\xD9\xFF\xD8", b"\x00\xFF\xD8"] {
        assert_eq!(kind(bytes), ErrorKind::NotAnImage, "{bytes:?}");
    }
}

#[test]
fn a_file_cut_anywhere_is_truncated_until_its_last_bit_is_there() {
    for name in ["420_33x31", "444_17x16", "restart_blocks_422", "scans_single_420", "grey_33x31"] {
        let bytes = fixture(name);
        let mut decoder = Decoder::new();
        let whole = Image::decode(&mut decoder, &bytes, None).unwrap();
        let mut decoded = 0;
        for len in 0..bytes.len() {
            match Image::decode(&mut decoder, &bytes[..len], None) {
                Ok(image) => {
                    assert!(image == whole, "{name} cut to {len} bytes decodes to other pixels");
                    decoded += 1;
                }
                Err(error) => {
                    let expected = if len == 0 { ErrorKind::NotAnImage } else { ErrorKind::Truncated };
                    assert_eq!(error.kind(), expected, "{name} cut to {len} bytes: {error}");
                    assert_eq!(decoded, 0, "{name} decodes when shorter than {len} bytes");
                }
            }
        }
        // The end marker, and at most a byte of padding bits.
        assert!((2..=3).contains(&decoded), "{name}: {decoded} lengths decode");
    }
}

#[test]
fn a_region_needs_no_more_than_its_own_bytes() {
    let bytes = fixture("444_131x97");
    let region = Rect { x: 10, y: 10, width: 50, height: 20 };
    let mut decoder = Decoder::new();
    let image = Image::decode(&mut decoder, &bytes, Some(region)).unwrap();
    let half = &bytes[..bytes.len() / 2];
    assert!(Image::decode(&mut decoder, half, Some(region)).unwrap() == image);
}

#[test]
fn mutated_files_never_panic() {
    let (mut random, mut decoder, mut scalar) = (Random(3), Decoder::new(), Decoder::scalar());
    let files: Vec<_> = fixtures().iter().map(|file| std::fs::read(&file.path).unwrap()).collect();
    let (mut refused, mut decoded) = (0, 0);
    for round in 0..60 {
        for file in &files {
            let mut bytes = file.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len() as u32) as usize;
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = random.next() as u8,
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes[at] = 0xFF,
                }
            }
            // A mutated size may ask for a huge image; callers have `Limits` for that.
            let Ok(header) = Header::parse(&bytes) else { continue };
            if header.width * header.height > 1 << 20 {
                continue;
            }
            let region = (round % 2 == 0).then(|| random.region(header.width, header.height));
            let result = Image::decode(&mut decoder, &bytes, region);
            match &result {
                Ok(_) => decoded += 1,
                Err(_) => refused += 1,
            }
            let reference = Image::decode(&mut scalar, &bytes, region);
            assert_eq!(result.is_ok(), reference.is_ok());
            assert!(result.ok() == reference.ok(), "vector and scalar code differ on a mutated file");
        }
    }
    println!("{refused} refused, {decoded} decoded");
    assert!(refused > 1000 && decoded > 1000);
}

#[test]
fn damage_is_named() {
    let restarts = fixture("restart_blocks_420");
    let marker = find(&restarts, 0xD1);
    let mut swapped = restarts.clone();
    swapped[marker + 1] = 0xD5;
    assert_eq!(kind(&swapped), ErrorKind::Corrupt);
    let error = Image::decode(&mut Decoder::new(), &swapped, None).unwrap_err();
    assert!(error.to_string().contains("0xd5") && error.to_string().contains("MCU 6"), "{error}");

    let mut missing = restarts.clone();
    missing.drain(marker..marker + 2);
    assert_eq!(kind(&missing), ErrorKind::Corrupt);

    let plain = fixture("444_17x16");
    let mut no_table = plain.clone();
    no_table[find(&plain, 0xDA) + 6] = 0x33;
    let error = Image::decode(&mut Decoder::new(), &no_table, None).unwrap_err();
    assert!(error.to_string().contains("Huffman table 3"), "{error}");

    let mut no_quant = plain.clone();
    no_quant[find(&plain, 0xC0) + 12] = 3;
    let error = Image::decode(&mut Decoder::new(), &no_quant, None).unwrap_err();
    assert!(error.to_string().contains("quantisation table 3"), "{error}");
}

#[test]
fn a_region_outside_the_image_is_refused() {
    let bytes = fixture("444_17x16");
    let mut decoder = Decoder::new();
    for region in [
        Rect { x: 0, y: 0, width: 18, height: 1 },
        Rect { x: 17, y: 0, width: 1, height: 1 },
        Rect { x: 0, y: 0, width: 0, height: 1 },
        Rect { x: u32::MAX, y: 0, width: 2, height: 1 },
    ] {
        let error = Image::decode(&mut decoder, &bytes, Some(region)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    }
}

#[test]
fn what_libjpeg_passes_over_is_passed_over() {
    let bytes = fixture("420_33x31");
    let mut decoder = Decoder::new();
    let whole = Image::decode(&mut decoder, &bytes, None).unwrap();
    let tables = find(&bytes, 0xDB);
    let end = find(&bytes, 0xD9);
    for (at, inserted) in [
        (tables, &b"\xFF\xFF\xFF"[..]),    // fill bytes
        (tables, b"stray \xFF\x00 bytes"), // garbage
        (tables, b"\xFF\xFE\x00\x05abc"),  // a comment
        (tables, b"\xFF\xEA\x00\x02"),     // an application segment
        (tables, b"\xFF\xD3\xFF\x01"),     // markers without payload
        (end, b"\xFF\xFF"),                // fill bytes at the end
        (end + 2, b"trailing \xFF\xDA\x00\x00 garbage"),
    ] {
        let mut changed = bytes.clone();
        changed.splice(at..at, inserted.iter().copied());
        let image = Image::decode(&mut decoder, &changed, None).unwrap_or_else(|error| panic!("{inserted:?}: {error}"));
        assert!(image == whole, "{inserted:?}");
    }
}

#[test]
fn files_for_other_decoders_are_told_apart() {
    let bytes = fixture("420_33x31");
    let frame = find(&bytes, 0xC0);
    let with = |offset: usize, value: u8| {
        let mut changed = bytes.clone();
        changed[frame + offset] = value;
        Header::parse(&changed).map(|header| header.support())
    };
    assert_eq!(with(1, 0xC0).unwrap(), Decodability::Streamed);
    assert_eq!(with(1, 0xC1).unwrap(), Decodability::Streamed);
    assert_eq!(with(1, 0xC2).unwrap(), Decodability::Progressive);
    assert_eq!(with(1, 0xC3).unwrap(), Decodability::Lossless);
    assert_eq!(with(1, 0xC5).unwrap(), Decodability::Hierarchical);
    assert_eq!(with(1, 0xC9).unwrap(), Decodability::Arithmetic);
    assert_eq!(with(4, 12).unwrap(), Decodability::Precision);
    assert_eq!(with(11, 0x32).unwrap(), Decodability::Streamed, "3x2 luma, 1x1 chroma");
    assert_eq!(with(14, 0x31).unwrap(), Decodability::FractionalSampling, "chroma wider than luma");
    assert_eq!(with(11, 0x52).unwrap_err().kind(), ErrorKind::Corrupt, "factor 5");
    assert_eq!(with(9, 4).unwrap_err().kind(), ErrorKind::Corrupt, "four components in room for three");
}

#[test]
fn headers_state_the_facts() {
    let header = Header::parse(&fixture("restart_blocks_420")).unwrap();
    assert_eq!((header.width, header.height, header.precision, header.orientation), (45, 61, 8, 1));
    assert_eq!((header.process, header.colour), (Process::Baseline, ColourModel::YCbCr));
    assert_eq!((header.max_sampling(), header.tables.restart_interval), ((2, 2), 3));
    assert_eq!(Header::parse(&fixture("rgb_17x16")).unwrap().colour, ColourModel::Rgb);
    assert_eq!(Header::parse(&fixture("grey_17x16")).unwrap().colour, ColourModel::Grey);
    assert_eq!(Header::parse(&fixture("scans_single_444")).unwrap().support(), Decodability::WholePlanes);
    assert_eq!(Header::parse(&fixture("quality_1")).unwrap().process, Process::Extended);
}

#[test]
fn orientation_is_read_from_exif() {
    let mut bytes = fixture("420_33x31");
    let exif = b"\xFF\xE1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    bytes.splice(2..2, exif.iter().copied());
    assert_eq!(Header::parse(&bytes).unwrap().orientation, 6);
}
