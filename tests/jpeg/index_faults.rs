//! Entry points that lie, pieces that end early, files that changed: an `IndexStale` or the right pixels; no panic.

use crate::index_support::{Indexed, is_streamed};
use crate::support::{Image, Random, fixture, fixtures};
use forebay::jpeg::{ColourModel, Decoder, EntryPoint, EntryPoints, Facts, Grain, Header, Piece};
use forebay::pixels::Rect;
use forebay::{ErrorKind, Result};

const NAMES: [&str; 6] =
    ["420_131x97", "444_131x97", "grey_131x97", "restart_blocks_420", "restart_rows_444", "restart_every_mcu"];

/// An entry point that says something else than the truth.
fn lie(random: &mut Random, entries: &mut [EntryPoint], at: usize) {
    let truth = entries[at];
    let other = entries[1 + random.below(entries.len() as u32 - 1) as usize];
    while entries[at] == truth {
        let entry = &mut entries[at];
        match random.below(6) {
            0 => entry.bit += 1 + u64::from(random.below(20)),
            1 => entry.bit = entry.bit.wrapping_sub(1 + u64::from(random.below(20))),
            2 => entry.dc[0] ^= 1 << random.below(16),
            3 => (entry.bit, entry.dc) = (other.bit, other.dc),
            4 => entry.bit = random.next() >> 32,
            _ => entry.column = if entry.column > 0 { 1 + random.below(16) } else { 0 },
        }
    }
}

#[test]
fn an_entry_point_that_lies_is_reported_where_rows_are_decoded_whole() {
    let (mut random, mut decoder) = (Random(11), Decoder::new());
    for name in NAMES {
        let bytes = fixture(name);
        for grain in [Grain::Rows, Grain::Bits(512)] {
            let truth = Indexed::new(&mut decoder, &bytes, grain).unwrap();
            let region = Rect::whole(truth.facts.width, truth.facts.height);
            for at in 1..truth.entry_points().len() {
                let mut entries = truth.entry_points();
                lie(&mut random, &mut entries, at);
                let lying = truth.with_entry_points(&entries);
                // All bytes, so that no range hides the lie.
                let file = [Piece { offset: 0, bytes: &bytes }];
                let told = entries[at];
                match lying.decode_pieces(&mut decoder, &file, region) {
                    Ok(_) => panic!("{name}: {told:?} passes for {:?}", truth.entry_points()[at]),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::IndexStale, "{name}: {told:?}: {error}");
                        assert!(error.remedy().is_some_and(|remedy| remedy.contains("forebay index")), "{error}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_entry_point_that_lies_is_reported_where_decoding_passes_another() {
    let (mut random, mut decoder) = (Random(12), Decoder::new());
    let (mut reported, mut harmless) = (0, 0);
    for round in 0..3000 {
        let name = NAMES[round % NAMES.len()];
        let bytes = fixture(name);
        let truth = Indexed::new(&mut decoder, &bytes, Grain::Bits(512)).unwrap();
        let mut entries = truth.entry_points();
        let at = 1 + random.below(entries.len() as u32 - 1) as usize;
        lie(&mut random, &mut entries, at);
        let (row, column) = (entries[at].row, entries[at].column);
        let region = random.region(truth.facts.width, truth.facts.height);
        match truth.with_entry_points(&entries).decode(&mut decoder, &bytes, region) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::IndexStale, "{name}: {error}");
                reported += 1;
            }
            Ok(image) if image == Image::decode(&mut decoder, &bytes, Some(region)).unwrap() => harmless += 1,
            Ok(_) => {
                // Wrong pixels go unseen only from an entry point on to which no other is compared, or only
                // one behind a restart marker, where every decoder's state is the same again.
                let is_alone = truth.facts.sampling[1] == (0, 0);
                let mcu_width = 8 * if is_alone { 1 } else { u32::from(truth.facts.sampling[0].0) };
                let mcu = |entry: &EntryPoint| entry.row * truth.facts.width.div_ceil(mcu_width) + entry.column;
                let restarts =
                    |entry: &EntryPoint| mcu(entry).checked_rem(truth.facts.restart_interval.into()) == Some(0);
                let next = entries.get(at + 1).filter(|next| next.row == row && !restarts(next));
                let end = (region.x + region.width).div_ceil(mcu_width);
                let is_passed = next.is_some_and(|next| next.column <= end);
                assert!(!is_passed, "{name}: {:?} at column {column} decodes {region:?} wrongly", entries[at]);
            }
        }
    }
    println!("{reported} reported, {harmless} harmless");
    assert!(reported > 500 && harmless > 500);
}

#[test]
fn a_restart_interval_begins_behind_its_marker() {
    let bytes = fixture("restart_every_mcu");
    let mut decoder = Decoder::new();
    let truth = Indexed::new(&mut decoder, &bytes, Grain::Rows).unwrap();
    let points = truth.entry_points();
    for (at, bit) in (1..points.len()).flat_map(|at| [-16, -8, -1, 1, 8, 16].map(|bit| (at, bit))) {
        let mut entries = points.clone();
        let entry = &mut entries[at];
        entry.bit = entry.bit.wrapping_add_signed(bit);
        // The one MCU and nothing behind it that could be compared.
        let region = Rect { x: 16 * entry.column + 4, y: 16 * entry.row + 4, width: 4, height: 4 };
        let error = truth.with_entry_points(&entries).decode(&mut decoder, &bytes, region).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IndexStale, "{error}");
    }
}

