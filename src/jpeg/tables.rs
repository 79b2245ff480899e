//! Huffman and quantisation tables as the file spells them, before anything is derived from them.

use super::ZIGZAG;
use super::markers::corrupt;
use crate::error::Result;

/// Slots for tables of one class (T.81, table B.4 and B.5).
pub const TABLE_SLOTS: usize = 4;

/// A Huffman table as a DHT segment gives it: how many codes of each length, and their symbols.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HuffmanSpec {
    /// Codes of length 1..=16 bits.
    pub counts: [u8; 16],
    /// Symbols in order of their codes; those past the sum of `counts` are 0.
    pub symbols: [u8; 256],
}

/// Divisors of the 64 coefficients, in natural (row-major) order.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct QuantTable(pub [u16; 64]);

/// The tables and the restart interval that hold at some point of a file.
#[derive(Clone)]
pub struct Tables {
    /// Tables for DC differences, by slot.
    pub dc: [Option<HuffmanSpec>; TABLE_SLOTS],
    /// Tables for AC coefficients, by slot.
    pub ac: [Option<HuffmanSpec>; TABLE_SLOTS],
    /// Quantisation tables, by slot.
    pub quant: [Option<QuantTable>; TABLE_SLOTS],
    /// MCUs between restart markers; 0 where there are none.
    pub restart_interval: u16,
}

impl Tables {
    /// No tables, no restarts: the state after SOI.
    pub(super) const EMPTY: Self = Self { dc: [None; 4], ac: [None; 4], quant: [None; 4], restart_interval: 0 };

    /// The DC table in a slot, or the standard one where Motion JPEG leaves it out.
    pub(crate) fn dc_or_standard(&self, slot: u8) -> Option<&HuffmanSpec> {
        let standard = [&standard::DC_LUMA, &standard::DC_CHROMA];
        self.dc.get(slot as usize)?.as_ref().or_else(|| standard.get(slot as usize).copied())
    }

    /// The AC table in a slot, or the standard one where Motion JPEG leaves it out.
    pub(crate) fn ac_or_standard(&self, slot: u8) -> Option<&HuffmanSpec> {
        let standard = [&standard::AC_LUMA, &standard::AC_CHROMA];
        self.ac.get(slot as usize)?.as_ref().or_else(|| standard.get(slot as usize).copied())
    }

    /// Appends the payload of a DQT segment that defines the tables in use by the components `slots` (of each, its
    /// quantisation, DC and AC table) to `quant`, and that of a DHT segment to `huffman`. Equal tables make equal
    /// payloads, however the file wrote them. Standard tables that the file leaves out stay out.
    pub fn write_used(&self, slots: &[[u8; 3]; 3], quant: &mut Vec<u8>, huffman: &mut Vec<u8>) {
        for slot in 0..TABLE_SLOTS as u8 {
            let is_used = |class: usize| slots.iter().any(|slots| slots[class] == slot);
            if let Some(table) = self.quant[usize::from(slot)].as_ref().filter(|_| is_used(0)) {
                table.write(slot, quant);
            }
            for (class, tables) in [(1, &self.dc), (2, &self.ac)] {
                if let Some(spec) = tables[usize::from(slot)].as_ref().filter(|_| is_used(class)) {
                    huffman.push((class as u8 - 1) << 4 | slot);
                    huffman.extend_from_slice(&spec.counts);
                    huffman.extend_from_slice(&spec.symbols[..spec.len().min(256)]);
                }
            }
        }
    }

    /// Takes in the payload of a DHT segment.
    pub(super) fn define_huffman(&mut self, mut payload: &[u8]) -> Result<()> {
        while let Some((head, rest)) = payload.split_first_chunk::<17>() {
            let mut spec = HuffmanSpec { counts: [0; 16], symbols: [0; 256] };
            spec.counts.copy_from_slice(&head[1..]);
            let len = spec.len();
            if len > 256 || len > rest.len() {
                return Err(corrupt("DHT segment declares more symbols than it holds"));
            }
            spec.symbols[..len].copy_from_slice(&rest[..len]);
            let slots = if head[0] & 0x10 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = slots.get_mut(usize::from(head[0] & !0x10));
            *slot.ok_or_else(|| corrupt(format!("DHT segment names table {:#04x}", head[0])))? = Some(spec);
            payload = &rest[len..];
        }
        if payload.is_empty() { Ok(()) } else { Err(corrupt("DHT segment has bytes left over")) }
    }

    /// Takes in the payload of a DQT segment.
    pub(super) fn define_quant(&mut self, mut payload: &[u8]) -> Result<()> {
        while let Some((&head, rest)) = payload.split_first() {
            let slot = self.quant.get_mut(usize::from(head & 15));
            let slot = slot.ok_or_else(|| corrupt(format!("DQT segment names table {}", head & 15)))?;
            let entry_bytes = if head >> 4 == 0 { 1 } else { 2 };
            let Some((entries, rest)) = rest.split_at_checked(64 * entry_bytes) else {
                return Err(corrupt("DQT segment ends inside a table"));
            };
            let mut table = QuantTable([0; 64]);
            for (&position, entry) in ZIGZAG.iter().zip(entries.chunks_exact(entry_bytes)) {
                table.0[usize::from(position)] = entry.iter().fold(0, |value, &byte| value << 8 | u16::from(byte));
            }
            *slot = Some(table);
            payload = rest;
        }
        Ok(())
    }
}

impl QuantTable {
    /// Appends the table as a DQT segment's payload holds it (T.81, B.2.4.1), in bytes where they suffice.
    fn write(&self, slot: u8, payload: &mut Vec<u8>) {
        let is_wide = self.0.iter().any(|&entry| entry > 255);
        payload.push(u8::from(is_wide) << 4 | slot);
        for entry in ZIGZAG.map(|position| self.0[usize::from(position)]) {
            let bytes = entry.to_be_bytes();
            payload.extend_from_slice(if is_wide { &bytes } else { &bytes[1..] });
        }
    }
}

impl HuffmanSpec {
    /// How many symbols the counts declare; may exceed 256 in a corrupt table.
    pub(super) fn len(&self) -> usize {
        self.counts.iter().map(|&count| usize::from(count)).sum()
    }
}

/// The tables of T.81 annex K.3, which files without DHT segments mean.
mod standard {
    use super::HuffmanSpec;

    const fn spec(counts: [u8; 16], listed: &[u8]) -> HuffmanSpec {
        let mut symbols = [0; 256];
        let mut i = 0;
        while i < listed.len() {
            symbols[i] = listed[i];
            i += 1;
        }
        HuffmanSpec { counts, symbols }
    }

    const DC_SYMBOLS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    pub static DC_LUMA: HuffmanSpec = spec([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &DC_SYMBOLS);
    pub static DC_CHROMA: HuffmanSpec = spec([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &DC_SYMBOLS);
    pub static AC_LUMA: HuffmanSpec = spec(
        [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d],
        &[
            0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
            0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
            0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
            0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
            0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
            0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
            0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
            0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
            0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
        ],
    );
    pub static AC_CHROMA: HuffmanSpec = spec(
        [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77],
        &[
            0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
            0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1,
            0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
            0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
            0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
            0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
            0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
            0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
            0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
        ],
    );
}
