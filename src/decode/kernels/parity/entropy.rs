//! `forebay_entropy` on words that `forebay_destuff` made.

use std::ops::Range;

use super::machine::Machine;
use super::wave::{Buffers, Wave};
use super::{FILES, Random, fixture};
use crate::decode::kernels::abi::Segment;
use crate::jpeg::reference::{self, Blocks};
use crate::jpeg::{Decoder, EntryPoints, Grain, Header, HuffmanSpec, Piece};
use crate::pixels::{ROW_PADDING_BYTES, Rect, RowSink};
use crate::plan::{Augment, Geometry, Orientation, SampleKey, SamplePlan};

/// Whether the coefficients of a wave's only image are those that the host finds.
fn compare(machine: &Machine, wave: &Wave, coefficients: u64, expected: &[Blocks; 3]) -> Result<(), String> {
    let image = &wave.images[0];
    for (i, plane) in image.planes[..image.plane_count as usize].iter().enumerate() {
        for row in 0..usize::from(plane.block_rows) {
            for column in 0..usize::from(plane.block_columns) {
                let block = plane.blocks as usize + row * usize::from(plane.block_columns) + column;
                let found: Vec<i16> = machine.read(coefficients + 128 * block as u64, 64);
                let at = (row + usize::from(plane.block_row)) * expected[i].columns
                    + column
                    + usize::from(plane.block_column);
                if found != expected[i].blocks[at] {
                    return Err(format!("component {i}, block {column} of row {row}: {found:?}"));
                }
            }
        }
    }
    Ok(())
}

/// Destuffs and decodes; the status of the only image.
fn decode(machine: &mut Machine, wave: &Wave, at: &Buffers) -> Result<u32, String> {
    wave.destuff(machine, at)?;
    wave.entropy(machine, at)?;
    Ok(machine.read(at.status, 1)[0])
}

/// Whole, or a part of it from a seed.
fn plan(file: &[u8], seed: u64) -> SamplePlan {
    let header = Header::parse(file).unwrap();
    let geometry = if seed == 0 { Geometry::None } else { Geometry::random_resized_crop(16) };
    let key = SampleKey { seed, epoch: 0, sample: 0, view: 0 };
    let augment = Augment::builder(geometry).build().unwrap();
    augment.plan(key, header.width, header.height, Orientation::AS_STORED).unwrap()
}

pub fn run(seed: u64, machine: &mut Machine) -> Result<(), String> {
    machine.clear();
    let name = FILES[7 * seed as usize % FILES.len()];
    let (file, grain) =
        (filled_or_not(name, seed), [Grain::Rows, Grain::Bits(100), Grain::default()][seed as usize % 3]);
    let wave = Wave::of(&file, &plan(&file, seed % 5), grain);
    let at = wave.buffers(machine);
    let status = decode(machine, &wave, &at)?;
    if status != 0 {
        return Err(format!("{name}: status {status}"));
    }
    let expected = reference::coefficients(&file, &Header::parse(&file).unwrap()).unwrap();
    compare(machine, &wave, at.coefficients, &expected).map_err(|error| format!("{name}, seed {seed}: {error}"))
}

#[test]
fn coefficients_are_those_of_the_host() {
    let mut machine = Machine::new();
    for seed in 0..5 * FILES.len() as u64 {
        run(seed, &mut machine).unwrap();
    }
}

/// Whether the host decodes a region of a file by entry points of another one.
fn host_decodes(file: &[u8], header: &Header, entries: &[u8], region: Rect) -> bool {
    struct Nowhere([Vec<u8>; 3]);
    impl RowSink for Nowhere {
        fn row(&mut self) -> [&mut [u8]; 3] {
            self.0.each_mut().map(|row| &mut row[..])
        }
        fn commit(&mut self) {}
    }
    let mut sink = Nowhere([(); 3].map(|()| vec![0; header.width as usize + ROW_PADDING_BYTES]));
    let pieces = [Piece { offset: 0, bytes: file }];
    Decoder::new().decode_indexed(&pieces, header, EntryPoints::new(entries), region, &mut sink).is_ok()
}

