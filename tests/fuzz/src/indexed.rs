//! A file as its index knows it, and ways in which an index may lie.

use std::ops::Range;

use forebay::Result;
use forebay::jpeg::{Decoder, EntryPoints, Facts, Grain, Header, Piece};
use forebay::pixels::Rect;

use crate::{Image, Tail};

/// Offsets and bytes.
pub type Pieces = Vec<(u64, Vec<u8>)>;

/// What an index holds of a file.
pub struct Indexed {
    facts: Facts,
    entries: Vec<u8>,
    quant: Vec<u8>,
    huffman: Vec<u8>,
}

impl Indexed {
    /// The truth about a file.
    ///
    /// # Errors
    /// Where the decoder finds none.
    pub fn new(decoder: &mut Decoder, bytes: &[u8], header: &Header, grain: Grain) -> Result<Self> {
        let (mut entries, mut quant, mut huffman) = Default::default();
        let facts = decoder.index(bytes, header, grain, &mut entries)?;
        facts.check().expect("facts of a file that was passed over");
        header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
        Ok(Self { facts, entries, quant, huffman })
    }

    /// Decodes a region of a file of which only what the index asks for is there, each range in an allocation of its
    /// own, after `edit` has had its way with the pieces. `None` where anything is refused.
    pub fn decode(
        &self,
        decoder: &mut Decoder,
        bytes: &[u8],
        region: Rect,
        edit: impl FnOnce(&mut Pieces),
    ) -> Option<Image> {
        let mut pieces = self.pieces(bytes, region)?;
        edit(&mut pieces);
        let header = self.facts.header(&self.quant, &self.huffman).ok()?;
        let pieces: Vec<_> = pieces.iter().map(|(offset, bytes)| Piece { offset: *offset, bytes }).collect();
        let entries = EntryPoints::new(&self.entries);
        Image::of(region, |image| decoder.decode_indexed(&pieces, &header, entries, region, image))
    }

    /// Makes the index lie.
    pub fn spoil(&mut self, tail: &mut Tail) {
        for _ in 0..1 + tail.below(4) {
            let (what, value) = (tail.byte(), tail.byte());
            let facts = &mut self.facts;
            match what % 16 {
                0 => facts.width = facts.width.wrapping_add_signed((value as i8).into()),
                1 => facts.height = facts.height.wrapping_add_signed((value as i8).into()),
                2 => facts.sampling[usize::from(value) % 3] = (tail.byte() % 6, tail.byte() % 6),
                3 => facts.slots[usize::from(value) % 3][usize::from(tail.byte()) % 3] = tail.byte() % 6,
                4 => facts.restart_interval = value.into(),
                5 => facts.scan_offset = facts.scan_offset.wrapping_add_signed((value as i8).into()),
                6 => facts.scan_bytes = facts.scan_bytes.wrapping_add_signed((value as i8).into()),
                7 => facts.scan_offset = u64::MAX - u64::from(value),
                8 => facts.scan_bytes = u64::MAX - u64::from(value),
                9 => spoil(&mut self.quant, value, tail),
                10 => spoil(&mut self.huffman, value, tail),
                _ => spoil(&mut self.entries, value, tail),
            }
        }
    }

    fn pieces(&self, bytes: &[u8], region: Rect) -> Option<Pieces> {
        let mut ranges = Vec::new();
        self.facts.ranges(EntryPoints::new(&self.entries), region, &mut ranges).ok()?;
        let mut end_before = self.facts.scan_offset;
        for &Range { start, end } in &ranges {
            assert!(end_before <= start && start < end, "{ranges:?}");
            end_before = end;
        }
        assert!(end_before <= self.facts.scan_offset + self.facts.scan_bytes, "{ranges:?} of {:?}", self.facts);
        // What lies outside the file would be a short read.
        let held = |range: &Range<u64>| {
            let within = |offset: u64| offset.min(bytes.len() as u64) as usize;
            (range.start, bytes[within(range.start)..within(range.end)].to_vec())
        };
        Some(ranges.iter().map(held).collect())
    }
}

/// Loses some pieces and cuts others.
pub fn shorten(pieces: &mut Pieces, tail: &mut Tail) {
    for _ in 0..1 + tail.below(3) {
        let at = tail.below(pieces.len().max(1) as u32) as usize;
        match pieces.get_mut(at) {
            Some((_, piece)) if tail.byte() % 2 == 0 => piece.truncate(tail.below(piece.len() as u32 + 1) as usize),
            Some(_) => drop(pieces.remove(at)),
            None => break,
        }
    }
}

/// Has pieces claim to be from elsewhere.
pub fn displace(pieces: &mut Pieces, tail: &mut Tail) {
    for _ in 0..tail.below(3) {
        let at = tail.below(pieces.len().max(1) as u32) as usize;
        let Some((offset, _)) = pieces.get_mut(at) else { break };
        *offset = match tail.byte() % 4 {
            0 => u64::MAX - u64::from(tail.byte()),
            _ => offset.wrapping_add_signed((tail.byte() as i8).into()),
        };
    }
}

/// Changes, adds or takes away a byte, or cuts the rest off.
fn spoil(bytes: &mut Vec<u8>, value: u8, tail: &mut Tail) {
    let at = tail.below(bytes.len() as u32 + 1) as usize;
    match tail.below(4) {
        0 => bytes.insert(at, value),
        1 => bytes.truncate(at),
        2 if at < bytes.len() => drop(bytes.remove(at)),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= value),
    }
}
