//! The kernels' entropy decoding in plain Rust, bit by bit, to test what is described without them.
//!
//! [`sequential`] decodes a file from front to back by its own header; [`by_segments`] decodes a description as
//! kernels/abi.cuh says. The coefficients must agree.

use std::ops::Range;

use super::abi::{END_UNCHECKED, HuffmanSpec, Image, MARKER, Segment};
use super::{Describer, Needs};
use crate::error::ErrorKind;
use crate::jpeg::{self, Decoder, EntryPoints, Facts, Grain, Header};
use crate::pixels::Rect;
use crate::plan::{Augment, Geometry, Orientation, SampleKey, SamplePlan, Size};
use crate::source::RecordedJpeg;

/// Coefficients of a component's blocks: row-major, in zigzag order.
type Blocks = Vec<[i16; 64]>;

/// The bits of some destuffed bytes, zeros behind them.
struct Reader<'a> {
    bytes: &'a [u8],
    bit: usize,
}

impl Reader<'_> {
    fn bits(&mut self, count: u32) -> u32 {
        (0..count).fold(0, |value, _| {
            let byte = self.bytes.get(self.bit / 8).copied().unwrap_or(0);
            let bit = byte >> (7 - self.bit % 8) & 1;
            self.bit += 1;
            value << 1 | u32::from(bit)
        })
    }

    fn symbol(&mut self, spec: &HuffmanSpec) -> u8 {
        let (mut code, mut first, mut index) = (0_u32, 0_u32, 0_u32);
        for count in spec.counts {
            code |= self.bits(1);
            let count = u32::from(count);
            if code < first + count {
                return spec.symbols[(index + code - first) as usize];
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        panic!("bits that are no code")
    }

    /// The value of so many bits (T.81, F.2.2.1).
    fn value(&mut self, size: u32) -> i16 {
        let value = self.bits(size) as i32;
        (if size > 0 && value < 1 << (size - 1) { value - (1 << size) + 1 } else { value }) as i16
    }

    fn block(&mut self, dc: &HuffmanSpec, ac: &HuffmanSpec, prediction: &mut i16) -> [i16; 64] {
        let mut block = [0; 64];
        let size = self.symbol(dc);
        *prediction = prediction.wrapping_add(self.value(size.into()));
        block[0] = *prediction;
        let mut position = 1;
        while position < 64 {
            let symbol = self.symbol(ac);
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && run < 15 {
                break;
            }
            position += run;
            block[position] = self.value(size);
            position += 1;
        }
        block
    }
}

/// Bytes without stuffing and fill bytes, up to a marker.
fn destuffed(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    for (i, &byte) in bytes.iter().enumerate() {
        match (byte, bytes.get(i + 1)) {
            (0xFF, Some(0xFF)) => {}
            (0xFF, Some(1..)) => break,
            (0, _) if i > 0 && bytes[i - 1] == 0xFF => {}
            _ => plain.push(byte),
        }
    }
    plain
}

fn spec(spec: Option<&jpeg::HuffmanSpec>) -> HuffmanSpec {
    let spec = spec.unwrap();
    HuffmanSpec { counts: spec.counts, symbols: spec.symbols }
}

/// All blocks of each component, and how many there are in a row: those of MCUs that reach over the edge too.
fn sequential(bytes: &[u8]) -> Vec<(Blocks, usize)> {
    let header = Header::parse(bytes).unwrap();
    let whole = Rect::whole(header.width, header.height);
    let layout = jpeg::Layout::new(&jpeg::Geometry::new(&header, whole.into()), &header.scan);
    let (columns, rows) = (layout.columns.len(), layout.rows.len());
    let tables: Vec<_> = header
        .scan
        .components()
        .iter()
        .map(|component| {
            (spec(header.tables.dc_or_standard(component.dc)), spec(header.tables.ac_or_standard(component.ac)))
        })
        .collect();
    let mut planes: Vec<(Blocks, usize)> =
        layout.parts().iter().map(|part| (vec![[0; 64]; columns * part.h * rows * part.v], columns * part.h)).collect();
    let interval = match header.tables.restart_interval {
        0 => columns * rows,
        interval => interval.into(),
    };
    let mut at = header.scan_offset;
    for first in (0..columns * rows).step_by(interval) {
        let plain = destuffed(&bytes[at..]);
        let mut reader = Reader { bytes: &plain, bit: 0 };
        let mut predictions = [0; 3];
        for mcu in first..(first + interval).min(columns * rows) {
            for (i, part) in layout.parts().iter().enumerate() {
                for (y, x) in (0..part.v).flat_map(|y| (0..part.h).map(move |x| (y, x))) {
                    let block = reader.block(&tables[i].0, &tables[i].1, &mut predictions[i]);
                    let (blocks, stride) = &mut planes[i];
                    blocks[(mcu / columns * part.v + y) * *stride + mcu % columns * part.h + x] = block;
                }
            }
        }
        // Behind the next restart marker.
        let marker = (at..bytes.len() - 1).find(|&at| bytes[at] == 0xFF && (0xD0..=0xD9).contains(&bytes[at + 1]));
        at = marker.unwrap() + 2;
    }
    planes
}

/// The blocks of each plane's rectangle, and what every segment's end demands.
fn by_segments(image: &Image, segments: &[Segment], tables: &[u8], upload: &[u8]) -> Vec<Blocks> {
    let specs: &[HuffmanSpec] = bytemuck::cast_slice(&tables[128 * usize::from(image.quant_count)..]);
    assert_eq!(specs.len(), usize::from(image.table_count));
    let planes = &image.planes[..image.plane_count as usize];
    assert_eq!(planes.iter().map(|plane| plane.h * plane.v).sum::<u8>(), image.block_count);
    let mut decoded: Vec<Blocks> = planes
        .iter()
        .map(|plane| vec![[i16::MIN; 64]; usize::from(plane.block_columns) * usize::from(plane.block_rows)])
        .collect();
    for segment in segments {
        let plain = destuffed(data(segment, upload));
        let skip = if segment.skip < MARKER { segment.skip } else { 0 };
        let mut reader = Reader { bytes: &plain, bit: skip.into() };
        let mut predictions = segment.dc;
        for mcu in 0..usize::from(segment.mcus) {
            for (i, plane) in planes.iter().enumerate() {
                let (h, v) = (usize::from(plane.h), usize::from(plane.v));
                for (y, x) in (0..v).flat_map(|y| (0..h).map(move |x| (y, x))) {
                    let block =
                        reader.block(&specs[usize::from(plane.dc)], &specs[usize::from(plane.ac)], &mut predictions[i]);
                    let row = (usize::from(segment.row) * v + y).checked_sub(plane.block_row.into());
                    let column = ((usize::from(segment.column) + mcu) * h + x).checked_sub(plane.block_column.into());
                    let (stride, rows) = (usize::from(plane.block_columns), usize::from(plane.block_rows));
                    if let (Some(row), Some(column)) = (row, column)
                        && row < rows
                        && column < stride
                    {
                        decoded[i][row * stride + column] = block;
                    }
                }
            }
        }
        let left = plain.len() as isize * 8 - reader.bit as isize;
        match segment.end {
            END_UNCHECKED => assert!(left >= 0, "{segment:?} is short of {left} bits"),
            MARKER.. => assert!((0..8).contains(&left), "{segment:?} has {left} bits left"),
            end => {
                assert_eq!(left, isize::from(end), "{segment:?}");
                assert_eq!(predictions[..planes.len()], segment.next_dc[..planes.len()], "{segment:?}");
            }
        }
    }
    decoded
}

/// The bytes of a segment but for fill bytes at its end, whose restart markers must be where it says.
fn data<'a>(segment: &Segment, upload: &'a [u8]) -> &'a [u8] {
    let range = segment.byte as usize..(segment.byte + segment.bytes) as usize;
    if segment.skip >= MARKER {
        assert_eq!(upload[range.start - 2..range.start], [0xFF, 0xD0 + segment.skip - MARKER], "{segment:?}");
    }
    if (MARKER..END_UNCHECKED).contains(&segment.end) {
        assert_eq!(upload[range.end..][..2], [0xFF, 0xD0 + segment.end - MARKER], "{segment:?}");
    }
    let data = &upload[range];
    if matches!(segment.end, 1..8 | END_UNCHECKED) {
        return data;
    }
    let end = data.iter().rposition(|&byte| byte != 0xFF).map_or(0, |last| last + 1);
    &data[..end]
}