/// The file with so many fill bytes before each marker and FF of its scan.
fn with_fill_bytes(file: &[u8], mut count: impl FnMut() -> usize) -> Vec<u8> {
    let mut filled = file[..Header::parse(file).unwrap().scan_offset].to_vec();
    for &byte in &file[filled.len()..] {
        filled.extend(std::iter::repeat_n(0xFF, if byte == 0xFF { count() } else { 0 }));
        filled.push(byte);
    }
    filled
}

/// A fixture, for every other seed with fill bytes.
fn filled_or_not(name: &str, seed: u64) -> Vec<u8> {
    let (file, mut random) = (fixture(name), Random(seed));
    if seed.is_multiple_of(2) { file } else { with_fill_bytes(&file, || [0, 0, 1, 40][random.below(4)]) }
}

/// A file with bits flipped in its scan, a part of it or the whole, by the entry points it had before: sound for the kernels
/// where it is for the host, and then the same coefficients. The status.
pub fn damaged(seed: u64, machine: &mut Machine) -> Result<u32, String> {
    let mut random = Random(seed);
    let name = ["444_33x31", "420_33x31", "grey_33x31", "restart_rows_422", "restart_every_mcu"][random.below(5)];
    let mut file = filled_or_not(name, seed / 2);
    let header = Header::parse(&file).unwrap();
    let grain = Grain::Bits(200);
    let mut entries = Vec::new();
    let facts = Decoder::new().index(&file, &header, grain, &mut entries).unwrap();
    machine.clear();
    let plan = plan(&file, seed % 3);
    let mut wave = Wave::of(&file, &plan, grain);
    for _ in 0..1 + random.below(3) {
        let at = header.scan_offset + random.below(facts.scan_bytes as usize);
        file[at] ^= 1 << random.below(8);
    }
    wave.upload[wave.file..][..file.len()].copy_from_slice(&file);
    let at = wave.buffers(machine);
    let status = decode(machine, &wave, &at)?;
    let is_sound = host_decodes(&file, &header, &entries, plan.region());
    if (status == 0) != is_sound {
        return Err(format!("seed {seed}: status {status}, where the host says sound: {is_sound}"));
    }
    // Damage outside of a part changes what it would be as one of the whole.
    if is_sound && plan.region() == Rect::whole(header.width, header.height) {
        let expected = reference::coefficients(&file, &header).unwrap();
        compare(machine, &wave, at.coefficients, &expected)?;
    }
    Ok(status)
}

/// Blocks of dark and bright noise in turn: so large a difference of DC that its code begins with eight ones.
fn chessboard(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let pixel = |random: &mut Random, x: usize, y: usize| ((x / 8 + y / 8) % 2 * 240 + random.below(16)) as u8;
    let grey: Vec<u8> = (0..64 * 64).map(|i| pixel(&mut random, i % 64, i / 64)).collect();
    let mut file = Vec::new();
    jpeg_encoder::Encoder::new(&mut file, 100).encode(&grey, 64, 64, jpeg_encoder::ColorType::Luma).unwrap();
    file
}

/// Fill bytes belong to the segment before what they fill up to: a marker, or the FF that the next entry point is at.
#[test]
fn fill_bytes_are_no_data() {
    let mut machine = Machine::new();
    let mut counts = [0; 2];
    for file in (0..3).map(chessboard).chain([fixture("restart_every_mcu")]) {
        let filled = with_fill_bytes(&file, || 3);
        let wave = Wave::of(&filled, &plan(&filled, 0), Grain::Bits(1));
        let is_filled = |segment: &Segment| wave.upload[(segment.byte + segment.bytes) as usize - 1] == 0xFF;
        let count = |ends: Range<u8>| {
            wave.segments().iter().filter(|segment| ends.contains(&segment.end) && is_filled(segment)).count()
        };
        let found = [count(0..1), count(8..16)];
        if found == [0, 0] {
            continue;
        }
        (0..2).for_each(|i| counts[i] += found[i]);
        machine.clear();
        let at = wave.buffers(&mut machine);
        assert_eq!(decode(&mut machine, &wave, &at).unwrap(), 0);
        let expected = reference::coefficients(&file, &Header::parse(&file).unwrap()).unwrap();
        compare(&machine, &wave, at.coefficients, &expected).unwrap();
    }
    assert!(counts.iter().all(|&count| count > 3), "{counts:?} end with fill bytes at a byte, and at a marker");
}

