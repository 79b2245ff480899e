//! Entry points: any region decoded from the bytes that it needs alone, with the pixels of the whole.

use crate::index_support::{GRAINS, Indexed, is_streamed};
use crate::support::{Expected, Image, Random, fixture, fixtures, shared};
use forebay::ErrorKind;
use forebay::jpeg::{Decodability, Decoder, EntryPoints, Grain, Header, Piece};
use forebay::pixels::Rect;

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

/// A picture of noise: many bits an MCU, and stuffed bytes all over.
fn noise(width: u16, height: u16, sampling: jpeg_encoder::SamplingFactor, restart_interval: Option<u16>) -> Vec<u8> {
    let mut random = Random(u64::from(width));
    let rgb: Vec<u8> = (0..3 * usize::from(width) * usize::from(height)).map(|_| random.next() as u8).collect();
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
    encoder.set_sampling_factor(sampling);
    restart_interval.into_iter().for_each(|interval| encoder.set_restart_interval(interval));
    encoder.encode(&rgb, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

#[test]
fn regions_of_scans_longer_than_the_decoder_looks_ahead() {
    use jpeg_encoder::SamplingFactor::{R_4_2_0, R_4_2_2, R_4_4_4};
    let (mut random, mut decoder) = (Random(7), Decoder::new());
    for (sampling, interval) in [(R_4_2_0, None), (R_4_4_4, None), (R_4_2_2, Some(50)), (R_4_2_0, Some(900))] {
        let bytes = noise(483, 301, sampling, interval);
        assert!(bytes.len() > 100_000, "{} bytes", bytes.len());
        let whole = Image::decode(&mut decoder, &bytes, None).unwrap();
        for grain in GRAINS {
            let indexed = Indexed::new(&mut decoder, &bytes, grain).unwrap();
            assert!(indexed.decode(&mut decoder, &bytes, Rect::whole(483, 301)).unwrap() == whole);
            for _ in 0..40 {
                let region = random.region(483, 301);
                let image = indexed.decode(&mut decoder, &bytes, region);
                let image = image.unwrap_or_else(|error| panic!("{sampling:?}: {region:?}: {error}"));
                assert!(image == whole.crop(region), "{sampling:?}: {grain:?}: {region:?} differs");
            }
        }
    }
}

#[test]
fn every_region_of_a_small_image() {
    let mut decoder = Decoder::new();
    for name in ["420_5x9", "mixed_hv_5x9", "440_5x9", "411_5x9", "grey_5x9", "444_1x1"] {
        let bytes = fixture(name);
        let whole = Image::decode(&mut decoder, &bytes, None).unwrap();
        let indexed = Indexed::new(&mut decoder, &bytes, Grain::Bits(1)).unwrap();
        let (w, h) = (indexed.facts.width, indexed.facts.height);
        for (x, y) in (0..w).flat_map(|x| (0..h).map(move |y| (x, y))) {
            for (width, height) in (1..=w - x).flat_map(|width| (1..=h - y).map(move |height| (width, height))) {
                let region = Rect { x, y, width, height };
                let image = indexed.decode(&mut decoder, &bytes, region).unwrap();
                assert!(image == whole.crop(region), "{name}: {region:?} differs");
            }
        }
    }
}

#[test]
fn every_row_and_restart_interval_begins_with_an_entry_point_and_others_keep_their_distance() {
    let mut decoder = Decoder::new();
    for name in
        ["420_131x97", "444_131x97", "grey_131x97", "restart_blocks_420", "restart_rows_444", "restart_every_mcu"]
    {
        let bytes = fixture(name);
        for (grain, bits) in [(Grain::Rows, u64::MAX), (Grain::Bits(4096), 4096), (Grain::Bits(512), 512)] {
            let indexed = Indexed::new(&mut decoder, &bytes, grain).unwrap();
            let entries = indexed.entry_points();
            let (h, v) = indexed.facts.sampling[0];
            let is_alone = indexed.facts.sampling[1] == (0, 0);
            let (h, v) = if is_alone { (1, 1) } else { (u32::from(h), u32::from(v)) };
            let per_row = u64::from(indexed.facts.width.div_ceil(8 * h));
            let interval = u64::from(indexed.facts.restart_interval);
            let rows = indexed.facts.height.div_ceil(8 * v);
            assert!((0..rows).all(|row| entries.iter().any(|entry| (entry.row, entry.column) == (row, 0))), "{name}");
            let mcus: Vec<_> =
                entries.iter().map(|entry| u64::from(entry.row) * per_row + u64::from(entry.column)).collect();
            if interval > 0 {
                let starts = (0..per_row * u64::from(rows)).step_by(interval as usize);
                starts.for_each(|mcu| assert!(mcus.contains(&mcu), "{name}: no entry point at MCU {mcu}"));
            }
            for (i, pair) in entries.windows(2).enumerate() {
                let begins = pair[1].column == 0 || interval > 0 && mcus[i + 1].is_multiple_of(interval);
                let distance = pair[1].bit - pair[0].bit;
                assert!(begins || distance >= bits, "{name}: {grain:?}: entry points {distance} bits apart");
                // No MCU of these is longer than this.
                assert!(distance < bits.saturating_add(4096), "{name}: {grain:?}: entry points {distance} bits apart");
            }
        }
    }
}

#[test]
fn facts_stand_for_the_header() {
    let mut decoder = Decoder::new();
    for file in fixtures() {
        let bytes = std::fs::read(&file.path).unwrap();
        if !is_streamed(&bytes) {
            continue;
        }
        let name = file.path.display();
        let indexed = Indexed::new(&mut decoder, &bytes, Grain::Rows).unwrap();
        let end = (indexed.facts.scan_offset + indexed.facts.scan_bytes) as usize;
        assert_eq!(bytes[end..], [0xFF, 0xD9], "{name}: the scan ends at the end marker");
        let (header, whole) = (Header::parse(&bytes).unwrap(), Rect::whole(file.width, file.height));
        let rebuilt = indexed.facts.header(&indexed.quant, &indexed.huffman).unwrap();
        assert_eq!(rebuilt.support(), Decodability::Streamed);
        assert_eq!((rebuilt.colour, rebuilt.orientation), (header.colour, header.orientation));
        let image = Image::collect(whole, |sink| decoder.decode(&bytes, &rebuilt, whole, sink)).unwrap();
        assert_eq!(image.digest(), file.digest, "{name}: pixels by the rebuilt header");
        let (mut quant, mut huffman) = (Vec::new(), Vec::new());
        rebuilt.tables.write_used(&indexed.facts.slots, &mut quant, &mut huffman);
        assert!(quant == indexed.quant && huffman == indexed.huffman, "{name}: tables written again differ");
        let ranges = indexed.ranges(whole).unwrap();
        let scan = indexed.facts.scan_offset..end as u64;
        assert_eq!(ranges, std::slice::from_ref(&scan), "{name}: the whole image needs its whole scan");
    }
}

#[test]
fn equal_tables_make_equal_payloads() {
    let bytes = fixture("444_33x31");
    let header = Header::parse(&bytes).unwrap();
    let mut decoder = Decoder::new();
    let indexed = Indexed::new(&mut decoder, &bytes, Grain::Rows).unwrap();
    // The same tables in 16 bits, in another order, between tables that no component uses.
    let dqt = |slot: u8, wide: bool| {
        let table = header.tables.quant[usize::from(slot & 1)].unwrap();
        let zigzag = indexed.quant.chunks(65).nth(usize::from(slot & 1)).unwrap()[1..].iter();
        assert_eq!(u16::from(*zigzag.clone().next().unwrap()), table.0[0]);
        let entries = zigzag.flat_map(|&entry| if wide { vec![0, entry] } else { vec![entry] });
        let payload: Vec<u8> = std::iter::once(slot | u8::from(wide) << 4).chain(entries).collect();
        [vec![0xFF, 0xDB, 0, payload.len() as u8 + 2], payload].concat()
    };
    let dht = |mut payload: Vec<u8>| {
        payload[0] |= 2;
        [vec![0xFF, 0xC4, 0, payload.len() as u8 + 2], payload].concat()
    };
    let unused = dht(indexed.huffman[..17 + header.tables.dc[0].unwrap().counts.iter().sum::<u8>() as usize].to_vec());
    let tables = [dqt(1, true), dqt(3, false), dqt(0, true), unused].concat();
    let mut other = bytes.clone();
    while let Some(at) = other.windows(2).position(|pair| pair == [0xFF, 0xDB]) {
        let len = 2 + usize::from(u16::from_be_bytes([other[at + 2], other[at + 3]]));
        other.drain(at..at + len);
    }
    other.splice(2..2, tables);
    let other = Indexed::new(&mut decoder, &other, Grain::Rows).unwrap();
    assert!(other.quant == indexed.quant && other.huffman == indexed.huffman);
}

#[test]
fn fill_bytes_and_bytes_behind_the_last_mcu_are_not_in_the_way() {
    for name in ["quality_100_420", "restart_blocks_420", "restart_every_mcu", "quality_100"] {
        let bytes = fixture(name);
        let start = Header::parse(&bytes).unwrap().scan_offset;
        // A fill byte before every marker and every stuffed byte, then what no decoder looks at.
        let (head, scan) = bytes.split_at(start);
        let filled = scan.iter().flat_map(|&byte| if byte == 0xFF { vec![0xFF; 2] } else { vec![byte] });
        let mut filled: Vec<u8> = head.iter().copied().chain(filled).collect();
        filled.splice(filled.len() - 3..filled.len() - 3, [1, 2, 3]);
        let mut decoder = Decoder::new();
        let whole = Image::decode(&mut decoder, &bytes, None).unwrap();
        let indexed = Indexed::new(&mut decoder, &filled, Grain::Bits(512)).unwrap();
        let (width, height) = (indexed.facts.width, indexed.facts.height);
        let mut random = Random(5);
        for _ in 0..200 {
            let region = random.region(width, height);
            let image = indexed.decode(&mut decoder, &filled, region).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(image == whole.crop(region), "{name}: {region:?} differs");
        }
    }
}

#[test]
fn larger_pieces_than_the_ranges_will_do() {
    let bytes = fixture("restart_rows_420");
    let (mut decoder, mut random) = (Decoder::new(), Random(9));
    let whole = Image::decode(&mut decoder, &bytes, None).unwrap();
    let indexed = Indexed::new(&mut decoder, &bytes, Grain::Bits(512)).unwrap();
    let file = [Piece { offset: 0, bytes: &bytes }];
    for _ in 0..100 {
        let region = random.region(indexed.facts.width, indexed.facts.height);
        assert!(indexed.decode_pieces(&mut decoder, &file, region).unwrap() == whole.crop(region));
    }
}

#[test]
fn files_of_several_scans_have_no_entry_points() {
    let bytes = fixture("scans_single_420");
    let header = Header::parse(&bytes).unwrap();
    let mut entries = vec![7];
    let mut decoder = Decoder::new();
    let error = decoder.index(&bytes, &header, Grain::Rows, &mut entries).unwrap_err();
    assert_eq!((error.kind(), entries.as_slice()), (ErrorKind::Unsupported, &[7][..]));
    let region = Rect::whole(1, 1);
    let decoded =
        Image::collect(region, |sink| decoder.decode_indexed(&[], &header, EntryPoints::default(), region, sink));
    assert_eq!(decoded.unwrap_err().kind(), ErrorKind::Unsupported);
}