struct Sample {
    bytes: Vec<u8>,
    facts: Facts,
    entries: Vec<u8>,
    quant: Vec<u8>,
    huffman: Vec<u8>,
}

impl Sample {
    fn new(name: &str, grain: Grain) -> Self {
        let path = format!("{}/tests/fixtures/jpeg/{name}.jpg", env!("CARGO_MANIFEST_DIR"));
        Self::of(std::fs::read(path).unwrap(), grain)
    }

    fn of(bytes: Vec<u8>, grain: Grain) -> Self {
        let header = Header::parse(&bytes).unwrap();
        let (mut entries, mut quant, mut huffman) = (vec![], vec![], vec![]);
        let facts = Decoder::new().index(&bytes, &header, grain, &mut entries).unwrap();
        header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
        Self { bytes, facts, entries, quant, huffman }
    }

    fn record<'a>(&'a self, entries: &'a [u8]) -> RecordedJpeg<'a> {
        RecordedJpeg {
            facts: self.facts,
            entries: EntryPoints::new(entries),
            quant: &self.quant,
            huffman: &self.huffman,
        }
    }

    fn plan(&self, number: u64) -> SamplePlan {
        let augment = match number % 3 {
            0 => Augment::builder(Geometry::Resize { size: Size { height: 17, width: 40 } }).build().unwrap(),
            _ => Augment::imagenet_train(16).build().unwrap(),
        };
        let key = SampleKey { seed: 1, epoch: 0, sample: number, view: 0 };
        augment.plan(key, self.facts.width, self.facts.height, Orientation::AS_STORED).unwrap()
    }

