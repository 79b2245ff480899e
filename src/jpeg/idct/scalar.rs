//! The specification: jidctint.c as libjpeg-turbo's SIMD code evaluates it, wrapping and saturating at
//! 16 bits where that does.

use super::*;

pub fn blocks_to_rows(blocks: &[Block], last: &[u8], quant: &QuantTable, out: &mut [u8], stride: usize) {
    for (i, (block, &last)) in blocks.iter().zip(last).enumerate() {
        let out = &mut out[8 * i..];
        if last == 0 {
            let sample = flat_sample(block, quant);
            out.chunks_mut(stride).take(8).for_each(|row| row[..8].fill(sample));
        } else {
            self::block(block, quant, out, stride);
        }
    }
}

/// One block to eight rows of eight samples.
pub fn block(block: &Block, quant: &QuantTable, out: &mut [u8], stride: usize) {
    let mut columns = [[0_i16; 8]; 8];
    let is_one_row = block.0[8..].iter().all(|&coefficient| coefficient == 0);
    for (x, column) in columns.iter_mut().enumerate() {
        let input: [i16; 8] = std::array::from_fn(|y| dequantise(block.0[8 * y + x], quant.0[8 * y + x]));
        // A block of one row takes a short cut that wraps where the other way saturates.
        *column = if is_one_row {
            [input[0].wrapping_shl(PASS1_BITS); 8]
        } else {
            transform::<{ CONST_BITS - PASS1_BITS }>(input)
        };
    }
    for (y, row) in out.chunks_mut(stride).take(8).enumerate() {
        let samples = transform::<{ CONST_BITS + PASS1_BITS + 3 }>(std::array::from_fn(|x| columns[x][y]));
        for (sample, value) in row.iter_mut().zip(samples) {
            *sample = (value.clamp(-128, 127) + 128) as u8;
        }
    }
}

/// One dimension; the result loses `SHIFT` fraction bits, rounded, and saturates.
fn transform<const SHIFT: u32>(x: [i16; 8]) -> [i16; 8] {
    let mul = |a: i16, b: i16| i32::from(a) * i32::from(b);
    // Even part.
    let t2 = mul(x[2], F_0_541) + mul(x[6], F_0_541 - F_1_847);
    let t3 = mul(x[2], F_0_541 + F_0_765) + mul(x[6], F_0_541);
    let t0 = i32::from(x[0].wrapping_add(x[4])) << CONST_BITS;
    let t1 = i32::from(x[0].wrapping_sub(x[4])) << CONST_BITS;
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
    // Odd part.
    let (z3, z4) = (x[7].wrapping_add(x[3]), x[5].wrapping_add(x[1]));
    let (s3, s4) = (mul(z3, F_1_175 - F_1_961) + mul(z4, F_1_175), mul(z3, F_1_175) + mul(z4, F_1_175 - F_0_390));
    let odd = [
        mul(x[7], -F_0_899) + mul(x[1], F_1_501 - F_0_899) + s4,
        mul(x[5], -F_2_562) + mul(x[3], F_3_072 - F_2_562) + s3,
        mul(x[5], F_2_053 - F_2_562) + mul(x[3], -F_2_562) + s4,
        mul(x[7], F_0_298 - F_0_899) + mul(x[1], -F_0_899) + s3,
    ];
    let descale = |value: i32| {
        let rounded = value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT;
        rounded.clamp(i16::MIN.into(), i16::MAX.into()) as i16
    };
    std::array::from_fn(|i| {
        if i < 4 { descale(even[i].wrapping_add(odd[i])) } else { descale(even[7 - i].wrapping_sub(odd[7 - i])) }
    })
}
