//! The part of a scan that a region needs, cut into stretches that are decoded side by side.
//!
//! A decoder that goes through a scan from front to back checks each entry point that it passes. One that starts at
//! all of them at once is told by each stretch where, and with which predictions, it has to end.

use std::ops::Range;

use super::entry::{EntryPoint, EntryPoints, Facts, Grid, stale};
use super::geometry::Layout;
use crate::error::Result;

/// MCUs of one row, without a restart marker between them, from an entry point on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Where it starts.
    pub(crate) from: EntryPoint,
    /// MCUs to decode, at least 1.
    pub(crate) mcus: u32,
    /// Its bytes in the file, at least one; the last may be shared with what follows. Those of a marker behind it are
    /// not its own, but fill bytes before that marker are among them.
    pub(crate) bytes: Range<u64>,
    /// The number, 0..=7, of the restart marker that must lie before it, where it begins an interval.
    pub(crate) marker: Option<u8>,
    /// How its data ends.
    pub(crate) end: StretchEnd,
}

/// How the data of a stretch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StretchEnd {
    /// At this entry point, to the bit, and with its predictions.
    Entry(EntryPoint),
    /// At the restart marker of this number.
    Marker(u8),
    /// Somewhere behind the last MCU: of the image, or that is needed.
    Unchecked,
}

impl Facts {
    /// The stretches that hold the MCUs of a layout of this image's, in the order of the scan. Facts that were checked.
    ///
    /// # Errors
    /// `IndexStale` for entry points that contradict themselves or the facts, and those of `take`.
    pub(crate) fn stretches(
        &self,
        entries: EntryPoints<'_>,
        layout: &Layout,
        mut take: impl FnMut(Stretch) -> Result<()>,
    ) -> Result<()> {
        let grid = Grid::of_facts(self);
        self.for_each_run(entries, layout, |from, to| take(self.stretch(grid, layout, from, to)?))
    }

    fn stretch(&self, grid: Grid, layout: &Layout, from: EntryPoint, to: Option<EntryPoint>) -> Result<Stretch> {
        let behind = to.filter(|to| to.row == from.row).map_or(grid.columns, |to| to.column);
        let needed = behind.min(layout.columns.end as u32);
        let (mcu, mcus) = (grid.mcu(&from), needed - from.column);
        let interval = u64::from(self.restart_interval);
        if interval > 0 && mcu % interval + u64::from(mcus) > interval {
            return Err(stale(format!("none of its entry points is at the restart marker behind MCU {mcu}")));
        }
        let marker = self.marker_before(grid, &from)?;
        let (end_byte, end) = match to {
            None => (self.scan_bytes, StretchEnd::Unchecked),
            Some(to) => match self.marker_before(grid, &to)? {
                Some(number) => (to.bit / 8 - 2, StretchEnd::Marker(number)),
                None => (to.bit.div_ceil(8), StretchEnd::Entry(to)),
            },
        };
        let end = if needed == behind { end } else { StretchEnd::Unchecked };
        let bytes = self.scan_offset + from.bit / 8..self.scan_offset + end_byte.min(self.scan_bytes);
        if bytes.is_empty() {
            return Err(stale(format!("MCU {mcu} has no bytes before the next entry point")));
        }
        Ok(Stretch { from, mcus, bytes, marker, end })
    }

