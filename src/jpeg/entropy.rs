//! Symbols to coefficients: the sequential Huffman decoder (T.81, F.2.2).
//!
//! The loops here read the window and the tables through indices that are masked to their size, so that
//! no input can lead them astray, and check for errors once a block. A region needs only some MCUs: the
//! others are skipped, which keeps track of positions and DC predictions alone.

use super::huffman::{AcEntry, AcTable, DcTable, END_OF_BLOCK, NO_CODE, extend};
use super::simd::{Level, Simd};
use super::window::{Bits, Window, WindowBytes};
use super::{Block, ZIGZAG};

/// Blocks of an MCU at most.
pub const MCU_BLOCKS: usize = super::header::MCU_BLOCKS_MAX as usize;

/// How an MCU's blocks are coded and where they go.
pub struct McuPlan<'a> {
    /// Its blocks in the order of the scan.
    pub blocks: [BlockPlan<'a>; MCU_BLOCKS],
    /// How many there are.
    pub count: usize,
}

/// One block of an MCU.
#[derive(Clone, Copy)]
pub struct BlockPlan<'a> {
    /// Whose DC prediction it continues, by position in the scan.
    pub component: usize,
    /// Its tables.
    pub dc: &'a DcTable,
    /// Its tables.
    pub ac: &'a AcTable,
    /// Where the first MCU's block goes.
    pub start: usize,
    /// How far on the next MCU's block goes.
    pub stride: usize,
}

/// What is wrong with a block; 0 is nothing.
pub type Fault = u32;
pub const FAULT_CODE: Fault = 1;
pub const FAULT_INDEX: Fault = 2;

/// A stretch of MCUs without restart, its state in reach of the inner loops.
pub struct Run<'a> {
    pub window: &'a mut Window,
    pub bits: Bits,
    pub predictions: [i32; 4],
    pub simd: Simd,
    /// MCUs to decode.
    pub mcus: usize,
    /// Those that were.
    pub done: usize,
    /// Where [`skip_run`](Self::skip_run) stops although MCUs are left: at the first MCU that begins this many
    /// bits behind the start of the window or later.
    pub bits_end: isize,
}

