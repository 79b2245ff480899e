//! A file as an index knows it.
#![allow(dead_code, reason = "no test uses all of it")]

use std::ops::Range;

use forebay::Result;
use forebay::jpeg::{Decodability, Decoder, EntryPoint, EntryPoints, Facts, Grain, Header, Piece};
use forebay::pixels::Rect;

use crate::support::Image;

pub const GRAINS: [Grain; 3] = [Grain::Rows, Grain::Bits(4096), Grain::Bits(512)];

/// Facts, entry points and the payloads of the tables' segments.
#[derive(Clone)]
pub struct Indexed {
    pub facts: Facts,
    pub entries: Vec<u8>,
    pub quant: Vec<u8>,
    pub huffman: Vec<u8>,
}

impl Indexed {
    pub fn new(decoder: &mut Decoder, bytes: &[u8], grain: Grain) -> Result<Self> {
        let header = Header::parse(bytes)?;
        let (mut entries, mut quant, mut huffman) = (Vec::new(), Vec::new(), Vec::new());
        let facts = decoder.index(bytes, &header, grain, &mut entries)?;
        header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
        Ok(Self { facts, entries, quant, huffman })
    }

    /// Its entry points, the first included.
    pub fn entry_points(&self) -> Vec<EntryPoint> {
        EntryPoints::new(&self.entries).iter(&self.facts).collect::<Result<_>>().unwrap()
    }

    /// The same file with other entry points.
    pub fn with_entry_points(&self, entries: &[EntryPoint]) -> Self {
        let components = self.facts.sampling.iter().filter(|&&factors| factors != (0, 0)).count();
        let differences = |bytes: &mut Vec<u8>, entry: &EntryPoint, from: &EntryPoint| {
            write_number(bytes, entry.bit.wrapping_sub(from.bit) as u32);
            for (dc, from) in entry.dc.into_iter().zip(from.dc).take(components) {
                let difference = i32::from(dc.wrapping_sub(from));
                write_number(bytes, if difference < 0 { -2 * difference - 1 } else { 2 * difference } as u32);
            }
        };
        let mut bytes = Vec::new();
        let mut above: Option<&EntryPoint> = None;
        for row in entries.chunk_by(|last, entry| last.row == entry.row) {
            let mut further = Vec::new();
            for pair in row.windows(2) {
                write_number(&mut further, pair[1].column.wrapping_sub(pair[0].column));
                differences(&mut further, &pair[1], &pair[0]);
            }
            write_number(&mut bytes, further.len() as u32);
            if let Some(above) = above.replace(&row[0]) {
                differences(&mut bytes, &row[0], above);
            }
            bytes.append(&mut further);
        }
        Self { entries: bytes, ..self.clone() }
    }

    pub fn ranges(&self, region: Rect) -> Result<Vec<Range<u64>>> {
        let mut ranges = Vec::new();
        self.facts.ranges(EntryPoints::new(&self.entries), region, &mut ranges)?;
        Ok(ranges)
    }

    /// Decodes a region from a file of which only the ranges are there.
    pub fn decode(&self, decoder: &mut Decoder, bytes: &[u8], region: Rect) -> Result<Image> {
        let ranges = self.ranges(region)?;
        // Each in an allocation of its own: a byte behind it is not there.
        let held: Vec<_> =
            ranges.iter().map(|range| bytes[range.start as usize..range.end as usize].to_vec()).collect();
        let pieces: Vec<_> =
            ranges.iter().zip(&held).map(|(range, bytes)| Piece { offset: range.start, bytes }).collect();
        self.decode_pieces(decoder, &pieces, region)
    }

    pub fn decode_pieces(&self, decoder: &mut Decoder, pieces: &[Piece], region: Rect) -> Result<Image> {
        let header = self.facts.header(&self.quant, &self.huffman)?;
        let entries = EntryPoints::new(&self.entries);
        Image::collect(region, |sink| decoder.decode_indexed(pieces, &header, entries, region, sink))
    }
}

/// LEB128, as the documentation of `EntryPoints` says.
fn write_number(bytes: &mut Vec<u8>, mut number: u32) {
    while number > 127 {
        bytes.push((number % 128 + 128) as u8);
        number /= 128;
    }
    bytes.push(number as u8);
}

pub fn is_streamed(bytes: &[u8]) -> bool {
    Header::parse(bytes).unwrap().support() == Decodability::Streamed
}