    /// The pieces that a plan needs.
    fn landed(&self, plan: &SamplePlan) -> Landed {
        let mut ranges = vec![];
        self.facts.ranges(EntryPoints::new(&self.entries), plan.view(), &mut ranges).unwrap();
        self.landed_at(ranges)
    }

    fn landed_at(&self, ranges: Vec<Range<u64>>) -> Landed {
        let mut landed = Landed { pieces: vec![], upload: vec![0xAA; 5] };
        for range in ranges {
            let bytes = &self.bytes[range.start as usize..range.end as usize];
            landed.pieces.push((range, landed.upload.len() as u32));
            landed.upload.extend_from_slice(bytes);
            landed.upload.extend_from_slice(&[0xAA; 7]);
        }
        landed
    }
}

/// Ranges of a file in an upload that holds nothing else but gaps.
struct Landed {
    /// What each is, and where.
    pieces: Vec<(Range<u64>, u32)>,
    upload: Vec<u8>,
}

impl Landed {
    fn find(&self, range: Range<u64>) -> Option<u32> {
        let holds = |(piece, _): &&(Range<u64>, u32)| piece.start <= range.start && range.end <= piece.end;
        let (piece, at) = self.pieces.iter().find(holds)?;
        Some(at + (range.start - piece.start) as u32)
    }

    /// Whether bytes of the upload lie in one piece.
    fn holds(&self, range: Range<u32>) -> bool {
        let holds = |(piece, at): &(Range<u64>, u32)| {
            *at <= range.start && u64::from(range.end - at) <= piece.end - piece.start
        };
        self.pieces.iter().any(holds)
    }
}

