//! The compact form of entry points, written and read one at a time; see [`EntryPoints`](super::EntryPoints).

use super::entry::{EntryPoint, Grid, stale};
use crate::error::Result;

/// Appends entry points in the order of the scan.
pub struct EntryWriter<'a> {
    bytes: &'a mut Vec<u8>,
    components: usize,
    /// The start of the row.
    start: EntryPoint,
    last: EntryPoint,
    /// Where the row's head begins, and where it ends.
    head: (usize, usize),
}

impl<'a> EntryWriter<'a> {
    /// For a scan of so many components.
    pub fn new(bytes: &'a mut Vec<u8>, components: usize) -> Self {
        let head = (bytes.len(), bytes.len());
        Self { bytes, components, start: EntryPoint::default(), last: EntryPoint::default(), head }
    }

    /// Appends an entry point behind the last one, in its row or at the start of the next; not the scan's first.
    pub fn push(&mut self, entry: EntryPoint) {
        if entry.row > self.last.row {
            self.end_row();
            let begin = self.bytes.len();
            self.write_differences(entry, self.start);
            self.head = (begin, self.bytes.len());
            self.start = entry;
        } else {
            write_number(self.bytes, entry.column - self.last.column);
            self.write_differences(entry, self.last);
        }
        self.last = entry;
    }

    /// Ends the last row.
    pub fn finish(mut self) {
        self.end_row();
    }

    /// Puts the length of the row's further entry points, now known, before its head.
    fn end_row(&mut self) {
        let (begin, end) = self.head;
        let row_end = self.bytes.len();
        // Shorter than the scan, which has under 2^32 bits.
        write_number(self.bytes, (row_end - end) as u32);
        let len = self.bytes.len() - row_end;
        self.bytes[begin..].rotate_right(len);
    }

    fn write_differences(&mut self, entry: EntryPoint, from: EntryPoint) {
        // A scan has under 2^32 bits.
        write_number(self.bytes, (entry.bit - from.bit) as u32);
        for (dc, from) in entry.dc.iter().zip(from.dc).take(self.components) {
            let difference = dc.wrapping_sub(from);
            write_number(self.bytes, u32::from((difference << 1 ^ difference >> 15) as u16));
        }
    }
}

/// Reads entry points that may be anything.
pub struct EntryIter<'a> {
    /// The rows behind this one.
    rows: &'a [u8],
    /// What is left of this row.
    row: &'a [u8],
    grid: Grid,
    bits: u64,
    /// The start of this row; `None` before the first.
    start: Option<EntryPoint>,
    /// The last entry point read.
    last: EntryPoint,
    has_ended: bool,
}

impl<'a> EntryIter<'a> {
    /// Of a scan of no more than `scan_bytes`.
    pub fn new(bytes: &'a [u8], grid: Grid, scan_bytes: u64) -> Self {
        let (bits, last) = (scan_bytes.saturating_mul(8), EntryPoint::default());
        Self { rows: bytes, row: &[], grid, bits, start: None, last, has_ended: false }
    }

    /// The start of the next row, whatever is left of this one; `None` behind the last.
    pub fn next_row(&mut self) -> Result<Option<EntryPoint>> {
        let (row, rows) = (self.start.map_or(0, |start| start.row + 1), self.grid.rows);
        match (row < rows, self.rows.is_empty()) {
            (false, true) => return Ok(None),
            (false, false) => return Err(stale(format!("it has entry points behind the last of {rows} MCU rows"))),
            (true, true) => return Err(stale(format!("it has entry points for {row} of {rows} MCU rows"))),
            (true, false) => {}
        }
        let mut bytes = self.rows;
        let len = read_number(&mut bytes)?;
        let entry = match self.start {
            None => EntryPoint::default(),
            Some(start) => EntryPoint { row, column: 0, ..self.read_differences(&mut bytes, start)? },
        };
        let split = bytes.split_at_checked(len as usize);
        (self.row, self.rows) = split.ok_or_else(|| stale("its entry points end inside an MCU row"))?;
        (self.start, self.last) = (Some(entry), entry);
        Ok(Some(entry))
    }

