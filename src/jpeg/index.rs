//! One pass over a whole scan that writes down its entry points.

use super::compact::EntryWriter;
use super::entropy::McuPlan;
use super::entry::{Grain, Grid};
use super::reader::ScanReader;
use crate::error::Result;

/// Passes over all MCUs and appends the entry points behind the first to `entries`.
pub fn write_entries(
    reader: &mut ScanReader,
    plan: &McuPlan,
    grid: Grid,
    grain: Grain,
    mut entries: EntryWriter,
) -> Result<()> {
    let bits = match grain {
        Grain::Rows => isize::MAX,
        Grain::Bits(bits) => bits.max(1) as isize,
    };
    for row in 0..grid.rows {
        let mut column = 0;
        while column < grid.columns {
            if row + column > 0 {
                entries.push(reader.entry_point(row, column)?);
            }
            column += reader.skip_bits(plan, (grid.columns - column).into(), bits)? as u32;
        }
    }
    entries.finish();
    Ok(())
}

/// Where the marker is that ends a scan, from a position in its data that lies behind the last MCU.
pub fn scan_end(data: &[u8], mut position: usize) -> usize {
    while let Some(skipped) = memchr::memchr(0xFF, &data[position..]) {
        position += skipped;
        match data.get(position + 1) {
            Some(0) => position += 2,
            Some(0xFF) => position += 1,
            Some(_) => return position,
            None => break,
        }
    }
    data.len()
}
