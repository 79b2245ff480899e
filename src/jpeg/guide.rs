//! The way through pieces of a file: which entry point to start at, where its bytes are, which one comes next.

use super::compact::EntryIter;
use super::entry::{EntryPoint, Grid, Piece, stale};
use crate::error::Result;

/// The entry points of a scan, passed in their order, and the pieces of the file they lie in.
pub struct Guide<'a> {
    pieces: &'a [Piece<'a>],
    scan_offset: u64,
    grid: Grid,
    entries: EntryIter<'a>,
    /// The first entry point that was not passed, and its MCU.
    next: Option<(EntryPoint, u64)>,
}

/// Where an entry point leads.
pub struct Entrance<'a> {
    /// The piece it lies in, as far as that belongs to the scan.
    pub data: &'a [u8],
    /// Where that starts, in bytes from the start of the scan's data.
    pub data_offset: u64,
    /// The entry point's first byte in `data`.
    pub byte: usize,
    /// Its MCU.
    pub mcu: u64,
}

impl<'a> Guide<'a> {
    /// By entry points that may lie, through pieces in ascending order.
    pub fn new(pieces: &'a [Piece<'a>], scan_offset: u64, grid: Grid, entries: EntryIter<'a>) -> Result<Self> {
        let mut guide = Self { pieces, scan_offset, grid, entries, next: None };
        guide.pass()?;
        Ok(guide)
    }

    /// The MCU of the next entry point; behind every MCU where there is none.
    pub fn next_mcu(&self) -> u64 {
        self.next.map_or(u64::MAX, |(_, mcu)| mcu)
    }

    /// Passes the next entry point and returns it.
    pub fn pass(&mut self) -> Result<Option<EntryPoint>> {
        let next = self.entries.next_entry()?;
        Ok(self.set_next(next))
    }

    /// The last entry point on the way from the MCU `from` to the MCU `to`, which are passed; `None` where none is
    /// left there.
    pub fn entry_before(&mut self, from: u64, to: u64) -> Result<Option<(EntryPoint, Entrance<'a>)>> {
        debug_assert!(from <= to, "entry points are passed in order");
        let row = to / u64::from(self.grid.columns);
        let mut found = None;
        while let Some((entry, mcu)) = self.next.filter(|&(_, mcu)| mcu <= to) {
            found = Some((entry, mcu));
            let is_above = u64::from(entry.row) < row;
            let next = if is_above { self.entries.next_row()? } else { self.entries.next_entry()? };
            self.set_next(next);
        }
        found.map(|(entry, mcu)| Ok((entry, self.entrance(&entry, mcu)?))).transpose()
    }

    fn set_next(&mut self, next: Option<EntryPoint>) -> Option<EntryPoint> {
        let next = next.map(|entry| (entry, self.grid.mcu(&entry)));
        std::mem::replace(&mut self.next, next).map(|(entry, _)| entry)
    }

    fn entrance(&self, entry: &EntryPoint, mcu: u64) -> Result<Entrance<'a>> {
        let position = self.scan_offset.checked_add(entry.bit / 8);
        let found = position.and_then(|position| {
            let behind = self.pieces.partition_point(|piece| piece.offset <= position);
            let piece = &self.pieces[behind.checked_sub(1)?];
            let byte = usize::try_from(position - piece.offset).ok().filter(|&byte| byte < piece.bytes.len())?;
            // A piece may start in the header.
            let header_bytes = self.scan_offset.saturating_sub(piece.offset) as usize;
            let data_offset = piece.offset.saturating_sub(self.scan_offset);
            Some(Entrance { data: &piece.bytes[header_bytes..], data_offset, byte: byte - header_bytes, mcu })
        });
        found.ok_or_else(|| stale(format!("no piece of the file holds the start of MCU {mcu}")))
    }
}