    /// The next entry point of this row; `None` behind its last.
    pub fn next_in_row(&mut self) -> Result<Option<EntryPoint>> {
        if self.row.is_empty() {
            return Ok(None);
        }
        let mut bytes = self.row;
        let step = read_number(&mut bytes)?;
        let column = self.last.column.saturating_add(step);
        if step == 0 || column >= self.grid.columns {
            let (last, row, columns) = (self.last.column, self.last.row, self.grid.columns);
            return Err(stale(format!(
                "an entry point at MCU {column} of {columns} in row {row}, behind the one at MCU {last}"
            )));
        }
        let entry = EntryPoint { column, ..self.read_differences(&mut bytes, self.last)? };
        (self.row, self.last) = (bytes, entry);
        Ok(Some(entry))
    }

    /// An entry point with another's row and column, and its own position and predictions.
    fn read_differences(&self, bytes: &mut &'a [u8], from: EntryPoint) -> Result<EntryPoint> {
        let mut entry = from;
        entry.bit += u64::from(read_number(bytes)?);
        // No MCU is without bits.
        if entry.bit <= self.last.bit || entry.bit >= self.bits {
            let (bit, bits, last) = (entry.bit, self.bits, self.last.bit);
            return Err(stale(format!("an entry point at bit {bit} of {bits}, behind bit {last}")));
        }
        for dc in &mut entry.dc[..self.grid.components] {
            let coded = read_number(bytes)?;
            let coded =
                u16::try_from(coded).map_err(|_| stale(format!("an entry point's DC difference is {coded}")))?;
            *dc = dc.wrapping_add((coded >> 1) as i16 ^ -((coded & 1) as i16));
        }
        Ok(entry)
    }

    /// The next entry point, of this row or the next; `None` behind the last.
    pub fn next_entry(&mut self) -> Result<Option<EntryPoint>> {
        match self.next_in_row()? {
            None => self.next_row(),
            entry => Ok(entry),
        }
    }
}

impl Iterator for EntryIter<'_> {
    type Item = Result<EntryPoint>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let read = self.next_entry().transpose();
        self.has_ended = !matches!(read, Some(Ok(_)));
        read
    }
}

/// Takes a number in LEB128 off the bytes.
#[inline(always)]
fn read_number(bytes: &mut &[u8]) -> Result<u32> {
    match bytes.split_first() {
        // Most are small.
        Some((&byte, rest)) if byte < 0x80 => {
            *bytes = rest;
            Ok(byte.into())
        }
        _ => read_long_number(bytes),
    }
}

