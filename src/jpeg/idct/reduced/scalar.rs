//! The specification: jidctred.c as libjpeg-turbo's SIMD code evaluates it, wrapping and saturating where
//! that does.

use super::*;

pub fn blocks_to_rows(side: usize, blocks: &[Block], quant: &QuantTable, out: &mut [u8], stride: usize) {
    for (i, block) in blocks.iter().enumerate() {
        let out = &mut out[side * i..];
        match side {
            2 => block_2x2(block, quant, out, stride),
            _ => block_4x4(block, quant, out, stride),
        }
    }
}

/// Row and column 4 have no part in it.
fn block_4x4(block: &Block, quant: &QuantTable, out: &mut [u8], stride: usize) {
    let mut columns = [[0_i16; 4]; 8];
    let is_one_row = [1, 2, 3, 5, 6, 7].iter().all(|y| block.0[8 * y..8 * y + 8].iter().all(|&value| value == 0));
    for (x, column) in columns.iter_mut().enumerate() {
        let input = dequantised_column(block, quant, x);
        // A block of one row takes a short cut that wraps where the other way saturates.
        *column = if is_one_row {
            [input[0].wrapping_shl(PASS1_BITS); 4]
        } else {
            to_four::<{ CONST_BITS - PASS1_BITS + 1 }>(input)
        };
    }
    for (y, row) in out.chunks_mut(stride).take(4).enumerate() {
        let samples = to_four::<{ CONST_BITS + PASS1_BITS + 3 + 1 }>(std::array::from_fn(|x| columns[x][y]));
        for (sample, value) in row.iter_mut().zip(samples) {
            *sample = to_sample(value.into());
        }
    }
}

/// Rows and columns 2, 4 and 6 have no part in it.
fn block_2x2(block: &Block, quant: &QuantTable, out: &mut [u8], stride: usize) {
    const SHIFT: u32 = CONST_BITS - PASS1_BITS + 2;
    let columns: [[i32; 2]; 8] = std::array::from_fn(|x| to_two(dequantised_column(block, quant, x), SHIFT));
    for (y, row) in out.chunks_mut(stride).take(2).enumerate() {
        // All but the first column pass through 16 bits.
        let narrow = |x: usize| columns[x][y].clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        let odd = odd_of_two(std::array::from_fn(narrow));
        let even = columns[0][y].wrapping_shl(CONST_BITS + 2);
        for (sample, value) in row.iter_mut().zip([even.wrapping_add(odd), even.wrapping_sub(odd)]) {
            *sample = to_sample(descale(value, CONST_BITS + PASS1_BITS + 3 + 2));
        }
    }
}

fn dequantised_column(block: &Block, quant: &QuantTable, x: usize) -> [i16; 8] {
    std::array::from_fn(|y| dequantise(block.0[8 * y + x], quant.0[8 * y + x]))
}

/// One dimension; the result loses `SHIFT` fraction bits, rounded, and saturates.
fn to_four<const SHIFT: u32>(x: [i16; 8]) -> [i16; 4] {
    let sum = |terms: &[(i16, i16)]| terms.iter().map(|&(value, factor)| i32::from(value) * i32::from(factor)).sum();
    let t0 = i32::from(x[0]) << (CONST_BITS + 1);
    let t2: i32 = sum(&[(x[2], F_1_847), (x[6], -F_0_765)]);
    let outer: i32 = sum(&[(x[1], F_2_562), (x[3], F_0_899), (x[5], -F_0_601), (x[7], -F_0_509)]);
    let inner: i32 = sum(&[(x[1], F_1_061), (x[3], -F_2_172), (x[5], F_1_451), (x[7], -F_0_211)]);
    let (high, low) = (t0 + t2, t0 - t2);
    [high.wrapping_add(outer), low.wrapping_add(inner), low.wrapping_sub(inner), high.wrapping_sub(outer)]
        .map(|value| descale(value, SHIFT).clamp(i16::MIN.into(), i16::MAX.into()) as i16)
}

/// One dimension; the result loses `shift` fraction bits, rounded.
fn to_two(x: [i16; 8], shift: u32) -> [i32; 2] {
    let even = i32::from(x[0]) << (CONST_BITS + 2);
    let odd = odd_of_two(x);
    [even.wrapping_add(odd), even.wrapping_sub(odd)].map(|value| descale(value, shift))
}

fn odd_of_two(x: [i16; 8]) -> i32 {
    let mul = |value: i16, factor: i16| i32::from(value) * i32::from(factor);
    let (low, high) = (mul(x[1], F_3_624) + mul(x[3], -F_1_272), mul(x[5], F_0_850) + mul(x[7], -F_0_720));
    low.wrapping_add(high)
}

fn descale(value: i32, shift: u32) -> i32 {
    value.wrapping_add(1 << (shift - 1)) >> shift
}

fn to_sample(value: i32) -> u8 {
    (value.clamp(-128, 127) + 128) as u8
}