impl Run<'_> {
    pub fn decode_run(&mut self, plan: &McuPlan, index: usize, blocks: &mut [Block], last: &mut [u8]) -> Fault {
        match self.simd.level() {
            Level::Scalar => decode_run(self, plan, index, blocks, last),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where its instructions do.
            Level::Avx2 => unsafe { decode_run_bmi2(self, plan, index, blocks, last) },
        }
    }

    pub fn skip_run(&mut self, plan: &McuPlan) -> Fault {
        match self.simd.level() {
            Level::Scalar => skip_run(self, plan),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Simd` of this level exists only where its instructions do.
            Level::Avx2 => unsafe { skip_run_bmi2(self, plan) },
        }
    }
}

/// [`decode_run`] compiled with shifts that need no flags and take any register (SHLX, SHRX).
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
fn decode_run_bmi2(run: &mut Run, plan: &McuPlan, index: usize, blocks: &mut [Block], last: &mut [u8]) -> Fault {
    decode_run(run, plan, index, blocks, last)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
fn skip_run_bmi2(run: &mut Run, plan: &McuPlan) -> Fault {
    skip_run(run, plan)
}

#[inline(always)]
fn decode_run(run: &mut Run, plan: &McuPlan, index: usize, blocks: &mut [Block], last: &mut [u8]) -> Fault {
    let window = &*run.window;
    let (mut bits, mut fault, mut done) = (run.bits, 0, run.done);
    let first = index - run.done;
    while done < run.mcus && window.holds_mcu(&bits) {
        for plan in &plan.blocks[..plan.count] {
            let at = plan.start + (first + done) * plan.stride;
            let difference = decode_dc(window.bytes(), &mut bits, plan.dc, &mut fault);
            let prediction = &mut run.predictions[plan.component & 3];
            *prediction = prediction.wrapping_add(difference.into());
            let block = &mut blocks[at].0;
            *block = [0; 64];
            last[at] = decode_ac(window.bytes(), &mut bits, plan.ac, block, &mut fault);
            block[0] = *prediction as i16;
        }
        if fault != 0 || window.is_overrun(&bits) {
            break;
        }
        done += 1;
    }
    (run.bits, run.done) = (bits, done);
    fault
}

#[inline(always)]
fn skip_run(run: &mut Run, plan: &McuPlan) -> Fault {
    let window = &*run.window;
    let (mut bits, mut fault, mut done) = (run.bits, 0, run.done);
    while done < run.mcus && window.holds_mcu(&bits) && bits.position() < run.bits_end {
        for plan in &plan.blocks[..plan.count] {
            let difference = decode_dc(window.bytes(), &mut bits, plan.dc, &mut fault);
            let prediction = &mut run.predictions[plan.component & 3];
            *prediction = prediction.wrapping_add(difference.into());
            skip_ac(window.bytes(), &mut bits, plan.ac, &mut fault);
        }
        if fault != 0 || window.is_overrun(&bits) {
            break;
        }
        done += 1;
    }
    (run.bits, run.done) = (bits, done);
    fault
}

/// Decodes a DC difference. Leaves at least 32 bits in the buffer.
#[inline(always)]
fn decode_dc(window: &WindowBytes, bits: &mut Bits, table: &DcTable, fault: &mut Fault) -> i16 {
    bits.refill(window);
    let mut entry = table.entry(bits.buffer).0;
    if entry == 0 {
        match table.long_entry(bits.buffer) {
            Some((length, rest)) => {
                bits.drop(length);
                bits.refill(window);
                entry = rest.0;
            }
            None => {
                *fault = FAULT_CODE;
                return 0;
            }
        }
    }
    let value = extend(bits.buffer << ((entry >> 8) & 63), (entry >> 16) & 63);
    bits.drop(entry & 0xFF);
    value
}

/// Where a coefficient goes by its zigzag position; those past the end of the block go to the DC
/// coefficient's place, which is written last.
static POSITION: [u8; 256] = {
    let mut positions = [0; 256];
    let mut i = 0;
    while i < 64 {
        positions[i] = ZIGZAG[i];
        i += 1;
    }
    positions
};

/// Decodes the AC coefficients into a block of zeros; returns the zigzag position of the last. Spoils the
/// DC coefficient's place.
#[inline(always)]
fn decode_ac(window: &WindowBytes, bits: &mut Bits, table: &AcTable, block: &mut [i16; 64], fault: &mut Fault) -> u8 {
    let mut position = 1;
    loop {
        // A look-up drops at most 25 bits of the 56 that a refill makes sure of, and longer codes see to
        // themselves; so there is enough for two, or for one after the DC code.
        if let Some(last) = ac_step(window, bits, table, block, &mut position, fault) {
            return last;
        }
        bits.refill(window);
        if let Some(last) = ac_step(window, bits, table, block, &mut position, fault) {
            return last;
        }
    }
}

/// One look-up, one or two symbols. Returns the position of the last coefficient where the block ends.
#[inline(always)]
fn ac_step(
    window: &WindowBytes,
    bits: &mut Bits,
    table: &AcTable,
    block: &mut [i16; 64],
    position: &mut u32,
    fault: &mut Fault,
) -> Option<u8> {
    let mut entry = table.entry(bits.buffer);
    if entry.0 == 0 {
        bits.refill(window);
        let (length, rest) = table.long_entry(bits.buffer);
        bits.drop(length);
        bits.refill(window);
        entry = rest;
    }
    let before = *bits;
    bits.drop(entry.bits());
    let first = *position + entry.run();
    let next = *position + entry.advance();
    // Where there is no second coefficient, its 0 goes where the first one then goes.
    block[usize::from(POSITION[(next - 1) as usize & 255] & 63)] = entry.second_value();
    block[usize::from(POSITION[first as usize & 255] & 63)] = entry.value(before.buffer);
    if next < 64 {
        *position = next;
        return None;
    }
    Some(end_of_block(before, bits, entry, *position, first, next, fault))
}

/// Settles how a block ended: with an end-of-block symbol or a 64th coefficient as first or second symbol
/// of the last look-up, or wrongly.
#[inline(always)]
fn end_of_block(
    before: Bits,
    bits: &mut Bits,
    entry: AcEntry,
    position: u32,
    first: u32,
    next: u32,
    fault: &mut Fault,
) -> u8 {
    if first >= END_OF_BLOCK {
        if first >= NO_CODE {
            *fault = FAULT_CODE;
        }
        return (position - 1) as u8;
    }
    if first >= 63 {
        // The block is full; a second symbol belongs to the next one.
        *bits = before;
        bits.drop(entry.first_bits());
        if first > 63 {
            *fault = FAULT_INDEX;
        }
        return 63;
    }
    if next > END_OF_BLOCK {
        return first as u8;
    }
    if next > 64 {
        *fault = FAULT_INDEX;
    }
    63
}

/// Passes over the AC coefficients of a block.
#[inline(always)]
fn skip_ac(window: &WindowBytes, bits: &mut Bits, table: &AcTable, fault: &mut Fault) {
    let mut position = 1;
    loop {
        if skip_step(window, bits, table, &mut position, fault) {
            return;
        }
        bits.refill(window);
        if skip_step(window, bits, table, &mut position, fault) {
            return;
        }
    }
}

#[inline(always)]
fn skip_step(window: &WindowBytes, bits: &mut Bits, table: &AcTable, position: &mut u32, fault: &mut Fault) -> bool {
    let mut entry = table.entry(bits.buffer);
    if entry.0 == 0 {
        bits.refill(window);
        let (length, rest) = table.long_entry(bits.buffer);
        bits.drop(length);
        bits.refill(window);
        entry = rest;
    }
    let before = *bits;
    bits.drop(entry.bits());
    let first = *position + entry.run();
    let next = *position + entry.advance();
    if next < 64 {
        *position = next;
        return false;
    }
    end_of_block(before, bits, entry, *position, first, next, fault);
    true
}