const SAMPLES: [&str; 16] = [
    "444_131x97",
    "422_131x97",
    "420_131x97",
    "440_131x97",
    "411_131x97",
    "410_131x97",
    "grey_131x97",
    "420_17x16",
    "444_1x1",
    "grey_2x2_factors",
    "rgb_subsampled",
    "restart_every_mcu",
    "restart_rows_422",
    "restart_blocks_411",
    "quality_100_420",
    "mixed_hv_131x97",
];

/// The file with up to three fill bytes before each marker and each FF of its scan.
fn with_fill_bytes(file: &[u8]) -> Vec<u8> {
    let mut filled = file[..Header::parse(file).unwrap().scan_offset].to_vec();
    for (i, &byte) in file.iter().enumerate().skip(filled.len()) {
        filled.extend([0xFF; 3].iter().take(if byte == 0xFF { i % 4 } else { 0 }));
        filled.push(byte);
    }
    filled
}

#[test]
fn descriptions_give_the_coefficients_of_the_file() {
    let mut describer = Describer::default();
    for (name, grain) in SAMPLES.into_iter().flat_map(|name| [(name, Grain::Bits(200)), (name, Grain::Rows)]) {
        let sample = Sample::of(with_fill_bytes(&Sample::new(name, grain).bytes), grain);
        let expected = sequential(&sample.bytes);
        for number in 0..12 {
            let plan = sample.plan(number);
            let landed = sample.landed(&plan);
            let record = sample.record(&sample.entries);
            let found = describer.describe(&record, &plan, |range| landed.find(range)).unwrap();
            let decoded = by_segments(&found.image, found.segments, found.tables, &landed.upload);
            let needs = Needs::of(&sample.facts, &plan).unwrap().unwrap();
            assert_eq!(
                (needs.blocks, needs.samples, needs.taps),
                (found.needs.blocks, found.needs.samples, found.needs.taps)
            );
            assert_eq!(decoded.iter().map(Vec::len).sum::<usize>(), needs.blocks as usize);
            assert_eq!(decoded.iter().map(Vec::len).max(), Some(needs.plane_blocks as usize));
            for ((decoded, plane), (all, stride)) in decoded.iter().zip(&found.image.planes).zip(&expected) {
                for (i, block) in decoded.iter().enumerate() {
                    let row = usize::from(plane.block_row) + i / usize::from(plane.block_columns);
                    let column = usize::from(plane.block_column) + i % usize::from(plane.block_columns);
                    assert_eq!(*block, all[row * stride + column], "{name} {number}: block {column} of row {row}");
                }
            }
        }
    }
}

/// Whatever an index claims, what is described lies in the bytes that landed and in the image.
#[test]
fn a_lying_index_is_refused_or_stays_in_bounds() {
    let mut describer = Describer::default();
    for name in ["420_131x97", "restart_rows_422", "restart_every_mcu"] {
        let sample = Sample::new(name, Grain::Bits(400));
        let (plan, mut refused) = (sample.plan(0), 0);
        let landed = sample.landed(&plan);
        for at in 0..sample.entries.len() {
            for bit in 0..8 {
                let mut lie = sample.entries.clone();
                lie[at] ^= 1 << bit;
                let record = sample.record(&lie);
                match describer.describe(&record, &plan, |range| landed.find(range)) {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::IndexStale, "{error}");
                        refused += 1;
                    }
                    Ok(found) => {
                        let mut words = 0;
                        for segment in found.segments {
                            let before = if segment.skip < MARKER { 0 } else { 2 };
                            let behind = if (MARKER..END_UNCHECKED).contains(&segment.end) { 2 } else { 0 };
                            let (start, end) = (segment.byte, segment.byte + segment.bytes);
                            assert!(start < end && landed.holds(start - before..end + behind), "{segment:?}");
                            assert!(segment.mcus > 0 && segment.skip < 16);
                            assert_eq!(segment.words, words);
                            words += 3 + segment.bytes.div_ceil(4);
                        }
                        assert_eq!(words, found.needs.words);
                    }
                }
            }
        }
        assert!(refused > 0, "{name}");
    }
}