fn read_long_number(bytes: &mut &[u8]) -> Result<u32> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let Some((&byte, rest)) = bytes.split_first() else {
            return Err(stale("its entry points end inside one"));
        };
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return u32::try_from(number).map_err(|_| stale("an entry point holds a number over 32 bits"));
        }
    }
    Err(stale("an entry point holds a number over 32 bits"))
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

    /// Two of the first row, three of the second, one of the third.
    const ENTRIES: [EntryPoint; 6] = [
        EntryPoint { row: 0, column: 0, bit: 0, dc: [0; 3] },
        EntryPoint { row: 0, column: 299, bit: 1, dc: [i16::MIN, i16::MAX, -1] },
        EntryPoint { row: 1, column: 0, bit: 128, dc: [i16::MAX, i16::MIN, 1] },
        EntryPoint { row: 1, column: 1, bit: 130, dc: [0, -64, 63] },
        EntryPoint { row: 1, column: 2, bit: 1 << 31, dc: [0, -64, 64] },
        EntryPoint { row: 2, column: 0, bit: (1 << 32) - 1, dc: [64, -65, 0] },
    ];

    fn written(entries: &[EntryPoint]) -> Vec<u8> {
        let mut bytes = vec![77];
        let mut writer = EntryWriter::new(&mut bytes, GRID.components);
        entries[1..].iter().for_each(|&entry| writer.push(entry));
        writer.finish();
        assert_eq!(bytes.remove(0), 77, "what was there stays");
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<EntryPoint>> {
        EntryIter::new(bytes, GRID, 1 << 29).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&written(&ENTRIES)).unwrap(), ENTRIES);
        // The layout, byte for byte: what is written today is read by later versions.
        let row_0 = [10, 0xAB, 2, 1, 0xFF, 0xFF, 3, 0xFE, 0xFF, 3, 1];
        let row_1 = [18, 0x80, 1, 0xFE, 0xFF, 3, 0xFF, 0xFF, 3, 2];
        let inner_1 = [1, 2, 0xFD, 0xFF, 3, 0x80, 0xFF, 3, 124, 1, 0xFE, 0xFE, 0xFF, 0xFF, 7, 0, 0, 2];
        let row_2 = [0, 0xFF, 0xFE, 0xFF, 0xFF, 15, 0xFD, 0xFE, 3, 0xFE, 0xFE, 3, 1];
        assert_eq!(written(&ENTRIES), [&row_0[..], &row_1, &inner_1, &row_2].concat());
    }

    #[test]
    fn a_row_longer_than_127_bytes_has_a_longer_head() {
        let entry = |column| EntryPoint { row: 0, column, bit: u64::from(column), dc: [0; 3] };
        let starts = [1, 2].map(|row| EntryPoint { row, bit: 1000 * u64::from(row), ..EntryPoint::default() });
        let entries: Vec<_> = (0..300).map(entry).chain(starts).collect();
        let bytes = written(&entries);
        assert_eq!(bytes[..7], [0xD7, 11, 1, 1, 0, 0, 0], "299 of 5 bytes");
        assert_eq!(read(&bytes).unwrap(), entries);
    }

    #[test]
    fn rows_are_passed_by_their_heads() {
        let bytes = written(&ENTRIES);
        // From every place to the start of the next row, and on from there.
        for passed in 0..ENTRIES.len() {
            let mut entries = EntryIter::new(&bytes, GRID, 1 << 29);
            assert_eq!(entries.by_ref().take(passed).collect::<Result<Vec<_>>>().unwrap(), ENTRIES[..passed]);
            let row = passed.checked_sub(1).map_or(0, |last| ENTRIES[last].row + 1);
            let next = ENTRIES.iter().position(|entry| entry.row == row);
            assert_eq!(entries.next_row().unwrap(), next.map(|next| ENTRIES[next]));
            let rest = next.map_or(&[][..], |next| &ENTRIES[next + 1..]);
            assert_eq!(entries.collect::<Result<Vec<_>>>().unwrap(), rest);
        }
        let mut entries = EntryIter::new(&bytes, GRID, 1 << 29);
        for (row, inner) in [1, 2, 0].into_iter().enumerate() {
            assert_eq!(entries.next_row().unwrap().map(|start| start.row), Some(row as u32));
            let found = std::iter::from_fn(|| entries.next_in_row().transpose()).count();
            assert_eq!(found, inner, "row {row} goes on in the next");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let complete = [5, 7, 9, 0, 0, 0, 0, 18, 0, 0, 0, 0, 9, 0, 0, 0];
        assert_eq!(read(&complete).unwrap().len(), 4);
        for len in 0..complete.len() {
            assert_eq!(read(&complete[..len]).unwrap_err().kind(), ErrorKind::IndexStale, "cut to {len}");
        }
        // A length that ends elsewhere than an entry point.
        for len in [0, 1, 2, 3, 4, 6, 7, 15, 16, 127] {
            let mut bad = complete;
            bad[0] = len;
            assert_eq!(read(&bad).unwrap_err().kind(), ErrorKind::IndexStale, "a row of {len} bytes");
        }
        for bad in [
            &[0, 0, 9, 0, 0, 0, 0, 9, 0, 0, 0, 0, 9, 0, 0, 0][..], // a fourth row
            &[6, 0xAC, 2, 9, 0, 0, 0],                             // column 300
            &[9, 0xFF, 0xFF, 0xFF, 0xFF, 15, 9, 0, 0, 0],          // column 2^32 - 1
            &[5, 0, 9, 0, 0, 0],                                   // a step to itself
            &[5, 1, 0, 0, 0, 0],                                   // an MCU without bits
            &[5, 1, 9, 0, 0, 0, 0, 9, 0, 0, 0],                    // a row that starts where the last one has an entry
            &[9, 1, 0xFF, 0xFF, 0xFF, 0xFF, 15, 0, 0, 0],          // behind the scan
            &[7, 1, 9, 0x80, 0x80, 4, 0, 0],                       // a DC difference over 16 bits
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0],                    // a number that does not end
            &[0x80, 0x80, 0x80, 0x80, 16],                         // 2^32
            &[0xFF, 0xFF, 0xFF, 0xFF, 15, 1, 9, 0, 0, 0],          // a row of 2^32 - 1 bytes
        ] {
            let mut entries = EntryIter::new(bad, GRID, (1 << 29) - 1);
            let error = entries.by_ref().find_map(Result::err).unwrap_or_else(|| panic!("{bad:x?} passed"));
            assert_eq!(error.kind(), ErrorKind::IndexStale);
            assert!(entries.next().is_none(), "goes on behind an error");
        }
    }
}
