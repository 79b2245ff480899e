//! Dequantisation and the accurate integer inverse DCT of libjpeg ("islow": Loeffler, Ligtenberg and
//! Moschytz, ICASSP 1989, in 13-bit fixed point).

#[cfg(target_arch = "x86_64")]
mod avx2;
mod reduced;
mod scalar;

use super::Block;
use super::simd::{Level, Simd};
use super::tables::QuantTable;

/// Columns past the last block that [`blocks_to_rows`] may overwrite.
pub const SPILL: usize = 8;

/// Turns a row of blocks into `side` rows of samples, `side` columns a block, where `side` is 8, 4, 2 or 1.
///
/// `last` holds the zigzag position of each block's last coefficient that may not be zero. `out` starts at
/// the first sample; its rows are `stride` apart, and it must reach [`SPILL`] past the end of the last.
pub fn blocks_to_rows(
    simd: Simd,
    side: usize,
    blocks: &[Block],
    last: &[u8],
    quant: &QuantTable,
    out: &mut [u8],
    stride: usize,
) {
    assert!(blocks.len() == last.len() && out.len() >= (side - 1) * stride + side * blocks.len() + SPILL);
    if side < 8 {
        return reduced::blocks_to_rows(simd, side, blocks, quant, out, stride);
    }
    match simd.level() {
        Level::Scalar => scalar::blocks_to_rows(blocks, last, quant, out, stride),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where its instructions do.
        Level::Avx2 => unsafe { avx2::blocks_to_rows(blocks, last, quant, out, stride) },
    }
}

/// The sample that fills a block of nothing but a DC coefficient.
fn flat_sample(block: &Block, quant: &QuantTable) -> u8 {
    let first_pass = dequantise(block.0[0], quant.0[0]).wrapping_shl(PASS1_BITS);
    ((i32::from(first_pass) + 16) >> 5).clamp(-128, 127).wrapping_add(128) as u8
}

/// The product as SIMD code computes it: modulo 2^16.
fn dequantise(coefficient: i16, divisor: u16) -> i16 {
    coefficient.wrapping_mul(divisor as i16)
}

/// Fraction bits of the constants.
const CONST_BITS: u32 = 13;
/// Fraction bits that the first pass leaves.
const PASS1_BITS: u32 = 2;

const F_0_298: i16 = 2446;
const F_0_390: i16 = 3196;
const F_0_541: i16 = 4433;
const F_0_765: i16 = 6270;
const F_0_899: i16 = 7373;
const F_1_175: i16 = 9633;
const F_1_501: i16 = 12299;
const F_1_847: i16 = 15137;
const F_1_961: i16 = 16069;
const F_2_053: i16 = 16819;
const F_2_562: i16 = 20995;
const F_3_072: i16 = 25172;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::jpeg::ZIGZAG;

    /// Blocks as encoders write them, and blocks of anything at all.
    fn coefficients() -> impl Strategy<Value = (Vec<i16>, u8)> {
        let limit = prop_oneof![Just(30_i16), Just(1000), Just(i16::MAX)];
        (limit, 0..64_u8).prop_flat_map(|(limit, last)| {
            let one = prop_oneof![2 => Just(0), 1 => -limit..=limit, 1 => Just(i16::MIN)];
            (prop::collection::vec(one, 64), Just(last))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn vector_kernels_agree_with_the_specification(
            drawn in prop::collection::vec(coefficients(), 1..12),
            divisors in prop_oneof![prop::collection::vec(0_u16..64, 64), prop::collection::vec(any::<u16>(), 64)],
            side in prop_oneof![Just(8_usize), Just(4), Just(2), Just(1)],
        ) {
            let quant = QuantTable(divisors.try_into().unwrap());
            let last: Vec<u8> = drawn.iter().map(|(_, last)| *last).collect();
            let blocks: Vec<Block> = drawn.iter().map(|(values, last)| {
                let mut block = Block::ZERO;
                for &position in &ZIGZAG[..=usize::from(*last)] {
                    block.0[usize::from(position)] = values[usize::from(position)];
                }
                block
            }).collect();
            let stride = side * blocks.len() + SPILL;
            let run = |simd| {
                let mut out = vec![0; side * stride];
                blocks_to_rows(simd, side, &blocks, &last, &quant, &mut out, stride);
                out.chunks(stride).flat_map(|row| row[..side * blocks.len()].to_vec()).collect::<Vec<_>>()
            };
            let expected = run(Simd::SCALAR);
            for simd in Simd::available() {
                prop_assert_eq!(&expected, &run(simd), "{:?}", simd);
            }
        }
    }

    #[test]
    fn flat_blocks_are_the_general_case() {
        let quant = QuantTable([7; 64]);
        for dc in i16::MIN..=i16::MAX {
            let mut block = Block::ZERO;
            block.0[0] = dc;
            let mut out = [0; 8 * 16];
            scalar::block(&block, &quant, &mut out, 16);
            assert_eq!(out[0], flat_sample(&block, &quant), "DC {dc}");
        }
    }
}