#[test]
fn random_bytes_as_entry_points_never_panic() {
    let (mut random, mut decoder, mut scalar) = (Random(13), Decoder::new(), Decoder::scalar());
    let mut reported = 0;
    for round in 0..6000 {
        let bytes = fixture(NAMES[round % NAMES.len()]);
        let mut indexed = Indexed::new(&mut decoder, &bytes, Grain::Bits(512)).unwrap();
        for _ in 0..1 + random.below(3) {
            let at = random.below(indexed.entries.len() as u32) as usize;
            match random.below(4) {
                0 => indexed.entries[at] ^= 1 << random.below(8),
                1 => indexed.entries[at] = random.next() as u8,
                2 => indexed.entries.truncate(at.max(1)),
                _ => indexed.entries.extend((0..at).map(|_| random.next() as u8)),
            }
        }
        let region = random.region(indexed.facts.width, indexed.facts.height);
        let file = [Piece { offset: 0, bytes: &bytes }];
        let result = indexed.decode_pieces(&mut decoder, &file, region);
        let reference = indexed.decode_pieces(&mut scalar, &file, region);
        assert_eq!(result.as_ref().err().map(ToString::to_string), reference.as_ref().err().map(ToString::to_string));
        reported += usize::from(result.is_err());
        assert!(result.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::IndexStale));
        assert!(result.ok() == reference.ok(), "vector and scalar code differ");
        match indexed.ranges(region) {
            Ok(ranges) => {
                let scan = indexed.facts.scan_offset..indexed.facts.scan_offset + indexed.facts.scan_bytes;
                assert!(ranges.iter().all(|range| range.start < range.end && range.start >= scan.start));
                assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
                assert!(ranges.last().is_some_and(|range| range.end <= scan.end));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::IndexStale),
        }
    }
    assert!(reported > 1000, "{reported}");
}

#[test]
fn pieces_that_end_early_or_are_not_there_are_reported() {
    let mut decoder = Decoder::new();
    for name in ["420_131x97", "restart_blocks_420", "grey_131x97"] {
        let bytes = fixture(name);
        let indexed = Indexed::new(&mut decoder, &bytes, Grain::Bits(512)).unwrap();
        let (width, height) = (indexed.facts.width, indexed.facts.height);
        let region = Rect { x: width / 3, y: height / 4, width: width / 3, height: height / 2 };
        let expected = Image::decode(&mut decoder, &bytes, Some(region)).unwrap();
        let ranges = indexed.ranges(region).unwrap();
        assert!(ranges.len() > 1, "{name}: {ranges:?}");
        let pieces = |cut: usize, len: u64| -> Vec<_> {
            let ends = ranges.iter().enumerate().map(|(i, range)| if i == cut { range.start + len } else { range.end });
            let pieces = ranges.iter().zip(ends);
            pieces
                .map(|(range, end)| Piece { offset: range.start, bytes: &bytes[range.start as usize..end as usize] })
                .collect()
        };
        for (i, range) in ranges.iter().enumerate() {
            let mut decoded = 0;
            for len in 0..range.end - range.start {
                match indexed.decode_pieces(&mut decoder, &pieces(i, len), region) {
                    Ok(image) => {
                        assert!(image == expected, "{name}: piece {i} cut to {len} bytes decodes to other pixels");
                        decoded += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::IndexStale, "{name}: {error}");
                        assert_eq!(decoded, 0, "{name}: piece {i} decodes when shorter than {len} bytes");
                    }
                }
            }
            // What lies between the region's last MCU and the next entry point.
            assert!(decoded < range.end - range.start, "{name}: piece {i} is not needed");
            let mut missing = pieces(i, 0);
            missing.remove(i);
            let error = indexed.decode_pieces(&mut decoder, &missing, region).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IndexStale, "{name}: {error}");
        }
    }
}