    /// The number of the restart marker before an entry point, if one is due there; after it, everything starts anew.
    fn marker_before(&self, grid: Grid, entry: &EntryPoint) -> Result<Option<u8>> {
        if !grid.begins_interval(entry, self.restart_interval) {
            return Ok(None);
        }
        let mcu = grid.mcu(entry);
        if !entry.bit.is_multiple_of(8) || entry.bit < 16 || entry.dc != [0; 3] {
            return Err(stale(format!("MCU {mcu} begins no restart interval")));
        }
        Ok(Some(((mcu / u64::from(self.restart_interval) + 7) % 8) as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::jpeg::{Decoder, Grain, Header};
    use crate::pixels::Rect;

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/fixtures/jpeg/{name}.jpg", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn indexed(bytes: &[u8], grain: Grain) -> (Facts, Vec<u8>) {
        let mut entries = Vec::new();
        let facts = Decoder::new().index(bytes, &Header::parse(bytes).unwrap(), grain, &mut entries).unwrap();
        (facts, entries)
    }

    fn stretches(facts: &Facts, entries: &[u8], region: Rect) -> Result<Vec<Stretch>> {
        let (_, layout) = facts.layout(region.into())?;
        let mut found = Vec::new();
        facts.stretches(EntryPoints::new(entries), &layout, |stretch| {
            found.push(stretch);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn the_stretches_of_a_whole_image_hold_every_mcu_once_and_chain() {
        for name in ["420_131x97", "444_33x31", "grey_131x97", "restart_blocks_420"] {
            let bytes = fixture(name);
            let (facts, entries) = indexed(&bytes, Grain::Bits(64));
            let grid = Grid::of_facts(&facts);
            let found = stretches(&facts, &entries, Rect::whole(facts.width, facts.height)).unwrap();
            assert!(found.len() > grid.rows as usize, "{name}: entry points within rows");
            let mut mcu = 0;
            for (stretch, next) in found.iter().zip(found.iter().skip(1).map(Some).chain([None])) {
                assert_eq!(grid.mcu(&stretch.from), mcu, "{name}");
                mcu += u64::from(stretch.mcus);
                match (stretch.end, next) {
                    (StretchEnd::Entry(entry), Some(next)) => assert_eq!(entry, next.from),
                    (StretchEnd::Marker(number), Some(next)) => assert_eq!(Some(number), next.marker),
                    (end, next) => assert!(end == StretchEnd::Unchecked && next.is_none(), "{name}: {end:?}"),
                }
            }
            assert_eq!(mcu, u64::from(grid.columns) * u64::from(grid.rows), "{name}");
        }
    }

    #[test]
    fn a_region_has_the_stretches_of_its_mcus_alone() {
        let bytes = fixture("420_131x97");
        let (facts, entries) = indexed(&bytes, Grain::Bits(64));
        // With the filter's context: MCU columns 1 to 3, rows 2 and 3.
        let found = stretches(&facts, &entries, Rect { x: 20, y: 36, width: 30, height: 20 }).unwrap();
        assert!(found.iter().all(|stretch| (2..=3).contains(&stretch.from.row)));
        for row in 2..=3 {
            let of_row: Vec<_> = found.iter().filter(|stretch| stretch.from.row == row).collect();
            assert!(of_row[0].from.column <= 1 && of_row[0].from.column + of_row[0].mcus > 1);
            let last = of_row[of_row.len() - 1];
            assert_eq!(last.from.column + last.mcus, 4);
        }
    }

    /// Whatever the entry points say, a stretch lies in its row, its interval and the scan, or is refused.
    #[test]
    fn lies_are_refused_or_harmless() {
        for name in ["420_131x97", "restart_blocks_420"] {
            let bytes = fixture(name);
            let (facts, entries) = indexed(&bytes, Grain::Bits(256));
            let grid = Grid::of_facts(&facts);
            let whole = Rect::whole(facts.width, facts.height);
            let mut refused = 0;
            for at in 0..entries.len() {
                for bit in 0..8 {
                    let mut lie = entries.clone();
                    lie[at] ^= 1 << bit;
                    match stretches(&facts, &lie, whole) {
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::IndexStale);
                            refused += 1;
                        }
                        Ok(found) => {
                            for Stretch { from, mcus, bytes, .. } in found {
                                assert!(mcus >= 1 && from.column + mcus <= grid.columns && from.row < grid.rows);
                                assert!(bytes.start < bytes.end && bytes.start >= facts.scan_offset);
                                assert!(bytes.end <= facts.scan_offset + facts.scan_bytes);
                            }
                        }
                    }
                }
            }
            assert!(refused > entries.len(), "{name}: {refused} of {} lies refused", 8 * entries.len());
        }
    }
}