/// A marker that is not there, before a segment or behind it, is all that is wrong with an image.
#[test]
fn markers_are_looked_for_on_both_sides() {
    let mut machine = Machine::new();
    let file = fixture("restart_every_mcu");
    // Of all segments one alone, so that no neighbour misses the same marker.
    let mut wave = Wave::of(&file, &plan(&file, 0), Grain::Rows);
    let number = 3;
    let inner = wave.segments()[number];
    wave.images[0].segments += (number * size_of::<Segment>()) as u32;
    wave.images[0].segment_count = 1;
    let (start, end) = (inner.byte as usize, (inner.byte + inner.bytes) as usize);
    let mut status = |wave: &Wave| {
        machine.clear();
        let at = wave.buffers(&mut machine);
        decode(&mut machine, wave, &at).unwrap()
    };
    assert_eq!(status(&wave), 0);
    for at in [start - 2, start - 1, end, end + 1] {
        wave.upload[at] ^= 4;
        assert_eq!(status(&wave), 5, "byte {at} of the segment at {start}..{end}");
        wave.upload[at] ^= 4;
    }
    // Nor is an FF at the end a fill byte of data that a marker has cut off.
    wave.upload[start..start + 2].copy_from_slice(&[0xFF, 1]);
    wave.upload[end - 1] = 0xFF;
    assert_eq!(status(&wave), 3);
}

#[test]
fn damage_is_found_where_the_host_finds_it() {
    let mut machine = Machine::new();
    let mut statuses = [0; 6];
    for seed in 0..600 {
        statuses[damaged(seed, &mut machine).unwrap() as usize] += 1;
    }
    assert!(statuses.iter().all(|&count| count > 3), "{statuses:?} of each status");
}

/// Tables and data of anything at all: a status, and never memory that is not theirs, which the machine would tell. Tables
/// that the host refuses have no codes. The status.
pub fn hostile(seed: u64, machine: &mut Machine) -> Result<u32, String> {
    let mut random = Random(seed);
    let file = fixture(["444_33x31", "420_33x31"][random.below(2)]);
    machine.clear();
    let mut wave = Wave::of(&file, &plan(&file, seed % 3), Grain::Bits(200));
    let image = wave.images[0];
    let tables = image.tables as usize + 128 * usize::from(image.quant_count);
    let number = random.below(usize::from(image.table_count));
    let table = tables + 272 * number..tables + 272 * (number + 1);
    let spoil = |bytes: &mut [u8], random: &mut Random| bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
    let counts = table.start..table.start + 16;
    match random.below(5) {
        0 => spoil(&mut wave.upload[counts.end..table.end], &mut random),
        1 => spoil(&mut wave.upload[table.clone()], &mut random),
        2 => wave.upload[counts.start + random.below(16)] += 1,
        3 => fill_code(&mut wave.upload[counts]),
        _ => spoil(&mut wave.upload[wave.file..][..file.len()], &mut random),
    }
    let at = wave.buffers(machine);
    let status = decode(machine, &wave, &at)?;
    let spec = HuffmanSpec {
        counts: wave.upload[table.clone()][..16].try_into().unwrap(),
        symbols: wave.upload[table][16..].try_into().unwrap(),
    };
    let is_refused = reference::refuses(&spec, number.is_multiple_of(2));
    if is_refused && status != 1 {
        Err(format!("seed {seed}: status {status} with a table that is none"))
    } else {
        Ok(status)
    }
}

/// Makes the counts those of a code in which the last is all ones.
fn fill_code(counts: &mut [u8]) {
    let used: u32 = (1..=16).map(|length| u32::from(counts[length - 1]) << (16 - length)).sum();
    let left = (1 << 16) - used;
    let length = 16 - left.trailing_zeros() as usize;
    counts[length - 1] += (left >> (16 - length)).min(255 - u32::from(counts[length - 1])) as u8;
}

#[test]
fn nothing_leads_out_of_bounds() {
    let mut machine = Machine::new();
    let mut statuses = [0; 6];
    for seed in 0..300 {
        statuses[hostile(seed, &mut machine).unwrap() as usize] += 1;
    }
    assert!(statuses[1..4].iter().all(|&count| count > 3), "{statuses:?} of each status");
}
