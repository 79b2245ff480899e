//! The compact form of entry points, written and read one at a time; see [`EntryPoints`](super::EntryPoints).

use super::entry::{EntryPoint, Grid, stale};
use crate::error::Result;

/// Appends entry points in the order of the scan.
pub struct EntryWriter<'a> {
    bytes: &'a mut Vec<u8>,
    components: usize,
    last: EntryPoint,
}

impl<'a> EntryWriter<'a> {
    /// For a scan of so many components.
    pub fn new(bytes: &'a mut Vec<u8>, components: usize) -> Self {
        Self { bytes, components, last: EntryPoint::default() }
    }

    /// Appends an entry point behind the last one, in its row or at the start of the next; not the scan's first.
    pub fn push(&mut self, entry: EntryPoint) {
        let step = if entry.row > self.last.row { 0 } else { entry.column - self.last.column };
        write_number(self.bytes, step);
        // A scan has under 2^32 bits.
        write_number(self.bytes, (entry.bit - self.last.bit) as u32);
        for (dc, last) in entry.dc.iter().zip(self.last.dc).take(self.components) {
            let difference = dc.wrapping_sub(last);
            write_number(self.bytes, u32::from((difference << 1 ^ difference >> 15) as u16));
        }
        self.last = entry;
    }
}

/// Reads entry points that may be anything.
#[derive(Clone)]
pub struct EntryIter<'a> {
    bytes: &'a [u8],
    grid: Grid,
    bits: u64,
    last: Option<EntryPoint>,
    has_ended: bool,
}

impl<'a> EntryIter<'a> {
    /// Of a scan of no more than `scan_bytes`.
    pub fn new(bytes: &'a [u8], grid: Grid, scan_bytes: u64) -> Self {
        Self { bytes, grid, bits: scan_bytes.saturating_mul(8), last: None, has_ended: false }
    }

    fn read(&mut self, last: EntryPoint) -> Result<EntryPoint> {
        let mut entry = last;
        match self.read_number()? {
            0 => (entry.row, entry.column) = (last.row + 1, 0),
            step => entry.column = last.column.saturating_add(step),
        }
        if entry.row >= self.grid.rows || entry.column >= self.grid.columns {
            let Grid { columns, rows, .. } = self.grid;
            let (row, column) = (entry.row, entry.column);
            return Err(stale(format!("an entry point at MCU {column} of row {row} in {columns}x{rows} MCUs")));
        }
        // No MCU is without bits.
        entry.bit = last.bit + u64::from(self.read_number()?);
        if entry.bit == last.bit || entry.bit >= self.bits {
            return Err(stale(format!(
                "an entry point at bit {} of {}, behind bit {}",
                entry.bit, self.bits, last.bit
            )));
        }
        for component in 0..self.grid.components {
            let coded = self.read_number()?;
            let coded =
                u16::try_from(coded).map_err(|_| stale(format!("an entry point's DC difference is {coded}")))?;
            let difference = (coded >> 1) as i16 ^ -((coded & 1) as i16);
            entry.dc[component] = last.dc[component].wrapping_add(difference);
        }
        Ok(entry)
    }

    fn read_number(&mut self) -> Result<u32> {
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let Some((&byte, rest)) = self.bytes.split_first() else {
                return Err(stale("its entry points end inside one"));
            };
            self.bytes = rest;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return u32::try_from(number).map_err(|_| stale("an entry point holds a number over 32 bits"));
            }
        }
        Err(stale("an entry point holds a number over 32 bits"))
    }
}

impl Iterator for EntryIter<'_> {
    type Item = Result<EntryPoint>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let read = match self.last {
            None => Ok(EntryPoint::default()),
            Some(last) if self.bytes.is_empty() => {
                self.has_ended = true;
                let (found, rows) = (last.row + 1, self.grid.rows);
                let is_whole = found == rows;
                return (!is_whole).then(|| Err(stale(format!("it has entry points for {found} of {rows} MCU rows"))));
            }
            Some(last) => self.read(last),
        };
        self.has_ended = read.is_err();
        self.last = read.as_ref().ok().copied();
        Some(read)
    }
}

/// Appends a number in LEB128.
fn write_number(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const GRID: Grid = Grid { columns: 300, rows: 3, components: 3 };

    fn written(entries: &[EntryPoint]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = EntryWriter::new(&mut bytes, GRID.components);
        entries.iter().for_each(|&entry| writer.push(entry));
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<EntryPoint>> {
        EntryIter::new(bytes, GRID, 1 << 29).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let entries = [
            EntryPoint { row: 0, column: 299, bit: 1, dc: [i16::MIN, i16::MAX, -1] },
            EntryPoint { row: 1, column: 0, bit: 128, dc: [i16::MAX, i16::MIN, 1] },
            EntryPoint { row: 1, column: 1, bit: 1 << 31, dc: [0, -64, 63] },
            EntryPoint { row: 2, column: 0, bit: (1 << 32) - 1, dc: [64, -65, 0] },
        ];
        let expected: Vec<_> = std::iter::once(EntryPoint::default()).chain(entries).collect();
        assert_eq!(read(&written(&entries)).unwrap(), expected);
        // The layout, byte for byte: what is written today is read by later versions.
        assert_eq!(written(&entries[..1]), [0xAB, 2, 1, 0xFF, 0xFF, 3, 0xFE, 0xFF, 3, 1]);
    }

    #[test]
    fn contradictions_are_refused() {
        let complete = [0, 9, 0, 0, 0, 0, 9, 0, 0, 0];
        assert_eq!(read(&complete).unwrap().len(), 3);
        for len in 0..complete.len() {
            assert_eq!(read(&complete[..len]).unwrap_err().kind(), ErrorKind::IndexStale, "cut to {len}");
        }
        for bad in [
            &[0, 9, 0, 0, 0, 0, 9, 0, 0, 0, 0, 9, 0, 0, 0][..], // a fourth row
            &[0xAC, 2, 9, 0, 0, 0],                             // column 300
            &[0xFF, 0xFF, 0xFF, 0xFF, 15, 9, 0, 0, 0],          // column 2^32 - 1
            &[1, 0, 0, 0, 0],                                   // an MCU without bits
            &[1, 0xFF, 0xFF, 0xFF, 0xFF, 15, 0, 0, 0],          // behind the scan
            &[1, 9, 0x80, 0x80, 4, 0, 0],                       // a DC difference over 16 bits
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0],                 // a number that does not end
            &[0x80, 0x80, 0x80, 0x80, 16],                      // 2^32
        ] {
            let mut entries = EntryIter::new(bad, GRID, (1 << 29) - 1);
            let error = entries.by_ref().find_map(Result::err).unwrap_or_else(|| panic!("{bad:x?} passed"));
            assert_eq!(error.kind(), ErrorKind::IndexStale);
            assert!(entries.next().is_none(), "goes on behind an error");
        }
    }
}