/// Tables that no decoder can use never reach the kernels.
#[test]
fn tables_that_are_none_are_refused() {
    let sample = Sample::new("420_131x97", Grain::Rows);
    let plan = sample.plan(0);
    let landed = sample.landed(&plan);
    let describe = |quant: &[u8], huffman: &[u8]| {
        let record = RecordedJpeg { quant, huffman, ..sample.record(&sample.entries) };
        Describer::default().describe(&record, &plan, |range| landed.find(range)).map(|found| found.needs)
    };
    assert!(describe(&sample.quant, &sample.huffman).is_ok());
    assert!(describe(&[], &sample.huffman).is_err());
    // Three codes of one bit.
    let mut over_full = sample.huffman.clone();
    over_full[1] = 3;
    assert!(describe(&sample.quant, &over_full).is_err());
    // A DC difference of 16 bits: the first symbol of the first table.
    let mut too_long = sample.huffman.clone();
    too_long[17] = 16;
    assert!(describe(&sample.quant, &too_long).is_err());
    // Without tables of its own, those of T.81 annex K.
    assert!(describe(&sample.quant, &[]).is_ok());
}

/// The kernels look at the markers around a segment, so a description is none where these did not land with it.
#[test]
fn markers_have_landed_or_nothing_is_described() {
    let sample = Sample::new("restart_every_mcu", Grain::Rows);
    let record = sample.record(&sample.entries);
    let describe = |plan: &SamplePlan, ranges: Vec<Range<u64>>| {
        let landed = sample.landed_at(ranges);
        let mut describer = Describer::default();
        let found = describer.describe(&record, plan, |range| landed.find(range));
        found.map(|found| (found.segments[0], found.segments[found.segments.len() - 1]))
    };
    let ranges = |plan: &SamplePlan| {
        let mut ranges = vec![];
        sample.facts.ranges(EntryPoints::new(&sample.entries), plan.view(), &mut ranges).unwrap();
        ranges
    };
    let is_inner = |plan: &SamplePlan| {
        let (first, last) = describe(plan, ranges(plan)).unwrap();
        first.skip >= MARKER && (MARKER..END_UNCHECKED).contains(&last.end)
    };
    let plan = (0..100).map(|number| sample.plan(number)).find(is_inner).unwrap();
    for bytes in 1..=2 {
        let mut cut = [ranges(&plan), ranges(&plan)];
        cut[0][0].start += bytes;
        cut[1].last_mut().unwrap().end -= bytes;
        for ranges in cut {
            assert_eq!(describe(&plan, ranges).unwrap_err().kind(), ErrorKind::IndexStale);
        }
    }
}

/// Landed as one piece, as from a short file.
#[test]
fn pieces_may_be_larger_than_what_is_needed() {
    let sample = Sample::new("restart_rows_422", Grain::Bits(400));
    let plan = sample.plan(1);
    let record = sample.record(&sample.entries);
    let [exact, whole] =
        [sample.landed(&plan), sample.landed_at(std::iter::once(0..sample.bytes.len() as u64).collect())];
    let described = [exact, whole].map(|landed| {
        let mut describer = Describer::default();
        let found = describer.describe(&record, &plan, |range| landed.find(range)).unwrap();
        let data = |segment: &Segment| landed.upload[segment.byte as usize..][..segment.bytes as usize].to_vec();
        let segments = found.segments.iter().map(|segment| (data(segment), Segment { byte: 0, ..*segment }));
        segments.collect::<Vec<_>>()
    });
    assert!(described[0] == described[1] && described[0].len() > 4);
}