#[test]
fn a_file_that_changed_under_its_index_never_panics() {
    let (mut random, mut decoder, mut scalar) = (Random(14), Decoder::new(), Decoder::scalar());
    let files: Vec<_> = fixtures().iter().map(|file| std::fs::read(&file.path).unwrap()).collect();
    let (mut reported, mut decoded) = (0, 0);
    for file in files.iter().filter(|bytes| is_streamed(bytes)) {
        let indexed = Indexed::new(&mut decoder, file, Grain::Bits(512)).unwrap();
        for _ in 0..40 {
            let mut bytes = file.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len() as u32) as usize;
                bytes[at] = if random.below(3) == 0 { 0xFF } else { random.next() as u8 };
            }
            let region = random.region(indexed.facts.width, indexed.facts.height);
            let result = indexed.decode(&mut decoder, &bytes, region);
            let reference = indexed.decode(&mut scalar, &bytes, region);
            match &result {
                Ok(_) => decoded += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::IndexStale, "{error}");
                    reported += 1;
                }
            }
            assert!(result.ok() == reference.ok(), "vector and scalar code differ");
        }
    }
    println!("{reported} reported, {decoded} decoded");
    assert!(reported > 300 && decoded > 300);
}

#[test]
fn facts_that_make_no_sense_are_refused() {
    let bytes = fixture("420_131x97");
    let mut decoder = Decoder::new();
    let indexed = Indexed::new(&mut decoder, &bytes, Grain::Rows).unwrap();
    let facts = indexed.facts;
    assert!(facts.check().is_ok());
    for (name, bad) in [
        ("no column", Facts { width: 0, ..facts }),
        ("too many rows", Facts { height: 65_536, ..facts }),
        ("CMYK", Facts { colour: ColourModel::Cmyk, ..facts }),
        ("grey with three components", Facts { colour: ColourModel::Grey, ..facts }),
        ("two components", Facts { sampling: [(2, 2), (1, 1), (0, 0)], ..facts }),
        ("factor 0", Facts { sampling: [(2, 2), (0, 1), (1, 1)], ..facts }),
        ("factor 5", Facts { sampling: [(5, 2), (1, 1), (1, 1)], ..facts }),
        ("a factor that does not divide", Facts { sampling: [(3, 2), (2, 1), (1, 1)], ..facts }),
        ("12 blocks", Facts { sampling: [(2, 2), (2, 2), (2, 2)], ..facts }),
        ("slot 4", Facts { slots: [[0; 3], [0, 0, 4], [0; 3]], ..facts }),
        ("orientation 0", Facts { orientation: 0, ..facts }),
        ("orientation 9", Facts { orientation: 9, ..facts }),
        ("a scan too long", Facts { scan_bytes: (1 << 29) + 1, ..facts }),
        ("a scan behind every file", Facts { scan_offset: u64::MAX, ..facts }),
    ] {
        let error = bad.check().expect_err(name);
        assert_eq!(error.kind(), ErrorKind::IndexStale, "{name}");
        assert!(bad.header(&indexed.quant, &indexed.huffman).is_err(), "{name}");
        let mut ranges = Vec::new();
        let region = Rect::whole(1, 1);
        assert!(bad.ranges(EntryPoints::new(&indexed.entries), region, &mut ranges).is_err(), "{name}");
        // Entry points are read beside any facts.
        let _: Vec<Result<EntryPoint>> = EntryPoints::new(&indexed.entries).iter(&bad).collect();
    }
    for cut in [&indexed.quant[1..], &indexed.quant[..64], &[4; 65]] {
        let error = facts.header(cut, &indexed.huffman).err().expect("broken quantisation tables");
        assert_eq!(error.kind(), ErrorKind::IndexStale);
    }
    let error = facts.header(&indexed.quant, &indexed.huffman[1..]).err().expect("broken Huffman tables");
    assert_eq!(error.kind(), ErrorKind::IndexStale);
    let outside = Rect { x: 131, y: 0, width: 1, height: 1 };
    assert_eq!(indexed.ranges(outside).unwrap_err().kind(), ErrorKind::InvalidParameter);
}

#[test]
fn a_file_that_is_cut_or_corrupt_has_no_entry_points() {
    let bytes = fixture("420_131x97");
    let header = Header::parse(&bytes).unwrap();
    let mut decoder = Decoder::new();
    let mut entries = vec![7];
    for len in (header.scan_offset..bytes.len() - 8).step_by(97) {
        let error = decoder.index(&bytes[..len], &header, Grain::Bits(512), &mut entries).unwrap_err();
        assert_eq!((error.kind(), entries.as_slice()), (ErrorKind::Truncated, &[7][..]), "cut to {len}");
    }
}
