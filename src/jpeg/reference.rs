//! What the stages of the decoder make of a file, for the tests of those who must make the same of it.

use super::entropy::MCU_BLOCKS;
use super::huffman::TableCache;
use super::idct;
use super::reader::ScanReader;
use super::scans::{ScanPlan, derive_tables};
use super::simd::Simd;
use super::window::Window;
use super::{Block, Header, HuffmanSpec, QuantTable};
use crate::error::Result;
use crate::pixels::Rect;

pub(crate) use super::geometry::{Geometry, Layout};

/// All blocks of a component, those past its edges that MCUs hold included.
#[derive(Clone, Default)]
pub(crate) struct Blocks {
    /// Blocks of a row.
    pub columns: usize,
    /// Row by row, coefficients in natural order.
    pub blocks: Vec<[i16; 64]>,
}

/// The whole image's geometry.
pub(crate) fn whole(header: &Header) -> Geometry {
    Geometry::new(header, Rect::whole(header.width, header.height).into())
}

/// The coefficients of a file with one scan.
pub(crate) fn coefficients(bytes: &[u8], header: &Header) -> Result<[Blocks; 3]> {
    let layout = Layout::new(&whole(header), &header.scan);
    let mut cache = TableCache::default();
    let places = derive_tables(&mut cache, &header.tables, &header.scan)?;
    let unused = QuantTable([0; 64]);
    let plan = ScanPlan::new(&layout, &cache, places, [&unused; 3], Simd::SCALAR)?;
    let mut window = Window::new();
    let data = &bytes[header.scan_offset..];
    let mut reader = ScanReader::new(data, &mut window, Simd::SCALAR, header.tables.restart_interval);
    let mut found: [Blocks; 3] = Default::default();
    for part in layout.parts() {
        let columns = layout.mcus_per_row * part.h;
        found[part.plane] = Blocks { columns, blocks: vec![[0; 64]; columns * layout.rows.end * part.v] };
    }
    let mut blocks = vec![Block::ZERO; 16 * MCU_BLOCKS];
    let mut last = vec![0; blocks.len()];
    for mcu in 0..layout.mcus_per_row * layout.rows.end {
        let (row, column) = (mcu / layout.mcus_per_row, mcu % layout.mcus_per_row);
        reader.decode(plan.mcu(), 1, &mut blocks, &mut last)?;
        let mut in_mcu = plan.mcu().blocks.iter();
        for part in layout.parts() {
            for (i, block) in (0..part.h * part.v).zip(in_mcu.by_ref()) {
                let to = &mut found[part.plane];
                let at = (row * part.v + i / part.h) * to.columns + column * part.h + i % part.h;
                to.blocks[at] = blocks[block.start].0;
            }
        }
    }
    Ok(found)
}

/// The samples of one block, row by row.
pub(crate) fn samples(coefficients: &[i16; 64], quant: &[u16; 64]) -> [u8; 64] {
    let mut out = [0; 64 + idct::SPILL];
    let block = Block(*coefficients);
    idct::blocks_to_rows(Simd::SCALAR, 8, &[block], &[63], &QuantTable(*quant), &mut out, 8);
    std::array::from_fn(|i| out[i])
}

/// The Huffman tables of the scan's components: DC and AC.
pub(crate) fn huffman(header: &Header) -> Vec<[HuffmanSpec; 2]> {
    let tables = &header.tables;
    let of = |dc, ac| [*tables.dc_or_standard(dc).unwrap(), *tables.ac_or_standard(ac).unwrap()];
    header.scan.components().iter().map(|component| of(component.dc, component.ac)).collect()
}

/// Whether a table is none that may be decoded with.
pub(crate) fn refuses(spec: &HuffmanSpec, is_dc: bool) -> bool {
    let mut cache = TableCache::default();
    if is_dc { cache.dc(spec).is_err() } else { cache.ac(spec).is_err() }
}

/// The quantisation table of a component.
pub(crate) fn quant(header: &Header, component: usize) -> [u16; 64] {
    let slot = header.components()[component].quant;
    header.tables.quant[usize::from(slot)].unwrap().0
}
