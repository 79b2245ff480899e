//! One MCU row of a scan: from the entropy decoder to the samples of its components.

use super::Block;
use super::entropy::{BlockPlan, MCU_BLOCKS, McuPlan};
use super::geometry::{BLOCK_SIDE, Geometry, Layout, Part};
use super::header::Scan;
use super::huffman::{AcTable, DcTable, TableCache};
use super::idct;
use super::markers::corrupt;
use super::output::Samples;
use super::reader::ScanReader;
use super::simd::Simd;
use super::tables::{QuantTable, Tables};
use crate::error::Result;

/// MCUs decoded before their inverse DCT: enough to make long runs, few enough to stay in the first cache.
const GROUP_MCUS: usize = 16;

/// The coefficients of a few MCUs.
pub struct Group {
    blocks: Box<[Block]>,
    last: Box<[u8]>,
}

impl Group {
    pub fn new() -> Self {
        const LEN: usize = GROUP_MCUS * MCU_BLOCKS;
        Self { blocks: vec![Block::ZERO; LEN].into(), last: vec![0; LEN].into() }
    }
}

/// A scan with its tables in place.
pub struct ScanPlan<'a> {
    layout: &'a Layout,
    mcu: McuPlan<'a>,
    quant: [&'a QuantTable; 3],
    simd: Simd,
}

/// The places of a scan's derived tables, by its components.
pub type TablePlaces = [(usize, usize); 3];

/// Builds the Huffman tables of a scan.
pub fn derive_tables(cache: &mut TableCache, tables: &Tables, scan: &Scan) -> Result<TablePlaces> {
    let mut places = TablePlaces::default();
    for (place, component) in places.iter_mut().zip(scan.components()) {
        let missing = |class, slot| corrupt(format!("scan uses {class} Huffman table {slot}, which is not defined"));
        let dc = tables.dc_or_standard(component.dc).ok_or_else(|| missing("DC", component.dc))?;
        let ac = tables.ac_or_standard(component.ac).ok_or_else(|| missing("AC", component.ac))?;
        *place = (cache.dc(dc)?, cache.ac(ac)?);
    }
    Ok(places)
}

impl<'a> ScanPlan<'a> {
    /// Of a scan of one component, or of all or some of them interleaved.
    pub fn new(
        layout: &'a Layout,
        cache: &'a TableCache,
        places: TablePlaces,
        quant: [&'a QuantTable; 3],
        simd: Simd,
    ) -> Result<Self> {
        let count = layout.mcu_blocks();
        if count > MCU_BLOCKS {
            return Err(corrupt(format!("scan has MCUs of {count} blocks, over {MCU_BLOCKS}")));
        }
        let (dc, ac): (&DcTable, &AcTable) = (cache.dc_at(places[0].0), cache.ac_at(places[0].1));
        let mut blocks = [BlockPlan { component: 0, dc, ac, start: 0, stride: 0 }; MCU_BLOCKS];
        let mut next = 0;
        for (component, (part, place)) in layout.parts().iter().zip(places).enumerate() {
            for v in 0..part.v {
                for h in 0..part.h {
                    let start = first_block(layout, component, v) + h;
                    let (dc, ac) = (cache.dc_at(place.0), cache.ac_at(place.1));
                    blocks[next] = BlockPlan { component, dc, ac, start, stride: part.h };
                    next += 1;
                }
            }
        }
        Ok(Self { layout, mcu: McuPlan { blocks, count }, quant, simd })
    }

    /// How its MCUs are coded.
    pub fn mcu(&self) -> &McuPlan<'a> {
        &self.mcu
    }

    /// Decodes what the region needs of MCU row `row`.
    pub fn decode_row(
        &self,
        reader: &mut ScanReader,
        group: &mut Group,
        geometry: &Geometry,
        samples: &mut [Samples; 3],
        row: usize,
    ) -> Result<()> {
        let layout = self.layout;
        let first = (row * layout.mcus_per_row + layout.columns.start) as u64;
        reader.go_to(&self.mcu, first)?;
        for column in layout.columns.clone().step_by(GROUP_MCUS) {
            let mcus = GROUP_MCUS.min(layout.columns.end - column);
            reader.decode(&self.mcu, mcus as u64, &mut group.blocks, &mut group.last)?;
            for (component, part) in layout.parts().iter().enumerate() {
                self.transform(group, component, geometry, &mut samples[part.plane], (column, mcus), row);
            }
        }
        for part in layout.parts() {
            let rows = BLOCK_SIDE * row * part.v..BLOCK_SIDE * (row + 1) * part.v;
            samples[part.plane].pad(&geometry.planes()[part.plane], rows);
        }
        Ok(())
    }

    /// Turns what the region needs of a group's coefficients into samples, for one component.
    fn transform(
        &self,
        group: &Group,
        component: usize,
        geometry: &Geometry,
        samples: &mut Samples,
        (column, mcus): (usize, usize),
        row: usize,
    ) {
        let Part { plane, h, v } = self.layout.parts[component];
        let plane = &geometry.planes()[plane];
        let start = (plane.columns.start / BLOCK_SIDE).max(column * h);
        let end = plane.columns.end.div_ceil(BLOCK_SIDE).min((column + mcus) * h);
        if start >= end {
            return;
        }
        for block_row in 0..v {
            let y = (row * v + block_row) * BLOCK_SIDE;
            if y >= plane.rows.end || y + BLOCK_SIDE <= plane.rows.start {
                continue;
            }
            let first = first_block(self.layout, component, block_row) + start - column * h;
            let range = first..first + end - start;
            let stride = samples.stride();
            let out = samples.tail_mut(start * BLOCK_SIDE, y);
            idct::blocks_to_rows(
                self.simd,
                &group.blocks[range.clone()],
                &group.last[range],
                self.quant[component],
                out,
                stride,
            );
        }
    }
}

/// Where in a group a component's block row starts.
fn first_block(layout: &Layout, component: usize, block_row: usize) -> usize {
    let before: usize = layout.parts[..component].iter().map(|part| part.h * part.v).sum();
    (before + block_row * layout.parts[component].h) * GROUP_MCUS
}
